"""The client that every request goes through: authenticated by origin, bounded, paced and retried."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self, TypeAlias

import anyio
import httpx2

from itwin_mcp.errors import CallError, NotSignedIn, UnexpectedAnswer
from itwin_mcp.settings import DEFAULT_DEADLINE, PLATFORM_ORIGIN
from itwin_mcp.upstream import hints, network_errors
from itwin_mcp.upstream.messages import Request, Response
from itwin_mcp.upstream.origin import Origin, parse_origin
from itwin_mcp.upstream.platform_errors import build_foreign_error, build_platform_error, is_outcome_unknown
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
    read_retry_after,
)

MAX_BODY = 10 * 1024 * 1024
"""Decoded bytes."""

Answered: TypeAlias = Callable[[int], None]
"""Called with the status of the answer; not called if there is none."""
Watch: TypeAlias = Callable[[str, str], AbstractContextManager[Answered]]
"""Called with the method and the correlation id of one request, and entered around it. It learns nothing else."""

_log = logging.getLogger("itwin_mcp.upstream")


@contextmanager
def unwatched(_method: str, _correlation_id: str) -> Iterator[Answered]:
    """Watch nothing."""
    yield lambda _status: None


class _Call:
    """The state of one `send`."""

    def __init__(
        self, request: Request, origin: Origin, url: httpx2.URL, headers: list[tuple[str, str]], *, is_platform: bool
    ) -> None:
        self.request = request
        self.origin = origin
        self.url = url
        self.is_platform = is_platform
        self.headers = headers
        self.brings_credential = any(name.lower() == "authorization" for name, _ in self.headers)
        self.correlation_id = str(uuid.uuid4())
        self.in_flight = False
        """Whether the server may be carrying out the request, or may have done so without an answer."""
        self.end = math.inf
        """The deadline, by the event loop's clock."""


class UpstreamClient:
    """Sends requests and returns whole answers, or raises CallError. Use it as an async context manager."""

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
            tokens: The credential for the platform, and for no other origin.
            sandbox: An app that answers in place of the platform.
            user_agent: The `User-Agent` of every request.
            deadline: Seconds that each `send` may take, including retries and waiting.
            max_body: The decoded bytes that an answer may have.
            concurrency: The number of requests at once.
            rate_per_minute: The rate of requests to the platform. Without it pacing begins at the first 429.
            remedy: How to sign in, for the hint of NotSignedIn.
            nouns: The kinds of things that hints can name.
            watch: Observes every request.
            retries, pacer, now: Replaced by tests; `now` returns seconds since 1970.

        Raises: ValueError if `platform` is not an origin.
        """
        self._platform = parse_origin(platform)
        self._platform_names = frozenset({self._platform, parse_origin(PLATFORM_ORIGIN)})
        self._tokens = tokens
        self._pools = Pools(self._platform, sandbox, connections=concurrency, user_agent=user_agent)
        self._deadline = deadline
        self._max_body = max_body
        self._slots = anyio.CapacityLimiter(concurrency)
        self._pacer = pacer or Pacer(rate_per_minute)
        self._retries = retries or Retries()
        self._remedy = remedy
        self._nouns = tuple(nouns)
        self._watch = watch
        self._now = now

    async def __aenter__(self) -> Self:
        return self

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
            Unreachable: No whole answer came.
            UnexpectedAnswer: The answer is too large or broken.
        """
        call = self._route(request)
        call.end = anyio.current_time() + self._deadline
        self._retries.budget.calls += 1
        try:
            with anyio.move_on_after(self._deadline):
                try:
                    return await self._attempt(call)
                except AttemptError as failed:
                    failure = failed
                return await self._retries.repeat(
                    failure,
                    lambda: self._attempt(call),
                    method=call.request.method,
                    seconds_left=lambda: call.end - anyio.current_time(),
                )
            raise network_errors.build_timeout(
                call.request, self._deadline, self._find_noun(call), in_flight=call.in_flight
            )
        except CallError as error:
            raise error.amended(correlation_id=call.correlation_id) from None
        except anyio.get_cancelled_exc_class():
            if call.in_flight and call.request.method != "GET":
                _log.warning(
                    "cancelled while a %s of %s was under way: it may have been carried out (correlation id %s)",
                    call.request.method,
                    call.request.path,
                    call.correlation_id,
                )
            raise

    def _route(self, request: Request) -> _Call:
        try:
            asked = parse_origin(request.origin)
        except ValueError as error:
            raise build_unsendable(str(error)) from None
        is_platform = asked in self._platform_names
        origin = self._platform if is_platform else asked
        return _Call(request, origin, build_url(origin, request), build_headers(request), is_platform=is_platform)

    async def _attempt(self, call: _Call) -> Response:
        """Make one attempt. After a 401 the token is renewed and the request sent once more."""
        if not call.is_platform or call.brings_credential:
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
        """Return the answer to one request, whatever its status. Raises AttemptError if there is no whole one."""
        with self._watch(call.request.method, call.correlation_id) as answered:
            response = await self._send_once(call, token)
            answered(response.status)
        return response

    async def _send_once(self, call: _Call, token: Token | None) -> Response:
        if call.is_platform and self._pacer.is_active:
            await self._pacer.wait_turn(call.end - anyio.current_time())
        async with self._slots:
            content, described = build_body(call.request)
            present = {name.lower() for name, _ in call.headers}
            headers = [
                *call.headers,
                *((name, value) for name, value in described.items() if name.lower() not in present),
                ("X-Correlation-Id", call.correlation_id),
            ]
            if token is not None:
                headers.append(("Authorization", f"Bearer {token.value}"))
            http = self._pools.for_origin(call.origin)
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
                failure = network_errors.build_failure(error, call.request, str(call.origin), self._find_noun(call))
        if failure is not None:  # outside of the handler, or its context would drag along the request and its bearer
            call.in_flight = failure.maybe_executed
            raise failure
        call.in_flight = False
        # An answer without a correlation id was logged by the platform under ours.
        answer_headers = {"x-correlation-id": call.correlation_id, **answer.headers}
        response = Response(answer.status_code, answer_headers, whole)
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

    def _find_noun(self, call: _Call) -> hints.Noun | None:
        """Return what a request is about, as its path says."""
        origin = PLATFORM_ORIGIN if call.is_platform else call.request.origin
        return hints.find_noun(self._nouns, origin, call.request.path)

    def _judge(self, call: _Call, response: Response, token: Token | None) -> Response:
        """Return an answer below 400. Raises AttemptError for any other, which says whether it may be retried."""
        if response.status < 400:
            return response
        now = self._now()
        maybe_executed = call.in_flight = is_outcome_unknown(response, call.request, now)
        after = read_retry_after(response.headers, now)
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
                self._pacer.slow_down(after, read_rate_tier(response.headers))
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
