"""The emulated platform itself: routing, one transaction around each request, errors in the platform's envelope.

A new entity module plugs in by one line in `MODULES`: its `ROUTES`, and its `JOBS` if it has any.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import ModuleType, TracebackType
from typing import IO, BinaryIO, Final, Self, cast
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Router as StarletteRouter
from starlette.types import Receive, Scope, Send

from itwin_mcp.sandbox import (
    access_control,
    baseline_files,
    briefcases,
    changeset_groups,
    changeset_push,
    changesets,
    checkpoints,
    creation,
    exports,
    extended_data,
    files,
    global_repositories,
    identity,
    images,
    imodel_lists,
    imodels,
    itwin_lists,
    itwins,
    locks,
    named_versions,
    openid,
    people,
    permissions,
    repositories,
    repository_resources,
    seed,
    shares,
    start_page,
    storage,
    thumbnails,
    tokens,
)
from itwin_mcp.sandbox.errors import ApiError, resource_not_found
from itwin_mcp.sandbox.operations import OPERATIONS, Operation
from itwin_mcp.sandbox.rate_limit import RateLimit
from itwin_mcp.sandbox.store import JobHandler, Store
from itwin_mcp.sandbox.wire import Answer, Call, Query, Route, Stream

MODULES: Final[tuple[ModuleType, ...]] = (
    itwins,
    itwin_lists,
    imodels,
    creation,
    changesets,
    changeset_push,
    extended_data,
    changeset_groups,
    named_versions,
    checkpoints,
    briefcases,
    locks,
    people,
    exports,
    repositories,
    repository_resources,
    global_repositories,
    access_control,
    openid,
    tokens,
    start_page,
    storage,
    baseline_files,
    images,
    thumbnails,
    imodel_lists,
    shares,
    permissions,
)

VERSIONS: Final[Mapping[str, str]] = {"itwins": "v1", "imodels": "v2", "accesscontrol": "v2"}
WHOLE_APIS: Final = frozenset({"itwins", "imodels"})
VENDOR: Final = "application/vnd.bentley."
METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
STORAGE_ORIGIN: Final = "https://storage.sandbox.invalid"
"""Where storage links lead while the sandbox listens on no port. Nobody can own the name (RFC 2606)."""
MOST_BODY: Final = 16 << 20  # of a request that is read into memory
PIECE: Final = 1 << 20


@dataclass(slots=True)
class _Node:
    """One position in the paths: literal words first, then the slot."""

    words: dict[str, _Node] = field(default_factory=dict)
    slot: _Node | None = None
    known: bool = False
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)

    def find(self, segments: tuple[str, ...]) -> tuple[_Node, tuple[str, ...]] | None:
        """The node of a path and the values in its slots; a literal segment wins over a slot."""
        if not segments:
            return (self, ()) if self.known else None
        head, rest = segments[0], segments[1:]
        following = self.words.get(head.lower())
        if following is not None and (found := following.find(rest)) is not None:
            return found
        if self.slot is not None and head and (found := self.slot.find(rest)) is not None:
            return found[0], (head, *found[1])
        return None


class Router:
    """All routes; a documented path that nobody serves is known too, so that `exports` is never taken for an id."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        documented = {operation.slug: operation for operation in OPERATIONS}
        for operation in OPERATIONS:
            self._node(operation.path)
        for route in routes:
            if route.slug and _shape(route.method, route.path) != _shape_of(documented[route.slug]):
                raise ValueError(f"{route.slug} is documented as {documented[route.slug]}, not as {route.path}")
            node, names = self._node(route.path)
            if route.method in node.routes:
                raise ValueError(f"{route.method} {route.path} is served twice")
            node.routes[route.method] = (route, names)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route for a raw path, in any case, with or without a trailing slash."""
        # Split before decoding: a slash inside an id stays inside it.
        segments = tuple(unquote(part) for part in path.removesuffix("/").split("/")[1:])
        found = self._root.find(segments)
        served = found[0].routes.get(method) if found else None
        if found is None or served is None:
            raise _unknown_operation(method, segments, path)
        route, names = served
        return route, dict(zip(names, found[1], strict=True))

    def _node(self, path: str) -> tuple[_Node, tuple[str, ...]]:
        node, names = self._root, []
        for part in path.removesuffix("/").split("/")[1:]:
            if part.startswith("{"):
                names.append(part[1:-1])
                node.slot = node.slot or _Node()
                node = node.slot
            else:
                node = node.words.setdefault(part.lower(), _Node())
        node.known = True
        return node, tuple(names)


def _unknown_operation(method: str, segments: tuple[str, ...], path: str) -> ApiError:
    """Return the refusal of a request that no operation serves.

    The APIs whose operations are all emulated answer as the platform's gateway does. Of any other path we cannot say
    what the platform has there.
    """
    if segments and segments[0].lower() in WHOLE_APIS:
        return resource_not_found()
    return ApiError("NotEmulated", f"{method} {unquote(path)} is not emulated by this sandbox.")


def check_accept(accept: str, path: str) -> None:
    """Refuse an Accept header that names only other versions of the API than the emulated one.

    A client that names no version, as Bentley's own does for iTwins, gets the emulated one.
    """
    version = VERSIONS.get(path.split("/")[1].lower())
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    names_versions = all(media_type.startswith(VENDOR) for media_type in accepted)
    if version is not None and names_versions and f"{VENDOR}itwin-platform.{version}+json" not in accepted:
        raise resource_not_found()


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the sandbox does of one documented operation: `emulated`, `partly` (see `missing`) or `not`."""

    operation: Operation
    status: str
    missing: str


def coverage(modules: Iterable[ModuleType] = MODULES) -> tuple[Coverage, ...]:
    """Every documented operation with what is emulated of it, as the routes have it."""
    served = {route.slug: route for module in modules for route in module.ROUTES}
    found: list[Coverage] = []
    for operation in OPERATIONS:
        route = served.get(operation.slug)
        status = "not" if route is None else "partly" if route.missing else "emulated"
        found.append(Coverage(operation, status, route.missing if route else ""))
    return tuple(found)


class Sandbox:
    """The emulated platform: one ASGI app over one SQLite database."""

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
            self._key = identity.signing_key(sql, clock())
            files.prepare(sql)
        self._router = Router(route for module in MODULES for route in module.ROUTES)
        self._jobs: dict[str, JobHandler] = {}
        for module in MODULES:
            self._jobs |= getattr(module, "JOBS", {})
        # Starlette's own routes would miss a path with a line break in an id, so all of them are ours.
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
        """Open the store here, not in a lifespan: in-process transports run none.

        `rate_limit` is how many requests a minute an application may send; without it there is no limit.
        """
        now = clock or _wall_clock
        store = Store.open(database, lambda sql: _fill(sql, now(), portfolio=seed))
        try:
            return cls(store, now, job_seconds, storage_url, RateLimit(rate_limit) if rate_limit else None)
        except BaseException:
            store.close()
            raise

    def token(self, user: str | None = None, *, seconds: int = 3600) -> str:
        """An access token, without `Bearer`, for a user by id, e-mail or given name; the seeded owner by default."""
        with self._store.transaction(write=False) as sql:
            return identity.issue(sql, self._key, identity.find_user(sql, user), self._clock(), seconds=seconds)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def streams(self, request: Request) -> bool:
        """Whether the body of this request may be too large for memory."""
        try:
            return self._router.match(request.method, _path(request))[0].streams
        except ApiError:
            return False

    def part(self, stream: Stream, offset: int) -> bytes:
        """One piece of an answer too large for memory."""
        with self._store.transaction(write=False) as sql:
            return stream.read(sql, offset, min(PIECE, stream.length - offset))

    def answer(self, request: Request, body: bytes, upload: BinaryIO | None = None) -> Answer:
        """One request from its route to its answer; a refusal leaves no trace in the store."""
        try:
            path = _path(request)
            if request.method == "TRACE":
                raise ApiError("MethodNotAllowed", headers={"Allow": METHODS})
            route, slots = self._router.match(request.method, path)
            check_accept(request.headers.get("accept", ""), path)
            if len(body) > MOST_BODY:
                raise ApiError("RequestTooLarge")
            now = self._clock()
            self._store.settle(now, self._jobs, self._job_seconds)
            writes = request.method != "GET" if route.writes is None else route.writes
            base_url = f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"
            with self._store.transaction(write=writes) as sql:
                caller = identity.NOBODY
                if route.signed_in:
                    header, by_share = request.headers.get("authorization"), route.path.startswith("/imodels")
                    caller = identity.authenticate(sql, self._key, header, now, by_share=by_share)
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
    """The one ASGI endpoint: bytes in, bytes out."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive)
        try:
            if self._sandbox.streams(request):
                with SpooledTemporaryFile(max_size=MOST_BODY) as upload:
                    await _spool(request, upload, storage.MOST_BYTES)
                    answer = self._sandbox.answer(request, b"", cast("BinaryIO", upload))
            else:
                body = BytesIO()
                await _spool(request, body, MOST_BODY)
                answer = self._sandbox.answer(request, body.getvalue())
        except ClientDisconnect:
            return  # what came of the body is forgotten, and nobody waits for an answer
        headers = dict(answer.headers)
        if correlation := request.headers.get("x-correlation-id"):
            headers["X-Correlation-Id"] = correlation
        await self._response(answer, headers)(scope, receive, send)

    def _response(self, answer: Answer, headers: Mapping[str, str]) -> Response:
        if isinstance(answer.body, Stream):
            pieces = self._pieces(answer.body)
            sized = {**headers, "Content-Length": str(answer.body.length)}
            return StreamingResponse(pieces, status_code=answer.status, headers=sized, media_type=answer.media_type)
        return _response(answer, headers)

    async def _pieces(self, stream: Stream) -> AsyncIterator[bytes]:
        for offset in range(0, stream.length, PIECE):
            yield self._sandbox.part(stream, offset)


async def _spool(request: Request, into: IO[bytes], most: int) -> None:
    """Read the body, but no further than it takes to know that it is larger than `most`."""
    size = 0
    async for piece in request.stream():
        into.write(piece[: most + 1 - size])
        size += len(piece)
        if size > most:
            break
    into.seek(0)


def _path(request: Request) -> str:
    # raw_path may hold the query too (httpx's ASGI transport strips it, others do not).
    raw: bytes | None = request.scope.get("raw_path")
    return raw.split(b"?")[0].decode("latin-1") if raw else request.url.path


def _response(answer: Answer, headers: Mapping[str, str]) -> Response:
    if answer.body is None or isinstance(answer.body, Stream):
        return Response(status_code=answer.status, headers=headers)
    content = answer.body
    if not isinstance(content, bytes):
        content = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, status_code=answer.status, headers=headers, media_type=answer.media_type)


def _shape(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    return method, tuple("{}" if part.startswith("{") else part for part in path.split("/"))


def _shape_of(operation: Operation) -> tuple[str, tuple[str, ...]]:
    return _shape(operation.method, operation.path)


def _fill(sql: sqlite3.Connection, now: datetime, *, portfolio: bool) -> None:
    seed.foundation(sql, now)
    if portfolio:
        seed.contents(sql, now)


def _wall_clock() -> datetime:
    return datetime.now(UTC)
