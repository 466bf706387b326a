"""Signing keys of the sign-in server are cached, fetched rarely, and usable next to invalid keys."""

from typing import Any

import anyio
import pytest

from itwin_mcp.errors import CallError
from itwin_mcp.hosting.signing_keys import KeysUnavailable, SigningKeys, read_keys
from itwin_mcp.upstream.plain_requests import fetch_document
from tests.hosting.issuer import ISSUER, Clock, Documents, ec, public, rsa
from tests.network import certificates_are_read_once, no_proxy  # noqa: F401
from tests.upstream.loopback import Asked, loopback

pytestmark = pytest.mark.anyio


def steered(**knobs: Any) -> tuple[SigningKeys, Documents, Clock]:
    documents, clock = Documents(**knobs), Clock()
    return SigningKeys(documents, ISSUER, f"{ISSUER}/jwks", clock=clock), documents, clock


async def test_signing_keys_are_fetched_once_an_hour() -> None:
    keys, documents, clock = steered()
    for seconds in (0, 1, 3598):
        clock.now += seconds
        assert await keys.find("one") is not None
    assert len(documents.asked) == 1
    clock.now += 10
    assert await keys.find("one") is not None
    assert len(documents.asked) == 2


async def test_concurrent_callers_fetch_the_keys_once() -> None:
    keys, documents, _ = steered()
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(keys.find, "one")
    assert len(documents.asked) == 1


async def test_unknown_keys_cause_one_fetch_a_minute() -> None:
    keys, documents, clock = steered()
    await keys.find("one")
    documents.keys = public(rsa("one"), ec("curve"))
    assert await keys.find("curve") is None, "asked a moment ago"
    clock.now += 61
    assert await keys.find("curve") is not None
    for number in range(500):
        assert await keys.find(f"sprayed-{number}") is None
    assert len(documents.asked) == 2
    clock.now += 61
    for number in range(500):
        assert await keys.find(f"sprayed-{number}") is None
    assert len(documents.asked) == 3


async def test_cached_keys_are_used_for_a_day_without_the_server() -> None:
    keys, documents, clock = steered()
    await keys.find("one")
    documents.down = True
    clock.now += 3601
    for _ in range(50):
        assert await keys.find("one") is not None
    assert len(documents.asked) == 2
    clock.now += 20 * 3600
    assert await keys.find("one") is not None
    clock.now += 4 * 3600
    with pytest.raises(KeysUnavailable):
        await keys.find("one")
    documents.down = False
    clock.now += 6
    assert await keys.find("one") is not None


async def test_without_keys_the_fetch_is_retried_every_five_seconds() -> None:
    keys, documents, clock = steered(down=True)
    for _ in range(20):
        with pytest.raises(KeysUnavailable):
            await keys.find("one")
    assert len(documents.asked) == 1
    clock.now += 5
    documents.down = False
    assert await keys.find("one") is not None


def answering_late(keys: Any, documents: Any) -> tuple[anyio.Event, anyio.Event]:
    """Return two events: the first is set by a fetch, and setting the second lets it finish."""
    asked, release = anyio.Event(), anyio.Event()

    async def late(url: str) -> Any:
        asked.set()
        await release.wait()
        return await documents(url)

    keys._fetch = late
    return asked, release


async def test_cached_keys_are_used_during_a_fetch() -> None:
    keys, documents, clock = steered()
    await keys.find("one")
    clock.now += 3601
    asked, release = answering_late(keys, documents)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.find, "one")
        await asked.wait()
        with anyio.fail_after(2):
            assert await keys.find("one") is not None
        release.set()


async def test_cancelled_request_does_not_cancel_the_fetch() -> None:
    keys, documents, _ = steered()
    asked, release = answering_late(keys, documents)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.find, "one")
        await asked.wait()
        tasks.cancel_scope.cancel()
        release.set()
    assert await keys.find("one") is not None
    assert len(documents.asked) == 1


GOOD = public(rsa("one"))[0]


@pytest.mark.parametrize(
    "bad",
    [
        {"kty": "RSA", "kid": "bad", "n": "!!!", "e": "AQAB"},
        {"kty": "RSA", "kid": "bad", "n": GOOD["n"]},
        {"kty": "RSA", "kid": "bad", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "kid": "bad", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "bad", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "kid": "bad", "crv": "P-0", "x": "AQ", "y": "AQ"},
        {"kty": "oct", "kid": "bad", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"},
        {"kty": "exotic", "kid": "bad"},
        {**GOOD, "kid": "bad", "use": "enc"},
        {**GOOD, "kid": ["bad"]},
        {},
        None,
        "text",
    ],
    ids=lambda bad: str(bad).replace(GOOD["n"], "…"),  # the key is another in each worker
)
async def test_read_keys_skips_bad_keys(bad: Any) -> None:
    keys, _, _ = steered(keys=[bad, GOOD])
    assert await keys.find("one") is not None
    assert await keys.find("bad") is None


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}, {"keys": [[]]}, "keys"])
def test_read_keys_of_an_invalid_jwks_is_empty(document: Any) -> None:
    assert read_keys(document) == ()


async def test_single_key_is_found_without_an_id() -> None:
    alone = {name: value for name, value in GOOD.items() if name != "kid"}
    keys, _, _ = steered(keys=[alone])
    assert await keys.find(None) is not None
    keys, _, _ = steered(keys=[alone, *public(ec("curve"))])
    assert await keys.find(None) is None


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/jwks"},
        {"issuer": f"{ISSUER}/", "jwks_uri": f"{ISSUER}/jwks"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": 5},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
    ],
)
async def test_invalid_discovery_document_is_refused(discovery: Any) -> None:
    documents = Documents(discovery=discovery)
    with pytest.raises(KeysUnavailable):
        await SigningKeys(documents, ISSUER).find("one")
    assert len(documents.asked) == 1


async def test_fetch_document_refuses_redirects_and_large_or_invalid_json() -> None:
    async def handle(asked: Asked) -> None:
        if asked.path == "/good":
            await asked.json(200, {"keys": []})
        elif asked.path == "/large":
            await asked.json(200, {"keys": ["x" * 70_000]})
        elif asked.path == "/moved":
            await asked.answer(302, headers={"Location": "/good"})
        elif asked.path == "/deep":
            await asked.answer(200, b"[" * 60_000)
        else:
            await asked.answer(200, b"<html>")

    async with loopback(handle) as server:
        assert await fetch_document(f"{server.origin}/good", user_agent="test") == {"keys": []}
        for path in ("/large", "/moved", "/deep", "/html"):
            with pytest.raises(CallError):
                await fetch_document(f"{server.origin}{path}", user_agent="test")
        assert [asked.path for asked in server.requests].count("/good") == 1, "a redirect is not followed"
        assert all("authorization" not in asked.headers for asked in server.requests)
    for address in ("http://issuer.example/jwks", "ftp://x", "nonsense"):
        with pytest.raises(CallError):
            await fetch_document(address, user_agent="test")


def test_read_keys_drops_private_key_members() -> None:
    key = read_keys({"keys": [rsa("one").as_dict(private=True)]})[0]
    assert not key.is_private  # type: ignore[attr-defined]
