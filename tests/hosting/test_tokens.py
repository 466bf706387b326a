"""Tokens: valid ones identify a caller, and invalid ones are rejected with a reason."""

import hmac
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.hosting.signing_keys import SigningKeys
from itwin_mcp.hosting.tokens import TokenRejected, TokenVerifier, derive_caller_key
from tests.hosting.issuer import AUDIENCE, ISSUER, Documents, ec, public, rsa, token, unsigned

pytestmark = pytest.mark.anyio


def now() -> int:
    return int(time.time())


def build_verifier(documents: Documents | None = None, **more: Any) -> TokenVerifier:
    keys = SigningKeys(documents or Documents(keys=public(rsa("one"), ec("curve"))), ISSUER)
    return TokenVerifier(keys, ISSUER, AUDIENCE, **more)


def sign_with_public_key() -> str:
    """Return an HS256 token with the public key as secret: a verifier that trusts the header's alg accepts it."""
    header = {"alg": "HS256", "kid": "one", "typ": "at+jwt"}
    unsigned_part = unsigned(header).rpartition(".")[0]
    signature = hmac.digest(rsa("one").as_pem(private=False), unsigned_part.encode(), "sha256")
    return unsigned(header, signature)


def build_altered_token() -> str:
    header, _, signature = token().split(".")
    _, body, _ = token(sub="eve").split(".")
    return f"{header}.{body}.{signature}"


CRITICAL = {"alg": "RS256", "kid": "one", "typ": "JWT", "crit": ["x"], "x": 1}


def sign_by_hand(header: dict[str, Any]) -> str:
    """Return a valid RS256 token with a header that no library writes."""
    unsigned_part = unsigned(header).rpartition(".")[0]
    signature = rsa("one").private_key.sign(unsigned_part.encode(), padding.PKCS1v15(), hashes.SHA256())
    return unsigned(header, signature)


async def test_hand_made_token_is_accepted() -> None:
    header = {"alg": "RS256", "kid": "one", "typ": "JWT"}
    assert (await build_verifier().verify(sign_by_hand(header))).caller.subject == "ada"


INVALID: dict[str, tuple[str, Any]] = {
    "signed by another key of the same name": ("signature", lambda: token(rsa("evil"), {"kid": "one"})),
    "signed by a key that nobody knows": ("unknown-key", lambda: token(rsa("evil"))),
    "without kid, where there are two keys": ("unknown-key", lambda: token(header={"kid": None})),
    "with a kid that is no text": ("malformed", lambda: unsigned({"alg": "RS256", "kid": 1, "typ": "JWT"}, b"x")),
    "with an issuer that is no address": (
        "signature",
        lambda: unsigned({"alg": "RS256", "kid": "one", "typ": "JWT"}, b"x", iss="https://["),
    ),
    "alg none": ("algorithm", lambda: unsigned({"alg": "none", "kid": "one", "typ": "at+jwt"}, b"x")),
    "alg none, without a signature": ("malformed", lambda: unsigned({"alg": "none", "typ": "at+jwt"})),
    "HS256 with the public key": ("algorithm", sign_with_public_key),
    "RS512 where it is not taken": ("algorithm", lambda: token(header={"alg": "RS512"})),
    "an algorithm of the other kind of key": (
        "signature",
        lambda: sign_by_hand({"alg": "ES256", "kid": "one", "typ": "JWT"}),
    ),
    "an unknown crit": ("signature", lambda: sign_by_hand(CRITICAL)),
    "altered": ("signature", build_altered_token),
    "cut": ("signature", lambda: token()[:-20]),
    "garbage": ("malformed", lambda: "garbage"),
    "empty": ("malformed", lambda: ""),
    "five parts": ("malformed", lambda: "a.b.c.d.e"),
    "parts that are no JSON": ("malformed", lambda: "YQ.YQ.YQ"),
    "parts that are no objects": ("malformed", lambda: "W10.W10.YQ"),
    "an opaque token": ("malformed", lambda: "0123456789abcdef" * 4),
    "oversize": ("too-large", lambda: token(filler="x" * 20_000)),
    "of another audience": ("audience", lambda: token(aud="https://other.example/mcp")),
    "of our audience with a slash": ("audience", lambda: token(aud=f"{AUDIENCE}/")),
    "without an audience": ("audience", lambda: token(aud=None)),
    "with an empty list of audiences": ("audience", lambda: token(aud=[])),
    "of another issuer": ("issuer", lambda: token(iss="https://evil.example")),
    "of our issuer with a slash": ("issuer", lambda: token(iss=f"{ISSUER}/")),
    "without an issuer": ("issuer", lambda: token(iss=None)),
    "expired": ("expired", lambda: token(iat=now() - 900, exp=now() - 61)),
    "without exp": ("claims", lambda: token(exp=None)),
    "with exp as text": ("claims", lambda: token(exp="never")),
    "that lives for ages": ("life", lambda: token(exp=10**20)),
    "that lives longer than a day": ("life", lambda: token(exp=now() + 86_500)),
    "that lives for ever": ("claims", lambda: token(exp=float("inf"))),
    "with exp that is no number": ("claims", lambda: token(exp=float("nan"))),
    "that ended before it was issued": ("life", lambda: token(iat=now() + 30, exp=now() + 10)),
    "issued in the future": ("claims", lambda: token(iat=now() + 200, exp=now() + 500)),
    "without iat": ("claims", lambda: token(iat=None)),
    "not yet valid": ("claims", lambda: token(nbf=now() + 200)),
    "that names nobody": ("claims", lambda: token(sub=None)),
    "of an empty name": ("claims", lambda: token(sub="")),
    "of a name that is no text": ("claims", lambda: token(sub=7)),
    "of a type of another purpose": ("type", lambda: token(header={"typ": "logout+jwt"})),
    "of no type": ("type", lambda: sign_by_hand({"alg": "RS256", "kid": "one"})),
    "an ID token": ("id-token", lambda: token(header={"typ": "JWT"}, nonce="n")),
    "an ID token by its hash": ("id-token", lambda: token(header={"typ": "JWT"}, at_hash="h")),
    "an ID token by its use": ("id-token", lambda: token(token_use="id")),
    "a refresh token": ("id-token", lambda: token(header={"typ": "JWT"}, typ="Refresh")),
    "the platform's own": (
        "platform-token",
        lambda: token(
            iss="https://ims.bentley.com", aud=["https://ims.bentley.com/resources"], scope=["itwin-platform"]
        ),
    ),
    "the platform's, said to be for us": ("platform-token", lambda: token(iss="https://ims.bentley.com")),
}


@pytest.mark.parametrize("name", INVALID)
async def test_invalid_token_is_rejected_with_a_reason(name: str) -> None:
    reason, make = INVALID[name]
    access_token = make()
    with pytest.raises(TokenRejected) as caught:
        await build_verifier().verify(access_token)
    assert caught.value.reason == reason
    assert caught.value.description.isascii() and '"' not in caught.value.description
    if len(access_token) > 10:
        assert access_token[:10] not in caught.value.description


VALID: dict[str, Any] = {
    "plain": lambda: token(),
    "of the type JWT": lambda: token(header={"typ": "JWT"}),
    "of the long type": lambda: token(header={"typ": "application/at+jwt"}),
    "signed on a curve": lambda: token(ec("curve")),
    "PS256": lambda: token(header={"alg": "PS256"}),
    "for us among others": lambda: token(aud=["https://other.example", AUDIENCE]),
    "expired a moment ago": lambda: token(exp=now() - 30, iat=now() - 600),
    "issued in a moment": lambda: token(iat=now() + 30),
    "with the address of other keys, which is not followed": lambda: token(header={"jku": "https://evil.example/jwks"}),
    "an access token by its use": lambda: token(token_use="access"),
    "a bearer by its claim": lambda: token(header={"typ": "JWT"}, typ="Bearer"),
}


@pytest.mark.parametrize("name", VALID)
async def test_valid_token_is_accepted(name: str) -> None:
    documents = Documents(keys=public(rsa("one"), ec("curve")))
    verified = await build_verifier(documents).verify(VALID[name]())
    assert (verified.caller.issuer, verified.caller.subject, verified.client_id) == (ISSUER, "ada", "agent")
    assert set(documents.fetched) == {f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/jwks"}


@pytest.mark.parametrize(
    ("claims", "access"),
    [
        ({"scope": "itwin:read"}, Access.READ),
        ({"scope": "openid  itwin:write itwin:read"}, Access.WRITE),
        ({"scope": "itwin:delete"}, Access.DELETE),
        ({"scope": ["itwin:read", "itwin:delete"]}, Access.DELETE),
        ({"scope": None, "scp": "itwin:write"}, Access.WRITE),
        ({"scope": None, "scp": ["itwin:read"]}, Access.READ),
        ({"scope": "itwin:read", "scp": ["itwin:write"]}, Access.WRITE),
        ({"scope": None}, Access.NONE),
        ({"scope": ""}, Access.NONE),
        ({"scope": "itwin-platform"}, Access.NONE),
        ({"scope": "xitwin:read itwin:reader ITWIN:READ itwin:*"}, Access.NONE),
        ({"scope": {"itwin:read": True}}, Access.NONE),
        ({"scope": [["itwin:read"], 1]}, Access.NONE),
    ],
)
async def test_scopes_are_read_as_text_or_array_and_include_lower_ones(claims: dict[str, Any], access: Access) -> None:
    assert (await build_verifier().verify(token(**claims))).caller.access is access


async def test_other_algorithms_can_be_configured() -> None:
    strict = build_verifier(algorithms=["ES256"])
    await strict.verify(token(ec("curve")))
    with pytest.raises(TokenRejected):
        await strict.verify(token())


async def test_caller_key_depends_on_issuer_subject_and_application() -> None:
    token_verifier = build_verifier()
    tokens = {
        "plain": token(),
        "another subject": token(sub="eve"),
        "another application": token(client_id="other"),
        "an application as others call it": token(client_id=None, azp="other-azp"),
        "no application": token(client_id=None),
    }
    keys = {name: (await token_verifier.verify(text)).caller.key for name, text in tokens.items()}
    assert len(set(keys.values())) == len(keys)
    assert (
        derive_caller_key("https://a", "b", "c")
        != derive_caller_key("https://a", "bc", "")
        != derive_caller_key("https://ab", "", "c")
    )
    assert derive_caller_key("https://other", "ada", "agent") != derive_caller_key(ISSUER, "ada", "agent")


async def test_groups_and_roles_are_read_and_limited() -> None:
    groups = (await build_verifier().verify(token(groups=["a", 1, "b"], roles=["b", "c"]))).caller.groups
    assert groups == ("a", "b", "c")
    assert (await build_verifier().verify(token(groups="a"))).caller.groups == ()
    assert len((await build_verifier().verify(token(groups=[f"g{n}" for n in range(900)]))).caller.groups) == 500


async def test_token_of_a_bentley_issuer_is_accepted_if_it_is_for_us() -> None:
    issuer = "https://ims.bentley.com"
    keys = SigningKeys(Documents(), issuer, f"{issuer}/jwks")
    assert (await TokenVerifier(keys, issuer, AUDIENCE).verify(token(iss=issuer))).caller.subject == "ada"
    with pytest.raises(TokenRejected) as caught:
        await TokenVerifier(keys, issuer, AUDIENCE).verify(token(iss=issuer, aud="itwin-platform"))
    assert caught.value.reason == "platform-token"
