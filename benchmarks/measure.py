"""Measure itwin-mcp and the servers to compare with, in interleaved rounds, and print Markdown tables (README.md)."""

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parent
VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ITWIN = "dc914a84-e0c9-40e2-9d14-faf5ed84147f"


@dataclass(frozen=True)
class Target:
    """A server to measure: its commands, and the names of its two tools with their arguments."""

    name: str
    stdio: tuple[str, ...]
    http: tuple[str, ...]
    get: tuple[str, str]
    list: tuple[str, str]

    def call(self, kind: str) -> dict:
        """Return the parameters of a call. Each "get" call has another id, so that no answer can be reused."""
        tool, argument = self.get if kind == "get" else self.list
        return {"name": tool, "arguments": {argument: str(uuid.uuid4()) if kind == "get" else ITWIN}}


OURS = (sys.executable, "-m", "itwin_mcp", "serve")
TARGETS = (
    Target(
        "itwin-mcp",
        OURS,
        (*OURS, "--http", "127.0.0.1:{port}"),
        ("get-imodel", "iModelId"),
        ("list-imodels", "iTwinId"),
    ),
    Target(
        "FastMCP.from_openapi",
        (sys.executable, str(HERE / "rival_fastmcp.py"), "stdio"),
        (sys.executable, str(HERE / "rival_fastmcp.py"), "{port}"),
        ("get_imodel_details", "id"),
        ("get_itwin_imodels", "iTwinId"),
    ),
    Target(
        "SDK by hand, two tools",
        (sys.executable, str(HERE / "rival_sdk.py"), "stdio"),
        (sys.executable, str(HERE / "rival_sdk.py"), "{port}"),
        ("get_imodel", "id"),
        ("list_imodels", "iTwinId"),
    ),
)


def make_message(number: int, method: str, params: dict) -> dict:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": META}}


def encode(value: dict | list) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def check_result(answer: dict) -> dict:
    """Return the result of a call. A failed call ends the program, because its duration means nothing."""
    result = answer["result"]
    if result.get("isError") or ("content" in result and "Harbour bridge" not in result["content"][0]["text"]):
        raise SystemExit(f"A call failed: {json.dumps(answer)[:500]}")
    return result


def read_cpu(process: psutil.Process) -> float:
    """Return the CPU time of a process and its children so far, in milliseconds."""
    times = [item.cpu_times() for item in (process, *process.children(recursive=True))]
    return 1000 * sum(item.user + item.system for item in times)


class StdioServer:
    """A running server that is called over stdio."""

    def __init__(self, target: Target, *arguments: str) -> None:
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            [*target.stdio, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._number = 0

    def ask(self, method: str, params: dict) -> dict:
        self._number += 1
        self._process.stdin.write(encode(make_message(self._number, method, params)) + b"\n")
        self._process.stdin.flush()
        while True:
            line = self._process.stdout.readline()
            if not line:
                raise SystemExit(f"{' '.join(self._process.args)} ended: run it by hand to see why.")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer

    def first_list(self) -> tuple[float, float, dict]:
        """Return wall time and CPU milliseconds from the start to the first tools/list answer, and the answer."""
        self.ask("server/discover", {})
        listed = check_result(self.ask("tools/list", {}))
        return 1000 * (time.perf_counter() - self._began), read_cpu(psutil.Process(self._process.pid)), listed

    def calls(self, target: Target, kind: str, count: int) -> float:
        """Send calls one after another and return the CPU milliseconds for each call."""
        process = psutil.Process(self._process.pid)
        before = read_cpu(process)
        for _ in range(count):
            check_result(self.ask("tools/call", target.call(kind)))
        return (read_cpu(process) - before) / count

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class HttpServer:
    """A running server that is called over streamable HTTP."""

    def __init__(self, target: Target) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = [word.format(port=self._port) for word in target.http]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit(f"{target.name} does not listen.")

    async def calls(self, target: Target, kind: str, count: int, at_once: int) -> float:
        """Send calls from `at_once` callers, each on its own connection; return the CPU milliseconds for each call."""
        process = psutil.Process(self._process.pid)
        connections = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(at_once)]
        before = read_cpu(process)
        await asyncio.gather(
            *(self._send_calls(target, kind, count // at_once, reader, writer) for reader, writer in connections)
        )
        spent = (read_cpu(process) - before) / (count // at_once * at_once)
        for _, writer in connections:
            writer.close()
        return spent

    async def _send_calls(self, target, kind, count, reader, writer) -> None:
        for number in range(count):
            params = target.call(kind)
            body = encode(make_message(number + 1, "tools/call", params))
            head = (
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
                f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {VERSION}\r\n"
                f"Mcp-Method: tools/call\r\nMcp-Name: {params['name']}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            check_result(await _read_answer(reader))

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


async def _read_answer(reader: asyncio.StreamReader) -> dict:
    """Return the JSON of a response, which may be chunked, and plain or an event."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    if not body.startswith(b"{"):
        events = [line[5:] for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]
        body = events[-1]
    return json.loads(body)


class Table:
    """Measurements by row and target. It prints their medians, and the ratio of each server to itwin-mcp."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._rows: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, target: Target, value: float) -> None:
        self._rows.setdefault(row, {}).setdefault(target.name, []).append(value)

    def print(self) -> None:
        print(f"\n{self._title} ({self._unit}; in brackets: times ours)\n")
        print("| |" + "|".join(f" {target.name} " for target in TARGETS) + "|")
        print("|---|" + "---|" * len(TARGETS))
        for row, by_target in self._rows.items():
            ours = by_target[TARGETS[0].name]
            cells = []
            for target in TARGETS:
                values = by_target[target.name]
                ratio = statistics.median(theirs / mine for theirs, mine in zip(values, ours, strict=True))
                value = f"{statistics.median(values):.{0 if self._unit == 'ms' else 2}f}"
                cells.append(value if target is TARGETS[0] else f"{value} ({ratio:.1f})")
            print(f"| {row} | " + " | ".join(cells) + " |")


@contextmanager
def start_platform() -> Iterator[None]:
    """Run the stand-in for the platform, and set the environment variables of the servers."""
    upstream = subprocess.Popen([sys.executable, str(HERE / "upstream.py")], stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith(("ITWIN_", "ITP_"))]:
            del os.environ[name]
        os.environ |= {
            "ITWIN_API_URL": upstream.stdout.readline().strip(),
            "ITWIN_ACCESS_TOKEN": "x",
            "ITWIN_MCP_STATE_DIR": f"{folder}/state",
            "ITWIN_MCP_CACHE_DIR": f"{folder}/cache",
        }
        try:
            yield
        finally:
            upstream.kill()
            upstream.wait()


def measure_cold_start(rounds: int) -> None:
    table = Table("Cold start: from the start of the process to the answer to tools/list", "ms")
    sizes: dict[str, list[dict]] = {}
    for number in range(rounds + 1):
        for target in TARGETS:
            server = StdioServer(target)
            wall, used, listed = server.first_list()
            server.close()
            sizes[target.name] = listed["tools"]
            if number:  # the first round fills caches
                table.add("wall time", target, wall)
                table.add("CPU", target, used)
    for name in ("all", "dynamic"):
        server = StdioServer(TARGETS[0], "--toolsets", name)
        _, _, listed = server.first_list()
        server.close()
        sizes[f"itwin-mcp --toolsets {name}"] = listed["tools"]
    table.print()
    print("\nWhat tools/list costs; a model reads names, descriptions and input schemas\n")
    print("| | tools | bytes | tokens that a model reads, about |\n|---|---|---|---|")
    for name, tools in sizes.items():
        read = [{key: tool.get(key) for key in ("name", "description", "inputSchema")} for tool in tools]
        print(f"| {name} | {len(tools)} | {len(encode(tools)):,} | {len(encode(read)) // 4:,} |")


def measure_stdio(rounds: int, count: int) -> None:
    table = Table("Calls over stdio, one after another", "CPU ms a call")
    servers = [(target, StdioServer(target)) for target in TARGETS]
    for target, server in servers:
        server.first_list()
        server.calls(target, "get", 50)
    for _ in range(rounds):
        for kind, row in (("get", "one iModel, 1 kB"), ("list", "a list of 50, 50 kB")):
            for target, server in servers:
                table.add(row, target, server.calls(target, kind, count))
    for _, server in servers:
        server.close()
    table.print()


async def measure_http(rounds: int, count: int) -> None:
    table = Table("Calls over HTTP", "CPU ms a call")
    servers = [(target, HttpServer(target)) for target in TARGETS]
    for target, server in servers:
        await server.calls(target, "get", 50, 1)
    for _ in range(rounds):
        for at_once in (1, 16):
            for target, server in servers:
                spent = await server.calls(target, "get", count, at_once)
                table.add(f"one iModel, {at_once} at once", target, spent)
    for _, server in servers:
        server.close()
    table.print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls")
    parser.add_argument("--only", choices=["cold", "stdio", "http"], help="measure only this part")
    options = parser.parse_args()
    rounds, count = (3, 150) if options.quick else (7, 320)
    packages = ("itwin-mcp", "mcp", "fastmcp", "httpx2", "pydantic", "uvicorn", "uvloop", "httptools")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages if _is_installed(name)]
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}: {', '.join(versions)}")
    with start_platform():
        if options.only in (None, "cold"):
            measure_cold_start(rounds)
        if options.only in (None, "stdio"):
            measure_stdio(rounds, count)
        if options.only in (None, "http"):
            asyncio.run(measure_http(rounds, count))


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
