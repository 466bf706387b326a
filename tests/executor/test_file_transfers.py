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
class Desk:
    """The executor with a platform, a storage server and an allowed folder."""

    it: Bench
    storage: Loopback
    root: Path


@asynccontextmanager
async def desk(
    tmp_path: Path, stored: Handler, *, link: str | None = None, size: int = len(CONTENT)
) -> AsyncIterator[Desk]:
    root = tmp_path / "allowed"
    root.mkdir()

    async with loopback(stored) as storage:

        async def platform(asked: Asked) -> None:
            file = {"id": "f1", "link": storage.origin + SIGNED if link is None else link, "size": size}
            await asked.json(200, {"file": file})

        async with bench("transfers.yaml", platform, roots=[root], storage_at=[storage.origin]) as it:
            yield Desk(it, storage, root)


async def accept_upload(asked: Asked) -> None:
    await asked.answer(201, headers={"Content-MD5": base64.b64encode(hashlib.md5(asked.body).digest()).decode()})


async def serve_content(asked: Asked) -> None:
    await asked.answer(200, CONTENT, {"Content-MD5": MD5})


# --- transfers that succeed -------------------------------------------------------------------------------------


async def test_upload_sends_the_file_without_the_platform_token(tmp_path: Path) -> None:
    async with desk(tmp_path, accept_upload) as at:
        (at.root / "a.bin").write_bytes(CONTENT)
        assert await at.it.call("send-file", filePath="a.bin") == {"id": "f1", "size": len(CONTENT)}
        assert at.it.asked == ["POST /files", "PATCH /files/f1"]
        assert all(one.headers["authorization"] == f"Bearer {TOKEN}" for one in at.it.server.requests)
        assert at.it.server.requests[0].body == b'{"name":"a.bin","size":1500000}'
        (sent,) = at.storage.requests
        assert (sent.method, sent.target, sent.body) == ("PUT", SIGNED, CONTENT)
        assert sent.headers["x-ms-blob-type"] == "BlockBlob"
        assert not {"authorization", "cookie", "x-correlation-id"} & sent.headers.keys()
        assert TOKEN not in str(sent.headers)


async def test_download_saves_the_file_and_reports_progress(tmp_path: Path) -> None:
    async with desk(tmp_path, serve_content) as at:
        answer = await at.it.call("take-file", fileId="f1", filePath="b.bin")
        assert answer == {"path": str(at.root / "b.bin"), "size": len(CONTENT)}
        assert (at.root / "b.bin").read_bytes() == CONTENT
        assert "authorization" not in at.storage.requests[0].headers
        told = [(done, total) for done, total, _ in at.it.listener.told]
        assert told[-1] == (len(CONTENT), len(CONTENT))
        assert told == sorted(told)
        assert len(told) < 5
        assert at.it.listener.told[-1][2] == "b.bin: 1.5 of 1.5 MB received"


async def test_picture_is_sent_as_the_request_body(tmp_path: Path) -> None:
    async with desk(tmp_path, never) as at:
        (at.root / "p.PNG").write_bytes(b"\x89PNG" * 9)
        assert await at.it.call("send-picture", fileId="f1", filePath="p.PNG") == {"sent": True}
        (sent,) = at.it.server.requests
        assert (sent.method, sent.body, sent.headers["content-type"]) == ("PUT", b"\x89PNG" * 9, "image/png")


# --- transfers that fail ----------------------------------------------------------------------------------------


async def test_failed_upload_reports_completed_and_a_hint(tmp_path: Path) -> None:
    async def refuses(asked: Asked) -> None:
        await asked.answer(403, b"<Error><Code>AuthenticationFailed</Code></Error>")

    async with desk(tmp_path, refuses) as at:
        (at.root / "a.bin").write_bytes(CONTENT)
        error = await at.it.refused("send-file", filePath="a.bin")
        assert error["code"] == "AuthenticationFailed"
        assert error["completed"] == [{"step": "make", "ids": ["f1"]}]
        assert error["hint"].startswith("The file waits: delete it, then send it again.")
        assert at.it.asked == ["POST /files"]
        assert "canary" not in str(error)


async def test_interrupted_upload_is_retried_and_completed_once(tmp_path: Path) -> None:
    attempts = 0

    async def breaks_once(asked: Asked) -> None:
        nonlocal attempts
        attempts += 1
        await (asked.hang_up() if attempts == 1 else accept_upload(asked))

    async with desk(tmp_path, breaks_once) as at:
        (at.root / "a.bin").write_bytes(CONTENT)
        assert (await at.it.call("send-file", filePath="a.bin"))["size"] == len(CONTENT)
        assert [one.body == CONTENT for one in at.storage.requests] == [True, True]
        assert at.it.asked == ["POST /files", "PATCH /files/f1"]
        told = [done for done, _, _ in at.it.listener.told]
        assert told == sorted(told)


async def half(asked: Asked) -> None:
    await asked.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n" + CONTENT[:700_000])
    await asked.hang_up()


@pytest.mark.parametrize(
    ("stored", "size", "said"),
    [
        (half, len(CONTENT), "broke"),
        (serve_content, len(CONTENT) - 1, f"has {len(CONTENT)} bytes, not {len(CONTENT) - 1}"),
        (
            lambda asked: asked.answer(200, CONTENT[::-1], {"Content-MD5": MD5}),
            len(CONTENT),
            "has another MD5 than the storage says",
        ),
        (lambda asked: asked.answer(404), len(CONTENT), "refused the file: 404"),
    ],
    ids=["half of it", "another size", "another hash", "gone"],
)
async def test_wrong_download_keeps_the_previous_file(tmp_path: Path, stored: Any, size: int, said: str) -> None:
    async with desk(tmp_path, stored, size=size) as at:
        (at.root / "b.bin").write_bytes(b"old")
        error = await at.it.refused("take-file", fileId="f1", filePath="b.bin", overwrite=True)
        assert said in error["message"]
        assert [path.name for path in at.root.iterdir()] == ["b.bin"]
        assert (at.root / "b.bin").read_bytes() == b"old"


@pytest.mark.parametrize("overwrite", [False, True])
async def test_download_keeps_a_file_that_appeared_meanwhile(tmp_path: Path, overwrite: bool) -> None:
    async def saved_by_the_person(asked: Asked) -> None:
        (at.root / "b.bin").write_bytes(b"mine")
        await serve_content(asked)

    async with desk(tmp_path, saved_by_the_person) as at:
        error = await at.it.refused("take-file", fileId="f1", filePath="b.bin", overwrite=overwrite)
        assert "exists, or has changed meanwhile; it was left as it is" in error["message"]
        assert [(path.name, path.read_bytes()) for path in at.root.iterdir()] == [("b.bin", b"mine")]


async def test_second_download_to_the_same_path_is_rejected(tmp_path: Path) -> None:
    async with desk(tmp_path, serve_content) as at:
        codes: list[str] = []

        async def take() -> None:
            try:
                await at.it.call("take-file", fileId="f1", filePath="b.bin")
            except CallError as error:
                codes.append(error.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            tasks.start_soon(take)
        assert codes == ["InvalidArguments"]
        assert [(path.name, path.read_bytes()) for path in at.root.iterdir()] == [("b.bin", CONTENT)]


async def test_cancelled_download_leaves_no_file(tmp_path: Path) -> None:
    async def never_ends(asked: Asked) -> None:
        await asked.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n" + CONTENT[:700_000])
        scope.cancel()
        await asked.until_closed()

    async with desk(tmp_path, never_ends) as at:
        with anyio.CancelScope() as scope:
            await at.it.call("take-file", fileId="f1", filePath="b.bin")
        assert scope.cancelled_caught
        assert list(at.root.iterdir()) == []


async def test_upload_with_a_wrong_hash_is_not_completed(tmp_path: Path) -> None:
    async def garbles(asked: Asked) -> None:
        await asked.answer(201, headers={"Content-MD5": base64.b64encode(bytes(16)).decode()})

    async with desk(tmp_path, garbles) as at:
        (at.root / "a.bin").write_bytes(CONTENT)
        assert "received other bytes" in (await at.it.refused("send-file", filePath="a.bin"))["message"]
        assert at.it.asked == ["POST /files"]


@pytest.mark.parametrize("link", ["http://127.0.0.1:9/c/x", "https://evil.example/x", "file:///etc/passwd", "", 5])
async def test_transfer_link_outside_the_storage_is_not_followed(tmp_path: Path, link: Any) -> None:
    async with desk(tmp_path, never, link=link) as at:
        (at.root / "a.bin").write_bytes(CONTENT)
        for tool, arguments in (("send-file", {"filePath": "a.bin"}), ("take-file", {"fileId": "f", "filePath": "b"})):
            error = await at.it.refused(tool, **arguments)
            assert "cannot be transferred" in error["message"] or "has no link" in error["message"]


# --- allowed paths ----------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    file = tmp_path / "outside.bin"
    file.write_bytes(b"secret")
    return file


@pytest.mark.parametrize(
    ("path", "said"),
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
    tmp_path: Path, outside: Path, path: str, said: str
) -> None:
    async with desk(tmp_path, never) as at:
        (at.root / "sub").mkdir()
        (at.root / "link.bin").symlink_to(outside)
        (at.root / "folder").symlink_to(tmp_path)
        (at.root / "round.bin").symlink_to(at.root / "round.bin")
        os.mkfifo(at.root / "pipe")
        (at.root / "sub" / ".ssh").mkdir()
        (at.root / "open").symlink_to(at.root / "sub" / ".ssh")
        for secret in (".env", "open/key.bin"):
            (at.root / secret).write_bytes(b"secret")
        (at.root / "large.bin").write_bytes(bytes(3_000_001))
        error = await at.it.refused("send-file", filePath=path.format(outside=outside, root=at.root))
        assert any(words in error["message"] for words in said.split("|")), error
        assert at.it.asked == []


@pytest.mark.parametrize(
    ("path", "said"),
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
    tmp_path: Path, outside: Path, path: str, said: str
) -> None:
    async with desk(tmp_path, never) as at:
        (at.root / "sub").mkdir()
        (at.root / "link.bin").symlink_to(outside)
        (at.root / "folder").symlink_to(tmp_path)
        (at.root / "there.bin").write_bytes(b"mine")
        os.mkfifo(at.root / "pipe")
        overwrite = path in ("sub", "pipe", "link.bin")
        error = await at.it.refused("take-file", fileId="f", filePath=path.format(outside=outside), overwrite=overwrite)
        assert said in error["message"]
        assert at.it.asked == []
        assert outside.read_bytes() == b"secret"


async def test_upload_follows_a_symlink_inside_the_allowed_folder(tmp_path: Path) -> None:
    async with desk(tmp_path, accept_upload) as at:
        (at.root / "real.bin").write_bytes(CONTENT)
        (at.root / "alias.bin").symlink_to(at.root / "real.bin")
        assert (await at.it.call("send-file", filePath=str(at.root / "alias.bin")))["size"] == len(CONTENT)
        assert b'"name":"real.bin"' in at.it.server.requests[0].body


async def test_transfer_without_files_root_explains_the_setting(tmp_path: Path) -> None:
    async with bench("transfers.yaml", never) as it:
        error = await it.refused("send-file", filePath="a.bin")
        assert "no folder was allowed" in error["message"]
        assert "--files-root" in error["hint"]
        assert "ITWIN_MCP_FILES_ROOT" in error["hint"]


@pytest.mark.parametrize(
    ("name", "size", "said"), [("p.gif", 10, "must end in .png"), ("p.png", 1001, "more than the 1000 allowed")]
)
async def test_picture_of_wrong_type_or_size_is_rejected_before_any_request(
    tmp_path: Path, name: str, size: int, said: str
) -> None:
    async with desk(tmp_path, never) as at:
        (at.root / name).write_bytes(bytes(size))
        assert said in (await at.it.refused("send-picture", fileId="f1", filePath=name))["message"]
        assert at.it.asked == []


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
