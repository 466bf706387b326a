"""Redaction removes secrets from text and data, keeps other text, and takes linear time."""

from __future__ import annotations

import base64
import re
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from itwin_mcp.upstream import redaction
from itwin_mcp.upstream.redaction import hide_secrets, redact, remove_secrets

CANARY = "c4naryQ9zX7wLk2v"
JWT = f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI{CANARY}.{CANARY}"

ORDINARY = """\
Basic structural model
bearer structure at axis 4
The basic reinforcement follows drawing S-201.
Bearer beams B12 to B24 are in steel S355.
Basic-design package for bridge 7
Bearer: precast concrete, C40/50
basic geometry, without fittings
Basic Engineering 2024-03 Rev. B
sig=235 MPa at the upper flange
sig = 235.5 N/mm2
sigma=12.5, tau=3.1
code=EN1993-1-1
Code = ACI 318-19
Design code: EN 1992-1-1
key=value pairs are separated by commas
Key plan: see sheet A-001
The key to the site office is with the foreman.
Token ring network cabinet on level 2
token bucket of 600 requests per minute
Password policy: 12 characters or more
The password must be changed every 90 days.
Secret stairs behind the altar (heritage survey)
Secretariat building, phase 2
Cookie factory, Utrecht
Authorization to start work was given on 3 May.
Signature of the engineer is missing on page 4.
Access key cabinet at gate 3
Survey point 12@34 is outside the extent
Contact anna.devries@example.com for access
Mail to: site@example.com; phone +31 20 123 4567
https://api.bentley.com/imodels/8f6c0a1e-0000-4000-8000-000000000001/changesets?$top=100
https://example.com/drawings?sheet=A-101&rev=B
See https://docs.example.com/guide#signing for details.
http://localhost:3301/signin-callback
scale=1:100; grid=5000
ratio a/b=0.75
E=210000, G=81000, nu=0.3
f(x)=ax+b
Level=+3.50; Offset=-0.25
Status: done; Owner: jan; Type=Beam
{"name": "Bridge 7", "type": "Project", "code": "InvalidiTwinsRequest"}
"tokenType": "Bearer"
Basic load case LC1234567890
The bearer capacity is 250 kN/m2.
C:\\Projects\\Bridge 7\\model.bim
Beyond the eyJafjallajökull viewpoint
RC wall W-12.3-B, eyJ.
Tunnel boring machine TBM-2 "Bertha"
2026-03-04T12:00:00Z: export 7 of 12 completed
Brücke № 7 — “Süd”, 桥梁工程（二期）""".splitlines()


def test_ordinary_has_fifty_different_sentences() -> None:
    assert len(set(ORDINARY)) == 50


@pytest.mark.parametrize("sentence", ORDINARY)
def test_hide_secrets_keeps_engineering_text(sentence: str) -> None:
    assert hide_secrets(sentence) == sentence
    assert remove_secrets({"description": sentence}) == {"description": sentence}


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {CANARY}",
        f"Authorization: Basic {CANARY}",
        f"authorization=Digest username, {CANARY}",
        f"You sent Bearer {CANARY} to us",
        f"You sent basic {base64.b64encode(f'user:{CANARY}'.encode()).decode()}",
        f"The token {JWT} has expired",
        f"-{JWT}",
        f"https://user:{CANARY}@example.com/a",
        f"https://user:p@{CANARY}@example.com/a",
        f"see https://store.blob.core.windows.net/f?se=1&sig={CANARY}%3D now",
        f"https://example.com/x?token={CANARY}",
        f"https://example.com/x#access_token={CANARY}&state=1",
        f"https://example.com/cb?code={CANARY}&state=1",
        f"https://example.com/cb?a=1&amp;sig={CANARY}",
        f"https://example.com/x?next=%2Ff%3Fsig%3D{CANARY}%26b%3D1",
        f"https://s3.example.com/f?X-Amz-Signature={CANARY}",
        f"https://example.com/f?key={CANARY}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={CANARY}==;EndpointSuffix=core.windows.net",
        f"Endpoint=sb://a/;SharedAccessKeyName=n;SharedAccessKey={CANARY}=",
        f"Server=db;User Id=sa;Password={CANARY};",
        f"Server=db;Pwd='{CANARY}'",
        f'{{"client_secret": "{CANARY}", "a": 1}}',
        f'{{\\"password\\":\\"{CANARY}\\"}}',
        f"{{'refresh_token': '{CANARY}'}}",
        f"client_secret={CANARY}&grant_type=client_credentials",
        f"Cookie: session={CANARY}; a=b",
        f"Set-Cookie: s={CANARY}; HttpOnly",
        f"X-Api-Key: {CANARY}",
        f"Ocp-Apim-Subscription-Key: {CANARY}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_hide_secrets_replaces_every_form_of_credential(text: str) -> None:
    hidden = hide_secrets(text)
    assert CANARY not in hidden
    assert "[hidden]" in hidden
    assert CANARY not in str(remove_secrets({"note": f"Before. {text}"}))


def test_hide_secrets_replaces_only_the_secret() -> None:
    text = f"The request of https://example.com/f?sig={CANARY}&b=1 failed: password={CANARY} is wrong, ask Jan"
    assert hide_secrets(text) == (
        "The request of https://example.com/f?sig=[hidden]&b=1 failed: password=[hidden] is wrong, ask Jan"
    )


SECRET_MEMBERS = [
    "password",
    "passwd",
    "pwd",
    "userPassword",
    "db_password",
    "passphrase",
    "secret",
    "clientSecret",
    "client_secret",
    "client_secret_value",
    "secretText",
    "token",
    "accessToken",
    "access_token",
    "refreshToken",
    "idToken",
    "sasToken",
    "sas_token",
    "authToken",
    "tokenValue",
    "tokens",
    "bearerToken",
    "jwt",
    "apiKey",
    "api_key",
    "x-api-key",
    "apikey",
    "subscriptionKey",
    "Ocp-Apim-Subscription-Key",
    "privateKey",
    "private_key",
    "privateKeyPem",
    "accountKey",
    "accessKey",
    "sharedAccessKey",
    "shareKey",
    "signingKey",
    "encryptionKey",
    "hmacKey",
    "connectionString",
    "connection_string",
    "sqlConnectionString",
    "sharedAccessSignature",
    "signature",
    "sig",
    "sas",
    "cookie",
    "cookies",
    "set-cookie",
    "Authorization",
    "proxyAuthorization",
    "credentials",
    "authorizationCode",
    "code_verifier",
    "clientAssertion",
    "otp",
    "pat",
    "dsn",
]

ORDINARY_MEMBERS = {
    "tokenType": "Bearer",
    "passwordPolicy": "12 characters",
    "secretName": "db",
    "continuationToken": "abc",
    "nextPageToken": "def",
    "primaryKey": "id",
    "foreignKey": "x",
    "key": "north",
    "keyPlan": "A-001",
    "hasPassword": True,
    "clientSecret": None,
    "bearerType": "elastomeric",
    "secretary": "Jan",
    "code": "EN1993",
    "accessKeyId": "k1",
    "tokenExpiresAt": "2026-01-01",
    "cookiePolicy": "none",
    "assetKeyword": "bridge",
}


@pytest.mark.parametrize("name", SECRET_MEMBERS)
def test_remove_secrets_drops_members_with_secret_names(name: str) -> None:
    body = {"id": "1", name: CANARY, "inner": [{name: {"value": CANARY}, "kept": 1}, {"name": name, "value": CANARY}]}
    assert remove_secrets(body) == {"id": "1", "inner": [{"kept": 1}, {"name": name}]}


def test_remove_secrets_keeps_ordinary_members() -> None:
    assert remove_secrets(ORDINARY_MEMBERS) == ORDINARY_MEMBERS


@pytest.mark.parametrize(
    "link",
    [
        f"https://store.blob.core.windows.net/f?se=1&sig={CANARY}",
        f"https://example.com/f?token={CANARY}",
        f"https://u:{CANARY}@example.com",
        f"sb://a/?key={CANARY}",
    ],
)
def test_remove_secrets_drops_links_with_credentials(link: str) -> None:
    body = {"_links": {"download": {"href": link}, "self": {"href": "https://example.com/f"}}, "all": [link, "a"]}
    assert remove_secrets(body) == {"_links": {"self": {"href": "https://example.com/f"}}, "all": ["a"]}


@pytest.mark.parametrize("length", [1, 100, 7_960, 7_990, 8_000])
def test_redact_drops_secret_that_is_cut(length: int) -> None:
    for secret in (JWT, f"password={CANARY}", f"https://u:{CANARY}@example.com/"):
        shown = redact("[hidden] " + "x" * length + f" {secret} " + "password=aaaaaaaaaaaaa " * 2_000)
        assert len(shown) <= 2_000
        assert CANARY[:6] not in shown
        shown = redact(f"password={'a' * 900}{'b' * 900} " * 4 + "y" * length + f" {secret}" * 9, 100)
        assert CANARY[:6] not in shown


def test_redact_finds_secrets_with_invisible_characters() -> None:
    assert CANARY not in redact(f"pass\u200bword={CANARY}")


ADVERSARIAL = [
    "-eyJ" + "a" * 40,
    "-eyJ",
    "eyJ.",
    "://",
    "://a",
    "@",
    "bearer ",
    "basic",
    "password=",
    "a=",
    '"a":"',
    "\\",
]
ADVERSARIAL += [
    "?a=",
    "%3fa%3d",
    "cookie:",
    "x-",
    "-----BEGIN PRIVATE KEY-----",
    "a.",
    "'",
    '"',
    " ",
    '\\"a\\":\\"',
    "a" * 60,
]


@pytest.mark.parametrize("part", ADVERSARIAL)
def test_redact_bounds_long_adversarial_text(part: str) -> None:
    text = part * (300_000 // len(part))
    assert hide_secrets(text + f" password={CANARY}").count(CANARY) == 0 or part in ('"', "'", "\\", '"a":"')
    assert len(redact(text)) <= 2_000


def test_redaction_patterns_are_linear() -> None:
    """Unbounded repetitions must be possessive; bounded ones may backtrack a limited number of times."""
    patterns = {name: value for name, value in vars(redaction).items() if isinstance(value, re.Pattern)}
    assert len(patterns) > 8
    for name, pattern in patterns.items():
        assert _find_max_repetition(_parser.parse(pattern.pattern, pattern.flags)) <= 60, name


def _find_max_repetition(parsed: Any) -> int:
    """Return the largest repetition that can backtrack."""
    maximum = 0
    for kind, argument in parsed:
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            maximum = max(maximum, int(argument[1]))
        for part in argument if isinstance(argument, tuple | list) else ():
            for inner in part if isinstance(part, list) else [part]:
                if isinstance(inner, _parser.SubPattern):
                    maximum = max(maximum, _find_max_repetition(inner))
    return maximum
