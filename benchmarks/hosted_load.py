"""Measure the load that a hosted replica handles: `python -m benchmarks.hosted_load`.

It prints the sizing table of docs/hosting.md. The deployment is that of tests/hosting/replicas.py: processes on
loopback, callers with tokens, a policy, the sandbox as the platform, and haproxy with the rules of deploy/compose.yaml.
Each caller keeps one raw socket open. Clients, proxy and sandbox run on the same machine as the replicas, so the CPU
per call, which counts only the replicas, says more than the calls per second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
from tests.hosting.replicas import Deployment, Replica, deployment
from tests.hosting.served import META

KINDS = {
    "tools/list": {},
    "list-itwins": {"name": "list-itwins", "arguments": {}},
}
"""A request that is answered from memory, and one that is sent on to the platform. Each caller uses another `limit`,
because equal concurrent requests are sent to the platform only once."""


@dataclass(frozen=True)
class Measurement:
    """The result of one run."""

    rate: float
    p50: float
    p95: float
    cpu: float
    """Milliseconds of the replicas' CPU for one call."""
    memory: float
    """MiB of the largest replica."""
    failed: int


async def measure(whole: Deployment, at: Replica | None, kind: str, connections: int, seconds: float) -> Measurement:
    """Call without pauses on the given number of connections, through the proxy or directly at one replica."""
    port = int((whole.url if at is None else at.url).rpartition(":")[2])
    times: list[float] = []
    failed = 0

    async def call_repeatedly(number: int, until: float) -> None:
        nonlocal failed
        request = _make_request(whole, kind, number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b"transfer-encoding: chunked" in head.lower():
                body = await _read_chunks(reader)
            else:
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
            times.append(time.perf_counter() - began)
            failed += not head.startswith(b"HTTP/1.1 200") or b'"isError":true' in body or b'"error":' in body[:200]
        writer.close()

    async def run(length: float) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(call_repeatedly(number, began + length) for number in range(connections)))
        return time.perf_counter() - began

    await run(1.0)
    times.clear()
    processes = [psutil.Process(replica.process.pid) for replica in whole.replicas if replica.process is not None]
    cpu_before = sum(sum(process.cpu_times()[:2]) for process in processes)
    duration = await run(seconds)
    cpu = sum(sum(process.cpu_times()[:2]) for process in processes) - cpu_before
    memory = max(process.memory_info().rss for process in processes) / 2**20
    cuts = statistics.quantiles(times, n=20)
    return Measurement(len(times) / duration, cuts[9] * 1e3, cuts[18] * 1e3, cpu / len(times) * 1e3, memory, failed)


def _make_request(whole: Deployment, kind: str, number: int) -> bytes:
    params = KINDS[kind] | {"_meta": META}
    method = "tools/call" if "name" in params else kind
    if "arguments" in params:
        params = params | {"arguments": {"limit": 10 + number}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {
        "host": whole.url.removeprefix("http://"),
        "authorization": f"Bearer {whole.issuer.bearer(sub=f'caller-{number}')}",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method,
        **({"mcp-name": str(params["name"])} if "name" in params else {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def main(connections: Sequence[int], seconds: float) -> None:
    """Measure each kind of request and print the Markdown table."""
    print(
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, Python {platform.python_version()}, ", end=""
    )
    print(f"{seconds:g} s each after 1 s of warming up; load average before: {os.getloadavg()[0]:.1f}\n")
    print("| | Call | Callers at once | Calls/s | p50 ms | p95 ms | CPU ms/call | MiB of a replica | Failed |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        async with deployment(Path(folder)) as whole:
            for name, at in (("one replica, directly", whole.replicas[0]), ("two behind haproxy", None)):
                for kind in KINDS:
                    for count in connections:
                        run = await measure(whole, at, kind, count, seconds)
                        figures = f"{run.rate:.0f} | {run.p50:.1f} | {run.p95:.1f} | {run.cpu:.2f} | {run.memory:.0f}"
                        print(f"| {name} | {kind} | {count} | {figures} | {run.failed} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    anyio.run(main, options.connections, options.seconds)
