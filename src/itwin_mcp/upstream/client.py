"""The HTTP client for all requests. It chooses the credential by origin, and limits, paces and retries requests."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import anyio
import httpx2

from itwin_mcp.errors import CallError, NotSignedIn, UnexpectedAnswer
from itwin_mcp.settings import DEFAULT_DEADLINE, PLATFORM_ORIGIN
from itwin_mcp.upstream import hints, network_errors
from itwin_mcp.upstream.messages import Request, Response
from itwin_mcp.upstream.origin import Origin, parse_origin
from itwin_mcp.upstream.platform_errors import build_foreign_error, build_platform_error
from itwin_mcp.upstream.rate_limit import Pacer
from itwin_mcp.upstream.retry import AttemptError, Retries
from itwin_mcp.upstream.sign_in.token import Token, TokenSource
from itwin_mcp.upstream.transport import ASGIApp, BodyTooLargeError, Pools, read_bounded
from itwin_mcp.upstream.wire_format import (
    build_body,
    build_headers,
    build_unsendable,
    build_url,
    read_rate_tier,
)

MAX_BODY = 10 * 1024 * 1024
"""The size limit of an answer in bytes, after decompression."""

Answered: TypeAlias = Callable[[int], None]
"""A callback for the status of an answer. It is not called if no answer came."""
Watch: TypeAlias = Callable[[str, str], AbstractContextManager[Answered]]
"""Observes one request: called with its method and correlation id, and entered while it is sent."""

_log = logging.getLogger("itwin_mcp.upstream")


@contextmanager
def unwatched(_method: str, _correlation_id: str) -> Iterator[Answered]:
    """Observe nothing: the default `Watch`."""
    yield lambda _status: None


@dataclass(slots=True)
class _Call:
    """The state of one `send`."""

    request: Request
    origin: Origin
    """Where the request is sent; for the platform, the configured origin."""
    url: httpx2.URL
    headers: list[tuple[str, str]]
    is_platform: bool
    end: float
    """The deadline, by the event loop's clock."""
    correlation_id: str
    in_flight: bool = False
    """True while the server may be carrying out the request, or may have done so without an answer."""


class UpstreamClient(AbstractAsyncContextManager["UpstreamClient"]):
    """Sends requests and returns complete answers, or raises CallError. Use it as an async context manager."""

    def __init__(
        self,
        platform: str,
        tokens: TokenSource | None,
        *,
        sandbox: ASGIApp | None = None,
        user_agent: str,
        deadline: float = DEFAULT_DEADLINE,
        max_body: int = MAX_BODY,
        concurrency: int = 100,
        rate_per_minute: int | None = None,
        remedy: str = hints.DEFAULT_REMEDY,
        nouns: Sequence[hints.Noun] = (),
        watch: Watch = unwatched,
        retries: Retries | None = None,
        pacer: Pacer | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Create a client. Nothing is connected or read before the first request.

        Args:
            platform: The origin of the platform, such as `https://api.bentley.com`.
            tokens: The credential for the platform. It is sent to no other origin.
            sandbox: An app that answers in place of the platform.
            user_agent: The `User-Agent` of every request.
            deadline: Seconds that each `send` may take, including retries and waiting.
            max_body: The size limit of an answer in bytes, after decompression.
            concurrency: How many requests may be under way at once.
            rate_per_minute: The rate of requests to the platform. Without it, pacing begins at the first 429.
            remedy: How to sign in, for the hint of NotSignedIn.
            nouns: The kinds of things that hints can name.
            watch: Observes every request.
            retries, pacer, now: For tests; `now` returns seconds since 1970.

        Raises: ValueError if `platform` is not an origin.
        """
        self._platform = parse_origin(platform)
        self._platform_names = frozenset({self._platform, parse_origin(PLATFORM_ORIGIN)})
        self._tokens = tokens
        self._pools = Pools(self._platform, sandbox, connections=concurrency, user_agent=user_agent)
        self._deadline = deadline
        self._max_body = max_body
        self._slots = anyio.Semaphore(concurrency, fast_acquire=True)
        self._pacer = pacer or Pacer(rate_per_minute)
        self._retries = retries or Retries()
        self._remedy = remedy
        self._nouns = tuple(nouns)
        self._watch = watch
        self._now = now

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pools.aclose()

    @property
    def platform(self) -> str:
        """The origin of the platform, such as `https://api.bentley.com`."""
        return str(self._platform)

    async def send(self, request: Request) -> Response:
        """Send the request and return the answer below 400. Redirects are returned, never followed.

        Raises:
            InvalidArguments: The request cannot be sent.
            NotSignedIn: There is no credential, or the platform refuses it.
            PlatformError: The server refused.
            Unreachable: No complete answer came.
            UnexpectedAnswer: The answer is too large or broken.
        """
        call = self._prepare(request)
        self._retries.budget.calls += 1
        try:
            with anyio.move_on_after(self._deadline):
                # Most calls need one attempt, so the retries are entered only after a failure.
                try:
                    return await self._attempt(call)
                except AttemptError as error:
                    failure = error
                return await self._retries.repeat(
                    failure,
                    lambda: self._attempt(call),
                    method=request.method,
                    seconds_left=lambda: call.end - time.monotonic(),
                )
            raise network_errors.build_timeout(request, self._deadline, self._find_noun(call), in_flight=call.in_flight)
        except CallError as error:
            raise error.amended(correlation_id=call.correlation_id) from None
        except anyio.get_cancelled_exc_class():
            if call.in_flight and request.method != "GET":
                _log.warning(
                    "cancelled while a %s of %s was under way: it may have been carried out (correlation id %s)",
                    request.method,
                    request.path,
                    call.correlation_id,
                )
            raise

    def _prepare(self, request: Request) -> _Call:
        try:
            origin = parse_origin(request.origin)
        except ValueError as error:
            raise build_unsendable(str(error)) from None
        is_platform = origin in self._platform_names
        if is_platform:
            origin = self._platform
        return _Call(
            request,
            origin,
            build_url(origin, request),
            build_headers(request),
            is_platform,
            end=time.monotonic() + self._deadline,
            correlation_id=str(uuid.uuid4()),
        )

    async def _attempt(self, call: _Call) -> Response:
        """Send the request with the credential for its origin. After a 401, renew the token and send once more."""
        has_credential = any(name.lower() == "authorization" for name, _ in call.headers)
        if not call.is_platform or has_credential:
            return self._judge(call, await self._exchange(call, None), None)
        if self._tokens is None:
            raise NotSignedIn("No sign-in is configured for the iTwin Platform.", hint=self._remedy)
        token = await self._tokens.get_token()
        response = await self._exchange(call, token)
        if response.status == 401:
            renewed = await self._tokens.get_token(stale=token)
            if renewed.value != token.value:
                token = renewed
                response = await self._exchange(call, token)
        return self._judge(call, response, token)

    async def _exchange(self, call: _Call, token: Token | None) -> Response:
        """Return the answer of any status to one request. Raises AttemptError if no complete answer came."""
        with self._watch(call.request.method, call.correlation_id) as answered:
            response = await self._send_once(call, token)
            answered(response.status)
        return response

    async def _send_once(self, call: _Call, token: Token | None) -> Response:
        if call.is_platform and self._pacer.is_active:
            await self._pacer.wait_turn(call.end - time.monotonic())
        async with self._slots:
            content, body_headers = build_body(call.request)
            own_names = {name.lower() for name, _ in call.headers}
            headers = [
                *call.headers,
                *((name, value) for name, value in body_headers.items() if name.lower() not in own_names),
                ("X-Correlation-Id", call.correlation_id),
            ]
            if token is not None:
                headers.append(("Authorization", f"Bearer {token.value}"))
            http = self._pools.for_origin(call.origin)
            began = time.monotonic()
            call.in_flight = True
            failure: AttemptError | None = None
            try:
                wire = http.build_request(call.request.method, call.url, headers=headers, content=content)
                answer = await http.send(wire, stream=True)
                try:
                    body = await read_bounded(answer.aiter_bytes(), self._max_body)
                except BodyTooLargeError as error:
                    if answer.status_code < 400:
                        raise self._build_too_large(call, answer) from None
                    body = error.head[:8000]
                finally:
                    await answer.aclose()
            except httpx2.RequestError as error:
                failure = network_errors.build_failure(error, call.request, str(call.origin), self._find_noun(call))
        if failure is not None:
            # Raised outside of the handler: an exception's context would keep the request and its token alive.
            call.in_flight = failure.maybe_executed
            raise failure
        call.in_flight = False
        # An answer without a correlation id was logged by the platform under ours.
        answer_headers = {"x-correlation-id": call.correlation_id, **answer.headers}
        response = Response(answer.status_code, answer_headers, body)
        milliseconds = (time.monotonic() - began) * 1000
        _log.debug(
            "%s %s%s %d %.0f ms %s",
            call.request.method,
            call.origin,
            call.request.path,
            response.status,
            milliseconds,
            call.correlation_id,
        )
        return response

    def _find_noun(self, call: _Call) -> hints.Noun | None:
        """Return the kind of thing that the request's path is about."""
        origin = PLATFORM_ORIGIN if call.is_platform else call.request.origin
        return hints.find_noun(self._nouns, origin, call.request.path)

    def _judge(self, call: _Call, response: Response, token: Token | None) -> Response:
        """Return an answer below 400. Raises AttemptError, which says whether to retry, for any other."""
        if response.status < 400:
            return response
        now = self._now()
        if not call.is_platform:
            error = build_foreign_error(response, call.request, nouns=self._nouns, now=now)
        else:
            error = build_platform_error(
                response,
                call.request,
                token=token,
                remedy=self._remedy,
                platform=str(self._platform),
                nouns=self._nouns,
                now=now,
            )
            if response.status == 429:
                self._pacer.slow_down(error.retry_after, read_rate_tier(response.headers))
        call.in_flight = "outcomeUnknown" in error.members
        raise AttemptError(
            error,
            transient=error.retryable or call.in_flight,
            maybe_executed=call.in_flight,
            after=error.retry_after,
        )

    def _build_too_large(self, call: _Call, answer: httpx2.Response) -> UnexpectedAnswer:
        done = "" if call.request.method == "GET" else " The change was made."
        return UnexpectedAnswer(
            f"The answer of {call.origin} is larger than {self._max_body / 1024 / 1024:.0f} MiB.",
            hint=f"Ask for less at once: a smaller page, fewer fields, a filter.{done}",
            status=answer.status_code,
        )
