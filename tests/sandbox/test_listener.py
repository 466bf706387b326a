"""The sandbox on a real port."""

import asyncio
import socket
import subprocess
import sys

import httpx2
import pytest

from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.app import STORAGE_ORIGIN
from itwin_mcp.sandbox.listener import serve
from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
ROADS = seeded_id("imodel", "roads")


async def start_listening(sandbox: Sandbox) -> tuple[asyncio.Task[None], int]:
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(sandbox, "127.0.0.1", 0, started=bound.set_result))
    return task, await bound


async def test_serve_answers_on_the_bound_port_until_cancelled(
    http: httpx2.AsyncClient, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    task, port = await start_listening(sandbox)
    # An in-process request under the platform's host name, as `serve --sandbox` sends it.
    baseline = (await http.get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
    url = baseline["_links"]["download"]["href"]
    assert url.startswith(f"http://127.0.0.1:{port}/storage/")
    assert baseline["_links"]["creator"]["href"].startswith("https://api.bentley.com/")
    async with httpx2.AsyncClient() as anonymous:
        answer = await anonymous.get(url)
        assert (answer.status_code, len(answer.content)) == (200, baseline["fileSize"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(httpx2.ConnectError):
            await anonymous.get(url)
    assert sandbox.storage_url == STORAGE_ORIGIN
    assert capfd.readouterr() == ("", "")


async def test_serve_accepts_a_large_upload(sandbox: Sandbox) -> None:
    task, port = await start_listening(sandbox)
    content = b"0123456789abcdef" * (3 << 16)  # 3 MiB
    body = {
        "iTwinId": seeded_id("itwin", "interchange"),
        "name": "Large",
        "baselineFile": {"size": len(content)},
    }
    token = {"Authorization": f"Bearer {sandbox.token()}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        links = (await http.post("/imodels", json=body, headers=token)).json()["iModel"]["_links"]
        put = await http.put(links["upload"]["href"], content=content, headers={"x-ms-blob-type": "BlockBlob"})
        assert put.status_code == 201
        assert (await http.post(links["complete"]["href"], headers=token)).status_code == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_serve_raises_os_error_for_a_taken_port(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await serve(sandbox, "127.0.0.1", taken.getsockname()[1], started=print)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")
def test_serve_ends_silently_on_sigterm() -> None:
    program = (
        "import asyncio, sys\n"
        "from itwin_mcp.sandbox import Sandbox\n"
        "from itwin_mcp.sandbox.listener import serve\n"
        "with Sandbox.open() as box:\n"
        "    started = lambda port: print(port, file=sys.stderr, flush=True)\n"
        "    asyncio.run(serve(box, '127.0.0.1', 0, started=started))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert int(process.stderr.readline()) > 0
    process.terminate()
    assert process.communicate(timeout=20) == (b"", b"")
