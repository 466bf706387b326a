"""Plain HTTP to one platform, the emulated or the real one, which remembers what every answer looked like."""

import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.contract.live.shapes import Shape, shape_of

UNKNOWN = "22acf21e-0575-4faf-849b-bcd538718269"
NAME = "itwin-mcp contract test, delete me"
WHOLE = {"Prefer": "return=representation"}
V2 = {"Accept": "application/vnd.bentley.itwin-platform.v2+json"}
_REPORTED = (
    "content-type",
    "x-max-return",
    "www-authenticate",
    "allow",
    "retry-after",
)  # headers whose values are reported
_NOTICED = ("location", "create-imodel-operation")  # headers of which only the presence is
# Parts of the platform's messages that belong to the account, not to the platform.
_SCRUBBED = (
    re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
    re.compile(r"\b[0-9a-fA-F]{32,}\b"),
    re.compile(r"https?://\S+"),
)


@dataclass(frozen=True)
class Seen:
    """One answer, as it may be reported."""

    step: str
    status: int
    headers: Mapping[str, str]
    shape: Shape
    errors: tuple[tuple[str, str], ...]  # (path in the error, value)


@dataclass
class Answer:
    """One answer as a check uses it."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])

    @property
    def details(self) -> list[tuple[str, str | None]]:
        return [(one["code"], one.get("target")) for one in self.body["error"].get("details", [])]


@dataclass
class Wire:
    """Requests of one check, in their order."""

    http: httpx2.AsyncClient
    storage: httpx2.AsyncClient
    pause: Callable[[], Awaitable[None]]
    subjects: dict[str, dict[str, Any]]
    seen: list[Seen] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    limits: set[str] = field(default_factory=set)
    _steps: Counter[str] = field(default_factory=Counter)

    async def send(
        self, method: str, template: str, *, body: Any = None, headers: Mapping[str, str] | None = None, **slots: Any
    ) -> Answer:
        """Send one request. The values in the slots of the template are never reported."""
        path = re.sub(r"{(\w+)}", lambda slot: str(slots[slot[1]]), template)
        given: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {}
        if body is not None and not given:
            given = {"json": body}
        return self._keep(method, template, await self.http.request(method, path, headers=headers, **given))

    async def get(self, template: str, *, headers: Mapping[str, str] | None = None, **slots: Any) -> Answer:
        return await self.send("GET", template, headers=headers, **slots)

    async def post(self, template: str, body: Any = None, **slots: Any) -> Answer:
        return await self.send("POST", template, body=body, **slots)

    async def patch(self, template: str, body: Any, **slots: Any) -> Answer:
        return await self.send("PATCH", template, body=body, **slots)

    async def delete(self, template: str, **slots: Any) -> Answer:
        return await self.send("DELETE", template, **slots)

    async def upload(self, link: Mapping[str, Any], content: bytes) -> Answer:
        """A file to its storage link, without our token."""
        headers = {"x-ms-blob-type": "BlockBlob"} if link.get("storageType", "azure") == "azure" else {}
        sent = await self.storage.put(link["href"], content=content, headers=headers)
        return self._keep("PUT", "{upload link}", sent)

    async def follow(self, href: str, called: str) -> Answer:
        """A link of the platform, as it is."""
        return self._keep("GET", "{" + called + "}", await self.http.get(href))

    async def until(self, ask: Callable[[], Awaitable[Answer]], done: Callable[[Answer], bool]) -> Answer:
        """Ask until it is done, with pauses; the answers before the last are not reported."""
        for _ in range(150):
            before, steps = len(self.seen), self._steps.copy()
            answer = await ask()
            if done(answer) or answer.status >= 400:
                return answer
            del self.seen[before:]
            self._steps = steps
            await self.pause()
        raise AssertionError("not within 150 pauses")

    def note(self, what: str, value: str) -> None:
        """Something that no shape shows, in words of ours."""
        self.notes[what] = value

    @asynccontextmanager
    async def own_itwin(self) -> AsyncIterator[str]:
        """An iTwin of this check alone, deleted with all iModels that were made in it."""
        properties = {"class": "Endeavor", "subClass": "Project", "displayName": f"{NAME} {uuid.uuid4()}"}
        made = await self.http.post("/itwins/", json=properties)
        if made.status_code == 403:
            pytest.skip("this account may not create iTwins")
        assert made.status_code == 201
        itwin_id = made.json()["iTwin"]["id"]
        try:
            yield itwin_id
        finally:
            listed = await self.http.get("/imodels", params={"iTwinId": itwin_id}, headers=V2)
            for one in listed.json().get("iModels", []):
                await self.http.delete(f"/imodels/{one['id']}", headers=V2)
            await self.http.delete(f"/itwins/{itwin_id}")

    async def own_imodel(self, itwin_id: str, **properties: Any) -> str:
        """An empty iModel that is initialized."""
        wanted = {"iTwinId": itwin_id, "name": f"Check {uuid.uuid4()}", "creationMode": "empty"} | properties
        made = await self.http.post("/imodels", json=wanted, headers=V2)
        assert made.status_code == 201
        imodel_id = str(made.json()["iModel"]["id"])
        await self.until(
            lambda: self.get("/imodels/{iModelId}/operations/create", iModelId=imodel_id),
            lambda answer: answer.body["createOperation"]["state"] == "successful",
        )
        return imodel_id

    async def itwin(self) -> str:
        """Some iTwin of the account that is no account itself, to read from."""
        if "iTwin" not in self.subjects:
            found = (await self.http.get("/itwins/", params={"$top": 30}, headers=WHOLE)).json()["iTwins"]
            if not found:
                pytest.skip("this account sees no iTwin")
            self.subjects["iTwin"] = found[0]
            self.subjects["iTwins"] = {"ids": [one["id"] for one in found]}
        return str(self.subjects["iTwin"]["id"])

    async def imodel(self) -> str:
        """Some iModel with changesets, to read from."""
        await self.itwin()
        if "iModel" not in self.subjects:
            self.subjects["iModel"] = await self._find_imodel()
        return str(self.subjects["iModel"]["id"])

    async def _find_imodel(self) -> dict[str, Any]:
        for itwin_id in self.subjects["iTwins"]["ids"]:
            query = {"iTwinId": itwin_id, "$top": 5}
            listed = await self.http.get("/imodels", params=query, headers=V2 | WHOLE)
            for one in listed.json().get("iModels", []):
                if one.get("lastChangesetPushDateTime"):
                    return dict(one)
        pytest.skip("this account sees no iModel with changesets in its first 30 iTwins")

    def _keep(self, method: str, template: str, sent: httpx2.Response) -> Answer:
        body: Any = None
        if "json" in sent.headers.get("content-type", "") and sent.content:
            body = json.loads(sent.content)
        step = f"{method} {template}"
        self._steps[step] += 1
        if self._steps[step] > 1:
            step += f" (#{self._steps[step]})"
        told = {name: scrub(sent.headers[name]) for name in _REPORTED if name in sent.headers}
        told |= {name: "there" for name in _NOTICED if name in sent.headers}
        self.limits |= {name.lower() for name in sent.headers if "ratelimit" in name.lower().replace("-", "")}
        failed = isinstance(body, dict) and ("error" in body or sent.status_code >= 400)
        if failed:
            shape, errors = {}, tuple(_errors(body))
        else:
            shape, errors = shape_of(body) if body is not None else {}, ()
            self.secrets |= set(_texts(body))
        self.seen.append(Seen(step, sent.status_code, told, shape, errors))
        return Answer(sent.status_code, {name.lower(): value for name, value in sent.headers.items()}, body)


def _errors(body: dict[str, Any]) -> list[tuple[str, str]]:
    error = body.get("error")
    if not isinstance(error, dict):
        return [("envelope", ", ".join(sorted(body)))]
    found = [(name, _plain(error[name])) for name in ("code", "message", "target") if name in error]
    for index, detail in enumerate(error.get("details") or []):
        found += [(f"details[{index}].{name}", _plain(value)) for name, value in sorted(detail.items())]
    known = {"code", "message", "target", "details"}
    return found + [("member", name) for name in sorted(error.keys() - known)]


def scrub(text: str) -> str:
    """The text without ids, addresses, links and tokens."""
    for pattern in _SCRUBBED:
        text = pattern.sub("…", text)
    return text


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "object with " + ", ".join(sorted(value))
    return "null" if value is None else scrub(value) if isinstance(value, str) else type(value).__name__


def _texts(body: Any) -> list[str]:
    if isinstance(body, dict):
        return [text for value in body.values() for text in _texts(value)]
    if isinstance(body, list):
        return [text for value in body for text in _texts(value)]
    return [body] if isinstance(body, str) else []
