"""Parsing of answers, and the errors that agents get for refusals of the platform."""

from __future__ import annotations

import json
from typing import Any

import pytest

from itwin_mcp.errors import CallError, NotSignedIn, PlatformError, UnexpectedAnswer
from itwin_mcp.runtime import name_entities
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.messages import Method, Request, Response
from itwin_mcp.upstream.platform_errors import build_foreign_error, build_platform_error
from itwin_mcp.upstream.redaction import hide_secrets
from itwin_mcp.upstream.sign_in.token import Token
from itwin_mcp.upstream.wire_format import read_json, read_rate_tier, read_retry_after
from tests.conftest import shipped_catalog

NOUNS = name_entities(shipped_catalog().entities)
NOW = 1_800_000_000.0


def respond(status: int, body: Any = b"", **headers: str) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def build_request(path: str = "/imodels/1", method: Method = "GET", permission: str | None = None) -> Request:
    return Request(method, "https://api.bentley.com", path, permission=permission)


def build_error(response: Response, request: Request | None = None, **options: Any) -> CallError:
    return build_platform_error(response, request or build_request(), now=NOW, nouns=NOUNS, **options)


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"{}", b"[1, 2.5, null]", b'"text"', '{"ü": "😀"}'.encode(), b'\xef\xbb\xbf{"bom": 1}']
)
def test_read_json_accepts_strict_json(content: bytes) -> None:
    assert read_json(respond(200, content)) == json.loads(content)


def test_read_json_returns_none_without_content() -> None:
    assert read_json(respond(204)) is None


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", "application/json", "its body is empty"),
        (b"  \n", "application/json", "its body is empty"),
        (b"<html><head><title>Sign in</title>", "text/html", "an HTML page titled “Sign in”"),
        (b"<!DOCTYPE html>", "application/json", "an HTML page"),
        (b'{"half": ', "application/json", "Expecting value"),
        (b"{} trailing", "application/json", "Extra data"),
        (b'{"a": NaN}', "application/json", "NaN is no JSON number"),
        (b"[Infinity]", "application/json", "Infinity is no JSON number"),
        (b'{"a": "\xff\xfe"}', "application/json", "not UTF-8"),
        (b"[" * 100_000, "application/json", "nested too deep"),
        (b"1" * 5000, "application/json", "digits"),
        (b"[" * 65 + b"]" * 65, "application/json", "deeper than 64"),
    ],
)
def test_read_json_rejects_invalid_json_and_says_why(content: bytes, kind: str, words: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        read_json(respond(200, content, content_type=kind, x_correlation_id="abc"))
    assert words in caught.value.message
    assert (caught.value.status, caught.value.correlation_id) == (200, "abc")


def test_read_json_accepts_64_levels() -> None:
    assert read_json(respond(200, b"[" * 64 + b"]" * 64)) is not None


def test_read_json_replaces_lone_surrogates() -> None:
    value = read_json(respond(200, b'{"name\\ud800": ["\\uDFFFx", "\\ud83d\\ude00"]}'))
    assert value == {"name?": ["?x", "😀"]}


def test_read_json_turns_huge_numbers_into_null() -> None:
    assert read_json(respond(200, b'{"a": [1e400, -1E+999, 1e3, "1e400"]}')) == {"a": [None, None, 1000.0, "1e400"]}
    assert read_json(respond(200, b"[" + b"9" * 400 + b".5]")) == [None]


# --- forms of error bodies -----------------------------------------------------------------------------------------


def test_platform_error_keeps_code_message_target_and_details() -> None:
    detail = {"code": "InvalidValue", "message": "Too long.", "target": "name", "innerError": {"code": "X"}}
    body = {
        "error": {
            "code": "InvalidiModelsRequest",
            "message": "Cannot create iModel.",
            "target": "t",
            "details": [detail],
        }
    }
    error = build_error(respond(422, body, x_correlation_id="id-1"))
    assert isinstance(error, PlatformError)
    assert (error.code, error.message, error.target, error.status) == (
        "InvalidiModelsRequest",
        "Cannot create iModel.",
        "t",
        422,
    )
    assert error.details == (detail,)
    assert error.correlation_id == "id-1"


def test_platform_error_ignores_hint_and_retryable_of_the_platform() -> None:
    locks = [{"objectId": "0x1", "lockLevel": "exclusive", "briefcaseIds": [2]}]
    body = {
        "error": {
            "code": "ConflictWithAnotherUser",
            "message": "m",
            "conflictingLocks": locks,
            "hint": "x",
            "retryable": 1,
        }
    }
    error = build_error(respond(409, body))
    assert error.members == {"conflictingLocks": locks}
    assert error.to_json("x")["retryable"] is False


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "words"),
    [
        (401, {"code": "HeaderNotFound", "message": "Header not found."}, "application/json", None, "not found"),
        (403, {"code": "Blocked", "message": "By the gateway."}, "application/json", "Blocked", "By the gateway."),
        (404, {"message": "Resource not found"}, "application/json", "NotFound", "Resource not found"),
        (400, {"error": "invalid_request", "error_description": "why"}, "application/json", "invalid_request", "why"),
        (502, b"<html><title>502 Bad Gateway</title></html>", "text/html", "BadGateway", "titled “502 Bad Gateway”"),
        (503, b"", "", "ServiceUnavailable", "without a body"),
        (500, b"upstream connect error", "text/plain", "InternalServerError", "upstream connect error"),
        (500, b"[]", "application/json", "InternalServerError", "500 Internal Server Error: []"),
        (500, {"error": {"code": 5, "message": ["x"]}}, "application/json", "InternalServerError", "500 Internal"),
        (500, {"error": {"code": "C", "message": "m", "details": "no list"}}, "application/json", "C", "m"),
        (500, {"error": {"code": "C", "message": "m", "details": [1, {"code": "D"}]}}, "application/json", "C", "m"),
        (599, b"", "", "Status599", "answered 599"),
        (500, b"\xff\xfe\x00", "application/json", "InternalServerError", "answered 500"),
    ],
)  # fmt: skip
def test_refusal_of_any_shape_has_code_message_and_hint(
    status: int, body: Any, kind: str, code: str | None, words: str
) -> None:
    error = build_error(respond(status, body, content_type=kind))
    assert words in error.message
    assert error.status == status
    assert error.hint
    if code is not None:
        assert error.code == code


def test_platform_error_shortens_and_cleans_text() -> None:
    body = {
        "error": {
            "code": "C" * 900,
            "message": "a\u202eb\U000e0041\x1b[31m" + "x" * 9000,
            "details": [{"message": "y" * 9000}] * 80,
        }
    }
    error = build_error(respond(422, body))
    assert (len(error.code), len(error.message), len(error.details)) == (200, 2000, 50)
    assert error.message.startswith("ab[31mx")
    assert len(error.details[0]["message"]) == 2000


# --- hints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "platform", "words"),
    [
        (Token("t", expires_at=NOW - 60), "https://api.bentley.com", "expired at 2027-01-15 07:59 UTC"),
        (
            Token("t", expires_at=NOW + 60, issuer="https://qa-ims.bentley.com"),
            "https://api.bentley.com",
            "another environment",
        ),
        (Token("t", issuer="https://ims.bentley.com"), "https://qa-api.bentley.com", "another environment"),
        (Token("t", issuer="https://qa-ims.bentley.com/"), "https://dev-api.bentley.com", "may be revoked"),
        (Token("t", issuer="https://ims.bentley.com"), "https://api.bentley.com", "may be revoked"),
        (None, "https://api.bentley.com", "may be revoked"),
    ],
)
def test_401_distinguishes_expired_from_wrong_environment(token: Token | None, platform: str, words: str) -> None:
    body = {"error": {"code": "Unauthorized", "message": "Access denied."}}
    error = build_error(respond(401, body), token=token, platform=platform, remedy="Do this.")
    assert isinstance(error, NotSignedIn)
    assert words in error.hint
    assert error.hint.endswith("Do this.")
    assert error.details[0] == {"code": "Unauthorized", "message": "Access denied."}


@pytest.mark.parametrize(
    "error",
    [
        {"code": "UnknownClient", "message": "Client was not registered."},
        {
            "code": "Unauthorized",
            "message": "Access denied due to invalid client.",
            "details": [{"code": "UnknownClient", "message": "Client was not registered."}],
        },
    ],
)
def test_401_unknown_client_hints_at_registration(error: dict[str, Any]) -> None:
    hint = build_error(respond(401, {"error": error}), token=Token("t", expires_at=NOW - 60)).hint
    assert "https://developer.bentley.com/register/" in hint
    assert "expired" not in hint


@pytest.mark.parametrize("status", [401, 403, 404, 407])
def test_hint_for_web_page_blames_a_gateway(status: int) -> None:
    page = respond(status, b"<html><title>Blocked by policy</title></html>", content_type="text/html")
    error = build_error(
        page, build_request(permission="imodels_write"), token=Token("t", member="x@apps.imsoidc.bentley.com")
    )
    assert "proxy, firewall or gateway" in error.hint
    assert "imodels_write" not in error.hint
    assert "invite" not in error.hint
    assert "Blocked by policy" in error.message


def test_403_names_permission_and_member_to_invite() -> None:
    error = build_error(
        respond(403),
        build_request(permission="imodels_write"),
        token=Token("t", member="cid@apps.imsoidc.bentley.com"),
    )
    assert "`imodels_write`" in error.hint
    assert "cid@apps.imsoidc.bentley.com" in error.hint
    assert "`imodels_write`" in build_error(respond(403), build_request(permission="imodels_write")).hint
    assert "administrator" in build_error(respond(403)).hint


@pytest.mark.parametrize("status", [403, 422])
def test_quota_hint_does_not_mention_permission(status: int) -> None:
    quota = {"code": "ResourceQuotaExceeded", "message": "100 briefcases."}
    error = quota if status == 403 else {"code": "InvalidiModelsRequest", "message": "No.", "details": [quota]}
    full = respond(status, {"error": error})
    hint = build_error(full, build_request(path="/imodels/1/briefcases", permission="imodels_write")).hint
    assert "no permission changes that" in hint
    assert "`list-briefcases`" in hint
    assert "imodels_write" not in hint


@pytest.mark.parametrize(
    ("path", "code", "listing"),
    [
        ("/itwins/1", "iTwinNotFound", "`list-itwins`"),
        ("/itwins/1", "", "`list-itwins`"),
        ("/imodels/1/changesets/2", "ChangesetNotFound", "`list-changesets`"),
        ("/imodels/1/changesets/2", "iModelNotFound", "`list-imodels`"),
        ("/imodels/1/namedversions/2", "", "`list-named-versions`"),
        ("/itwins/1/repositories/2", "iTwinRepositoryNotFound", "`list-repositories`"),
        ("/itwins/1/repositories/2/resources/3", "iTwinRepositoryResourceNotFound", "`list-repository-resources`"),
        ("/elsewhere/1", "", "the matching list tool"),
    ],
)
def test_404_names_the_list_tool(path: str, code: str, listing: str) -> None:
    body = {"error": {"code": code, "message": "m"}} if code else b""
    assert listing in build_error(respond(404, body), build_request(path)).hint


def test_404_of_the_gateway_hints_at_unknown_operation() -> None:
    hint = build_error(
        respond(404, {"error": {"code": "ResourceNotFound", "message": "m"}}), build_request("/itwins/1")
    ).hint
    assert "does not know this operation" in hint
    assert "list-" not in hint


@pytest.mark.parametrize(
    ("error", "path", "words"),
    [
        ({"code": "iTwinExists", "details": [{"code": "InvalidValue", "target": "number"}]}, "/itwins/", "`number`"),
        ({"code": "iModelExists"}, "/imodels/", "name"),
        ({"code": "ConflictWithAnotherUser"}, "/imodels/1", "Somebody else"),
    ],
)
def test_409_names_conflicting_field_or_other_user(error: dict[str, Any], path: str, words: str) -> None:
    response = respond(409, {"error": {**error, "message": "m"}})
    assert words in build_error(response, build_request(path, "POST")).hint


def test_422_names_the_refused_values() -> None:
    details = [{"code": "InvalidValue", "target": "$top"}, {"code": "InvalidValue", "target": "$skip"}]
    response = respond(422, {"error": {"code": "C", "message": "m", "details": details}})
    assert "`$top`, `$skip`" in build_error(response).hint


def test_429_says_when_to_retry_and_names_the_tier() -> None:
    error = build_error(respond(429, retry_after="17", itwinplatform_ratelimited_tier="Community"))
    assert (error.retry_after, error.retryable) == (17.0, True)
    assert "in 17 seconds" in error.hint
    assert "Community" in error.hint


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
def test_foreign_error_does_not_mention_itwins(status: int) -> None:
    error = build_foreign_error(
        respond(status), Request("POST", "https://erp.example", "/imodels/1"), now=NOW, nouns=NOUNS
    )
    assert "iTwin" not in str(error.to_json("x"))
    assert "list-" not in error.hint
    assert isinstance(error, PlatformError)


# --- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 08:01:00", 60.0),
        ("Fri, 15 Jan 2027 09:01:00 +0100", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", 1.5),
        ("5, 10", None),
        ("soon", None),
        ("", None),
        ("99999999999", None),
        ("٣", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
    ],
)
def test_read_retry_after_accepts_seconds_or_date(header: str, seconds: float | None) -> None:
    assert read_retry_after({"retry-after": header}, NOW) == seconds


def test_read_rate_tier_ignores_malformed_value() -> None:
    assert read_rate_tier({"itwinplatform-ratelimited-tier": "Community"}) == "Community"
    assert read_rate_tier({"itwinplatform-ratelimited-tier": "<b>\n"}) is None


# --- redaction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Bearer SECRETSECRET12",
        "Authorization: basic SECRETSECRET==",
        "token eyJhbGciOi.eyJSECRET.SECRET-x",
        "https://x.blob.core.windows.net/c/b?sv=1&sig=SECRET%2B&se=2",
        "sig%3DSECRET%26",
        "proxy http://user:SECRET@proxy.example:8080 refused",
        '{"refresh_token": "SECRET", "client_secret":"SECRET"}',
        "grant_type=x&client_secret=SECRET&code=SECRET&code_verifier=SECRET",
    ],
)
def test_hide_secrets_removes_credentials_from_error_text(text: str) -> None:
    assert "SECRET" not in hide_secrets(text)


def test_hide_secrets_keeps_ordinary_error_text() -> None:
    text = "The code InvalidValue, signature and bearer of the token: sign in again. größe 名前"
    assert clean_text(hide_secrets(text)) == text
