"""A proxy in front of the sandbox that records exchanges, and replays them with one answer changed."""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MISSING = object()
"""Marks a member to remove."""

ODD: dict[type, tuple[Any, ...]] = {
    str: (7, True, [], {"odd": 1}, None, MISSING, "", "\u202eodd\x00 eyJhbGciOi.J9.x"),
    bool: ("true", 1, [], {}, None, MISSING),
    int: ("7", "seven", 1.5, 10**30, [], {}, None, MISSING),
    float: ("7.5", "seven", 10**30, [], {}, None, MISSING),
    dict: ("x", 7, [], {}, None, MISSING),
    list: ("x", 7, {}, [], [None, "x", 7, [], {}], None, MISSING),
    type(None): ("x", 7, [], {}, MISSING),
}
"""Replacements of a value, by its JSON type."""
ODD_ITEMS: tuple[Any, ...] = (None, "x", [], {}, MISSING)
"""Replacements of a list item."""
ODD_BODIES: dict[str, bytes] = {
    "empty": b"",
    "html": b"<html><title>Sign in</title></html>",
    "text": b"OK",
    "half": b'{"half": ',
    "not utf-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "a text": b'"x"',
    "a number": b"7",
    "null": b"null",
    "no member": b"{}",
    "another member": b'{"odd": {"id": "x"}}',
    "NaN": b'{"a": NaN}',
}
LOCATIONS = (
    "",
    "/",
    "7",
    "//",
    "https://[",
    "javascript:x",
    "https://elsewhere.example/imodels/../x",
    "/imodels/\xe9%2f",
)
RETRY_AFTER = ("", "-1", "soon", "1e9", "0.5", "9" * 400, "Thu, 99 Foo 2026 99:99:99 GMT", "\xe9")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer."""

    method: str
    target: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes

    @property
    def body(self) -> Any:
        """Return the JSON of the answer, or MISSING if it has none."""
        try:
            return json.loads(self.content)
        except ValueError:
            return MISSING

    def header(self, name: str) -> str | None:
        return next((value.decode("latin-1") for key, value in self.headers if key.decode().lower() == name), None)

    def with_header(self, name: str, value: str | None) -> Exchange:
        """Copy the exchange with another value of a header, or without the header."""
        kept = tuple(pair for pair in self.headers if pair[0].decode().lower() != name)
        added = () if value is None else ((name.encode(), value.encode("latin-1", "replace")),)
        return replace(self, headers=(*kept, *added))

    def with_body(self, body: Any) -> Exchange:
        return replace(self, content=json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class Mutation:
    """A changed answer to one exchange.

    `exchange` is the index of the exchange. `place` is the path of the changed value, if a single value was changed.
    `renamed` has the old and the new scalar: if it is an id, later requests contain the new id.
    """

    exchange: int
    name: str
    answer: Exchange
    place: tuple[str | int, ...] | None = None
    value: Any = None
    renamed: tuple[str, str] | None = None


READS_NAMES = ("POST", "/users/getbyidlist")
"""The POST that returns the names of users. It is the only POST that changes nothing."""


@dataclass
class Replay:
    """The requests that were sent during a replay."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    """Method and target of each request."""
    unknown: list[tuple[str, str]] = field(default_factory=list)
    """Requests that were not sent while recording."""

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [request for request in self.sent if request[0] != "GET" and request != READS_NAMES]


class Proxy:
    """An ASGI app that forwards requests to `app`, unless it replays."""

    def __init__(self, app: ASGIApp, storage_url: Callable[[], str]) -> None:
        """Create a proxy. Replayed links to the storage of the recorded sandbox lead to `storage_url()`."""
        self._app = app
        self._storage_url = storage_url
        self._recorded: list[Exchange] | None = None
        self._replay: Replay | None = None
        self._left: dict[tuple[str, str], deque[Exchange]] = {}
        self._renamed: tuple[str, str] | None = None
        self._page_size: int | None = None

    @contextmanager
    def recording(self, *, page_size: int | None = None) -> Iterator[list[Exchange]]:
        """Record every exchange of the block. `page_size` limits the items of a page, whatever is requested."""
        self._recorded = recorded = []
        self._page_size = page_size
        try:
            yield recorded
        finally:
            self._recorded = self._page_size = None

    @contextmanager
    def replaying(self, exchanges: list[Exchange], mutation: Mutation | None = None) -> Iterator[Replay]:
        """Answer from the recording, with one mutation. Identical requests are answered in their order.

        A read that was not recorded is forwarded; a write is answered with 404.
        """
        self._left = defaultdict(deque)
        for index, exchange in enumerate(exchanges):
            answer = mutation.answer if mutation is not None and mutation.exchange == index else exchange
            self._left[exchange.method, exchange.target].append(answer)
        self._renamed = mutation.renamed if mutation is not None else None
        self._replay = replay = Replay()
        try:
            yield replay
        finally:
            self._replay = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        method = scope["method"]
        if self._replay is not None:
            await drain(receive)
            self._replay.sent.append((method, target))
            answer = self._find(method, target)
            if answer is not None:
                content = answer.content.replace(STORAGE_URL, self._storage_url().encode())
                await send_answer(replace(answer, content=content), send)
                return
            self._replay.unknown.append((method, target))
            if method != "GET":
                refusal = {"error": {"code": "NotRecorded", "message": "This request was not recorded."}}
                await send_answer(Exchange(method, target, 404, JSON, json.dumps(refusal).encode()), send)
                return
            receive = read_nothing
        if self._recorded is None:
            await self._app(scope, receive, send)
            return
        if self._page_size is not None:
            smaller = re.sub(r"(top=|%24top=)[0-9]+", rf"\g<1>{self._page_size}", query)
            scope = {**scope, "query_string": smaller.encode("latin-1")}
        start: Message = {}
        body = bytearray()

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, record)
        headers = tuple((bytes(name), bytes(value)) for name, value in start["headers"])
        content = bytes(body).replace(self._storage_url().encode(), STORAGE_URL)
        self._recorded.append(Exchange(method, target, start["status"], headers, content))

    def _find(self, method: str, target: str) -> Exchange | None:
        """Return the recorded answer to a request. A mutated id in the request matches the original id."""
        answers = self._left.get((method, target)) or self._left.get((method, self._original(target)))
        if not answers:
            return None
        return answers.popleft() if len(answers) > 1 else answers[0]

    def _original(self, target: str) -> str:
        """Return the target with the original id in place of the mutated one."""
        if self._renamed is None:
            return target
        old, new = self._renamed
        path, _, query = target.partition("?")
        segments = [quote(old, safe="") if unquote(segment) == new else segment for segment in path.split("/")]
        pairs = [pair.partition("=") for pair in query.split("&")]
        parameters = [
            f"{name}={quote(old, safe='')}"
            if unquote(value) == new and name[:1] not in "$%"
            else f"{name}{equals}{value}"
            for name, equals, value in pairs
        ]
        return "/".join(segments) + (f"?{'&'.join(parameters)}" if query else "")


STORAGE_URL = b"http://storage.example"
"""Placeholder for the address of the storage in recorded answers."""
JSON = ((b"content-type", b"application/json"),)


async def drain(receive: Receive) -> None:
    """Read the request body to its end."""
    while (await receive()).get("more_body"):
        pass


async def read_nothing() -> Message:
    """Return an empty request body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send_answer(exchange: Exchange, send: Send) -> None:
    """Send the answer of an exchange."""
    headers = [pair for pair in exchange.headers if pair[0].lower() not in (b"content-length", b"transfer-encoding")]
    if exchange.status not in (204, 304):
        headers.append((b"content-length", str(len(exchange.content)).encode()))
    await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if exchange.status == 204 else exchange.content})


# --- mutations --------------------------------------------------------------------------------------------------


def name_request(exchange: Exchange) -> str:
    """Return the method and path of an exchange."""
    return f"{exchange.method} {exchange.target.partition('?')[0]}"


def mutate_fields(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Replace every value of an answer by each odd value. In a list, change only the first item."""
    body = exchange.body
    if body is MISSING:
        return
    for place, value in list_values(body):
        items = ODD_ITEMS if place and isinstance(place[-1], int) else ()
        for odd in {repr(item): item for item in (*ODD[type(value)], *items)}.values():
            if odd is not MISSING and type(odd) is type(value) and odd == value:
                continue
            renamed = None
            if isinstance(value, str | int) and isinstance(odd, str | int):
                renamed = format_scalar(value), format_scalar(odd)
            shown = "missing" if odd is MISSING else json.dumps(odd)
            name = f"{name_request(exchange)} {format_place(place)} = {shown}"
            yield Mutation(index, name, exchange.with_body(replace_value(body, place, odd)), place, odd, renamed)


def mutate_body(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Replace the whole body."""
    if exchange.body is MISSING:
        return
    for name, content in ODD_BODIES.items():
        yield Mutation(index, f"{name_request(exchange)} body: {name}", replace(exchange, content=content))


def mutate_headers(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Replace `Location`, if present, and `Retry-After`; remove `Content-Type`."""
    name = name_request(exchange)
    if exchange.header("location") is not None:
        for odd in (None, *LOCATIONS):
            yield Mutation(index, f"{name} Location: {odd}", exchange.with_header("location", odd))
    for odd in RETRY_AFTER:
        yield Mutation(index, f"{name} Retry-After: {odd[:20]}", exchange.with_header("retry-after", odd))
    yield Mutation(index, f"{name} without Content-Type", exchange.with_header("content-type", None))


NEXT = ("_links", "next", "href")
NEXT_LINKS = (
    "",
    "/",
    "?$skip=1",
    "//",
    "https://[",
    "javascript:x",
    "https://elsewhere.example/itwins?$skip=1",
    "https://api.bentley.com@elsewhere.example/itwins?$skip=1",
    "https://api.bentley.com/../users/me",
    "https://api.bentley.com:99999/itwins?$skip=1",
    "\u202e\x00",
    "x" * 20_000,
)


def mutate_next_link(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Replace the link to the next page by odd values at each level, by odd links, and by the link to the same page."""
    body = exchange.body
    for place, value in list_values(body):
        if place == NEXT[: len(place)]:
            replacements: list[Any] = [odd for odd in ODD[type(value)] if odd != value]
            if place == NEXT:
                path, _, query = value.partition("?")
                same_page = f"{path}?{exchange.target.partition('?')[2]}"
                replacements += [*NEXT_LINKS, same_page, f"{path}/x?{query}", f"{path}?", f"{path}?{query}&{query}"]
            for odd in replacements:
                shown = "missing" if odd is MISSING else json.dumps(odd)[:80]
                name = f"{name_request(exchange)} {format_place(place)} = {shown}"
                yield Mutation(index, name, exchange.with_body(replace_value(body, place, odd)), place, odd)


STORAGE: dict[str, tuple[int, bytes | None]] = {
    "refused": (403, b"<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code></Error>"),
    "gone": (404, b""),
    "conflict": (409, b"\xff\xfe"),
    "redirect": (302, b""),
    "partial": (206, None),
    "not modified": (304, b""),
    "throttled": (429, b"{}"),
    "broken": (500, b"<html>"),
    "nothing": (204, b""),
    "empty": (200, b""),
    "shorter": (200, b"x"),
    "longer": (200, b"x" * 200_000),
}
"""Odd answers of the storage: their status, and their content or None for the recorded content."""


def mutate_storage(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Replace the answer of the storage, or one of its headers."""
    for name, (status, content) in STORAGE.items():
        odd = replace(exchange, status=status, content=exchange.content if content is None else content)
        yield Mutation(index, f"{exchange.method} storage: {name}", odd)
    for name in ("content-md5", "content-type", "etag"):
        for value in (None, "", "7", "AAAAAAAAAAAAAAAAAAAAAA==", "\xe9" * 400):
            title = f"{exchange.method} storage {name}: {str(value)[:20]}"
            yield Mutation(index, title, exchange.with_header(name, value))


def mutate_to_error(index: int, exchange: Exchange, status: int) -> Iterator[Mutation]:
    """Replace the answer by an error, with each field of its envelope changed and with each odd body."""
    envelope = {
        "error": {
            "code": "InvalidRequest",
            "message": "The request is invalid.",
            "target": "name",
            "details": [{"code": "InvalidValue", "message": "Too long.", "target": "name"}],
            "innerError": {"code": "x"},
        }
    }
    refusal = replace(exchange, status=status, headers=JSON, content=json.dumps(envelope).encode())
    yield Mutation(index, f"{exchange.method} answered {status}", refusal)
    for mutation in (*mutate_fields(index, refusal), *mutate_body(index, refusal)):
        yield replace(mutation, name=f"{status} {mutation.name}", renamed=None)
    for odd in RETRY_AFTER:
        yield Mutation(index, f"{status} Retry-After: {odd[:20]}", refusal.with_header("retry-after", odd))


def list_values(value: Any, here: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield every value in a body with its place. Of a list, yield only the first item."""
    members: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list) and value:
        members = [(0, value[0])]
    for name, child in members:
        yield (*here, name), child
        yield from list_values(child, (*here, name))


def replace_value(body: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """Copy the body with another value at a place, or without the value."""
    key, inner_place = place[0], place[1:]
    new_child = replace_value(body[key], inner_place, value) if inner_place else value
    if isinstance(body, list):
        assert isinstance(key, int)
        return [*body[:key], *([] if new_child is MISSING else [new_child]), *body[key + 1 :]]
    changed = body | {key: new_child}
    return {name: child for name, child in changed.items() if child is not MISSING}


def format_place(place: tuple[str | int, ...]) -> str:
    """Format a place as a JSON path."""
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)


def format_scalar(value: Any) -> str:
    """Format a scalar as it is written in a URL."""
    return value if isinstance(value, str) else json.dumps(value)
