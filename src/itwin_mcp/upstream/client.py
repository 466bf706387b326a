"""One shared, authenticated, bounded client; the credential is chosen by origin."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import httpx2

from itwin_mcp.errors import CallError, NotSignedIn, UnexpectedAnswer
from itwin_mcp.upstream import faults, hints
from itwin_mcp.upstream.auth.source import Token, TokenSource
from itwin_mcp.upstream.coalescing import Coalescing
from itwin_mcp.upstream.encoding import build_body, build_headers, build_url, refused
from itwin_mcp.upstream.envelope import error_from, foreign_error_from, outcome_unknown, rate_tier, retry_after
from itwin_mcp.upstream.origin import Origin, parse_origin
from itwin_mcp.upstream.pacing import Pacer
from itwin_mcp.upstream.retry import AttemptError, Repeats
from itwin_mcp.upstream.transport import ASGIApp, BodyTooLargeError, Pools, read_bounded
from itwin_mcp.upstream.watching import Watch, unwatched
from itwin_mcp.upstream.wire import Request, Response

DECLARED_PLATFORM = "https://api.bentley.com"
"""The origin that the capability files name; a request to it goes to the platform that was configured."""
MAX_BODY = 10 * 1024 * 1024
"""Decoded bytes."""

_log = logging.getLogger("itwin_mcp.upstream")


class _Call:
    """One `send` on its way: where it goes, and whether the server may have acted."""

    def __init__(self, request: Request, origin: Origin, url: httpx2.URL, *, is_platform: bool) -> None:
        self.request = request
        self.origin = origin
        self.url = url
        self.is_platform = is_platform
        self.headers = build_headers(request)
        self.brings_credential = any(name.lower() == "authorization" for name, _ in self.headers)
        self.correlation_id = str(uuid.uuid4())
        self.in_flight = False
        self.end = math.inf
        """By the event loop's clock: the deadline."""


class UpstreamClient:
    """Sends requests and gives whole answers or errors of the CallError family. Open it with `open`."""

    def __init__(
        self,
        platform: Origin,
        tokens: TokenSource | None,
        pools: Pools,
        *,
        deadline: float,
        max_body: int,
        concurrency: int,
        pacer: Pacer,
        repeats: Repeats,
        remedy: str,
        watch: Watch,
        now: Callable[[], float],
    ) -> None:
        self._platform = platform
        self._platform_names = frozenset({platform, parse_origin(DECLARED_PLATFORM)})
        self._tokens = tokens
        self._pools = pools
        self._deadline = deadline
        self._max_body = max_body
        self._slots = anyio.CapacityLimiter(concurrency)
        self._pacer = pacer
        self._repeats = repeats
        self._remedy = remedy
        self._watch = watch
        self._now = now
        self._reads = Coalescing()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        platform: str,
        tokens: TokenSource | None,
        *,
        sandbox: ASGIApp | None = None,
        user_agent: str,
        deadline: float = 60.0,
        max_body: int = MAX_BODY,
        concurrency: int = 100,
        rate_per_minute: int | None = None,
        remedy: str = hints.DEFAULT_REMEDY,
        watch: Watch = unwatched,
        repeats: Repeats | None = None,
        pacer: Pacer | None = None,
        now: Callable[[], float] = time.time,
    ) -> AsyncIterator[UpstreamClient]:
        """Open a client and close its connections at the end; no network or certificate is touched before a call.

        `platform` is the origin to call (`https://api.bentley.com`), ValueError if it is none. `sandbox` answers in
        place of that origin and of no other. `deadline` bounds each `send` in seconds, repeats and waiting included;
        `max_body` the decoded bytes of an answer; `concurrency` the requests under way. `rate_per_minute` paces the
        calls to the platform; without it pacing begins when the platform first answers 429. `remedy` says how to sign
        in, for the hint of a NotSignedIn. `watch` sees every request that goes out. `repeats`, `pacer` and `now`
        (seconds since 1970) are there for tests.
        """
        origin = parse_origin(platform)
        async with Pools(origin, sandbox, connections=concurrency, user_agent=user_agent) as pools:
            yield cls(
                origin,
                tokens,
                pools,
                deadline=deadline,
                max_body=max_body,
                concurrency=concurrency,
                pacer=pacer or Pacer(rate_per_minute),
                repeats=repeats or Repeats(),
                remedy=remedy,
                watch=watch,
                now=now,
            )

    @property
    def platform(self) -> str:
        """The origin that stands for the platform, such as `https://api.bentley.com`."""
        return str(self._platform)

    async def send(self, request: Request) -> Response:
        """Send `request` and give the answer below 400, redirects included: they are never followed.

        InvalidArguments when it cannot be sent, NotSignedIn, PlatformError for a refusal, Unreachable without a whole
        answer, UnexpectedAnswer for one that is too large or broken. Identical reads at the same time are made once.
        """
        call = self._route(request)
        if request.method == "GET" and request.body is None:
            return await self._reads.read(request, lambda: self._send(call))
        try:
            return await self._send(call)
        finally:
            self._reads.forget()

    def _route(self, request: Request) -> _Call:
        try:
            asked = parse_origin(request.origin)
        except ValueError as error:
            raise refused(str(error)) from None
        is_platform = asked in self._platform_names
        origin = self._platform if is_platform else asked
        return _Call(request, origin, build_url(origin, request), is_platform=is_platform)

    async def _send(self, call: _Call) -> Response:
        call.end = anyio.current_time() + self._deadline
        try:
            with anyio.move_on_after(self._deadline):
                return await self._repeats.run(
                    lambda: self._attempt(call),
                    method=call.request.method,
                    seconds_left=lambda: call.end - anyio.current_time(),
                )
            raise faults.timed_out(call.request, self._deadline, in_flight=call.in_flight)
        except CallError as error:
            error.correlation_id = error.correlation_id or call.correlation_id
            raise
        except anyio.get_cancelled_exc_class():
            if call.in_flight and call.request.method != "GET":
                _log.warning(
                    "cancelled while a %s of %s was under way: it may have been carried out (correlation id %s)",
                    call.request.method,
                    call.request.path,
                    call.correlation_id,
                )
            raise

    async def _attempt(self, call: _Call) -> Response:
        """One attempt, with the one renewal and repeat that a 401 is answered by."""
        if not call.is_platform or call.brings_credential:
            return self._judge(call, await self._exchange(call, None), None)
        if self._tokens is None:
            raise NotSignedIn("No sign-in is configured for the iTwin Platform.", hint=self._remedy)
        token = await self._tokens.token()
        response = await self._exchange(call, token)
        if response.status == 401:
            renewed = await self._tokens.token(stale=token)
            if renewed.value != token.value:
                token = renewed
                response = await self._exchange(call, token)
        return self._judge(call, response, token)

    async def _exchange(self, call: _Call, token: Token | None) -> Response:
        """One request and its answer, whatever its status; an AttemptError when there is no whole one."""
        with self._watch(call.request.method, call.correlation_id) as answered:
            response = await self._send_once(call, token)
            answered(response.status)
        return response

    async def _send_once(self, call: _Call, token: Token | None) -> Response:
        if call.is_platform:
            await self._pacer.turn(call.end - anyio.current_time())
        async with self._slots:
            http = self._pools.for_origin(call.origin)
            content, described = build_body(call.request)
            given = {name.lower() for name, _ in call.headers}
            headers = [
                *call.headers,
                *((name, value) for name, value in described.items() if name.lower() not in given),
                ("X-Correlation-Id", call.correlation_id),
            ]
            if token is not None:
                headers.append(("Authorization", f"Bearer {token.value}"))
            began = anyio.current_time()
            call.in_flight = True
            failure: AttemptError | None = None
            try:
                wire = http.build_request(call.request.method, call.url, headers=headers, content=content)
                answer = await http.send(wire, stream=True)
                try:
                    whole = await read_bounded(answer.aiter_bytes(), self._max_body)
                except BodyTooLargeError as error:
                    if answer.status_code < 400:
                        raise self._too_large(call, answer) from None
                    whole = error.head[:8000]
                finally:
                    await answer.aclose()
            except httpx2.RequestError as error:
                failure = faults.failure_from(error, call.request, str(call.origin))
        if failure is not None:  # raised out here, so that it does not drag along the request with its bearer
            call.in_flight = failure.maybe_executed
            raise failure
        call.in_flight = False
        # A platform that does not say under which id it keeps the call keeps it under ours.
        said = {"x-correlation-id": call.correlation_id, **answer.headers}
        response = Response(answer.status_code, said, whole)
        milliseconds = (anyio.current_time() - began) * 1000
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

    def _judge(self, call: _Call, response: Response, token: Token | None) -> Response:
        """Pass what is below 400; tell the rest as an AttemptError and whether it may be repeated."""
        if response.status < 400:
            return response
        now = self._now()
        maybe_executed = call.in_flight = outcome_unknown(response, call.request, now)
        after = retry_after(response.headers, now)
        if not call.is_platform:
            error = foreign_error_from(response, call.request, now=now)
        else:
            error = error_from(
                response, call.request, token=token, remedy=self._remedy, platform=str(self._platform), now=now
            )
            if response.status == 429:
                self._pacer.refused(after, rate_tier(response.headers))
        raise AttemptError(
            error, transient=error.retryable or maybe_executed, maybe_executed=maybe_executed, after=after
        )

    def _too_large(self, call: _Call, answer: httpx2.Response) -> UnexpectedAnswer:
        done = "" if call.request.method == "GET" else " The change was made."
        return UnexpectedAnswer(
            f"The answer of {call.origin} is larger than {self._max_body / 1024 / 1024:.0f} MiB.",
            hint=f"Ask for less at once: a smaller page, fewer fields, a filter.{done}",
            status=answer.status_code,
        )
