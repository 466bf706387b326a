"""Storage with loopback servers, some of which send other bytes than they announce."""

# ruff: noqa: ASYNC240 - the files of a test are small

from __future__ import annotations

import gzip
import hashlib
import logging
import shutil
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from itwin_mcp.atomic_files import FileStat
from itwin_mcp.errors import CallError, InvalidArguments, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.upstream.storage import STORAGE_HOSTS, Storage
from tests.sandbox_process import free_port

from ..network import wire  # noqa: F401, TID252
from .loopback import Asked, Handler, Loopback, loopback  # noqa: TID252

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 4096
LINK = "/c/file?sv=2024&sr=b&sig=canary%2Bsignature%3D&se=2026-01-01T00%3A00%3A00Z"


@asynccontextmanager
async def open_storage(handler: Handler, **options: Any) -> AsyncIterator[tuple[Loopback, Storage, str]]:
    async with (
        loopback(handler) as server,
        Storage([server.origin], user_agent="itwin-mcp/test", **options) as storage,
    ):
        yield server, storage, server.origin + LINK


async def answer_created(request: Asked) -> None:
    await request.answer(201)


async def answer_content(request: Asked) -> None:
    await request.answer(200, CONTENT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.bim"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "file.bim"


def list_folder(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


class ProgressRecorder:
    """Records reported progress."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int | None]] = []

    async def __call__(self, done: int, total: int | None) -> None:
        self.steps.append((done, total))


async def test_upload_sends_whole_file_and_headers_without_bearer(source: Path) -> None:
    progress = ProgressRecorder()
    async with open_storage(answer_created) as (server, storage, link):
        size = await storage.upload(link, source, headers=[("x-ms-blob-type", "BlockBlob")], progress=progress)
    request = server.requests[0]
    assert (request.method, request.target, size) == ("PUT", LINK, len(CONTENT))
    assert request.body == CONTENT
    assert request.headers["x-ms-blob-type"] == "BlockBlob"
    assert request.headers["content-length"] == str(len(CONTENT))
    assert not {"authorization", "cookie", "x-correlation-id", "transfer-encoding"} & set(request.headers)
    assert progress.steps[-1] == (len(CONTENT), len(CONTENT))
    assert progress.steps == sorted(progress.steps)


async def test_download_verifies_size_and_reports_progress(target: Path) -> None:
    progress = ProgressRecorder()
    digest = ("sha256", hashlib.sha256(CONTENT).hexdigest())
    async with open_storage(answer_content) as (server, storage, link):
        size = await storage.download(link, target, size=len(CONTENT), digest=digest, progress=progress)
    assert target.read_bytes() == CONTENT
    assert size == len(CONTENT)
    assert list_folder(target) == ["file.bim"]
    assert progress.steps[-1] == (len(CONTENT), len(CONTENT))
    assert server.requests[0].target == LINK
    assert "authorization" not in server.requests[0].headers


async def test_download_saves_bytes_as_stored(target: Path) -> None:
    packed = gzip.compress(CONTENT)

    async def handler(request: Asked) -> None:
        assert request.headers["accept-encoding"] == "identity"
        await request.answer(200, packed, {"Content-Encoding": "gzip"})

    async with open_storage(handler) as (_, storage, link):
        await storage.download(link, target, size=len(packed))
    assert target.read_bytes() == packed


class BrokenDownload(NamedTuple):
    head: dict[str, str]
    body: bytes
    options: dict[str, Any]
    error: type[CallError]
    attempts: int


@pytest.mark.parametrize(
    "case",
    [
        BrokenDownload({"Content-Length": "10"}, b"12345", {}, Unreachable, 3),
        BrokenDownload({"Content-Length": "5"}, b"12345", {"size": 6}, UnexpectedAnswer, 1),
        BrokenDownload({"Transfer-Encoding": "chunked"}, b"5\r\n12345\r\n0\r\n\r\n", {"size": 6}, UnexpectedAnswer, 1),
        BrokenDownload({"Transfer-Encoding": "chunked"}, b"5\r\n12345\r\n0\r\n\r\n", {"size": 4}, UnexpectedAnswer, 1),
        BrokenDownload({"Transfer-Encoding": "chunked"}, b"5\r\n12", {"size": 5}, Unreachable, 3),
        BrokenDownload({"Content-Length": "5"}, b"12345", {"digest": ("md5", "0" * 32)}, UnexpectedAnswer, 1),
        BrokenDownload({"Content-Length": "5"}, b"12345", {"size": 2**62}, InvalidArguments, 0),
        BrokenDownload({"Content-Length": str(2**59)}, b"12345", {}, InvalidArguments, 1),
    ],
)
async def test_download_with_wrong_size_or_digest_saves_nothing(target: Path, case: BrokenDownload) -> None:
    async def handler(request: Asked) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in case.head.items())
        await request.raw(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + case.body)
        await request.hang_up()

    async with open_storage(handler) as (server, storage, link):
        with pytest.raises(case.error) as caught:
            await storage.download(link, target, **case.options)
    assert list_folder(target) == []
    assert len(server.requests) == case.attempts
    assert "canary" not in str(caught.value.to_json("x"))


async def test_broken_download_starts_over_with_growing_progress(target: Path) -> None:
    async def handler(request: Asked) -> None:
        if len(server.requests) < 3:
            await request.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode() + CONTENT[:300_000])
            await request.hang_up()
        else:
            await answer_content(request)

    progress = ProgressRecorder()
    async with open_storage(handler) as (server, storage, link):
        await storage.download(link, target, progress=progress)
    assert target.read_bytes() == CONTENT
    assert progress.steps == sorted(set(progress.steps))


async def test_broken_upload_starts_over(source: Path) -> None:
    async def handler(request: Asked) -> None:
        if len(server.requests) < 2:
            await request.hang_up()
        else:
            await request.answer(201)

    async with open_storage(handler) as (server, storage, link):
        await storage.upload(link, source)
    assert [request.body == CONTENT for request in server.requests] == [True, True]


@pytest.mark.parametrize("status", [302, 400, 403, 404, 409, 412, 416])
async def test_storage_refusal_has_code_but_not_text_of_the_storage(source: Path, target: Path, status: int) -> None:
    async def handler(request: Asked) -> None:
        text = f"<Error><Code>AuthenticationFailed</Code><Message>{request.target}</Message></Error>".encode()
        await request.answer(status, text, {"Location": "http://127.0.0.1:9/"})

    async with open_storage(handler) as (server, storage, link):
        with pytest.raises(PlatformError) as upload:
            await storage.upload(link, source)
        with pytest.raises(PlatformError) as download:
            await storage.download(link, target)
    for error in (upload.value, download.value):
        assert (error.code, error.status, error.retryable) == ("AuthenticationFailed", status, False)
        assert "canary" not in str(error.to_json("x"))
    assert len(server.requests) == 2
    assert list_folder(target) == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_upload_is_retried_if_storage_is_busy(source: Path, status: int) -> None:
    async def handler(request: Asked) -> None:
        await request.answer(status if len(server.requests) < 3 else 201)

    async with open_storage(handler) as (server, storage, link):
        await storage.upload(link, source)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("link", "allowed"),
    [
        ("https://store.blob.core.windows.net/c/b?sig=x", True),
        ("https://a.b.blob.core.windows.net/c", True),
        ("HTTPS://STORE.BLOB.CORE.WINDOWS.NET:443/c", True),
        ("https://storage.googleapis.com/b/o", True),
        ("http://store.blob.core.windows.net/c", False),
        ("https://store.blob.core.windows.net:8443/c", False),
        ("https://blob.core.windows.net/c", False),
        ("https://evilblob.core.windows.net/c", False),
        ("https://store.blob.core.windows.net.evil.example/c", False),
        ("https://store.blob.core.windows.net@evil.example/c", False),
        ("https://evil.example\\.blob.core.windows.net/c", False),
        ("https://evil.example#.blob.core.windows.net/c", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://[::ffff:169.254.169.254]/", False),
        ("http://localhost/", False),
        ("https://api.bentley.com/", False),
        ("https://storage.googleapis.com.evil.example/", False),
        ("https://x.storage.googleapis.com/", False),
        ("file:///etc/passwd", False),
        ("ftp://store.blob.core.windows.net/c", False),
        ("//store.blob.core.windows.net/c", False),
        ("https://store.blob.core.windows.net/a/../b", False),
        ("https://store.blob.core.windows.net/a b", False),
        ("https://store.blob.core.windows.net/a\r\nX: y", False),
        ("https://2130706433/", False),
        ("", False),
    ],
)
async def test_only_allowed_storage_hosts_are_called(link: str, allowed: bool) -> None:
    async with Storage(STORAGE_HOSTS, user_agent="t") as storage:
        if allowed:
            storage._check(link)
        else:
            with pytest.raises(UnexpectedAnswer) as caught:
                storage._check(link)
            assert "sig" not in caught.value.message


async def test_download_does_not_replace_existing_file(target: Path) -> None:
    target.write_text("mine")
    async with open_storage(answer_content) as (server, storage, link):
        with pytest.raises(InvalidArguments, match="exists, or has changed"):
            await storage.download(link, target)
        assert (target.read_text(), server.requests) == ("mine", [])
        await storage.download(link, target, replaces=FileStat.of(target))
    assert target.read_bytes() == CONTENT


async def test_failed_download_keeps_existing_file(target: Path) -> None:
    target.write_text("mine")

    async def handler(request: Asked) -> None:
        await request.answer(404)

    async with open_storage(handler) as (_, storage, link):
        with pytest.raises(PlatformError):
            await storage.download(link, target, replaces=FileStat.of(target))
    assert target.read_text() == "mine"
    assert list_folder(target) == ["file.bim"]


async def test_missing_file_or_folder_raises_invalid_arguments(tmp_path: Path, source: Path) -> None:
    async with open_storage(answer_content) as (_, storage, link):
        with pytest.raises(InvalidArguments, match="does not exist"):
            await storage.download(link, tmp_path / "none" / "file")
        with pytest.raises(InvalidArguments, match=r"cannot be|does not exist"):
            await storage.download(link, source / "file")
        with pytest.raises(InvalidArguments, match="not a file"):
            await storage.upload(link, tmp_path / "none")
        with pytest.raises(InvalidArguments, match="not a file"):
            await storage.upload(link, tmp_path)


async def test_download_larger_than_free_disk_is_not_started(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    async with open_storage(answer_content) as (_, storage, link):
        with pytest.raises(InvalidArguments, match="do not fit"):
            await storage.download(link, target)
    assert list_folder(target) == []


async def test_cancelled_download_leaves_no_file(target: Path) -> None:
    sent, closed = anyio.Event(), anyio.Event()

    async def handler(request: Asked) -> None:
        await request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")
        sent.set()
        await request.until_closed()
        closed.set()

    async with open_storage(handler) as (_, storage, link):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(storage.download, link, target)
            await sent.wait()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(0.1):
            await closed.wait()
    assert list_folder(target) == []


async def test_download_ends_at_the_deadline(target: Path) -> None:
    async def handler(request: Asked) -> None:
        await request.until_closed()

    async with open_storage(handler, seconds=0.05) as (_, storage, link):
        with pytest.raises(Unreachable, match="not transferred"):
            await storage.download(link, target)


async def test_unreachable_storage_error_hides_the_link(target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    origin = f"http://127.0.0.1:{free_port()}"
    async with Storage([origin], user_agent="t") as storage:
        with pytest.raises(Unreachable) as caught:
            await storage.download(origin + LINK, target)
    assert caught.value.code == "TransferBroken"
    assert "canary" not in caplog.text + str(caught.value.to_json("x")) + repr(caught.value.__context__)


async def test_download_streams_large_file(tmp_path: Path) -> None:
    size = 48 * 1024 * 1024
    source, target = tmp_path / "large", tmp_path / "copy"
    with source.open("wb") as file:
        file.truncate(size)

    async def handler(request: Asked) -> None:
        await request.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(48):
            await request.raw(bytes(1024 * 1024))

    async with open_storage(handler) as (_, storage, link):
        tracemalloc.start()
        try:
            await storage.download(link, target)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert target.stat().st_size == size
    assert peak < 16 * 1024 * 1024


async def test_sandbox_app_answers_links_of_the_platform(source: Path, target: Path) -> None:
    files: dict[str, bytes] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "PUT":
            files[scope["path"]] = body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": files[scope["path"]] if scope["method"] == "GET" else b""})

    origin = "https://api.bentley.com"
    async with Storage([origin], user_agent="t", platform=origin, sandbox=app) as storage:
        await storage.upload(f"{origin}/files/1?sig=x", source)
        await storage.download(f"{origin}/files/1?sig=x", target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
