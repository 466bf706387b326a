"""Two replicas behind haproxy, as in compose.yaml: real processes on loopback, and a load that counts failures."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.hosting.issuer import public, rsa, token
from tests.hosting.served import META
from tests.sandbox_process import free_port, running_platform

COMPOSE = Path(__file__).parents[2] / "deploy/compose.yaml"
PATIENCE = 120.0
"""The longest time that a test waits for anything."""
SERVICE = "service-meridian-design-sync"
SERVICE_SECRET = "a secret of the service application"
READERS = 3
"""Concurrent readers under load, enough for each replica to have a request in progress at any time."""
FIRST_SECRET = "a first secret of more than 32 bytes"
_OURS = ("ITWIN_", "ITP_", "IMODEL_")
POLICY = """\
itwin-mcp-policy: 1
callers:
- issuer: {issuer}
  groups: [engineers]
  itwins: all
  tools: {{allow: [all]}}
"""


def haproxy() -> str:
    """Return the path of the system's haproxy, which `.ci/run` installs."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("haproxy", path=path) or pytest.skip("haproxy is not installed: apt-get install haproxy")


def proxy_rules() -> str:
    """Return haproxy's configuration in compose.yaml; Compose reads $$ as $."""
    rules: str = yaml.safe_load(COMPOSE.read_text())["configs"]["proxy"]["content"]
    return rules.replace("$$", "$")


@dataclass
class Issuer:
    """A sign-in server whose keys a test rotates. Its tokens name `url` as issuer."""

    url: str
    keys: list[Any] = field(default_factory=lambda: [rsa("one")])
    signing: str = "one"
    audience: str = ""

    def bearer(self, **claims: Any) -> str:
        default_claims = {"iss": self.url, "aud": self.audience, "scope": "itwin:delete", "groups": ["engineers"]}
        return token(rsa(claims.pop("signing", self.signing)), **(default_claims | claims))


@contextmanager
def sign_in_server() -> Iterator[Issuer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_discovery = self.path == "/.well-known/openid-configuration"
            discovery: dict[str, Any] = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
            content = json.dumps(discovery if is_discovery else {"keys": public(*issuer.keys)}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Write no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Replica:
    """A server process. It keeps its port after a restart."""

    port: int
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "itwin_mcp", "serve", "--http", f"127.0.0.1:{self.port}", *self.arguments]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, env=self.environment
            )

    async def ready(self) -> None:
        """Wait until the replica is ready."""
        await wait_until(self.is_ready, f"the replica at {self.port} is ready", self.log)

    async def is_ready(self) -> bool:
        """Return whether the replica reports that it is ready."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            async with httpx2.AsyncClient(timeout=2, trust_env=False) as http:
                return (await http.get(f"{self.url}/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False

    async def end(self, by: signal.Signals) -> int:
        """Send a signal, wait for the process to end, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(by)
        return await anyio.to_thread.run_sync(functools.partial(self.process.wait, PATIENCE))


@dataclass
class Deployment:
    """The proxy, its replicas, and the sign-in server of the callers."""

    url: str
    issuer: Issuer
    replicas: tuple[Replica, Replica]
    statistics: str
    """The address of the proxy's statistics."""
    platform: int
    """The process id of the sandbox."""

    def http(self, at: Replica | None = None, bearer: str | None = None, **claims: Any) -> httpx2.AsyncClient:
        """Return an HTTP client of the proxy, or of one replica under the public name, as the proxy calls it."""
        base = self.url if at is None else at.url
        host = self.url.removeprefix("http://")
        return httpx2.AsyncClient(
            base_url=base,
            headers={"authorization": f"Bearer {bearer or self.issuer.bearer(**claims)}", "host": host},
            timeout=PATIENCE,
            trust_env=False,
        )

    @asynccontextmanager
    async def client(self, mode: str, person: Any = None, **claims: Any) -> AsyncIterator[Client]:
        """Yield the official client, connected through the proxy; `person` answers its questions."""
        async with self.http(**claims) as http:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=http)
            async with Client(transport, mode=mode, elicitation_callback=person) as client:
                yield client

    async def roll(self, replica: Replica, **environment: str) -> None:
        """Restart one replica with new settings, and wait until it is used."""
        assert await replica.end(signal.SIGTERM) == 0, replica.log.read_text()
        replica.environment |= environment
        replica.start()
        await replica.ready()
        await self.served_by_both()

    async def served_by_both(self) -> None:
        """Wait until the proxy sends requests to both replicas. It checks each twice a second."""

        async def both() -> bool:
            return [view.status for view in await self.seen_by_proxy()] == ["UP", "UP"]

        await wait_until(both, "the proxy sends requests to both replicas", self.replicas[0].log)

    async def seen_by_proxy(self) -> list[ProxyView]:
        """Return the proxy's view of each replica."""
        async with httpx2.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
            table = (await http.get(f"{self.statistics}/;csv")).text.removeprefix("# ")
        rows = [row for row in csv.DictReader(table.splitlines()) if row["pxname"] == "replicas"]
        return [
            ProxyView(row["status"], int(row["scur"]), int(row["stot"])) for row in rows if row["svname"] in ("a", "b")
        ]

    async def kill_first(self, load: Load) -> None:
        """Kill the first replica while it has calls in progress of which no part is answered.

        The platform is paused meanwhile, so that the calls wait for it.
        """
        os.kill(self.platform, signal.SIGSTOP)
        try:
            made = -1

            async def all_wait() -> bool:
                nonlocal made
                before, made = made, load.made
                at_first, at_second = (view.under_way for view in await self.seen_by_proxy())
                return before == made and at_first > 0 and at_first + at_second == READERS

            await wait_until(all_wait, "every reader waits for the platform")
            await self.replicas[0].end(signal.SIGKILL)
        finally:
            os.kill(self.platform, signal.SIGCONT)


@dataclass(frozen=True)
class ProxyView:
    """The proxy's view of a replica: its state, and its requests in progress and in total."""

    status: str
    under_way: int
    sent: int


async def wait_until(
    condition: Callable[[], Awaitable[Any]], what: str, log: Path | None = None, patience: float = PATIENCE
) -> None:
    deadline = time.monotonic() + patience
    while not await condition():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}\n{_tail(log)}"
        await anyio.sleep(0.1)


def _tail(log: Path | None) -> str:
    return log.read_text()[-4000:] if log is not None else ""


@asynccontextmanager
async def deployment(folder: Path) -> AsyncIterator[Deployment]:
    """Run the proxy, two replicas, the platform and the sign-in server during the block."""
    program = haproxy()
    with ExitStack() as stack:
        issuer = stack.enter_context(sign_in_server())
        platform = stack.enter_context(running_platform(folder))
        port, ports = free_port(), (free_port(), free_port())
        issuer.audience = f"http://127.0.0.1:{port}/mcp"
        policy = folder / "policy.yaml"
        policy.write_text(POLICY.format(issuer=issuer.url))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
            "ITWIN_MCP_STATE_DIR": str(folder / "state"),
            "ITWIN_MCP_CACHE_DIR": str(folder / "cache"),
            "ITWIN_API_URL": platform.url,
            "ITWIN_ISSUER_URL": platform.url,
            "ITWIN_CLIENT_ID": SERVICE,
            "ITWIN_CLIENT_SECRET": SERVICE_SECRET,
            "ITWIN_MCP_POLICY": str(policy),
            "ITWIN_MCP_AUDIT_LOG": "-",
            "ITWIN_MCP_AUTH_ISSUER": issuer.url,
            "ITWIN_MCP_AUTH_AUDIENCE": issuer.audience,
            "ITWIN_MCP_ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "ITWIN_MCP_ALLOWED_ORIGINS": "none",
            "ITWIN_MCP_STATE_SECRET": FIRST_SECRET,
            "ITWIN_MCP_REPLICAS": "2",
            "ITWIN_MCP_NOTICE_SECONDS": "2",
            "ITWIN_MCP_CALLER_RATE_PER_MINUTE": "100000",
            "ITWIN_MCP_TOTAL_RATE_PER_MINUTE": "1000000",
        }
        replicas = tuple(
            Replica(port, ("--toolsets", "all"), dict(environment), folder / f"replica-{port}.log") for port in ports
        )
        first, second = replicas
        for replica in replicas:
            replica.start()
            stack.callback(_stop, replica)
        statistics_port = free_port()
        stack.enter_context(running_proxy(program, folder, port, ports, statistics_port))
        running = Deployment(
            f"http://127.0.0.1:{port}", issuer, (first, second), f"http://127.0.0.1:{statistics_port}", platform.pid
        )
        for replica in replicas:
            await replica.ready()
        await running.served_by_both()
        yield running


@contextmanager
def running_proxy(
    program: str, folder: Path, port: int, ports: tuple[int, int], statistics_port: int
) -> Iterator[None]:
    rules, more_rules = folder / "haproxy.cfg", folder / "statistics.cfg"
    rules.write_text(proxy_rules())
    more_rules.write_text(f"listen statistics\n  bind 127.0.0.1:{statistics_port}\n  stats enable\n  stats uri /\n")
    addresses = {
        "MCP_BIND": f"127.0.0.1:{port}",
        "MCP_REPLICA_A": f"127.0.0.1:{ports[0]}",
        "MCP_REPLICA_B": f"127.0.0.1:{ports[1]}",
    }
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(
            [program, "-db", "-f", str(rules), "-f", str(more_rules)],
            stdout=log,
            stderr=log,
            env=os.environ | addresses,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait(PATIENCE)


def _stop(replica: Replica) -> None:
    if replica.process is not None and replica.process.poll() is None:
        replica.process.kill()
        replica.process.wait(PATIENCE)


@dataclass
class Load:
    """Continuous reads by several callers: their number, and every failure."""

    made: int = 0
    failed: list[str] = field(default_factory=list)
    stopping: bool = False

    async def wait_for_reads(self, count: int = 40) -> None:
        """Wait for a number of further reads."""
        target = self.made + count

        async def is_reached() -> bool:
            return self.made >= target

        await wait_until(is_reached, f"{count} more reads")


@asynccontextmanager
async def under_load(deployment: Deployment, legacy: bool = False) -> AsyncIterator[Load]:
    load = Load()

    async def read(name: str) -> None:
        signing, http = deployment.issuer.signing, deployment.http(sub=name)
        while not load.stopping:
            if signing != deployment.issuer.signing:  # a client whose token was renewed
                await http.aclose()
                signing, http = deployment.issuer.signing, deployment.http(sub=name)
            try:
                answer = await call(http, "list-itwins", {"limit": 1}, legacy=legacy)
            except httpx2.HTTPError as error:
                load.failed.append(repr(error))
            else:
                if answer.status_code != 200 or '"isError":true' in answer.text.replace(" ", ""):
                    load.failed.append(f"{answer.status_code} {answer.text[:300]}")
            load.made += 1
        await http.aclose()

    async with anyio.create_task_group() as tasks:
        for number in range(READERS):
            tasks.start_soon(read, f"reader-{number}")
        await load.wait_for_reads(20)
        yield load
        load.stopping = True


async def call(
    http: httpx2.AsyncClient,
    tool: str,
    arguments: Mapping[str, Any],
    *,
    legacy: bool = False,
    capabilities: Mapping[str, Any] | None = None,
    **params: Any,
) -> httpx2.Response:
    """Send one call without the SDK, as a client of 2026-07-28 or as an older one without a session."""
    accept = {"accept": "application/json, text/event-stream"}
    body: dict[str, Any] = {"name": tool, "arguments": dict(arguments), **params}
    if legacy:
        headers = {**accept, "mcp-protocol-version": "2025-11-25"}
    else:
        headers = {**accept, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}
        body["_meta"] = META | {"io.modelcontextprotocol/clientCapabilities": dict(capabilities or {})}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body}
    return await http.post("/mcp", headers=headers, json=message)


def read_result(answer: httpx2.Response) -> dict[str, Any]:
    """Return the result of a response, which may be one event of a stream."""
    assert answer.status_code == 200, answer.text
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = next(
            line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:") and line[5:].strip()
        )
    return dict(json.loads(text)["result"])
