"""Both transports send the same and report the same: httpx2's own, and that of the extra `fast`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from itwin_mcp.errors import Unreachable
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.upstream import transport
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import JsonBody, Request
from itwin_mcp.upstream.sign_in.static_token import StaticToken

from ..network import wire  # noqa: F401, TID252
from .loopback import Asked, loopback  # noqa: TID252

pytestmark = pytest.mark.anyio

GET = Request("GET", PLATFORM_ORIGIN, "/imodels/1%2F2", (("$top", "2"), ("name", "a b&c")))
POST = Request("POST", PLATFORM_ORIGIN, "/imodels", body=JsonBody({"name": "Brücke"}))
DELETE = Request("DELETE", PLATFORM_ORIGIN, "/imodels/1")


def open_client(origin: str) -> UpstreamClient:
    return UpstreamClient(origin, StaticToken("t"), user_agent="itwin-mcp/test")


async def answer_fine(asked: Asked) -> None:
    await asked.json(200, {})


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and close the connection."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("wire", ["httpx2"], indirect=True)  # it compares the two itself
async def test_both_transports_send_the_same_requests(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async with loopback(answer_fine) as server:
        for installed in (None, "aiohttp"):
            monkeypatch.setattr(transport, "find_spec", lambda _name, installed=installed: installed)
            async with open_client(server.origin) as client:
                for request in (GET, POST, DELETE):
                    await client.send(request)
    for asked in server.requests:
        del asked.headers["x-correlation-id"]
        if not asked.body:
            asked.headers.pop("content-length", None)  # aiohttp writes a 0 into a DELETE, which says the same
    sent = [(asked.method, asked.target, asked.headers, asked.body) for asked in server.requests]
    assert sent[:3] == sent[3:]


async def test_sequential_calls_share_a_connection() -> None:
    async with loopback(answer_fine) as server, open_client(server.origin) as client:
        for request in (GET, POST, DELETE):
            await client.send(request)
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("request_", [GET, POST, DELETE], ids=lambda request: request.method)
async def test_connection_that_the_server_closed_while_idle_is_not_used(request_: Request) -> None:
    async def answer_and_hang_up(asked: Asked) -> None:
        await asked.json(200, {})
        await asked.hang_up()

    async with loopback(answer_and_hang_up) as server, open_client(server.origin) as client:
        for _ in range(3):
            await client.send(request_)
            await anyio.wait_all_tasks_blocked()
    assert len(server.requests) == 3


async def test_long_and_repeated_headers_are_read() -> None:
    link = f"https://storage.example/?sig={'x' * 20_000}"

    async def answer(asked: Asked) -> None:
        await asked.raw(
            f"HTTP/1.1 201 Created\r\nLocation: {link}\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )

    async with loopback(answer) as server, open_client(server.origin) as client:
        response = await client.send(POST)
    assert (response.headers["location"], response.headers["x-a"]) == (link, "1, 2")


async def test_ipv6_addresses_are_reached() -> None:
    try:
        server = await asyncio.start_server(answer_once, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server, open_client(f"http://[::1]:{server.sockets[0].getsockname()[1]}") as client:
        assert (await client.send(GET)).status == 200


async def test_certificate_of_ssl_cert_file_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tls_server(tmp_path) as origin:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        async with open_client(origin) as client:
            assert (await client.send(GET)).status == 200


async def test_unknown_certificate_is_reported_before_anything_is_sent(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as origin, open_client(origin) as client:
        with pytest.raises(
            Unreachable, match=r"The certificate of .* is not trusted: .*CERTIFICATE_VERIFY_FAILED"
        ) as caught:
            await client.send(POST)
    assert not caught.value.outcome_unknown


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[str]:
    """Serve over TLS with a certificate that is written to `certificate.pem` in the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
