"""The stdio transport as a process: frames that cannot be read, signals, and what a person on a terminal is told."""

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

from tests.cli.test_serve import HELLO, hear, say, start
from tests.upstream.loopback import Asked, loopback

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals are POSIX")


def call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


@contextmanager
def greeted(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A server that has answered `initialize`; its standard input stays open."""
    process = start("serve", *arguments, environment=environment)
    try:
        say(process, HELLO)
        assert hear(process)["id"] == 1
        say(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
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
def test_a_frame_that_cannot_be_read_is_answered_with_the_reason(
    frame: bytes, code: int, number: Any, reason: str, served: subprocess.Popen[str]
) -> None:
    assert served.stdin is not None
    served.stdin.flush()
    os.write(served.stdin.fileno(), frame + b"\n") if len(frame) < 4096 else served.stdin.buffer.write(frame + b"\n")
    served.stdin.buffer.flush()
    answer = hear(served)
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert (answer["error"]["code"], answer["id"]) == (code, number)
    assert reason in answer["error"]["message"]
    say(served, {"jsonrpc": "2.0", "id": "after", "method": "ping"})
    assert hear(served) == {"jsonrpc": "2.0", "id": "after", "result": {}}


def test_unreadable_frames_are_logged_once_without_their_content() -> None:
    process = start("serve", "--sandbox")
    out, err = process.communicate('{"canary\n{"canary\n\n[5, "canary"]\n', timeout=20)
    assert [json.loads(line)["error"]["code"] for line in out.splitlines()] == [-32700, -32700, -32600]
    (logged,) = [json.loads(line) for line in err.splitlines()]
    assert logged["level"] == "warning"
    assert "cannot be read" in logged["message"]
    assert "canary" not in err
    assert process.returncode == 0


def test_an_unreadable_response_is_logged_and_not_answered() -> None:
    process = start("serve", "--sandbox")
    out, err = process.communicate('{"jsonrpc":"2.0","id":7,"result":5}\n' + json.dumps(HELLO) + "\n", timeout=20)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1]
    assert "result must be an object" in err


def test_a_last_line_without_a_newline_is_answered() -> None:
    process = start("serve", "--sandbox")
    out, _ = process.communicate(json.dumps(HELLO), timeout=20)
    assert json.loads(out)["id"] == 1


@posix
def test_a_client_that_stops_reading_ends_the_server_quietly() -> None:
    process = start("serve", "--sandbox")
    assert process.stdout is not None and process.stdin is not None and process.stderr is not None
    process.stdout.close()
    say(process, HELLO)
    assert process.wait(20) == 0
    assert process.stderr.read() == ""
    process.stdin.close()
    process.stderr.close()


# --- batches ----------------------------------------------------------------------------------------------------


def ping(number: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


NOTIFIED = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "unknown"}}
INVALID = {"jsonrpc": "2.0", "id": 1.5, "method": "ping"}


def test_a_batch_under_2025_03_26_is_answered_by_one_array() -> None:
    process = start("serve", "--sandbox", "--toolsets", "itwins")
    say(process, {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}})
    hear(process)
    say(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
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
    heard = [json.loads(process.stdout.readline()) for _ in range(6)]
    process.communicate(timeout=20)
    arrays = [answer for answer in heard if isinstance(answer, list)]
    assert sorted(sorted(str(item["id"]) for item in array) for array in arrays) == [
        ["1", "2", "3", "None"],
        ["None"],
        ["None"],
    ]
    (whole,) = [array for array in arrays if len(array) > 1]
    assert {item["id"]: item.get("error", {}).get("code") for item in whole} == {
        2: None,
        3: None,
        None: -32600,
        1: -32600,
    }
    singles = [answer for answer in heard if isinstance(answer, dict)]
    assert [answer.get("error", {}).get("code") for answer in singles if answer["id"] is None] == [-32600, -32600]
    assert [answer["result"] for answer in singles if answer["id"] == "last"] == [{}]


@pytest.mark.anyio
async def test_a_batch_whose_last_request_is_cancelled_is_answered_without_it() -> None:
    async with platform() as (environment, asked):
        process = start("serve", environment=environment)
        say(process, {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}})
        hear(process)
        say(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        say(process, [ping(2), call(3, "list-itwins")])  # type: ignore[arg-type]
        with anyio.fail_after(20):
            await asked.wait()
        say(process, {**NOTIFIED, "params": {"requestId": 3}})
        assert process.stdout is not None
        answers = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
        assert [answer["id"] for answer in answers] == [2]
        process.communicate(timeout=20)


def test_a_batch_under_another_revision_is_refused(served: subprocess.Popen[str]) -> None:
    say(served, [ping(2)])  # type: ignore[arg-type]
    error = hear(served)
    assert (error["error"]["code"], error["id"]) == (-32600, None)
    assert "2025-03-26" in error["error"]["message"]


# --- signals ----------------------------------------------------------------------------------------------------


@posix
def test_sigterm_ends_a_command_that_a_shell_started_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as such a shell does, and programs inherit it
    try:
        with greeted("--sandbox") as process:
            process.terminate()
            assert process.wait(10) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@posix
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_an_idle_server_whose_input_stays_open(sent: signal.Signals) -> None:
    with greeted("--sandbox") as process:
        process.send_signal(sent)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@asynccontextmanager
async def platform(*, download: bool = False) -> AsyncIterator[tuple[dict[str, str], anyio.Event]]:
    """A platform that never finishes an answer: its settings, and what is set once it is asked."""
    asked_for = anyio.Event()

    async def handle(asked: Asked) -> None:
        if download and asked.path.endswith("/baselinefile"):
            file = {"id": "f", "fileSize": 10**7, "_links": {"download": {"href": f"{server.origin}/file?sig=x"}}}
            await asked.json(200, {"baselineFile": file})
            return
        if download:
            await asked.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(1_000_000))
        asked_for.set()
        await asked.until_closed()

    async with loopback(handle) as server:
        yield {"ITWIN_API_URL": server.origin, "ITWIN_ACCESS_TOKEN": "token"}, asked_for


@posix
@pytest.mark.anyio
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_one_signal_ends_a_server_in_a_write_and_the_audit_log_says_that_its_outcome_is_unknown(
    sent: signal.Signals, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.jsonl"
    async with platform() as (environment, asked):
        with greeted(environment=environment | {"ITWIN_MCP_AUDIT_LOG": str(audit)}) as process:
            say(process, call(2, "create-imodel", iTwinId="1c4b1d5e-0000-4000-8000-000000000000", name="A"))
            with anyio.fail_after(20):
                await asked.wait()
            process.send_signal(sent)
            assert await anyio.to_thread.run_sync(process.wait, 2) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    before, after = [json.loads(line) for line in (await anyio.Path(audit).read_text()).splitlines()]
    assert (before["decision"], after["decision"]) == ("allowed", "failed")
    assert after["outcomeUnknown"] is True


@posix
@pytest.mark.anyio
async def test_sigterm_in_a_download_leaves_no_partial_file(tmp_path: Path) -> None:
    async with platform(download=True) as (environment, _):
        with greeted("--toolsets", "files", "--files-root", str(tmp_path), environment=environment) as process:
            download = call(2, "download-baseline-file", iModelId="1c4b1d5e-0000-4000-8000-000000000001", filePath="f")
            download["params"]["_meta"] = {"progressToken": 5}
            say(process, download)
            with anyio.fail_after(20):
                told = await anyio.to_thread.run_sync(hear, process)
            assert "received" in told["params"]["message"]
            assert [path.suffix async for path in anyio.Path(tmp_path).iterdir()] == [".part"]
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait, 2) == 0
    assert not [path async for path in anyio.Path(tmp_path).iterdir()]


ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "itwin_mcp", "serve", *sys.argv[1:]])
"""


@contextmanager
def on_a_terminal(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[tuple[Any, int]]:
    """A server on a terminal of its own, and the descriptor of the keyboard and screen."""
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
    """What is shown until `text` is, or until the program ends."""
    shown = b""
    while text is None or text.encode() not in shown:
        assert select.select([screen], [], [], 20)[0], shown.decode()
        try:
            shown += os.read(screen, 4096)
        except OSError:
            assert text is None, shown.decode()
            break
    return shown.decode()


@posix
def test_on_a_terminal_it_says_what_it_waits_for_and_ctrl_c_ends_it_at_once() -> None:
    with on_a_terminal("--sandbox") as (process, keyboard):
        shown = read_until(keyboard, "Ctrl-C ends it.")
        assert "waits for an MCP client on standard input" in shown
        assert "itwin-mcp install claude-desktop --sandbox" in shown
        assert "itwin-mcp serve --sandbox --http 127.0.0.1:8000" in shown
        os.write(keyboard, b"\x03")
        assert process.wait(20) == 0
        assert "Traceback" not in read_until(keyboard, None)


@posix
@pytest.mark.anyio
async def test_ctrl_c_on_a_terminal_ends_a_server_in_a_call(tmp_path: Path) -> None:
    async with platform() as (environment, asked):
        with on_a_terminal(environment=environment) as (process, keyboard):
            hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-11-25"}}
            for frame in (hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call(2, "list-itwins")):
                os.write(keyboard, json.dumps(frame).encode() + b"\n")
            with anyio.fail_after(20):
                await asked.wait()
            os.write(keyboard, b"\x03")
            assert await anyio.to_thread.run_sync(process.wait, 2) == 0
            assert "Traceback" not in read_until(keyboard, None)
