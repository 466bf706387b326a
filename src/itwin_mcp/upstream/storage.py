"""Uploads and downloads files by storage links: without a bearer, to allowed hosts only, never through memory.

A link of the platform leads to another company's storage. It is trusted as little as any other answer: its host must be
one of those where the platform keeps files, it is called byte for byte because a signature covers it, and a redirect is
a refusal, because it would lead to a host that nobody checked.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import anyio
import anyio.to_thread
import httpx2

from itwin_mcp.atomic_files import FileStat, move_into_place, part_of
from itwin_mcp.errors import CallError, ErrorCode, InvalidArguments, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.messages import FileUpload
from itwin_mcp.upstream.origin import DEFAULT_PORTS, Origin, parse_origin, split_url
from itwin_mcp.upstream.redaction import redact
from itwin_mcp.upstream.retry import AttemptError, Retries
from itwin_mcp.upstream.transport import ASGIApp, Pools
from itwin_mcp.upstream.wire_format import measure_file, read_chunks, read_retry_after

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None]]
"""Called with the bytes done, which only grow, and the bytes in total or None."""

STORAGE_HOSTS = ("*.blob.core.windows.net", "storage.googleapis.com")
"""Where the platform keeps files."""
DISK_RESERVE = 64 * 1024 * 1024
"""Bytes that a download leaves free."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class Storage:
    """Uploads and downloads by links that carry their own permission. Use it as an async context manager.

    A link is a secret: no message shows more of it than its host.
    """

    def __init__(
        self,
        hosts: Sequence[str] = STORAGE_HOSTS,
        *,
        user_agent: str,
        platform: str = PLATFORM_ORIGIN,
        sandbox: ASGIApp | None = None,
        connections: int = 8,
        seconds: float = 3600.0,
        retries: Retries | None = None,
    ) -> None:
        """Create a pool for files. Nothing is connected before it is used.

        Args:
            hosts: Host names, reached by https on port 443, with `*.` for at least one label; or whole origins such as
                `http://localhost:4000`.
            sandbox: An app that answers in place of `platform`.
            seconds: The time that one file may take.
        """
        self._allowed = _build_check(hosts)
        self._pools = Pools(parse_origin(platform), sandbox, connections=connections, user_agent=user_agent)
        self._seconds = seconds
        self._retries = retries or Retries()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pools.aclose()

    async def upload(
        self,
        link: str,
        source: Path,
        *,
        headers: Sequence[tuple[str, str]] = (),
        media_type: str = "application/octet-stream",
        progress: Progress | None = None,
    ) -> int:
        """PUT the file to `link` and return its size in bytes.

        `headers` are those that the storage requires (its blob type). If the storage reports the MD5 of what it
        received, it is compared. A retry starts over, which is safe because the storage shows only whole files.

        Raises:
            InvalidArguments: The file cannot be read, or changed meanwhile.
            UnexpectedAnswer: The link cannot be used, or the storage received other bytes.
            PlatformError: The storage refused.
            Unreachable: The storage did not answer.
        """
        origin, url = self._check(link)
        size = measure_file(FileUpload(source, media_type))
        reporter = _Reporter(progress, size)

        async def attempt() -> int:
            sent = [("Content-Type", media_type), ("Content-Length", str(size)), *headers]
            summed = hashlib.md5(usedforsecurity=False)
            async with self._exchange("PUT", origin, url, sent, reporter.count(read_chunks(source), summed)) as answer:
                if not 200 <= answer.status_code < 300:
                    raise await _build_refusal(answer, origin)
                if _read_md5(answer) not in (None, summed.digest()):
                    raise _build_garbled(origin)
            return size

        return await self._run(attempt, origin)

    async def download(
        self,
        link: str,
        target: Path,
        *,
        size: int | None = None,
        digest: tuple[str, str] | None = None,
        replaces: FileStat | None = None,
        progress: Progress | None = None,
    ) -> int:
        """GET `link` into `target` and return the size in bytes. The target appears only when it is whole and verified.

        Args:
            size: The expected bytes.
            digest: The expected digest: its name for hashlib, and its hex text. An MD5 that the storage reports is
                compared, too.
            replaces: The version of the target that may be replaced. Any other file there stays.

        Raises:
            InvalidArguments: The target exists or cannot be written, or the disk is too full.
            UnexpectedAnswer: The link cannot be used, or size or digest differ.
            PlatformError: The storage refused.
            Unreachable: The storage did not answer.
        """
        origin, url = self._check(link)
        if FileStat.of(target) != replaces:
            raise _build_taken(target)
        await _check_room(target, size)
        reporter = _Reporter(progress, size)

        async def attempt(part: Path) -> int:
            async with self._exchange("GET", origin, url, [("Accept-Encoding", "identity")], None) as answer:
                if answer.status_code != 200:
                    raise await _build_refusal(answer, origin)
                announced = _read_length(answer)
                if size is not None and announced is not None and announced != size:
                    raise _build_different(f"has {announced} bytes, not {size}")
                reporter.total = size if size is not None else announced
                await _check_room(target, reporter.total)
                return await _receive(answer, part, reporter, digest)

        try:
            with part_of(target) as part:
                count = await self._run(lambda: attempt(part), origin)
                move_into_place(part, target, replaces)
        except FileExistsError:
            raise _build_taken(target) from None
        except OSError as error:
            raise _build_unusable(f"{target} cannot be written ({error.strerror})", "Choose another place.") from None
        return count

    def _check(self, link: str) -> tuple[Origin, httpx2.URL]:
        """Return the link's origin and URL, unchanged because a signature covers them. Raises UnexpectedAnswer."""
        try:
            origin, rest = split_url(link)
            url = httpx2.URL(f"{origin}{rest}")
        except (ValueError, httpx2.InvalidURL):
            raise _build_unusable_link("the storage link is not a URL", "Ask for a new link.") from None
        if not self._allowed(origin):
            raise _build_unusable_link(
                f"{origin} is not a place where the platform keeps files",
                "Take the link from the platform's own answer.",
            )
        if url.raw_path.decode("ascii") != rest:
            raise _build_unusable_link("the storage link would be changed on its way", "Ask for a new link.")
        return origin, url

    async def _run(self, attempt: Callable[[], Awaitable[int]], origin: Origin) -> int:
        end = anyio.current_time() + self._seconds
        with anyio.move_on_after(self._seconds):
            return await self._retries.run(attempt, method="GET", seconds_left=lambda: end - anyio.current_time())
        raise Unreachable(
            ErrorCode.TIMED_OUT,
            f"The file was not transferred within {self._seconds / 60:.0f} minutes.",
            hint=f"Call again. If it happens again, check the network to {origin}.",
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
            failure = _build_broken(error, origin)
        if failure is not None:
            raise failure


class Digest(Protocol):
    """A digest of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


class _Reporter:
    """Reports progress that only grows, also when a retry starts over."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self.total = total
        self._highest = -1

    async def report(self, done: int) -> None:
        if self._progress is not None and done > self._highest:
            self._highest = done
            await self._progress(done, self.total)

    async def count(self, chunks: AsyncIterator[bytes], digest: Digest) -> AsyncIterator[bytes]:
        done = 0
        async for chunk in chunks:
            yield chunk
            digest.update(chunk)
            done += len(chunk)
            await self.report(done)


async def _receive(answer: httpx2.Response, part: Path, reporter: _Reporter, digest: tuple[str, str] | None) -> int:
    """Write the body as it is stored. Raises UnexpectedAnswer if its size or a digest is not the expected one."""
    count = 0
    summed = hashlib.new(digest[0], usedforsecurity=False) if digest else None
    stored, md5 = _read_md5(answer), hashlib.md5(usedforsecurity=False)
    async with await anyio.open_file(part, "wb") as file:
        async for chunk in answer.aiter_raw():
            count += len(chunk)
            if reporter.total is not None and count > reporter.total:
                raise _build_different(f"has more than the {reporter.total} bytes that were announced")
            await file.write(chunk)
            md5.update(chunk)
            if summed is not None:
                summed.update(chunk)
            await reporter.report(count)
    if reporter.total is not None and count != reporter.total:
        raise _build_different(f"has {count} bytes, not {reporter.total}")
    if summed is not None and digest is not None and summed.hexdigest() != digest[1].lower():
        raise _build_different(f"has another {digest[0]} than expected")
    if stored not in (None, md5.digest()):
        raise _build_different("has another MD5 than the storage says")
    return count


async def _check_room(target: Path, size: int | None) -> None:
    if not target.parent.is_dir():
        raise _build_unusable(f"the folder {target.parent} does not exist", "Create it, or choose another place.")
    free = (await anyio.to_thread.run_sync(shutil.disk_usage, target.parent)).free
    if size is not None and size + DISK_RESERVE > free:
        raise _build_unusable(
            f"{size} bytes do not fit on the disk, {free} are free", "Free some space, or choose another place."
        )


def _read_md5(answer: httpx2.Response) -> bytes | None:
    """Return the MD5 of the whole file as the storage reports it (Get Blob and Put Blob: Content-MD5), if it does."""
    text = answer.headers.get("content-md5", "")
    try:
        digest = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


def _read_length(answer: httpx2.Response) -> int | None:
    length = answer.headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _build_check(hosts: Sequence[str]) -> Callable[[Origin], bool]:
    origins = frozenset(parse_origin(host) for host in hosts if "://" in host)
    names = frozenset(host.lower() for host in hosts if "://" not in host and not host.startswith("*."))
    endings = tuple(host[1:].lower() for host in hosts if host.startswith("*."))

    def allowed(origin: Origin) -> bool:
        if origin in origins:
            return True
        is_https = origin.scheme == "https" and origin.port == DEFAULT_PORTS["https"]
        return is_https and (origin.host in names or origin.host.endswith(endings))

    return allowed


async def _build_refusal(answer: httpx2.Response, origin: Origin) -> AttemptError:
    """Return the refusal with the storage's code from its XML. The XML's text names the account and the signature."""
    head = b""
    async for part in answer.aiter_bytes():
        head += part[:4096]
        if len(head) >= 4096:
            break
    match = re.search(rb"<Code>([A-Za-z0-9]{1,80})</Code>", head)
    status = answer.status_code
    code = match[1].decode("ascii") if match else f"Storage{status}"
    if status in (401, 403, 404):
        hint = (
            "The link may have expired, been used or be meant for something else. Ask for a new link, then call again."
        )
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
    after = read_retry_after(answer.headers, 0.0) if answer.headers.get("retry-after", "").isdigit() else None
    return AttemptError(error, transient=status in _TRANSIENT, maybe_executed=False, after=after)


def _build_broken(error: httpx2.RequestError, origin: Origin) -> AttemptError:
    if isinstance(error, httpx2.LocalProtocolError):
        failure: CallError = _build_unusable(
            "the file changed while it was sent", "Call again when nothing writes to it."
        )
        return AttemptError(failure, transient=False, maybe_executed=False)
    reason = redact(str(error) or type(error).__name__, 300).rstrip(".")
    failure = Unreachable(
        ErrorCode.TRANSFER_BROKEN,
        f"The transfer with {origin.host} broke: {reason}.",
        hint="Nothing is half done. Call again to start over.",
    )
    return AttemptError(failure, transient=True, maybe_executed=False)


def _build_garbled(origin: Origin) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The storage {origin.host} received other bytes than were sent.",
        hint="Call again when nothing writes to the file.",
    )


def _build_different(how: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The file {how}, so it was not saved.",
        hint="Call again. If it happens again, the platform's copy is damaged: report it to support.",
    )


def _build_taken(target: Path) -> InvalidArguments:
    return _build_unusable(
        f"{target} exists, or has changed meanwhile; it was left as it is",
        "Choose another name, or call again to have it replaced.",
    )


def _build_unusable(what: str, hint: str) -> InvalidArguments:
    return InvalidArguments(f"The file cannot be transferred: {what}.", hint=hint)


def _build_unusable_link(what: str, hint: str) -> UnexpectedAnswer:
    """Return the error for a link, which comes from the platform and not from the caller's arguments."""
    return UnexpectedAnswer(f"The file cannot be transferred: {what}.", hint=hint)
