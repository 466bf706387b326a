"""What the tests on raw loopback servers share: no waiting, no proxy, and certificates that are read once."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import httpcore2
import pytest
import stamina


@pytest.fixture(autouse=True)
def no_waiting_between_attempts() -> Iterator[None]:
    """stamina counts its attempts as always, but does not sleep between them."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback servers are reached directly, whatever the machine's proxy variables say."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


_certificates_once = functools.cache(httpcore2.default_ssl_context)


@pytest.fixture(autouse=True)
def certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the machine's certificates takes longer than most tests; the loopback servers need none."""
    monkeypatch.setattr(httpcore2, "default_ssl_context", _certificates_once)
