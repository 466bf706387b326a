"""One operation, once: build the request, send it through the shared client, decode the answer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio

from itwin_mcp.capability.plans import Operation, Output
from itwin_mcp.errors import CallError, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.executor.codes import decode_members
from itwin_mcp.executor.conversation import Caller, Conversation
from itwin_mcp.executor.gate import Gate
from itwin_mcp.executor.refusals import explain
from itwin_mcp.executor.request import build_request, sign
from itwin_mcp.executor.shape import Warnings, shape
from itwin_mcp.upstream.client import DECLARED_PLATFORM
from itwin_mcp.upstream.envelope import looks_like_html, read_json
from itwin_mcp.upstream.hints import for_unknown_outcome
from itwin_mcp.upstream.naming import Standing
from itwin_mcp.upstream.origin import Origin, parse_origin
from itwin_mcp.upstream.storage import Progress
from itwin_mcp.upstream.wire import Request, Response

MAX_SHOWN = 400
"""Bytes of an answer that is no JSON which may be shown."""

logger = logging.getLogger(__name__)


class Upstream(Protocol):
    """The one function that sends; `UpstreamClient` is it."""

    @property
    def platform(self) -> str:
        """The origin that stands for the platform, such as `https://api.bentley.com`."""

    async def send(self, request: Request) -> Response:
        """Send one request; raises an error of the CallError family for anything but an answer below 400."""


class Transfers(Protocol):
    """What moves files; `Storage` is it."""

    async def upload(
        self,
        link: str,
        source: Path,
        *,
        headers: Sequence[tuple[str, str]] = (),
        progress: Progress | None = None,
    ) -> int:
        """Send the file to the link."""

    async def download(
        self,
        link: str,
        target: Path,
        *,
        size: int | None = None,
        replaces: Standing | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write what the link leads to into the target."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded answer: JSON (None when there is none), or the bytes of a binary operation."""

    body: Any
    headers: Mapping[str, str]


@dataclass(slots=True)
class RequestCount:
    """How many requests a call has sent."""

    sent: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One call under way: whom it is for and what its stages send and wait through.

    `name` is the tool or resource. `now` gives seconds from any beginning, `clock` seconds since 1970.
    """

    name: str
    upstream: Upstream
    environment: Mapping[str, str] = field(repr=False)
    conversation: Conversation
    caller: Caller
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    now: Callable[[], float] = anyio.current_time
    clock: Callable[[], float] = time.time
    storage: Transfers | None = None
    gate: Gate | None = None
    """What every request passes; None lets all pass."""
    warnings: Warnings = field(default_factory=Warnings)
    """What the platform answered that the capability file does not expect."""
    requests: RequestCount = field(default_factory=RequestCount)

    async def perform(self, operation: Operation, values: Mapping[str, Any]) -> Answer:
        """Send one operation with these input values."""
        try:
            return await self.send(operation, build_request(operation, values))
        except PlatformError as error:
            plan = operation.refusals.get(error.code)
            if plan is not None:
                await explain(self, plan, values, error)
            raise

    async def send(self, operation: Operation, request: Request) -> Answer:
        """Send a built request of an operation; it passes the gate and is signed here."""
        self.requests.sent += 1
        try:
            if self.gate is None:
                response = await self._exchange(operation, request)
            else:
                response = await self.gate.carry(operation, request, lambda: self._exchange(operation, request))
        except UnexpectedAnswer as error:
            if operation.method != "GET" and error.status is not None and error.status < 300:
                error.completed = ({"step": operation.name, "ids": []},)
            raise
        if 300 <= response.status < 400:
            raise _redirected(response, request.origin)
        if operation.binary:
            return Answer(response.content, response.headers)
        try:
            body = _decode(response)
        except UnexpectedAnswer as error:
            if operation.method == "GET":
                raise
            if looks_like_html(response):
                # Hardly the platform's: a proxy or a sign-in page on the way may never have passed the change on.
                error.members["outcomeUnknown"] = True
                error.hint = for_unknown_outcome(request.path)
                raise
            body = None
            self.warnings.add("$", "JSON", response.content[:MAX_SHOWN].decode("utf-8", "replace"))
        shown = body if self.gate is None else self.gate.show(request, body)
        return Answer(decode_members(operation.codes, shown), response.headers)

    def origins_of(self, declared: str) -> frozenset[Origin]:
        """The origins that an operation's own links may lead to: the declared one, and what it stands for.

        Raises ValueError for a declared origin that is none.
        """
        own = parse_origin(declared)
        if own != parse_origin(DECLARED_PLATFORM):
            return frozenset({own})
        return frozenset({own, parse_origin(self.upstream.platform)})

    async def _exchange(self, operation: Operation, request: Request) -> Response:
        try:
            return await self.upstream.send(sign(request, operation, self.environment))
        except anyio.get_cancelled_exc_class():
            if operation.method != "GET":
                logger.warning("%s was cancelled in %s: it may have been carried out", self.name, operation.key)
            raise


def _decode(response: Response) -> Any:
    """The body as JSON; an accepted job (202) may have one that is none."""
    said = response.headers.get("content-type", "").lower()
    if not response.content or response.status == 204 or (response.status == 202 and "json" not in said):
        return None
    return read_json(response)


_SIGN_ON = re.compile(
    r"[/._-](?:log-?in|log-?on|sign-?in|sign-?on|sso|saml2?|adfs|oauth2?|openid|authorize|cas|idp)(?:[/._;?-]|$)"
    r"|[?&](?:SAMLRequest|RelayState|redirect_uri|response_type|wtrealm|returnurl|return_to|goto)=",
    re.IGNORECASE,
)
"""What tells the address of a login page from that of a service."""


def _redirected(response: Response, origin: str) -> CallError:
    """Explain a redirect, which is never followed: the platform answers with it, or a proxy that wants a login.

    Federated repositories are kept by other services of the platform, at addresses that are no login page.
    """
    link = response.headers.get("location", "")
    try:
        address = urlsplit(link)
        host = address.hostname or ("the same host" if address.path else "an address that cannot be read")
        path = address.path
    except ValueError:
        host, path, link = "an address that cannot be read", "", ""
    if _SIGN_ON.search(link):
        return Unreachable(
            "ConnectionFailed",
            f"A proxy on the way to {origin} asks for a sign-in: it answers {response.status} with its login page at "
            f"{host}.",
            hint=f"Nothing reached the platform. The person opens {origin} in a browser and signs in to their network, "
            "or asks the people who run it to let this computer through; then call again.",
            retryable=False,
        )
    return CallError(
        "KeptElsewhere",
        f"The platform answers that this is kept by another of its services, at {host}{path}.",
        status=response.status,
        hint="This server does not follow it there: read it with software for that service.",
    )


def shape_answer(run: Run, operation: Operation, output: Output, answer: Answer) -> dict[str, Any]:
    """Return the answer in the shape that a tool promises.

    Raises: UnexpectedAnswer for a read that has nothing to give. A change that was made is never reported as failed.
    """
    return shape(output, answer.body, answer.headers, run.warnings, written=operation.method != "GET")
