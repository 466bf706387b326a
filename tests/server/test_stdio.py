"""The stdio transport as a process: unreadable messages, batches, signals, and a user at a terminal."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.cli.test_serve import HELLO, read_line, send_line, start
from tests.upstream.loopback import Asked, loopback

ANSWER_SECONDS = 60.0
"""The time that a server may take to start and answer on a busy machine."""
END_SECONDS = 25.0
"""The time that a server may take to end on a busy machine: less than the timeout of a request."""
PATIENT = "tests.server.patient"

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals are POSIX")


def call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


@contextmanager
def greeted(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a server, wait for its answer to `initialize`, and keep its standard input open."""
    process = start("serve", *arguments, environment=environment, module=PATIENT)
    try:
        send_line(process, HELLO)
        assert read_line(process)["id"] == 1
        send_line(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield process
    finally:
        process.kill()
        process.communicate()


PING = '{"jsonrpc":"2.0","id":%s,"method":"ping"%s}'
UNREADABLE = [
    pytest.param(b'{"jsonrpc":"2.0","id":7,', -32700, None, "not JSON", id="malformed"),
    pytest.param((PING % (7, ',"params":{"a":NaN}')).encode(), -32700, None, "NaN", id="NaN"),
    pytest.param((PING % (7, ',"params":{"a":-Infinity}')).encode(), -32700, None, "Infinity", id="Infinity"),
    pytest.param((PING % ("9" * 5000, "")).encode(), -32600, None, "too many digits", id="long number"),
    pytest.param(b"hello", -32700, None, "not JSON", id="prose"),
    pytest.param(b"\xef\xbb\xbf" + (PING % (7, "")).encode(), -32700, 7, "byte order mark", id="byte order mark"),
    pytest.param((PING % (7, ',"params":{"a":"\xe9"}')).encode("latin-1"), -32700, 7, "UTF-8", id="latin-1"),
    pytest.param(b'{"a":' * 100_000, -32700, None, "nested", id="deep and unfinished"),
    pytest.param((PING % (7, r',"params":{"a":"\ud800"}')).encode(), -32600, 7, "surrogate", id="lone surrogate"),
    pytest.param((PING % (r'"\ud800"', "")).encode(), -32600, None, "surrogate", id="lone surrogate in the id"),
    pytest.param((PING % ("1.5", "")).encode(), -32600, None, "id must be", id="id 1.5"),
    pytest.param((PING % ("null", "")).encode(), -32600, None, "id must be", id="id null"),
    pytest.param((PING % ("true", "")).encode(), -32600, None, "id must be", id="id true"),
    pytest.param((PING % ('{"a":1}', "")).encode(), -32600, None, "id must be", id="id object"),
    pytest.param((PING % ("7", ',"params":[1]')).encode(), -32600, 7, "params must be", id="params a list"),
    pytest.param(b'{"jsonrpc":"2.0","id":7,"method":5}', -32600, 7, "method must be", id="method a number"),
    pytest.param(b'{"jsonrpc":"2.0","id":"x"}', -32600, "x", "method is missing", id="no method"),
    pytest.param(b'{"id":7,"method":"ping"}', -32600, 7, "jsonrpc", id="no version"),
    pytest.param(b'"ping"', -32600, None, "must be an object", id="text"),
    pytest.param(b'{"jsonrpc":"2.0","method":"ping","params":3}', -32600, None, "params", id="notification"),
    pytest.param(
        b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":' + b"[" * 300 + b"]" * 300 + b"}}",
        -32600,
        7,
        "recursion",
        id="deep",
    ),
]


@pytest.fixture(scope="module")
def served() -> Iterator[subprocess.Popen[str]]:
    with greeted("--sandbox") as process:
        yield process


@pytest.mark.parametrize(("frame", "code", "number", "reason"), UNREADABLE)
def test_unreadable_message_is_answered_with_the_reason(
    frame: bytes, code: int, number: Any, reason: str, served: subprocess.Popen[str]
) -> None:
    assert served.stdin is not None
    served.stdin.flush()
    os.write(served.stdin.fileno(), frame + b"\n") if len(frame) < 4096 else served.stdin.buffer.write(frame + b"\n")
    served.stdin.buffer.flush()
    answer = read_line(served)
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert (answer["error"]["code"], answer["id"]) == (code, number)
    assert reason in answer["error"]["message"]
    send_line(served, {"jsonrpc": "2.0", "id": "after", "method": "ping"})
    assert read_line(served) == {"jsonrpc": "2.0", "id": "after", "result": {}}


def test_unreadable_messages_are_logged_once_without_content() -> None:
    process = start("serve", "--sandbox")
    out, err = process.communicate('{"canary\n{"canary\n\n[5, "canary"]\n', timeout=ANSWER_SECONDS)
    assert [json.loads(line)["error"]["code"] for line in out.splitlines()] == [-32700, -32700, -32600]
    (logged,) = [json.loads(line) for line in err.splitlines()]
    assert logged["level"] == "warning"
    assert "unreadable message" in logged["message"]
    assert "canary" not in err
    assert process.returncode == 0


def test_unreadable_response_is_logged_but_not_answered() -> None:
    process = start("serve", "--sandbox")
    out, err = process.communicate(
        '{"jsonrpc":"2.0","id":7,"result":5}\n' + json.dumps(HELLO) + "\n", timeout=ANSWER_SECONDS
    )
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1]
    assert "result must be an object" in err


def test_last_line_without_newline_is_answered() -> None:
    process = start("serve", "--sandbox")
    out, _ = process.communicate(json.dumps(HELLO), timeout=ANSWER_SECONDS)
    assert json.loads(out)["id"] == 1


@posix
def test_client_that_closes_its_side_ends_the_server_quietly() -> None:
    process = start("serve", "--sandbox")
    assert process.stdout is not None and process.stdin is not None and process.stderr is not None
    process.stdout.close()
    send_line(process, HELLO)
    assert process.wait(ANSWER_SECONDS) == 0
    assert process.stderr.read() == ""
    process.stdin.close()
    process.stderr.close()


# --- batches ----------------------------------------------------------------------------------------------------


def ping(number: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


NOTIFIED = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "unknown"}}
INVALID = {"jsonrpc": "2.0", "id": 1.5, "method": "ping"}


def test_stdio_batch_is_answered_by_one_array() -> None:
    process = start("serve", "--sandbox", "--toolsets", "itwins")
    send_line(process, {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}})
    read_line(process)
    send_line(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    frames = [
        [ping(2), NOTIFIED, call(3, "list-itwins", limit=1), INVALID, HELLO],
        [NOTIFIED],
        [INVALID],
        [[]],
        [],
        [NOTIFIED] * 51,
    ]
    assert process.stdin is not None and process.stdout is not None
    for frame in [*frames, ping("last")]:
        process.stdin.write(json.dumps(frame) + "\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(6)]
    process.communicate(timeout=ANSWER_SECONDS)
    arrays = [answer for answer in answers if isinstance(answer, list)]
    assert sorted(sorted(str(item["id"]) for item in array) for array in arrays) == [
        ["1", "2", "3", "None"],
        ["None"],
        ["None"],
    ]
    (full_array,) = [array for array in arrays if len(array) > 1]
    assert {item["id"]: item.get("error", {}).get("code") for item in full_array} == {
        2: None,
        3: None,
        None: -32600,
        1: -32600,
    }
    singles = [answer for answer in answers if isinstance(answer, dict)]
    assert [answer.get("error", {}).get("code") for answer in singles if answer["id"] is None] == [-32600, -32600]
    assert [answer["result"] for answer in singles if answer["id"] == "last"] == [{}]


@pytest.mark.anyio
async def test_batch_is_answered_without_a_cancelled_request() -> None:
    async with platform() as (environment, requested):
        process = start("serve", environment=environment)
        send_line(process, {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}})
        read_line(process)
        send_line(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        send_line(process, [ping(2), call(3, "list-itwins")])  # type: ignore[arg-type]
        with anyio.fail_after(ANSWER_SECONDS):
            await requested.wait()
        send_line(process, {**NOTIFIED, "params": {"requestId": 3}})
        assert process.stdout is not None
        answers = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
        assert [answer["id"] for answer in answers] == [2]
        process.communicate(timeout=ANSWER_SECONDS)


def test_batch_under_another_revision_is_refused(served: subprocess.Popen[str]) -> None:
    send_line(served, [ping(2)])  # type: ignore[arg-type]
    error = read_line(served)
    assert (error["error"]["code"], error["id"]) == (-32600, None)
    assert "2025-03-26" in error["error"]["message"]


# --- signals ----------------------------------------------------------------------------------------------------


@posix
def test_sigterm_ends_a_background_command() -> None:
    # A shell ignores SIGINT for background commands, and they inherit that.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with greeted("--sandbox") as process:
            process.terminate()
            assert process.wait(END_SECONDS) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@posix
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_an_idle_server_whose_input_is_open(sent: signal.Signals) -> None:
    with greeted("--sandbox") as process:
        process.send_signal(sent)
        assert process.wait(END_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@asynccontextmanager
async def platform(*, download: bool = False) -> AsyncIterator[tuple[dict[str, str], anyio.Event]]:
    """Run a platform that never finishes a response; yield its settings and an event that the first request sets."""
    requested = anyio.Event()

    async def handle(request: Asked) -> None:
        if download and request.path.endswith("/baselinefile"):
            file = {"id": "f", "fileSize": 10**7, "_links": {"download": {"href": f"{server.origin}/file?sig=x"}}}
            await request.json(200, {"baselineFile": file})
            return
        if download:
            await request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(1_000_000))
        requested.set()
        await request.until_closed()

    async with loopback(handle) as server:
        yield {"ITWIN_API_URL": server.origin, "ITWIN_ACCESS_TOKEN": "token"}, requested


@posix
@pytest.mark.anyio
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_signal_during_a_write_is_noted_in_the_audit_log(sent: signal.Signals, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    async with platform() as (environment, requested):
        with greeted(environment=environment | {"ITWIN_MCP_AUDIT_LOG": str(audit)}) as process:
            send_line(process, call(2, "create-imodel", iTwinId="1c4b1d5e-0000-4000-8000-000000000000", name="A"))
            with anyio.fail_after(ANSWER_SECONDS):
                await requested.wait()
            process.send_signal(sent)
            assert await anyio.to_thread.run_sync(process.wait, END_SECONDS) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    before, after = [json.loads(line) for line in (await anyio.Path(audit).read_text()).splitlines()]
    assert (before["decision"], after["decision"]) == ("allowed", "failed")
    assert after["outcomeUnknown"] is True


@posix
@pytest.mark.anyio
async def test_sigterm_during_a_download_leaves_no_partial_file(tmp_path: Path) -> None:
    async with platform(download=True) as (environment, _):
        with greeted("--toolsets", "files", "--files-root", str(tmp_path), environment=environment) as process:
            download = call(2, "download-baseline-file", iModelId="1c4b1d5e-0000-4000-8000-000000000001", filePath="f")
            download["params"]["_meta"] = {"progressToken": 5}
            send_line(process, download)
            with anyio.fail_after(ANSWER_SECONDS):
                notification = await anyio.to_thread.run_sync(read_line, process)
            assert "received" in notification["params"]["message"]
            assert [path.suffix async for path in anyio.Path(tmp_path).iterdir()] == [".part"]
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait, END_SECONDS) == 0
    assert not [path async for path in anyio.Path(tmp_path).iterdir()]


ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "tests.server.patient", "serve", *sys.argv[1:]])
"""


@contextmanager
def on_a_terminal(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[tuple[Any, int]]:
    """Start a server on its own terminal; yield it and the terminal's descriptor."""
    import pty

    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env=os.environ | (environment or {}),
    )
    os.close(terminal)
    try:
        yield process, keyboard
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


def read_until(screen: int, text: str | None) -> str:
    """Read the terminal until `text` appears or the program ends."""
    shown = b""
    while text is None or text.encode() not in shown:
        assert select.select([screen], [], [], ANSWER_SECONDS)[0], shown.decode()
        try:
            shown += os.read(screen, 4096)
        except OSError:
            assert text is None, shown.decode()
            break
    return shown.decode()


@posix
def test_serve_on_a_terminal_explains_itself_and_ends_on_ctrl_c() -> None:
    with on_a_terminal("--sandbox") as (process, keyboard):
        shown = read_until(keyboard, "Ctrl-C stops it.")
        assert "waits for an MCP client on standard input" in shown
        assert "itwin-mcp install claude-desktop --sandbox" in shown
        assert "itwin-mcp serve --sandbox --http 127.0.0.1:8000" in shown
        os.write(keyboard, b"\x03")
        assert process.wait(END_SECONDS) == 0
        assert "Traceback" not in read_until(keyboard, None)


@posix
@pytest.mark.anyio
async def test_ctrl_c_on_a_terminal_ends_a_server_during_a_call(tmp_path: Path) -> None:
    async with platform() as (environment, requested):
        with on_a_terminal(environment=environment) as (process, keyboard):
            hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-11-25"}}
            for frame in (hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call(2, "list-itwins")):
                os.write(keyboard, json.dumps(frame).encode() + b"\n")
            with anyio.fail_after(ANSWER_SECONDS):
                await requested.wait()
            os.write(keyboard, b"\x03")
            assert await anyio.to_thread.run_sync(process.wait, END_SECONDS) == 0
            assert "Traceback" not in read_until(keyboard, None)
