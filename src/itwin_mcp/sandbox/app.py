"""The sandbox as an ASGI app: it authenticates each request and runs its handler in one database transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, BinaryIO, Final, Self, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Router as StarletteRouter
from starlette.types import Receive, Scope, Send

from itwin_mcp.sandbox.callers import ANONYMOUS
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.identity import access_tokens, jwt, users
from itwin_mcp.sandbox.identity.authentication import authenticate
from itwin_mcp.sandbox.rate_limit import RateLimit
from itwin_mcp.sandbox.router import Router, check_accept
from itwin_mcp.sandbox.seed import fill
from itwin_mcp.sandbox.services import JOBS, ROUTES
from itwin_mcp.sandbox.storage import blob_service, blobs
from itwin_mcp.sandbox.store import Store
from itwin_mcp.sandbox.wire import Answer, Call, Query, Stream

ALLOWED_METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
STORAGE_ORIGIN: Final = "https://storage.sandbox.invalid"
"""The origin of storage links while the sandbox listens on no port. Nobody can own this name (RFC 2606)."""
MAX_BODY_BYTES: Final = 16 << 20  # larger bodies are only accepted by routes that stream
STREAM_PIECE_BYTES: Final = 1 << 20


class Sandbox:
    """An emulated platform: one ASGI app over one SQLite database."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        job_seconds: float,
        storage_url: str,
        rate_limit: RateLimit | None,
    ) -> None:
        self.storage_url = storage_url
        self._store = store
        self._clock = clock
        self._job_seconds = job_seconds
        self._rate_limit = rate_limit
        with store.transaction(write=True) as sql:
            self._key = jwt.load_signing_key(sql, clock())
            blobs.create_signing_key(sql)
        self._router = Router(ROUTES)
        # Starlette's routes do not match an id with a line break, so route every path ourselves.
        self.app = StarletteRouter(default=_Endpoint(self), redirect_slashes=False)

    @classmethod
    def open(
        cls,
        database: Path | None = None,
        *,
        clock: Callable[[], datetime] | None = None,
        job_seconds: float = 1.0,
        storage_url: str = STORAGE_ORIGIN,
        seed: bool = True,
        rate_limit: int | None = None,
    ) -> Sandbox:
        """Open a sandbox on a database file, or in memory.

        `job_seconds` is how long asynchronous work takes. `rate_limit` is the number of requests that an application
        may send per minute; None means no limit. The database is opened here because in-process transports run no ASGI
        lifespan.
        """
        now = clock or partial(datetime.now, UTC)
        store = Store.open(database, lambda sql: _fill_store(sql, now(), portfolio=seed))
        try:
            return cls(store, now, job_seconds, storage_url, RateLimit(rate_limit) if rate_limit else None)
        except BaseException:
            store.close()
            raise

    def token(self, user: str | None = None, *, seconds: int = 3600) -> str:
        """Return an access token, without `Bearer`, that expires after `seconds`.

        `user` is an id, an e-mail address or a given name; the default is the seeded owner.

        Raises:
            UnknownUser: If no user matches.
        """
        with self._store.transaction(write=False) as sql:
            return access_tokens.issue_access_token(
                sql, self._key, users.find_user(sql, user), self._clock(), seconds=seconds
            )

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_streamed(self, request: Request) -> bool:
        """Return whether the body of a request is passed to its handler as a file, because it may be very large."""
        try:
            return self._router.match(request.method, _get_raw_path(request))[0].streams
        except ApiError:
            return False

    def read_piece(self, stream: Stream, offset: int) -> bytes:
        """Return at most 1 MiB of a streamed answer, from `offset` on."""
        with self._store.transaction(write=False) as sql:
            return stream.read(sql, offset, min(STREAM_PIECE_BYTES, stream.length - offset))

    def answer(self, request: Request, body: bytes, upload: BinaryIO | None = None) -> Answer:
        """Answer one request. A refused request changes nothing in the store."""
        try:
            path = _get_raw_path(request)
            if request.method == "TRACE":
                raise ApiError("MethodNotAllowed", headers={"Allow": ALLOWED_METHODS})
            route, slots = self._router.match(request.method, path)
            check_accept(request.headers.get("accept", ""), path)
            if len(body) > MAX_BODY_BYTES:
                raise ApiError("RequestTooLarge")
            now = self._clock()
            self._store.run_due_jobs(now, JOBS, self._job_seconds)
            writes = request.method != "GET" if route.writes is None else route.writes
            base_url = f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"
            with self._store.transaction(write=writes) as sql:
                caller = ANONYMOUS
                if route.signed_in:
                    header, by_share = request.headers.get("authorization"), route.path.startswith("/imodels")
                    caller = authenticate(sql, self._key, header, now, by_share=by_share)
                    if self._rate_limit is not None:
                        self._rate_limit.count(caller.client_id, route, now)
                call = Call(
                    sql=sql,
                    now=now,
                    caller=caller,
                    method=request.method,
                    path=path,
                    slots=slots,
                    query=Query(request.url.query),
                    headers={name.lower(): value for name, value in request.headers.items()},
                    body=body,
                    base_url=base_url,
                    storage_url=self.storage_url,
                    job_seconds=self._job_seconds,
                    upload=upload,
                )
                return route.handler(call)
        except ApiError as error:
            return Answer(error.status, error.as_json(), error.headers)


class _Endpoint:
    """The ASGI endpoint of all paths. It reads the request's body and sends the answer."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive)
        try:
            if self._sandbox.is_streamed(request):
                with SpooledTemporaryFile(max_size=MAX_BODY_BYTES) as upload:
                    await _spool(request, upload, blob_service.MAX_BLOB_BYTES)
                    answer = self._sandbox.answer(request, b"", cast("BinaryIO", upload))
            else:
                body = BytesIO()
                await _spool(request, body, MAX_BODY_BYTES)
                answer = self._sandbox.answer(request, body.getvalue())
        except ClientDisconnect:
            return  # drop the partial body; nobody waits for an answer
        headers = dict(answer.headers)
        if correlation := request.headers.get("x-correlation-id"):
            headers["X-Correlation-Id"] = correlation
        await self._make_response(answer, headers)(scope, receive, send)

    def _make_response(self, answer: Answer, headers: Mapping[str, str]) -> Response:
        body = answer.body
        if isinstance(body, Stream):
            pieces, sized_headers = self._read_pieces(body), {**headers, "Content-Length": str(body.length)}
            return StreamingResponse(pieces, answer.status, sized_headers, answer.media_type)
        if body is None:
            return Response(status_code=answer.status, headers=headers)
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return Response(body, answer.status, headers, answer.media_type)

    async def _read_pieces(self, stream: Stream) -> AsyncIterator[bytes]:
        for offset in range(0, stream.length, STREAM_PIECE_BYTES):
            yield self._sandbox.read_piece(stream, offset)


async def _spool(request: Request, target: IO[bytes], limit: int) -> None:
    """Copy the body into `target`, stopping as soon as it is longer than `limit` bytes."""
    size = 0
    async for piece in request.stream():
        target.write(piece[: limit + 1 - size])
        size += len(piece)
        if size > limit:
            break
    target.seek(0)


def _get_raw_path(request: Request) -> str:
    # Some ASGI transports leave the query in raw_path.
    raw: bytes | None = request.scope.get("raw_path")
    return raw.split(b"?")[0].decode("latin-1") if raw else request.url.path


def _fill_store(sql: sqlite3.Connection, now: datetime, *, portfolio: bool) -> None:
    fill.fill_foundation(sql, now)
    if portfolio:
        fill.fill_portfolio(sql, now)
