"""Clients that open many connections or never finish their headers do not block others."""

import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec

import httpx2
import pytest

from tests.hosting.issuer import AUDIENCE
from tests.server.processes import Served, serving
from tests.server.test_http import MODERN_HEADERS, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the whole of 127.0.0.0/8")

PROTOCOLS = ["h11", pytest.param("httptools", marks=pytest.mark.skipif(not find_spec("httptools"), reason="an extra"))]
UNFINISHED = b"POST /mcp HTTP/1.1\r\nHost: x\r\nX-Slow: "
WHOLE = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def served(protocol: str, **environment: str) -> Iterator[Served]:
    environment = {"UVICORN_PROTOCOL": protocol} | environment
    arguments = ["serve", "--sandbox", "--http", "127.0.0.1:0"]
    with serving("tests.server.hurried", *arguments, environment=environment) as process:
        yield process


@contextmanager
def hosted(protocol: str, **environment: str) -> Iterator[Served]:
    settings = {"ITWIN_MCP_AUTH_ISSUER": "http://127.0.0.1:1", "ITWIN_MCP_AUTH_AUDIENCE": AUDIENCE}
    settings |= {"ITWIN_MCP_NOTICE_SECONDS": "0"}
    with served(protocol, **settings, **environment) as process:
        yield process


def find_port(process: Served) -> int:
    return int(re.search(r":(\d+)/", process.url).group(1))  # type: ignore[union-attr]


def connect(process: Served, source: str, content: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", find_port(process)), 10, source_address=(source, 0))
    connection.sendall(content)
    return connection


def read_response(connection: socket.socket) -> bytes:
    """Read one response; return b"" if the connection was closed without one."""
    content = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(4096):
            content += part
            head, _, body = content.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if length and len(body) >= int(length[1]):
                break
    return content


def list_tools(process: Served, source: str) -> int:
    """List tools from an address of this machine, and return the HTTP status."""
    transport = httpx2.HTTPTransport(local_address=source)
    with httpx2.Client(transport=transport) as http:
        headers = MODERN_HEADERS | {"mcp-method": "tools/list"}
        return http.post(process.url, headers=headers, json=request("tools/list")).status_code


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unfinished_headers_are_limited_per_address(protocol: str) -> None:
    with served(protocol) as process, ExitStack() as stack:
        established = stack.enter_context(connect(process, "127.0.0.9", WHOLE))
        assert read_response(established).startswith(b"HTTP/1.1 4")
        flood = [stack.enter_context(connect(process, "127.0.0.9", UNFINISHED)) for _ in range(1100)]
        assert list_tools(process, "127.0.0.1") == 200
        established.sendall(WHOLE)
        assert read_response(established).startswith(b"HTTP/1.1 4"), "an established connection remains usable"
        for refused in flood[32:]:
            assert read_response(refused)[:12] in (b"HTTP/1.1 503", b"")
        flood[0].sendall(b"1\r\n\r\n")
        assert read_response(flood[0]).startswith(b"HTTP/1.1 421"), "connections within the limit are served"
    messages = [json.loads(line)["message"] for line in "".join(process.log).splitlines()[1:]]
    refused_hosts = [message for message in messages if message.startswith("Refused the Host ")]
    assert [message[:36] for message in messages if message not in refused_hosts] == [
        "Refused a connection from 127.0.0.9:"
    ]
    assert len(refused_hosts) == 1
    assert "Traceback" not in "".join(process.log)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_slow_headers_close_the_connection(protocol: str) -> None:
    with served(protocol, HEADER_SECONDS="1") as process:
        with connect(process, "127.0.0.9") as silent, connect(process, "127.0.0.9", WHOLE) as second:
            assert read_response(second).startswith(b"HTTP/1.1 4")
            second.sendall(UNFINISHED)
            assert read_response(silent) == b""
            assert read_response(second) == b"", "the limit applies to later requests of a connection too"
    assert "".join(process.log).count("headers did not arrive within 1 s") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_header_bytes_are_limited(protocol: str) -> None:
    with served(protocol) as process, connect(process, "127.0.0.9", UNFINISHED) as connection:
        with suppress(OSError):
            for _ in range(64):
                connection.sendall(b"x" * 16_384)
        assert read_response(connection)[:12] in (b"HTTP/1.1 400", b"")


def test_proxy_connections_count_only_towards_the_total_limit() -> None:
    settings = {"ITWIN_MCP_MAX_CONNECTIONS": "40", "ITWIN_MCP_UNFINISHED_PER_ADDRESS": "2"}
    with hosted("h11", ITWIN_MCP_PROXIES="127.0.0.8/32", **settings) as process, ExitStack() as stack:
        proxied = [stack.enter_context(connect(process, "127.0.0.8", UNFINISHED)) for _ in range(36)]
        others = [stack.enter_context(connect(process, "127.0.0.9", UNFINISHED)) for _ in range(3)]
        assert read_response(others[2])[:12] in (b"HTTP/1.1 503", b""), (
            "the third connection of an address that is not a proxy"
        )
        further = [stack.enter_context(connect(process, "127.0.0.6", UNFINISHED)) for _ in range(2)]
        excess = stack.enter_context(connect(process, "127.0.0.7", WHOLE))
        assert read_response(excess)[:12] in (b"HTTP/1.1 503", b""), "the 41st connection in total"
        for accepted in (proxied[35], others[1], further[1]):
            accepted.sendall(b"1\r\n\r\n")
            assert read_response(accepted).startswith(b"HTTP/1.1 4")
    log = "".join(process.log)
    assert "ITWIN_MCP_MAX_CONNECTIONS" in log and "ITWIN_MCP_UNFINISHED_PER_ADDRESS" in log


def test_invalid_http_requests_log_one_line() -> None:
    with served("h11") as process:
        for _ in range(20):
            with connect(process, "127.0.0.9", b"\x16\x03\x01 hello\r\n\r\n") as connection:
                assert read_response(connection).startswith(b"HTTP/1.1 400")
    assert "".join(process.log).count("Invalid HTTP request received.") == 1
