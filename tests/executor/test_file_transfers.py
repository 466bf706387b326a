"""File transfers are all or nothing, stay inside the allowed folders and never send the platform token."""

# ruff: noqa: ASYNC240 - the files of a test are small

from __future__ import annotations

import base64
import filecmp
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from itwin_mcp.errors import CallError
from tests.executor.bench import TOKEN, Bench, bench, never
from tests.upstream.loopback import Asked, Handler, Loopback, loopback

pytestmark = pytest.mark.anyio

CONTENT = os.urandom(1_500_000)
SIGNED = "/c/blob?sig=canary%2Bof%2Bthe%2Blink"
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()


@dataclass
class TransferSetup:
    """A test harness with a storage server and an allowed folder."""

    harness: Bench
    storage: Loopback
    root: Path


@asynccontextmanager
async def transfer_setup(
    tmp_path: Path, stored: Handler, *, link: str | None = None, size: int = len(CONTENT)
) -> AsyncIterator[TransferSetup]:
    root = tmp_path / "allowed"
    root.mkdir()

    async with loopback(stored) as storage:

        async def platform(request: Asked) -> None:
            file = {"id": "f1", "link": storage.origin + SIGNED if link is None else link, "size": size}
            await request.json(200, {"file": file})

        async with bench("transfers.yaml", platform, roots=[root], storage_at=[storage.origin]) as harness:
            yield TransferSetup(harness, storage, root)


async def accept_upload(request: Asked) -> None:
    await request.answer(201, headers={"Content-MD5": base64.b64encode(hashlib.md5(request.body).digest()).decode()})


async def serve_content(request: Asked) -> None:
    await request.answer(200, CONTENT, {"Content-MD5": MD5})


# --- transfers that succeed -------------------------------------------------------------------------------------


async def test_upload_sends_the_file_without_the_platform_token(tmp_path: Path) -> None:
    async with transfer_setup(tmp_path, accept_upload) as setup:
        (setup.root / "a.bin").write_bytes(CONTENT)
        assert await setup.harness.call("send-file", filePath="a.bin") == {"id": "f1", "size": len(CONTENT)}
        assert setup.harness.asked == ["POST /files", "PATCH /files/f1"]
        assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in setup.harness.server.requests)
        assert setup.harness.server.requests[0].body == b'{"name":"a.bin","size":1500000}'
        (sent,) = setup.storage.requests
        assert (sent.method, sent.target, sent.body) == ("PUT", SIGNED, CONTENT)
        assert sent.headers["x-ms-blob-type"] == "BlockBlob"
        assert not {"authorization", "cookie", "x-correlation-id"} & sent.headers.keys()
        assert TOKEN not in str(sent.headers)


async def test_download_saves_the_file_and_reports_progress(tmp_path: Path) -> None:
    async with transfer_setup(tmp_path, serve_content) as setup:
        answer = await setup.harness.call("take-file", fileId="f1", filePath="b.bin")
        assert answer == {"path": str(setup.root / "b.bin"), "size": len(CONTENT)}
        assert (setup.root / "b.bin").read_bytes() == CONTENT
        assert "authorization" not in setup.storage.requests[0].headers
        reports = [(done, total) for done, total, _ in setup.harness.listener.told]
        assert reports[-1] == (len(CONTENT), len(CONTENT))
        assert reports == sorted(reports)
        assert len(reports) < 5
        assert setup.harness.listener.told[-1][2] == "b.bin: 1.5 of 1.5 MB received"


async def test_picture_is_sent_as_the_request_body(tmp_path: Path) -> None:
    async with transfer_setup(tmp_path, never) as setup:
        (setup.root / "p.PNG").write_bytes(b"\x89PNG" * 9)
        assert await setup.harness.call("send-picture", fileId="f1", filePath="p.PNG") == {"sent": True}
        (sent,) = setup.harness.server.requests
        assert (sent.method, sent.body, sent.headers["content-type"]) == ("PUT", b"\x89PNG" * 9, "image/png")


# --- transfers that fail ----------------------------------------------------------------------------------------


async def test_failed_upload_reports_completed_and_a_hint(tmp_path: Path) -> None:
    async def refuses(request: Asked) -> None:
        await request.answer(403, b"<Error><Code>AuthenticationFailed</Code></Error>")

    async with transfer_setup(tmp_path, refuses) as setup:
        (setup.root / "a.bin").write_bytes(CONTENT)
        error = await setup.harness.refused("send-file", filePath="a.bin")
        assert error["code"] == "AuthenticationFailed"
        assert error["completed"] == [{"step": "make", "ids": ["f1"]}]
        assert error["hint"].startswith("The file waits: delete it, then send it again.")
        assert setup.harness.asked == ["POST /files"]
        assert "canary" not in str(error)


async def test_interrupted_upload_is_retried_and_completed_once(tmp_path: Path) -> None:
    attempts = 0

    async def breaks_once(request: Asked) -> None:
        nonlocal attempts
        attempts += 1
        await (request.hang_up() if attempts == 1 else accept_upload(request))

    async with transfer_setup(tmp_path, breaks_once) as setup:
        (setup.root / "a.bin").write_bytes(CONTENT)
        assert (await setup.harness.call("send-file", filePath="a.bin"))["size"] == len(CONTENT)
        assert [request.body == CONTENT for request in setup.storage.requests] == [True, True]
        assert setup.harness.asked == ["POST /files", "PATCH /files/f1"]
        reports = [done for done, _, _ in setup.harness.listener.told]
        assert reports == sorted(reports)


async def send_half(request: Asked) -> None:
    await request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n" + CONTENT[:700_000])
    await request.hang_up()


@pytest.mark.parametrize(
    ("stored", "size", "message"),
    [
        (send_half, len(CONTENT), "broke"),
        (serve_content, len(CONTENT) - 1, f"has {len(CONTENT)} bytes, not {len(CONTENT) - 1}"),
        (
            lambda request: request.answer(200, CONTENT[::-1], {"Content-MD5": MD5}),
            len(CONTENT),
            "has another MD5 than the storage says",
        ),
        (lambda request: request.answer(404), len(CONTENT), "refused the file: 404"),
    ],
    ids=["half of it", "another size", "another hash", "gone"],
)
async def test_download_that_fails_a_check_keeps_the_previous_file(
    tmp_path: Path, stored: Any, size: int, message: str
) -> None:
    async with transfer_setup(tmp_path, stored, size=size) as setup:
        (setup.root / "b.bin").write_bytes(b"old")
        error = await setup.harness.refused("take-file", fileId="f1", filePath="b.bin", overwrite=True)
        assert message in error["message"]
        assert [path.name for path in setup.root.iterdir()] == ["b.bin"]
        assert (setup.root / "b.bin").read_bytes() == b"old"


@pytest.mark.parametrize("overwrite", [False, True])
async def test_download_keeps_a_file_that_appeared_meanwhile(tmp_path: Path, overwrite: bool) -> None:
    async def saved_by_the_person(request: Asked) -> None:
        (setup.root / "b.bin").write_bytes(b"mine")
        await serve_content(request)

    async with transfer_setup(tmp_path, saved_by_the_person) as setup:
        error = await setup.harness.refused("take-file", fileId="f1", filePath="b.bin", overwrite=overwrite)
        assert "exists, or has changed meanwhile; it was left as it is" in error["message"]
        assert [(path.name, path.read_bytes()) for path in setup.root.iterdir()] == [("b.bin", b"mine")]


async def test_second_download_to_the_same_path_is_rejected(tmp_path: Path) -> None:
    async with transfer_setup(tmp_path, serve_content) as setup:
        codes: list[str] = []

        async def take() -> None:
            try:
                await setup.harness.call("take-file", fileId="f1", filePath="b.bin")
            except CallError as error:
                codes.append(error.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            tasks.start_soon(take)
        assert codes == ["InvalidArguments"]
        assert [(path.name, path.read_bytes()) for path in setup.root.iterdir()] == [("b.bin", CONTENT)]


async def test_cancelled_download_leaves_no_file(tmp_path: Path) -> None:
    async def never_ends(request: Asked) -> None:
        await request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n" + CONTENT[:700_000])
        scope.cancel()
        await request.until_closed()

    async with transfer_setup(tmp_path, never_ends) as setup:
        with anyio.CancelScope() as scope:
            await setup.harness.call("take-file", fileId="f1", filePath="b.bin")
        assert scope.cancelled_caught
        assert list(setup.root.iterdir()) == []


async def test_upload_with_a_wrong_hash_is_not_completed(tmp_path: Path) -> None:
    async def garbles(request: Asked) -> None:
        await request.answer(201, headers={"Content-MD5": base64.b64encode(bytes(16)).decode()})

    async with transfer_setup(tmp_path, garbles) as setup:
        (setup.root / "a.bin").write_bytes(CONTENT)
        assert "received other bytes" in (await setup.harness.refused("send-file", filePath="a.bin"))["message"]
        assert setup.harness.asked == ["POST /files"]


@pytest.mark.parametrize("link", ["http://127.0.0.1:9/c/x", "https://evil.example/x", "file:///etc/passwd", "", 5])
async def test_transfer_link_outside_the_storage_is_not_followed(tmp_path: Path, link: Any) -> None:
    async with transfer_setup(tmp_path, never, link=link) as setup:
        (setup.root / "a.bin").write_bytes(CONTENT)
        for tool, arguments in (("send-file", {"filePath": "a.bin"}), ("take-file", {"fileId": "f", "filePath": "b"})):
            error = await setup.harness.refused(tool, **arguments)
            assert "cannot be transferred" in error["message"] or "has no link" in error["message"]


# --- allowed paths ----------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    file = tmp_path / "outside.bin"
    file.write_bytes(b"secret")
    return file


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{outside}", "lies outside"),
        ("../outside.bin", "must not contain `..`"),
        ("sub\\..\\..\\outside.bin", "must not contain `..`"),
        ("{root}/../outside.bin", "must not contain `..`"),
        ("link.bin", "lies outside"),
        ("folder/outside.bin", "lies outside"),
        ("round.bin", "lies outside|cannot be followed|cannot be looked at|does not exist"),
        ("{root}", "lies outside"),
        (".", "lies outside"),
        ("sub", "is not a plain file"),
        ("pipe", "is not a plain file"),
        ("/dev/zero", "lies outside"),
        ("NUL", "names a device"),
        ("com1.bin", "names a device"),
        ("none.bin", "does not exist"),
        ("a\x00b", "has characters that no file name has"),
        ("a\u202eb", "has characters that no file name has"),
        ("a" * 300, "cannot be looked at"),
        ("large.bin", "has 3000001 bytes, more than the 3000000 allowed"),
        ("~/x", "lies outside"),
        ("~x", "does not exist"),
        (".env", "is hidden"),
        ("sub/.ssh/key.bin", "is hidden, or lies in a hidden folder"),
        ("open/key.bin", "is hidden, or lies in a hidden folder"),
    ],
)
async def test_upload_rejects_files_outside_the_allowed_folder(
    tmp_path: Path, outside: Path, path: str, message: str
) -> None:
    async with transfer_setup(tmp_path, never) as setup:
        (setup.root / "sub").mkdir()
        (setup.root / "link.bin").symlink_to(outside)
        (setup.root / "folder").symlink_to(tmp_path)
        (setup.root / "round.bin").symlink_to(setup.root / "round.bin")
        os.mkfifo(setup.root / "pipe")
        (setup.root / "sub" / ".ssh").mkdir()
        (setup.root / "open").symlink_to(setup.root / "sub" / ".ssh")
        for secret in (".env", "open/key.bin"):
            (setup.root / secret).write_bytes(b"secret")
        (setup.root / "large.bin").write_bytes(bytes(3_000_001))
        error = await setup.harness.refused("send-file", filePath=path.format(outside=outside, root=setup.root))
        assert any(words in error["message"] for words in message.split("|")), error
        assert setup.harness.asked == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{outside}", "lies outside"),
        ("link.bin", "lies outside"),
        ("folder/new.bin", "lies outside"),
        ("no/such/folder.bin", "lies in a folder that does not exist"),
        ("there.bin", "exists already"),
        ("sub", "exists and is not a plain file"),
        ("pipe", "exists and is not a plain file"),
        ("aux.bin", "names a device"),
        (".bashrc", "is hidden"),
        (".config/autostart.bin", "is hidden, or lies in a hidden folder"),
    ],
)
async def test_download_rejects_paths_outside_the_allowed_folder(
    tmp_path: Path, outside: Path, path: str, message: str
) -> None:
    async with transfer_setup(tmp_path, never) as setup:
        (setup.root / "sub").mkdir()
        (setup.root / "link.bin").symlink_to(outside)
        (setup.root / "folder").symlink_to(tmp_path)
        (setup.root / "there.bin").write_bytes(b"mine")
        os.mkfifo(setup.root / "pipe")
        overwrite = path in ("sub", "pipe", "link.bin")
        error = await setup.harness.refused(
            "take-file", fileId="f", filePath=path.format(outside=outside), overwrite=overwrite
        )
        assert message in error["message"]
        assert setup.harness.asked == []
        assert outside.read_bytes() == b"secret"


async def test_upload_follows_a_symlink_inside_the_allowed_folder(tmp_path: Path) -> None:
    async with transfer_setup(tmp_path, accept_upload) as setup:
        (setup.root / "real.bin").write_bytes(CONTENT)
        (setup.root / "alias.bin").symlink_to(setup.root / "real.bin")
        assert (await setup.harness.call("send-file", filePath=str(setup.root / "alias.bin")))["size"] == len(CONTENT)
        assert b'"name":"real.bin"' in setup.harness.server.requests[0].body


async def test_transfer_without_files_root_explains_the_setting(tmp_path: Path) -> None:
    async with bench("transfers.yaml", never) as harness:
        error = await harness.refused("send-file", filePath="a.bin")
        assert "no folder was allowed" in error["message"]
        assert "--files-root" in error["hint"]
        assert "ITWIN_MCP_FILES_ROOT" in error["hint"]


@pytest.mark.parametrize(
    ("name", "size", "message"), [("p.gif", 10, "must end in .png"), ("p.png", 1001, "more than the 1000 allowed")]
)
async def test_picture_of_wrong_type_or_size_is_rejected_before_any_request(
    tmp_path: Path, name: str, size: int, message: str
) -> None:
    async with transfer_setup(tmp_path, never) as setup:
        (setup.root / name).write_bytes(bytes(size))
        assert message in (await setup.harness.refused("send-picture", fileId="f1", filePath=name))["message"]
        assert setup.harness.asked == []


# --- large files ------------------------------------------------------------------------------------------------

LARGE = 200 << 20
MEASURE = """
import resource, sys, anyio
from pathlib import Path
from itwin_mcp.upstream.storage import Storage

async def told(done, total):
    pass

async def main(origin, folder):
    async with Storage([origin], user_agent="t") as storage:
        small = folder / "small"
        small.write_bytes(bytes(1 << 20))
        await storage.upload(origin + "/c", small, progress=told)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await storage.upload(origin + "/c", folder / "large", progress=told)
        await storage.download(origin + "/c", folder / "back", size=(folder / "large").stat().st_size, progress=told)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

anyio.run(main, sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.slow
async def test_storage_transfers_200_megabytes_in_flat_memory(tmp_path: Path) -> None:
    piece = os.urandom(1 << 20)
    with (tmp_path / "large").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(piece)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        """Discard uploads and send downloads without holding either in memory."""
        async with stream:
            try:
                while True:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += await stream.receive()
                    head, _, rest = head.partition(b"\r\n\r\n")
                    if head.startswith(b"GET"):
                        await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n".encode())
                        for _ in range(LARGE >> 20):
                            await stream.send(piece)
                        continue
                    lines = head.lower().split(b"\r\n")
                    left = next(int(line[15:]) for line in lines if line.startswith(b"content-length")) - len(rest)
                    while left > 0:
                        left -= len(await stream.receive(1 << 20))
                    await stream.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port)
    command = [sys.executable, "-c", MEASURE, f"http://127.0.0.1:{port}", str(tmp_path)]
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
        tasks.cancel_scope.cancel()
    assert done.returncode == 0, done.stdout
    grown = int(done.stdout) * 1024
    assert grown < 16 << 20, f"{grown >> 20} MiB more for a file of {LARGE >> 20} MiB"
    assert (tmp_path / "back").stat().st_size == LARGE
    assert filecmp.cmp(tmp_path / "back", tmp_path / "large", shallow=False)
