"""Files to and from storage links: no bearer, own pool, allowed hosts, never through memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import anyio
import anyio.to_thread
import httpx2

from itwin_mcp.errors import CallError, InvalidArguments, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.upstream.encoding import file_chunks, file_size
from itwin_mcp.upstream.envelope import retry_after
from itwin_mcp.upstream.naming import Standing, put_in_place
from itwin_mcp.upstream.origin import DEFAULT_PORTS, Origin, parse_origin, split_url
from itwin_mcp.upstream.redaction import clean_text, foreign_text
from itwin_mcp.upstream.retry import AttemptError, Repeats
from itwin_mcp.upstream.transport import ASGIApp, Pools
from itwin_mcp.upstream.wire import FileBody

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None]]
"""Told `(bytes done, bytes in total or None)`; the first number only grows."""

STORAGE_HOSTS = ("*.blob.core.windows.net", "storage.googleapis.com")
"""Where the platform keeps files."""
DISK_RESERVE = 64 * 1024 * 1024
"""Bytes that a download leaves free."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class Storage:
    """Uploads and downloads by links that carry their own permission. Open it with `open`.

    A link is a secret: no message shows more of it than its host.
    """

    def __init__(self, allowed: Callable[[Origin], bool], pools: Pools, *, seconds: float, repeats: Repeats) -> None:
        self._allowed = allowed
        self._pools = pools
        self._seconds = seconds
        self._repeats = repeats

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        hosts: Sequence[str] = STORAGE_HOSTS,
        *,
        user_agent: str,
        platform: str = "https://api.bentley.com",
        sandbox: ASGIApp | None = None,
        connections: int = 8,
        seconds: float = 3600.0,
        repeats: Repeats | None = None,
    ) -> AsyncIterator[Storage]:
        """Open a pool for files; nothing is connected before it is used.

        `hosts` are host names, `*.` standing for at least one label, reached by https on port 443; or whole origins
        such as `http://localhost:4000`. `sandbox` answers in place of `platform`. `seconds` bounds one file.
        """
        allowed = _allowance(hosts)
        async with Pools(parse_origin(platform), sandbox, connections=connections, user_agent=user_agent) as pools:
            yield cls(allowed, pools, seconds=seconds, repeats=repeats or Repeats())

    async def upload(
        self,
        link: str,
        source: Path,
        *,
        headers: Sequence[tuple[str, str]] = (),
        media_type: str = "application/octet-stream",
        progress: Progress | None = None,
    ) -> int:
        """PUT the file to `link` and give its size in bytes; `headers` are what the storage asks for (its blob type).

        Where the storage says the MD5 of what it received, it is compared. UnexpectedAnswer when the
        link cannot be used, InvalidArguments when the file cannot, PlatformError when the storage refuses, Unreachable
        when it does not answer. A repeat begins anew: the storage shows a file only when it is whole.
        """
        origin, url = self._check(link)
        size = file_size(FileBody(source, media_type))
        told = _Told(progress, size)

        async def attempt() -> int:
            sent = [("Content-Type", media_type), ("Content-Length", str(size)), *headers]
            summed = hashlib.md5(usedforsecurity=False)
            async with self._exchange("PUT", origin, url, sent, told.counted(file_chunks(source), summed)) as answer:
                if not 200 <= answer.status_code < 300:
                    raise await _refusal(answer, origin)
                if _stored_md5(answer) not in (None, summed.digest()):
                    raise _garbled(origin)
            return size

        return await self._run(attempt, origin)

    async def download(
        self,
        link: str,
        target: Path,
        *,
        size: int | None = None,
        digest: tuple[str, str] | None = None,
        replaces: Standing | None = None,
        progress: Progress | None = None,
    ) -> int:
        """GET `link` into `target` and give the size in bytes; `target` appears only when the file is whole and right.

        `replaces` is the file that may be replaced there: without it, or once that is another, what is there stays.
        `size` in bytes and `digest` as (name for hashlib, hex text) are compared where given, and the MD5 where the
        storage says it. InvalidArguments when the target exists, cannot be written or the disk is too small;
        UnexpectedAnswer when size or digest differ.
        """
        origin, url = self._check(link)
        if Standing.at(target) != replaces:
            raise _taken(target)
        await _make_room(target, size)
        told = _Told(progress, size)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")

        async def attempt() -> int:
            async with self._exchange("GET", origin, url, [("Accept-Encoding", "identity")], None) as answer:
                if answer.status_code != 200:
                    raise await _refusal(answer, origin)
                announced = _announced(answer)
                if size is not None and announced is not None and announced != size:
                    raise _differs(f"has {announced} bytes, not {size}")
                told.total = size if size is not None else announced
                await _make_room(target, told.total)
                return await _receive(answer, beside, told, digest)

        try:
            count = await self._run(attempt, origin)
            put_in_place(beside, target, replaces)
        except FileExistsError:
            raise _taken(target) from None
        except OSError as error:
            raise _unusable(f"{target} cannot be written ({error.strerror})", "Choose another place.") from None
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
        return count

    def _check(self, link: str) -> tuple[Origin, httpx2.URL]:
        """The link's origin and URL, byte for byte: a signature covers them."""
        try:
            origin, rest = split_url(link)
            url = httpx2.URL(f"{origin}{rest}")
        except (ValueError, httpx2.InvalidURL):
            raise _unusable_link("the storage link is no URL", "Ask for a new link.") from None
        if not self._allowed(origin):
            raise _unusable_link(
                f"{origin} is not a place where the platform keeps files",
                "Take the link from the platform's own answer.",
            )
        if url.raw_path.decode("ascii") != rest:
            raise _unusable_link("the storage link would be changed on its way", "Ask for a new link.")
        return origin, url

    async def _run(self, attempt: Callable[[], Awaitable[int]], origin: Origin) -> int:
        end = anyio.current_time() + self._seconds
        with anyio.move_on_after(self._seconds):
            return await self._repeats.run(attempt, method="GET", seconds_left=lambda: end - anyio.current_time())
        raise Unreachable(
            "TimedOut",
            f"The file was not through after {self._seconds / 60:.0f} minutes.",
            hint=f"Call again; if it stays, look at the way to {origin}.",
        )

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        origin: Origin,
        url: httpx2.URL,
        headers: list[tuple[str, str]],
        content: AsyncIterator[bytes] | None,
    ) -> AsyncIterator[httpx2.Response]:
        http = self._pools.for_origin(origin)
        failure: AttemptError | None = None
        try:
            request = http.build_request(method, url, headers=headers, content=content)
            answer = await http.send(request, stream=True)
            try:
                yield answer
            finally:
                await answer.aclose()
        except httpx2.RequestError as error:
            failure = _broken(error, origin)
        if failure is not None:
            raise failure


class Summed(Protocol):
    """A digest under way."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""


class _Told:
    """Tells progress so that it only grows, also when a repeat begins anew."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self.total = total
        self._highest = -1

    async def tell(self, done: int) -> None:
        if self._progress is not None and done > self._highest:
            self._highest = done
            await self._progress(done, self.total)

    async def counted(self, chunks: AsyncIterator[bytes], summed: Summed) -> AsyncIterator[bytes]:
        done = 0
        async for chunk in chunks:
            yield chunk
            summed.update(chunk)
            done += len(chunk)
            await self.tell(done)


async def _receive(answer: httpx2.Response, beside: Path, told: _Told, digest: tuple[str, str] | None) -> int:
    """Write the body as it is stored, counting and hashing; UnexpectedAnswer when it is not what was promised."""
    count = 0
    summed = hashlib.new(digest[0], usedforsecurity=False) if digest else None
    stored, md5 = _stored_md5(answer), hashlib.md5(usedforsecurity=False)
    async with await anyio.open_file(beside, "wb") as file:
        async for chunk in answer.aiter_raw():
            count += len(chunk)
            if told.total is not None and count > told.total:
                raise _differs(f"has more than the {told.total} bytes that were announced")
            await file.write(chunk)
            md5.update(chunk)
            if summed is not None:
                summed.update(chunk)
            await told.tell(count)
    if told.total is not None and count != told.total:
        raise _differs(f"has {count} bytes, not {told.total}")
    if summed is not None and digest is not None and summed.hexdigest() != digest[1].lower():
        raise _differs(f"has another {digest[0]} than expected")
    if stored not in (None, md5.digest()):
        raise _differs("has another MD5 than the storage says")
    return count


async def _make_room(target: Path, size: int | None) -> None:
    if not target.parent.is_dir():
        raise _unusable(f"the folder {target.parent} does not exist", "Create it, or choose another place.")
    free = (await anyio.to_thread.run_sync(shutil.disk_usage, target.parent)).free
    if size is not None and size + DISK_RESERVE > free:
        raise _unusable(
            f"{size} bytes do not fit on the disk, {free} are free", "Free some space, or choose another place."
        )


def _stored_md5(answer: httpx2.Response) -> bytes | None:
    """What the storage says that the whole file sums to (Get Blob and Put Blob: Content-MD5); None if it does not."""
    text = answer.headers.get("content-md5", "")
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return found if len(found) == 16 else None


def _announced(answer: httpx2.Response) -> int | None:
    length = answer.headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _allowance(hosts: Sequence[str]) -> Callable[[Origin], bool]:
    origins = frozenset(parse_origin(host) for host in hosts if "://" in host)
    names = frozenset(host.lower() for host in hosts if "://" not in host and not host.startswith("*."))
    endings = tuple(host[1:].lower() for host in hosts if host.startswith("*."))

    def allowed(origin: Origin) -> bool:
        if origin in origins:
            return True
        by_the_book = origin.scheme == "https" and origin.port == DEFAULT_PORTS["https"]
        return by_the_book and (origin.host in names or origin.host.endswith(endings))

    return allowed


async def _refusal(answer: httpx2.Response, origin: Origin) -> AttemptError:
    """The storage's own code from its XML; its text names the account and the signature, so it stays out."""
    head = b""
    async for part in answer.aiter_bytes():
        head += part[:4096]
        if len(head) >= 4096:
            break
    found = re.search(rb"<Code>([A-Za-z0-9]{1,80})</Code>", head)
    status = answer.status_code
    code = found[1].decode("ascii") if found else f"Storage{status}"
    if status in (401, 403, 404):
        hint = "The link may be over, already used or meant for something else. Ask for a new link, then call again."
    elif status in _TRANSIENT:
        hint = "Call again in a while."
    else:
        hint = "Ask for a new link, then call again."
    error = PlatformError(
        code,
        f"The storage {origin.host} refused the file: {status} {clean_text(answer.reason_phrase, 100)}.",
        hint=hint,
        status=status,
        retryable=status in _TRANSIENT,
    )
    after = retry_after(answer.headers, 0.0) if answer.headers.get("retry-after", "").isdigit() else None
    return AttemptError(error, transient=status in _TRANSIENT, maybe_executed=False, after=after)


def _broken(error: httpx2.RequestError, origin: Origin) -> AttemptError:
    if isinstance(error, httpx2.LocalProtocolError):
        failure: CallError = _unusable("the file changed while it was sent", "Call again when nothing writes to it.")
        return AttemptError(failure, transient=False, maybe_executed=False)
    said = foreign_text(str(error) or type(error).__name__, 300).rstrip(".")
    failure = Unreachable(
        "TransferBroken",
        f"The transfer with {origin.host} broke: {said}.",
        hint="Nothing is half done: call again and it begins anew.",
    )
    return AttemptError(failure, transient=True, maybe_executed=False)


def _garbled(origin: Origin) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The storage {origin.host} received other bytes than were sent.",
        hint="Call again when nothing writes to the file.",
    )


def _differs(how: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The file {how}; it was not kept.",
        hint="Call again; if it stays, the platform's copy is damaged: tell support.",
    )


def _taken(target: Path) -> InvalidArguments:
    return _unusable(
        f"{target} exists, or has changed meanwhile; it was left as it is",
        "Choose another name, or call again to have it replaced.",
    )


def _unusable(what: str, hint: str) -> InvalidArguments:
    return InvalidArguments(f"The file cannot be transferred: {what}.", hint=hint)


def _unusable_link(what: str, hint: str) -> UnexpectedAnswer:
    """The platform gives the links, so the caller's arguments are not to blame."""
    return UnexpectedAnswer(f"The file cannot be transferred: {what}.", hint=hint)
