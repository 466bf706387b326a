"""Measure itwin-mcp and the servers to compare with, in interleaved rounds, and write docs/performance.md."""

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import re
import resource
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
PAGE = HERE.parent / "docs" / "performance.md"
VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ITWIN = "dc914a84-e0c9-40e2-9d14-faf5ed84147f"
DELAY_MS = 50
WITHOUT_EXTRAS = """
import sys
for name in ("aiohttp", "uvloop", "httptools"):
    sys.modules[name] = None
from itwin_mcp.cli import main
main()
"""


@dataclass(frozen=True)
class Target:
    """A server to measure: its command, what follows for each transport, and the names of its two tools."""

    name: str
    command: tuple[str, ...]
    stdio: tuple[str, ...]
    http: tuple[str, ...]
    get: tuple[str, str]
    list: tuple[str, str]

    def call(self, kind: str) -> dict:
        """Return the parameters of a call. Each "get" call has another id, so that no answer can be reused."""
        tool, argument = self.get if kind == "get" else self.list
        return {"name": tool, "arguments": {argument: str(uuid.uuid4()) if kind == "get" else ITWIN}}


def _ours(name: str, *command: str) -> Target:
    serve = (sys.executable, *command, "serve")
    return Target(
        name, serve, (), ("--http", "127.0.0.1:{port}"), ("get-imodel", "iModelId"), ("list-imodels", "iTwinId")
    )


def _sdk(name: str, wire: str) -> Target:
    command = (sys.executable, str(HERE / "rival_sdk.py"))
    return Target(name, command, ("stdio", wire), ("{port}", wire), ("get_imodel", "id"), ("list_imodels", "iTwinId"))


FASTMCP = Target(
    "FastMCP.from_openapi",
    (sys.executable, str(HERE / "rival_fastmcp.py")),
    ("stdio",),
    ("{port}",),
    ("get_imodel_details", "id"),
    ("get_itwin_imodels", "iTwinId"),
)
TARGETS = (
    _ours("itwin-mcp[fast]", "-m", "itwin_mcp"),
    _ours("itwin-mcp", "-c", WITHOUT_EXTRAS),
    FASTMCP,
    _sdk("SDK over aiohttp", "aiohttp"),
    _sdk("SDK over httpx2", "httpx2"),
)


def make_message(number: int, method: str, params: dict) -> dict:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": META}}


def encode(value: dict | list) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def read_result(answer: dict) -> dict:
    """Return the result of a call. It must be a real one: a wrong answer is not worth measuring."""
    result = answer.get("result", {})
    if (
        not result
        or result.get("isError")
        or ("content" in result and "Harbour bridge" not in result["content"][0]["text"])
    ):
        raise SystemExit(f"A call failed: {json.dumps(answer)[:500]}")
    return result


def measure_cpu(process: psutil.Process) -> float:
    """Return the milliseconds of CPU that a process and its children have used."""
    times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
    return 1000 * sum(time.user + time.system for time in times)


class StdioServer:
    """One server over pipes."""

    def __init__(self, target: Target, *arguments: str) -> None:
        command = [*target.command, *target.stdio, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._monitor = psutil.Process(self._process.pid)
        self._number = 0

    def request(self, method: str, params: dict) -> dict:
        self._number += 1
        self._process.stdin.write(encode(make_message(self._number, method, params)) + b"\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer
        raise SystemExit(f"{' '.join(self._process.args)} ended: run it by hand to see why.")

    def list_tools(self) -> list[dict]:
        self.request("server/discover", {})
        return read_result(self.request("tools/list", {}))["tools"]

    def call(self, target: Target, kind: str, count: int) -> float:
        """Return the CPU milliseconds of one call, of `count` in sequence."""
        before = measure_cpu(self._monitor)
        for _ in range(count):
            read_result(self.request("tools/call", target.call(kind)))
        return (measure_cpu(self._monitor) - before) / count

    @property
    def cpu(self) -> float:
        return measure_cpu(self._monitor)

    @property
    def peak_memory(self) -> float:
        """The MiB that the process has had at most; Linux only."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def close(self) -> None:
        self._process.stdin.close()
        _end(self._process)


class HttpServer:
    """One server over streamable HTTP."""

    def __init__(self, target: Target) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [*target.command, *(word.format(port=self._port) for word in target.http)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._monitor = psutil.Process(self._process.pid)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit(f"{target.name} does not listen.")

    async def call(self, target: Target, count: int, at_once: int) -> tuple[float, float]:
        """Return the CPU milliseconds of one call, and the calls per second, on `at_once` kept connections."""
        connections = []
        for _ in range(at_once):  # one after another: itwin-mcp limits the connections that have sent nothing yet
            connections.append(await asyncio.open_connection("127.0.0.1", self._port))
            await self._call_repeatedly(target, 1, *connections[-1])
        before, began = measure_cpu(self._monitor), time.perf_counter()
        await asyncio.gather(*(self._call_repeatedly(target, count // at_once, *pair) for pair in connections))
        seconds = time.perf_counter() - began
        cpu = measure_cpu(self._monitor) - before
        for _, writer in connections:
            writer.close()
        calls = count // at_once * at_once
        return cpu / calls, calls / seconds

    async def _call_repeatedly(
        self, target: Target, count: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for number in range(count):
            params = target.call("get")
            body = encode(make_message(number + 1, "tools/call", params))
            head = (
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
                f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {VERSION}\r\n"
                f"Mcp-Method: tools/call\r\nMcp-Name: {params['name']}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            read_result(await _read_response(reader))

    def close(self) -> None:
        self._process.terminate()
        _end(self._process)


def _end(process: subprocess.Popen) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _read_response(reader: asyncio.StreamReader) -> dict:
    """Return the JSON of one response: complete or in chunks, plain or as an event."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    if not body.startswith(b"{"):
        body = [line[5:] for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()][-1]
    return json.loads(body)


class Table:
    """Values by row and target, round by round; printed as medians, with the ratio to FastMCP's of the same round."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, target: Target, value: float) -> None:
        self._rows.setdefault(row, {}).setdefault(target.name, []).append(value)

    def format(self) -> str:
        lines = ["| |" + "|".join(f" {target.name} " for target in TARGETS) + "|", "|---|" + "---|" * len(TARGETS)]
        for row, values in self._rows.items():
            cells = []
            for target in TARGETS:
                pairs = zip(values[target.name], values[FASTMCP.name], strict=True)
                ratio = statistics.median(value / reference for value, reference in pairs)
                median = statistics.median(values[target.name])
                number = f"{median:,.0f}" if median >= 20 else f"{median:.2f}"
                cells.append(number if target is FASTMCP else f"{number} ({ratio:.2f})")
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


@contextmanager
def start_upstream(*arguments: str) -> Iterator[None]:
    """Run the stand-in for the platform, and give the servers empty folders for their state."""
    command = [sys.executable, str(HERE / "upstream.py"), *arguments]
    upstream = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
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


def measure_import() -> float:
    """Return the CPU milliseconds of `import mcp` with the garbage collector off: the least that any server needs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import gc; gc.disable(); import mcp"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure_start(table: Table, rounds: int) -> list[float]:
    """Measure from the start of a process to its answer to tools/list. Return what `import mcp` took in each round."""
    imports = []
    for number in range(rounds + 1):
        if number:
            imports.append(measure_import())
        for target in TARGETS:
            server = StdioServer(target)
            server.list_tools()
            if number:  # the first round fills caches
                table.add("start to `tools/list`, CPU ms", target, server.cpu)
            server.close()
    return imports


def measure_stdio(table: Table, rounds: int, count: int) -> None:
    servers = [(target, StdioServer(target)) for target in TARGETS]
    for target, server in servers:
        server.list_tools()
        server.call(target, "get", 50)
    for _ in range(rounds):
        for kind, row in (("get", "stdio, one iModel of 1 kB, CPU ms"), ("list", "stdio, a list of 50 kB, CPU ms")):
            for target, server in servers:
                table.add(row, target, server.call(target, kind, count))
        for target, server in servers:
            table.add("peak memory after these calls, MiB", target, server.peak_memory)
    for _, server in servers:
        server.close()


async def measure_http(table: Table, rounds: int, count: int, rows: dict[int, str], rates: str = "") -> None:
    """Measure calls over HTTP. `rows` names rows by the number of calls at once, `rates` that of calls per second."""
    servers = [(target, HttpServer(target)) for target in TARGETS]
    for target, server in servers:
        await server.call(target, 64, 1)
    for _ in range(rounds):
        for at_once, row in rows.items():
            for target, server in servers:
                cpu, rate = await server.call(target, count, at_once)
                table.add(row, target, cpu)
                if rates:
                    table.add(rates, target, rate)
    for _, server in servers:
        server.close()


def describe_tools() -> str:
    """Return a table of what tools/list costs a model, which reads names, descriptions and input schemas."""
    lines = ["| `tools/list` of | tools | bytes | tokens that a model reads, about |", "|---|---|---|---|"]
    for name, target, arguments in (
        ("itwin-mcp", TARGETS[0], ()),
        ("itwin-mcp, `all`", TARGETS[0], ("--toolsets", "all")),
        ("itwin-mcp, `dynamic`", TARGETS[0], ("--toolsets", "dynamic")),
        (FASTMCP.name, FASTMCP, ()),
    ):
        server = StdioServer(target, *arguments)
        tools = server.list_tools()
        server.close()
        read = [{key: tool.get(key) for key in ("name", "description", "inputSchema")} for tool in tools]
        lines.append(f"| {name} | {len(tools)} | {len(encode(tools)):,} | {len(encode(read)) // 4:,} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls")
    parser.add_argument("--only", choices=["start", "stdio", "http", "delay"], help="measure one part")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args()
    parts = ("start", "stdio", "http", "delay") if options.only is None else (options.only,)
    rounds, count = (3, 160) if options.quick else (7, 320)
    packages = ("itwin-mcp", "mcp", "fastmcp", "httpx2", "aiohttp", "pydantic", "uvicorn", "uvloop", "httptools")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    table, notes = Table(), []
    gc.disable()
    with start_upstream():
        if "start" in parts:
            imports = measure_start(table, rounds)
            notes.append(
                f"`import mcp` alone, with the garbage collector off: {statistics.median(imports):.0f} ms of CPU."
            )
        if "stdio" in parts:
            measure_stdio(table, rounds, count)
        if "http" in parts:
            rows = {1: "HTTP, one at a time, CPU ms", 16: "HTTP, 16 at once, CPU ms"}
            asyncio.run(measure_http(table, rounds, count, rows))
    if "delay" in parts:
        with start_upstream(str(DELAY_MS)):
            row = {64: f"HTTP, 64 at once, answers after {DELAY_MS} ms, CPU ms"}
            asyncio.run(measure_http(table, rounds, 4 * count, row, "the same, calls per second"))
    sections = [table.format(), *notes]
    if options.only is None:
        with start_upstream():
            sections.append(describe_tools())
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    sections.append(f"Measured on {time.strftime('%Y-%m-%d')} with {machine}: {versions}.")
    report = "\n\n".join(sections)
    print(report)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.partition("<!-- figures -->")[0], page.partition("<!-- /figures -->")[2]
        PAGE.write_text(f"{before}<!-- figures -->\n\n{report}\n\n<!-- /figures -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
