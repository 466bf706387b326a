"""Uploads and downloads files by storage links: without a token, to allowed hosts only, and streamed.

A link of the platform leads to the storage of another company. Like any other answer it is not trusted: its host must
be one of the allowed hosts. The link is called unchanged, because a signature covers it. A redirect counts as a
refusal, because it would lead to a host that was not checked.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import anyio
import anyio.to_thread
import httpx2

from itwin_mcp.atomic_files import FileStat, move_into_place, part_of
from itwin_mcp.errors import ErrorCode, InvalidArguments, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.origin import DEFAULT_PORTS, Origin, parse_origin, split_url
from itwin_mcp.upstream.redaction import redact
from itwin_mcp.upstream.retry import AttemptError, Retries
from itwin_mcp.upstream.transport import ASGIApp, BodyTooLargeError, Pools, read_bounded
from itwin_mcp.upstream.wire_format import measure_file, read_chunks, read_retry_after

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None]]
"""Called with the bytes transferred so far, which never decrease, and the total bytes or None."""

STORAGE_HOSTS = ("*.blob.core.windows.net", "storage.googleapis.com")
"""The hosts where the platform stores files."""
DISK_RESERVE = 64 * 1024 * 1024
"""Bytes that a download leaves free on the disk."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class Storage(AbstractAsyncContextManager["Storage"]):
    """Uploads and downloads files by signed links. Use it as an async context manager.

    A link is a secret, so messages show only its host.
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
        """Create a storage client. It connects when it is first used.

        Args:
            hosts: The allowed hosts: names, reached by https on port 443, where a leading `*.` stands for at least one
                label; or origins such as `http://localhost:4000`.
            sandbox: An app that answers in place of `platform`.
            seconds: The time limit for one file.
        """
        self._allowed = _build_host_check(hosts)
        self._pools = Pools(parse_origin(platform), sandbox, connections=connections, user_agent=user_agent)
        self._seconds = seconds
        self._retries = retries or Retries()

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

        `headers` are those that the storage requires, such as its blob type. If the storage reports an MD5 of the
        received bytes, it is verified. A retry starts over, which is safe because a partial upload leaves no file.

        Raises:
            InvalidArguments: The file cannot be read, or changed during the upload.
            UnexpectedAnswer: The link cannot be used, or the storage received other bytes.
            PlatformError: The storage refused.
            Unreachable: The storage did not answer.
        """
        origin, url = self._check(link)
        size = measure_file(source)
        reporter = _Reporter(progress, size)
        all_headers = [("Content-Type", media_type), ("Content-Length", str(size)), *headers]

        async def attempt() -> int:
            md5 = hashlib.md5(usedforsecurity=False)
            content = reporter.follow(read_chunks(source), md5.update)
            async with self._exchange("PUT", origin, url, all_headers, content) as answer:
                if not 200 <= answer.status_code < 300:
                    raise await _build_refusal(answer, origin)
                if _read_md5(answer) not in (None, md5.digest()):
                    raise UnexpectedAnswer(
                        f"The storage {origin.host} received other bytes than were sent.",
                        hint="Call again when nothing writes to the file.",
                    )
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
        """GET `link` into `target` and return its size in bytes. The target appears once it is complete and verified.

        Args:
            size: The expected size in bytes.
            digest: The expected digest: its name for hashlib, and its hex text. An MD5 that the storage reports is
                verified too.
            replaces: The version of the target that may be replaced. Any other existing file is kept.

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
                # The transport has rejected any other text than digits.
                announced = int(answer.headers["content-length"]) if "content-length" in answer.headers else None
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
        """Return the link's origin and URL. Raises UnexpectedAnswer if it is malformed or its host is not allowed."""
        try:
            origin, target = split_url(link)
            url = httpx2.URL(f"{origin}{target}")
        except (ValueError, httpx2.InvalidURL):
            raise _build_unusable_link("the storage link is not a URL", "Ask for a new link.") from None
        if not self._allowed(origin):
            raise _build_unusable_link(
                f"{origin} is not a place where the platform keeps files",
                "Take the link from the platform's own answer.",
            )
        if url.raw_path.decode("ascii") != target:  # a signature covers the link
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
            # Raised outside of the handler: an exception's context would keep the request with its signed link.
            raise failure


class _Reporter:
    """Reports progress. After a retry it reports nothing until the previous progress is exceeded."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self.total = total
        self._highest = -1

    async def report(self, done: int) -> None:
        if self._progress is not None and done > self._highest:
            self._highest = done
            await self._progress(done, self.total)

    async def follow(
        self, chunks: AsyncIterator[bytes], add_to_digest: Callable[[bytes], None]
    ) -> AsyncIterator[bytes]:
        """Yield the chunks, and report each one after it was sent."""
        done = 0
        async for chunk in chunks:
            yield chunk
            add_to_digest(chunk)
            done += len(chunk)
            await self.report(done)


async def _receive(answer: httpx2.Response, part: Path, reporter: _Reporter, digest: tuple[str, str] | None) -> int:
    """Write the body to `part` without decompressing it, and return its size.

    `digest` is the name and the hex text of the expected digest.

    Raises: UnexpectedAnswer if the size or a digest is not the expected one.
    """
    count = 0
    md5 = hashlib.md5(usedforsecurity=False)
    computed = None if digest is None else hashlib.new(digest[0], usedforsecurity=False)
    async with await anyio.open_file(part, "wb") as file:
        async for chunk in answer.aiter_raw():
            count += len(chunk)
            if reporter.total is not None and count > reporter.total:
                raise _build_different(f"has more than the {reporter.total} bytes that were announced")
            await file.write(chunk)
            md5.update(chunk)
            if computed is not None:
                computed.update(chunk)
            await reporter.report(count)
    if reporter.total is not None and count != reporter.total:
        raise _build_different(f"has {count} bytes, not {reporter.total}")
    if computed is not None and digest is not None and computed.hexdigest() != digest[1].lower():
        raise _build_different(f"has another {digest[0]} than expected")
    if _read_md5(answer) not in (None, md5.digest()):
        raise _build_different("has another MD5 than the storage says")
    return count


async def _check_room(target: Path, size: int | None) -> None:
    """Raise InvalidArguments if the folder of `target` is missing, or its disk has no room for `size` bytes."""
    if not target.parent.is_dir():
        raise _build_unusable(f"the folder {target.parent} does not exist", "Create it, or choose another place.")
    free = (await anyio.to_thread.run_sync(shutil.disk_usage, target.parent)).free
    if size is not None and size + DISK_RESERVE > free:
        raise _build_unusable(
            f"{size} bytes do not fit on the disk, {free} are free", "Free some space, or choose another place."
        )


def _read_md5(answer: httpx2.Response) -> bytes | None:
    """Return the MD5 of the whole file from the header Content-MD5, or None if there is none.

    https://learn.microsoft.com/rest/api/storageservices/get-blob and put-blob
    """
    try:
        digest = base64.b64decode(answer.headers.get("content-md5", ""), validate=True)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


def _build_host_check(hosts: Sequence[str]) -> Callable[[Origin], bool]:
    """Return a predicate that says whether an origin is one of the allowed hosts; see Storage."""
    origins = frozenset(parse_origin(host) for host in hosts if "://" in host)
    names = frozenset(host.lower() for host in hosts if "://" not in host and not host.startswith("*."))
    endings = tuple(host[1:].lower() for host in hosts if host.startswith("*."))

    def is_allowed(origin: Origin) -> bool:
        if origin in origins:
            return True
        is_https = origin.scheme == "https" and origin.port == DEFAULT_PORTS["https"]
        return is_https and (origin.host in names or origin.host.endswith(endings))

    return is_allowed


async def _build_refusal(answer: httpx2.Response, origin: Origin) -> AttemptError:
    """Return the error for a refusal, with the code from the storage's XML.

    Other text of the XML is not repeated, because it contains the account and the signature.
    """
    try:
        body = await read_bounded(answer.aiter_bytes(), 4096)
    except BodyTooLargeError as error:
        body = error.head
    match = re.search(rb"<Code>([A-Za-z0-9]{1,80})</Code>", body)
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
    refusal = PlatformError(
        code,
        f"The storage {origin.host} refused the file: {status} {clean_text(answer.reason_phrase, 100)}.",
        hint=hint,
        status=status,
        retryable=status in _TRANSIENT,
    )
    after = read_retry_after(answer.headers, 0.0) if answer.headers.get("retry-after", "").isdigit() else None
    return AttemptError(refusal, transient=status in _TRANSIENT, maybe_executed=False, after=after)


def _build_broken(error: httpx2.RequestError, origin: Origin) -> AttemptError:
    # The body had another length than the header, which was computed from the file's size.
    if isinstance(error, httpx2.LocalProtocolError):
        changed = _build_unusable("the file changed while it was sent", "Call again when nothing writes to it.")
        return AttemptError(changed, transient=False, maybe_executed=False)
    reason = redact(str(error) or type(error).__name__, 300).rstrip(".")
    failure = Unreachable(
        ErrorCode.TRANSFER_BROKEN,
        f"The transfer with {origin.host} broke: {reason}.",
        hint="Nothing is half done. Call again to start over.",
    )
    return AttemptError(failure, transient=True, maybe_executed=False)


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
    """Return the error for an unusable link, which is the platform's mistake and not the caller's."""
    return UnexpectedAnswer(f"The file cannot be transferred: {what}.", hint=hint)
