"""Sends one operation once: builds the request, passes the gate, sends it through the client, decodes the answer."""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import anyio

from itwin_mcp.atomic_files import FileStat
from itwin_mcp.capability.bound_values import describe_reference
from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.operations import Credential, Operation
from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.errors import CallError, ErrorCode, NotSignedIn, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.executor.answers import Answer, Warnings, decode_members, describe_blob, read_blob, shape_answer
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.executor.context import CallContext, Caller, Confirmation, Conversation
from itwin_mcp.executor.policy.gatekeeper import Gate
from itwin_mcp.executor.policy.rules import Permit
from itwin_mcp.executor.refusals import explain_refusal
from itwin_mcp.executor.requests import bind, build_request
from itwin_mcp.settings import DEFAULT_MAX_RESULT_BYTES, PLATFORM_ORIGIN
from itwin_mcp.upstream.hints import explain_unknown_outcome
from itwin_mcp.upstream.messages import Request, Response, Sender
from itwin_mcp.upstream.origin import Origin, parse_origin
from itwin_mcp.upstream.storage import Progress
from itwin_mcp.upstream.wire_format import is_html, read_json

if TYPE_CHECKING:
    from itwin_mcp.executor.thing_names import ThingNames

MAX_SHOWN = 400
"""Bytes that are shown of an answer that is not JSON."""

logger = logging.getLogger(__name__)


class Transfers(Protocol):
    """Moves files to and from storage."""

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
        replaces: FileStat | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Download the file behind the link into the target."""


@dataclass(slots=True)
class RequestCount:
    """The requests of one call so far."""

    sent: int = 0
    names: int = 0
    """Those of them that only read names."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one call sends and waits with: for whom, through which gate, and how far it has come.

    `name` is the tool or resource. `now` returns seconds since any fixed moment, `clock` seconds since 1970.
    """

    name: str
    upstream: Sender
    environment: Mapping[str, str] = field(repr=False)
    conversation: Conversation
    caller: Caller
    gate: Gate
    """Judges every request."""
    seals: Seals
    thing_names: ThingNames
    """Reads and remembers names for ids."""
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    now: Callable[[], float] = anyio.current_time
    clock: Callable[[], float] = time.time
    storage: Transfers | None = None
    max_bytes: int = DEFAULT_MAX_RESULT_BYTES
    """The maximum size of an answer."""
    warnings: Warnings = field(default_factory=Warnings)
    """Values that the capability file does not expect."""
    requests: RequestCount = field(default_factory=RequestCount)
    """Also of the tool that redirected to this one."""

    def under(self, permit: Permit, confirmation: Confirmation | None) -> Run:
        """Return the same call for what was permitted, and as it was confirmed."""
        return replace(self, gate=self.gate.under(permit, None if confirmation is None else confirmation.word))

    async def perform(self, operation: Operation, values: Mapping[str, Any]) -> Answer:
        """Send one operation with these input values. Raises CallError."""
        try:
            return await self.send(operation, build_request(operation, values))
        except PlatformError as error:
            plan = operation.refusals.get(error.code)
            if plan is None:
                raise
            raise await explain_refusal(self, plan, values, error) from None

    async def send(self, operation: Operation, request: Request) -> Answer:
        """Send a built request and return its answer. The policy judges it first; then the credential is added."""
        try:
            response = await self.gate.pass_request(operation, request, lambda: self._exchange(operation, request))
        except UnexpectedAnswer as error:
            if operation.method == "GET" or error.status is None or error.status >= 300:
                raise
            raise error.amended(completed=({"step": operation.name, "ids": []},)) from None
        if 300 <= response.status < 400:
            raise _explain_redirect(response, request.origin)
        if operation.binary:
            return Answer(response.content, response.headers)
        try:
            body = _decode(response, operation.raw_format)
        except UnexpectedAnswer as error:
            if operation.method == "GET":
                raise
            if is_html(response):
                # Hardly the platform's: a proxy or a sign-in page on the way may never have passed the change on.
                hint = explain_unknown_outcome(None)
                raise error.amended(hint=hint, members={"outcomeUnknown": True}) from None
            body = None
            self.warnings.add("$", "JSON", response.content[:MAX_SHOWN].decode("utf-8", "replace"))
        if self.gate.rule is not None:
            body = self.gate.show(request, body)
        return Answer(decode_members(operation.codes, body) if operation.codes else body, response.headers)

    async def read_names(self, operation: Operation, values: Mapping[str, Any]) -> Any:
        """Send an operation that answers names (`x-names`); the gate has a rule of its own for it.

        Raises an error of the CallError family, also for an answer that is a redirect.
        """
        request = build_request(operation, values)
        self.requests.names += 1
        response = await self.gate.pass_names_request(operation, request, lambda: self._exchange(operation, request))
        if 300 <= response.status < 400:
            raise _explain_redirect(response, request.origin)
        return _decode(response)

    def find_origins(self, declared: str) -> frozenset[Origin]:
        """Return the origins that an operation's links may lead to: the declared one and, for ours, the configured one.

        Raises ValueError if the declared origin is not an origin.
        """
        own = parse_origin(declared)
        if own != parse_origin(PLATFORM_ORIGIN):
            return frozenset({own})
        return frozenset({own, parse_origin(self.upstream.platform)})

    async def _exchange(self, operation: Operation, request: Request) -> Response:
        try:
            if operation.credential is not None or operation.bound:
                request = sign(request, operation, self.environment)
            self.requests.sent += 1
            return await self.upstream.send(request)
        except anyio.get_cancelled_exc_class():
            if operation.method != "GET" and operation.names is None:
                logger.warning("%s was cancelled in %s: it may have been carried out", self.name, operation.key)
            raise


def _decode(response: Response, kind: str = "json") -> Any:
    """Return the body as a JSON value; that of an accepted job (202) need not be JSON."""
    said = response.headers.get("content-type", "").lower()
    if not response.content or response.status == 204 or (response.status == 202 and "json" not in said):
        return None
    if kind != "json":
        # Imported here: only files of users need it.
        from itwin_mcp.executor.raw_formats import read_format

        return read_format(response, kind)
    return read_json(response)


_SIGN_ON = re.compile(
    r"[/._-](?:log-?in|log-?on|sign-?in|sign-?on|sso|saml2?|adfs|oauth2?|openid|authorize|cas|idp)(?:[/._;?-]|$)"
    r"|[?&](?:SAMLRequest|RelayState|redirect_uri|response_type|wtrealm|returnurl|return_to|goto)=",
    re.IGNORECASE,
)
"""Recognises the address of a login page."""


def _explain_redirect(response: Response, origin: str) -> CallError:
    """Return the error for a redirect, which is never followed: from the platform, or from a proxy that wants a login.

    Federated repositories are stored by other services of the platform, whose addresses are not login pages.
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
            ErrorCode.CONNECTION_FAILED,
            f"A proxy on the way to {origin} asks for a sign-in: it answers {response.status} with its login page at "
            f"{host}.",
            hint=f"Nothing reached the platform. The person opens {origin} in a browser and signs in to their network, "
            "or asks the people who run it to let this computer through; then call again.",
            retryable=False,
        )
    return CallError(
        ErrorCode.KEPT_ELSEWHERE,
        f"The platform answers that this is kept by another of its services, at {host}{path}.",
        status=response.status,
        hint="This server does not follow it there: read it with software for that service.",
    )


async def run_call(context: CallContext) -> CallContext:
    """Stage `run` of a tool that sends one request. Raises CallError."""
    run, action = context.run, context.tool.action
    assert isinstance(action, Call)
    answer = await run.perform(action.operation, bind(action.bindings, context.arguments, {}))
    if action.operation.binary:
        blob = read_blob(answer)
        return context.with_answer(describe_blob(blob), blob)
    return context.with_answer(shape_answer(run, action.operation, action.output, answer))


# --- the credential of an origin that is not the platform's ------------------------------------------------------


def sign(request: Request, operation: Operation, environment: Mapping[str, str]) -> Request:
    """Return the request with the credential that the capability file declares for a foreign origin.

    The platform's own credential comes from the client's token source. `environment` has the variables that capability
    files bind. Raises NotSignedIn if one of them is not set.
    """
    if parse_origin(operation.origin) == parse_origin(PLATFORM_ORIGIN):
        return request
    request = _add_bound(request, operation, environment)
    if operation.credential is None:
        return request
    place, name, value = _find_credential(operation.credential, operation.origin, environment)
    if place == "query":
        others = tuple(pair for pair in request.query if pair[0] != name)
        return replace(request, query=(*others, (name, value)))
    return replace(request, headers=(*request.headers, (name, value)))


def _add_bound(request: Request, operation: Operation, environment: Mapping[str, str]) -> Request:
    """Return the request with the parameters whose values are bound. Raises NotSignedIn if one has no value."""
    known = {name: environment[source] for name, source in operation.variables.items() if source in environment}
    for parameter in operation.bound:
        value = ABSENT if parameter.value is None else evaluate(parameter.value, known, {})
        if value is ABSENT:
            raise _explain_missing(operation.origin, set(operation.variables.values()) - environment.keys())
        pair = (parameter.wire, str(value))
        if parameter.place == "query":
            request = replace(request, query=(*request.query, pair))
        else:
            request = replace(request, headers=(*request.headers, pair))
    return request


def _explain_missing(origin: str, references: Collection[str]) -> NotSignedIn:
    return NotSignedIn(
        f"There is no credential for {origin}; nothing was sent.",
        hint=f"Set {' and '.join(map(describe_reference, sorted(references)))}.",
    )


def _find_credential(credential: Credential, origin: str, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the place of the credential, its name there, and its value."""
    known = {name: environment[variable] for name, variable in credential.variables.items() if variable in environment}
    parts = {key: evaluate(expression, known, {}) for key, expression in credential.parts.items()}
    if any(value is ABSENT for value in parts.values()):
        raise _explain_missing(origin, credential.list_used() - environment.keys())
    if credential.kind == "bearer":
        return "header", "Authorization", f"Bearer {parts['token']}"
    if credential.kind == "basic":
        pair = f"{parts['username']}:{parts['password']}".encode()
        return "header", "Authorization", f"Basic {base64.b64encode(pair).decode()}"
    return str(parts["placement"]), str(parts["key"]), str(parts["value"])
