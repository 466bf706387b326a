"""Fixtures for tests with loopback servers: no waiting, no proxy, and certificates that are read once."""

from __future__ import annotations

import functools
import importlib
import os
import ssl
from pathlib import Path

import anyio.lowlevel
import httpcore2
import pytest

from itwin_mcp.upstream import retry, transport


@pytest.fixture(autouse=True)
def no_waiting_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep retries, but do not sleep before them."""

    async def skip(_seconds: float) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(retry, "sleep", skip)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the proxy settings of the machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


UNUSABLE = [
    ("ALL_PROXY", "socks5h://user:canary-pw@127.0.0.1:1", "names a SOCKS proxy"),
    ("HTTPS_PROXY", "htp://user:canary-pw@proxy.example:8080", "has the scheme 'htp'"),
    ("SSL_CERT_FILE", "MISSING", "does not exist"),
    ("SSL_CERT_FILE", "FOLDER", "is a folder"),
    ("SSL_CERT_FILE", "TEXT", "holds no certificate in PEM form"),
    ("SSL_CERT_DIR", "TEXT", "is not a folder"),
    ("https_proxy", "https//proxy.example", "names no host"),
    ("http_proxy", "http://", "names no host"),
    ("HTTP_PROXY", "http://pro xy:8080", "names no host"),
    ("HTTPS_PROXY", "http://proxy.example:port", "host or port cannot be read"),
    ("HTTPS_PROXY", "http://proxy.example:99999", "host or port cannot be read"),
    ("HTTPS_PROXY", "http://[::1", "host or port cannot be read"),
]
"""Environment variables that prevent building an HTTP client, with the text of the error."""


def unusable_value(value: str, folder: Path) -> str:
    """Return a value of UNUSABLE with its placeholder replaced by a path."""
    (folder / "text").write_text("no certificate")
    return {"MISSING": str(folder / "missing"), "FOLDER": str(folder), "TEXT": str(folder / "text")}.get(value, value)


_default_ssl_context = httpcore2.default_ssl_context


@functools.cache
def _certificates_of(file: str | None, folder: str | None, **switches: bool) -> ssl.SSLContext:
    """Cache the certificates by the variables that select them."""
    return _default_ssl_context(**switches)


@pytest.fixture(autouse=True)
def certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the certificates of the machine once, because reading takes longer than most tests."""

    def certificates(**switches: bool) -> ssl.SSLContext:
        return _certificates_of(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), **switches)

    monkeypatch.setattr(httpcore2, "default_ssl_context", certificates)


@pytest.fixture(autouse=True, params=["httpx2", "aiohttp"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test over httpx2's own transport and over that of the extra `fast`."""
    if request.param == "httpx2":
        monkeypatch.setattr(transport, "find_spec", lambda _name: None)
    else:
        # Before the test, because importing aiohttp takes longer than the deadlines of some tests.
        importlib.import_module("itwin_mcp.upstream.aiohttp_transport")
    return str(request.param)
