"""Uploads and downloads by storage links, with servers that send something else than they announce."""

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
async def opened(handler: Handler, **options: Any) -> AsyncIterator[tuple[Loopback, Storage, str]]:
    async with (
        loopback(handler) as server,
        Storage([server.origin], user_agent="itwin-mcp/test", **options) as storage,
    ):
        yield server, storage, server.origin + LINK


async def created(asked: Asked) -> None:
    await asked.answer(201)


async def whole(asked: Asked) -> None:
    await asked.answer(200, CONTENT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.bim"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "file.bim"


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


class Told:
    """Records reported progress."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int | None]] = []

    async def __call__(self, done: int, total: int | None) -> None:
        self.steps.append((done, total))


async def test_upload_sends_whole_file_and_headers_without_bearer(source: Path) -> None:
    told = Told()
    async with opened(created) as (server, storage, link):
        size = await storage.upload(link, source, headers=[("x-ms-blob-type", "BlockBlob")], progress=told)
    asked = server.requests[0]
    assert (asked.method, asked.target, size) == ("PUT", LINK, len(CONTENT))
    assert asked.body == CONTENT
    assert asked.headers["x-ms-blob-type"] == "BlockBlob"
    assert asked.headers["content-length"] == str(len(CONTENT))
    assert not {"authorization", "cookie", "x-correlation-id", "transfer-encoding"} & set(asked.headers)
    assert told.steps[-1] == (len(CONTENT), len(CONTENT))
    assert told.steps == sorted(told.steps)


async def test_download_verifies_size_and_reports_progress(target: Path) -> None:
    told = Told()
    digest = ("sha256", hashlib.sha256(CONTENT).hexdigest())
    async with opened(whole) as (server, storage, link):
        size = await storage.download(link, target, size=len(CONTENT), digest=digest, progress=told)
    assert target.read_bytes() == CONTENT
    assert size == len(CONTENT)
    assert left(target) == ["file.bim"]
    assert told.steps[-1] == (len(CONTENT), len(CONTENT))
    assert server.requests[0].target == LINK
    assert "authorization" not in server.requests[0].headers


async def test_download_saves_bytes_as_stored(target: Path) -> None:
    packed = gzip.compress(CONTENT)

    async def handler(asked: Asked) -> None:
        assert asked.headers["accept-encoding"] == "identity"
        await asked.answer(200, packed, {"Content-Encoding": "gzip"})

    async with opened(handler) as (_, storage, link):
        await storage.download(link, target, size=len(packed))
    assert target.read_bytes() == packed


class Broken(NamedTuple):
    head: dict[str, str]
    body: bytes
    options: dict[str, Any]
    error: type[CallError]
    attempts: int


@pytest.mark.parametrize(
    "case",
    [
        Broken({"Content-Length": "10"}, b"12345", {}, Unreachable, 3),
        Broken({"Content-Length": "5"}, b"12345", {"size": 6}, UnexpectedAnswer, 1),
        Broken({"Transfer-Encoding": "chunked"}, b"5\r\n12345\r\n0\r\n\r\n", {"size": 6}, UnexpectedAnswer, 1),
        Broken({"Transfer-Encoding": "chunked"}, b"5\r\n12345\r\n0\r\n\r\n", {"size": 4}, UnexpectedAnswer, 1),
        Broken({"Transfer-Encoding": "chunked"}, b"5\r\n12", {"size": 5}, Unreachable, 3),
        Broken({"Content-Length": "5"}, b"12345", {"digest": ("md5", "0" * 32)}, UnexpectedAnswer, 1),
        Broken({"Content-Length": "5"}, b"12345", {"size": 2**62}, InvalidArguments, 0),
        Broken({"Content-Length": str(2**59)}, b"12345", {}, InvalidArguments, 1),
    ],
)
async def test_download_with_wrong_size_or_digest_saves_nothing(target: Path, case: Broken) -> None:
    async def handler(asked: Asked) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in case.head.items())
        await asked.raw(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + case.body)
        await asked.hang_up()

    async with opened(handler) as (server, storage, link):
        with pytest.raises(case.error) as caught:
            await storage.download(link, target, **case.options)
    assert left(target) == []
    assert len(server.requests) == case.attempts
    assert "canary" not in str(caught.value.to_json("x"))


async def test_broken_download_starts_over_and_progress_only_grows(target: Path) -> None:
    async def handler(asked: Asked) -> None:
        if len(server.requests) < 3:
            await asked.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode() + CONTENT[:300_000])
            await asked.hang_up()
        else:
            await whole(asked)

    told = Told()
    async with opened(handler) as (server, storage, link):
        await storage.download(link, target, progress=told)
    assert target.read_bytes() == CONTENT
    assert told.steps == sorted(set(told.steps))


async def test_broken_upload_starts_over(source: Path) -> None:
    async def handler(asked: Asked) -> None:
        if len(server.requests) < 2:
            await asked.hang_up()
        else:
            await asked.answer(201)

    async with opened(handler) as (server, storage, link):
        await storage.upload(link, source)
    assert [asked.body == CONTENT for asked in server.requests] == [True, True]


@pytest.mark.parametrize("status", [302, 400, 403, 404, 409, 412, 416])
async def test_storage_refusal_has_its_code_but_not_its_text(source: Path, target: Path, status: int) -> None:
    async def handler(asked: Asked) -> None:
        text = f"<Error><Code>AuthenticationFailed</Code><Message>{asked.target}</Message></Error>".encode()
        await asked.answer(status, text, {"Location": "http://127.0.0.1:9/"})

    async with opened(handler) as (server, storage, link):
        with pytest.raises(PlatformError) as up:
            await storage.upload(link, source)
        with pytest.raises(PlatformError) as down:
            await storage.download(link, target)
    for error in (up.value, down.value):
        assert (error.code, error.status, error.retryable) == ("AuthenticationFailed", status, False)
        assert "canary" not in str(error.to_json("x"))
    assert len(server.requests) == 2
    assert left(target) == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_busy_storage_is_retried(source: Path, status: int) -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(status if len(server.requests) < 3 else 201)

    async with opened(handler) as (server, storage, link):
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
    async with opened(whole) as (server, storage, link):
        with pytest.raises(InvalidArguments, match="exists, or has changed"):
            await storage.download(link, target)
        assert (target.read_text(), server.requests) == ("mine", [])
        await storage.download(link, target, replaces=FileStat.of(target))
    assert target.read_bytes() == CONTENT


async def test_failed_download_keeps_existing_file(target: Path) -> None:
    target.write_text("mine")

    async def handler(asked: Asked) -> None:
        await asked.answer(404)

    async with opened(handler) as (_, storage, link):
        with pytest.raises(PlatformError):
            await storage.download(link, target, replaces=FileStat.of(target))
    assert target.read_text() == "mine"
    assert left(target) == ["file.bim"]


async def test_unwritable_target_is_reported(tmp_path: Path, source: Path) -> None:
    async with opened(whole) as (_, storage, link):
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
    async with opened(whole) as (_, storage, link):
        with pytest.raises(InvalidArguments, match="do not fit"):
            await storage.download(link, target)
    assert left(target) == []


async def test_cancelled_download_leaves_nothing(target: Path) -> None:
    sent, closed = anyio.Event(), anyio.Event()

    async def handler(asked: Asked) -> None:
        await asked.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")
        sent.set()
        await asked.until_closed()
        closed.set()

    async with opened(handler) as (_, storage, link):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(storage.download, link, target)
            await sent.wait()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(0.1):
            await closed.wait()
    assert left(target) == []


async def test_transfer_ends_at_its_deadline(target: Path) -> None:
    async def handler(asked: Asked) -> None:
        await asked.until_closed()

    async with opened(handler, seconds=0.05) as (_, storage, link):
        with pytest.raises(Unreachable, match="not transferred"):
            await storage.download(link, target)


async def test_unreachable_storage_is_reported_without_the_link(target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    origin = f"http://127.0.0.1:{free_port()}"
    async with Storage([origin], user_agent="t") as storage:
        with pytest.raises(Unreachable) as caught:
            await storage.download(origin + LINK, target)
    assert caught.value.code == "TransferBroken"
    assert "canary" not in caplog.text + str(caught.value.to_json("x")) + repr(caught.value.__context__)


async def test_large_file_is_streamed(tmp_path: Path) -> None:
    size = 48 * 1024 * 1024
    source, target = tmp_path / "large", tmp_path / "copy"
    with source.open("wb") as file:
        file.truncate(size)

    async def handler(asked: Asked) -> None:
        await asked.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(48):
            await asked.raw(bytes(1024 * 1024))

    async with opened(handler) as (_, storage, link):
        tracemalloc.start()
        try:
            await storage.download(link, target)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert target.stat().st_size == size
    assert peak < 16 * 1024 * 1024


async def test_sandbox_app_answers_its_own_links(source: Path, target: Path) -> None:
    kept: dict[str, bytes] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "PUT":
            kept[scope["path"]] = body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": kept[scope["path"]] if scope["method"] == "GET" else b""})

    origin = "https://api.bentley.com"
    async with Storage([origin], user_agent="t", platform=origin, sandbox=app) as storage:
        await storage.upload(f"{origin}/files/1?sig=x", source)
        await storage.download(f"{origin}/files/1?sig=x", target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
