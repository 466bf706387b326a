"""The sign-in server's keys are cached and seldom fetched, and bad keys do not affect good ones."""

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


def build_keys(**options: Any) -> tuple[SigningKeys, Documents, Clock]:
    documents, clock = Documents(**options), Clock()
    return SigningKeys(documents, ISSUER, f"{ISSUER}/jwks", clock=clock), documents, clock


async def test_signing_keys_are_fetched_once_an_hour() -> None:
    keys, documents, clock = build_keys()
    for seconds in (0, 1, 3598):
        clock.now += seconds
        assert await keys.find("one") is not None
    assert len(documents.fetched) == 1
    clock.now += 10
    assert await keys.find("one") is not None
    assert len(documents.fetched) == 2


async def test_concurrent_callers_fetch_the_keys_once() -> None:
    keys, documents, _ = build_keys()
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(keys.find, "one")
    assert len(documents.fetched) == 1


async def test_unknown_keys_cause_one_fetch_a_minute() -> None:
    keys, documents, clock = build_keys()
    await keys.find("one")
    documents.keys = public(rsa("one"), ec("curve"))
    assert await keys.find("curve") is None, "keys were fetched less than a minute ago"
    clock.now += 61
    assert await keys.find("curve") is not None
    for number in range(500):
        assert await keys.find(f"sprayed-{number}") is None
    assert len(documents.fetched) == 2
    clock.now += 61
    for number in range(500):
        assert await keys.find(f"sprayed-{number}") is None
    assert len(documents.fetched) == 3


async def test_cached_keys_are_used_for_a_day_without_the_server() -> None:
    keys, documents, clock = build_keys()
    await keys.find("one")
    documents.down = True
    clock.now += 3601
    for _ in range(50):
        assert await keys.find("one") is not None
    assert len(documents.fetched) == 2
    clock.now += 20 * 3600
    assert await keys.find("one") is not None
    clock.now += 4 * 3600
    with pytest.raises(KeysUnavailable):
        await keys.find("one")
    documents.down = False
    clock.now += 6
    assert await keys.find("one") is not None


async def test_without_keys_the_fetch_is_retried_every_five_seconds() -> None:
    keys, documents, clock = build_keys(down=True)
    for _ in range(20):
        with pytest.raises(KeysUnavailable):
            await keys.find("one")
    assert len(documents.fetched) == 1
    clock.now += 5
    documents.down = False
    assert await keys.find("one") is not None


def delay_fetch(keys: Any, documents: Any) -> tuple[anyio.Event, anyio.Event]:
    """Return two events: the first is set by a fetch, and setting the second lets it finish."""
    began, release = anyio.Event(), anyio.Event()

    async def delayed_fetch(url: str) -> Any:
        began.set()
        await release.wait()
        return await documents(url)

    keys._fetch = delayed_fetch
    return began, release


async def test_cached_keys_are_used_during_a_fetch() -> None:
    keys, documents, clock = build_keys()
    await keys.find("one")
    clock.now += 3601
    began, release = delay_fetch(keys, documents)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.find, "one")
        await began.wait()
        with anyio.fail_after(2):
            assert await keys.find("one") is not None
        release.set()


async def test_cancelled_request_does_not_cancel_the_fetch() -> None:
    keys, documents, _ = build_keys()
    began, release = delay_fetch(keys, documents)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.find, "one")
        await began.wait()
        tasks.cancel_scope.cancel()
        release.set()
    assert await keys.find("one") is not None
    assert len(documents.fetched) == 1


GOOD_KEY = public(rsa("one"))[0]


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "RSA", "kid": "bad", "n": "!!!", "e": "AQAB"},
        {"kty": "RSA", "kid": "bad", "n": GOOD_KEY["n"]},
        {"kty": "RSA", "kid": "bad", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "kid": "bad", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "bad", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "kid": "bad", "crv": "P-0", "x": "AQ", "y": "AQ"},
        {"kty": "oct", "kid": "bad", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"},
        {"kty": "exotic", "kid": "bad"},
        {**GOOD_KEY, "kid": "bad", "use": "enc"},
        {**GOOD_KEY, "kid": ["bad"]},
        {},
        None,
        "text",
    ],
    ids=lambda entry: str(entry).replace(GOOD_KEY["n"], "…"),  # each test worker generates another key
)
async def test_read_keys_skips_bad_keys(entry: Any) -> None:
    keys, _, _ = build_keys(keys=[entry, GOOD_KEY])
    assert await keys.find("one") is not None
    assert await keys.find("bad") is None


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}, {"keys": [[]]}, "keys"])
def test_read_keys_of_an_invalid_jwks_is_empty(document: Any) -> None:
    assert read_keys(document) == ()


async def test_single_key_is_found_without_an_id() -> None:
    without_id = {name: value for name, value in GOOD_KEY.items() if name != "kid"}
    keys, _, _ = build_keys(keys=[without_id])
    assert await keys.find(None) is not None
    keys, _, _ = build_keys(keys=[without_id, *public(ec("curve"))])
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
    assert len(documents.fetched) == 1


async def test_fetch_document_refuses_redirects_and_large_or_invalid_json() -> None:
    async def handle(request: Asked) -> None:
        if request.path == "/good":
            await request.json(200, {"keys": []})
        elif request.path == "/large":
            await request.json(200, {"keys": ["x" * 70_000]})
        elif request.path == "/moved":
            await request.answer(302, headers={"Location": "/good"})
        elif request.path == "/deep":
            await request.answer(200, b"[" * 60_000)
        else:
            await request.answer(200, b"<html>")

    async with loopback(handle) as server:
        assert await fetch_document(f"{server.origin}/good", user_agent="test") == {"keys": []}
        for path in ("/large", "/moved", "/deep", "/html"):
            with pytest.raises(CallError):
                await fetch_document(f"{server.origin}{path}", user_agent="test")
        assert [request.path for request in server.requests].count("/good") == 1, "a redirect is not followed"
        assert all("authorization" not in request.headers for request in server.requests)
    for address in ("http://issuer.example/jwks", "ftp://x", "nonsense"):
        with pytest.raises(CallError):
            await fetch_document(address, user_agent="test")


def test_read_keys_drops_private_key_members() -> None:
    key = read_keys({"keys": [rsa("one").as_dict(private=True)]})[0]
    assert not key.is_private  # type: ignore[attr-defined]
