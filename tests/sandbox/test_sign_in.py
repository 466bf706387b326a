"""The sign-in server: discovery, the consent page, tokens and their scopes."""

import base64
import hashlib
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, quote_plus

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import ORIGIN, Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
CALLBACK = "http://localhost:3301/signin-callback"
NATIVE = "native-test"
REQUEST = {
    "client_id": NATIVE,
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "scope": "itwin-platform offline_access",
    "state": "st at&e",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
SERVICE = {"grant_type": "client_credentials", "scope": "itwin-platform"}


@pytest.fixture
def web(http_as: Connect) -> httpx2.AsyncClient:
    """Return a client without a token."""
    return http_as(None)


def read_redirect(answer: httpx2.Response, callback: str = CALLBACK) -> dict[str, str]:
    """Return the parameters of a redirect to the application."""
    assert answer.status_code in (302, 303), answer.text
    address, _, query = answer.headers["location"].partition("?")
    assert address == callback
    return {name: values[0] for name, values in parse_qs(query).items()}


async def get_code(web: httpx2.AsyncClient, user: str = "tomasz", **changes: str) -> str:
    form = REQUEST | {"user": seeded_id("user", user), "decision": "allow"} | changes
    return read_redirect(await web.post("/connect/authorize", data=form), form["redirect_uri"])["code"]


async def redeem_code(web: httpx2.AsyncClient, auth_code: str, **changes: str) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "code": auth_code,
        "redirect_uri": CALLBACK,
        "client_id": NATIVE,
        "code_verifier": VERIFIER,
    }
    return await web.post("/connect/token", data=form | changes)


async def sign_in(web: httpx2.AsyncClient, user: str = "tomasz", **changes: str) -> dict[str, Any]:
    answer = await redeem_code(web, await get_code(web, user, **changes))
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def refresh_tokens(web: httpx2.AsyncClient, token: str, **changes: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": NATIVE}
    return await web.post("/connect/token", data=form | changes)


def read_error(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["error"]


def make_bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make_basic(client_id: str, secret: str) -> dict[str, str]:
    text = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def test_discovery_document_has_the_members_that_clients_read(web: httpx2.AsyncClient) -> None:
    document = (await web.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == ORIGIN
    for name in ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"):
        assert document[name].startswith(f"{ORIGIN}/")
    assert document["response_types_supported"] == ["code"]
    assert document["subject_types_supported"] == ["public"]
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert {"client_secret_basic", "client_secret_post"} <= set(document["token_endpoint_auth_methods_supported"])


async def test_published_keys_verify_a_token_with_a_scope_array(web: httpx2.AsyncClient) -> None:
    tokens = await sign_in(web)
    published = (await web.get("/.well-known/openid-configuration/jwks")).json()
    assert "d" not in published["keys"][0]
    token = jwt.decode(tokens["access_token"], KeySet.import_key_set(published), algorithms=["RS256"])
    assert token.claims["scope"] == ["itwin-platform", "offline_access"]
    assert (token.claims["iss"], token.claims["client_id"]) == (ORIGIN, NATIVE)
    assert token.claims["exp"] - token.claims["iat"] == tokens["expires_in"] == 3600
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "itwin-platform offline_access")


class ParsedPage(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def inputs(self, kind: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == "input" and attributes["type"] == kind]


async def test_consent_page_lists_people_and_keeps_the_request(web: httpx2.AsyncClient) -> None:
    answer = await web.get("/connect/authorize", params=REQUEST | {"login_hint": "Priya.Raman@meridian-infra.example"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = ParsedPage(answer.text)
    people = page.inputs("radio")
    assert [person["value"] for person in people] == [
        seeded_id("user", key) for key in ("anna", "tomasz", "priya", "marit", "luca")
    ]
    assert [person["value"] for person in people if "checked" in person] == [seeded_id("user", "priya")]
    hidden = {field["name"]: field["value"] for field in page.inputs("hidden")}
    assert REQUEST.items() <= hidden.items()
    assert {"h1", "fieldset", "legend", "label", "button"} <= {tag for tag, _ in page.elements}
    fields = {name: value or "" for name, value in hidden.items() if name}
    sent = await web.post("/connect/authorize", data=fields | {"user": people[0]["value"] or "", "decision": "allow"})
    assert read_redirect(sent)["code"]


async def test_consent_page_escapes_the_request(web: httpx2.AsyncClient) -> None:
    evil = '"><script>alert(1)</script>'
    page = await web.get("/connect/authorize", params=REQUEST | {"state": evil, "client_id": "native-<b>"})
    assert (page.status_code, "<script" in page.text, "<b>" in page.text) == (200, False, False)
    refused = await web.get("/connect/authorize", params=REQUEST | {"redirect_uri": evil})
    assert (refused.status_code, "<script" in refused.text) == (400, False)


async def test_authorization_answer_has_state_and_issuer(web: httpx2.AsyncClient) -> None:
    form = REQUEST | {"user": seeded_id("user", "anna"), "decision": "allow"}
    parameters = read_redirect(await web.post("/connect/authorize", data=form))
    assert (parameters["state"], parameters["iss"], set(parameters)) == ("st at&e", ORIGIN, {"code", "state", "iss"})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "itwin-platform imodels:read"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"resource": "https://api.bentley.com"}, "invalid_target"),
        ({"request": "x.y.z"}, "request_not_supported"),
    ],
)
async def test_invalid_authorization_request_redirects_with_an_error(
    web: httpx2.AsyncClient, changes: dict[str, str], error: str
) -> None:
    parameters = read_redirect(await web.get("/connect/authorize", params=REQUEST | changes))
    assert (parameters["error"], parameters["state"], parameters["iss"]) == (error, "st at&e", ORIGIN)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": ""},
        {"client_id": "service-anything"},
        {"redirect_uri": ""},
        {"redirect_uri": "http://elsewhere.example/callback"},
        {"redirect_uri": "https://app.example/cb#fragment"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "http://[::1"},
    ],
)
async def test_unidentified_application_gets_no_redirect(web: httpx2.AsyncClient, changes: dict[str, str]) -> None:
    for answer in (
        await web.get("/connect/authorize", params=REQUEST | changes),
        await web.post("/connect/authorize", data=REQUEST | changes | {"decision": "allow"}),
    ):
        assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_first_redirect_uri_is_registered_and_required(web: httpx2.AsyncClient) -> None:
    await get_code(web)
    other = await web.get("/connect/authorize", params=REQUEST | {"redirect_uri": f"{CALLBACK}/"})
    assert (other.status_code, CALLBACK in other.text) == (400, True)


async def test_cancelled_or_unknown_user_gets_no_code(web: httpx2.AsyncClient) -> None:
    for form in ({"decision": "deny", "user": seeded_id("user", "anna")}, {"decision": "allow", "user": "x"}):
        assert read_redirect(await web.post("/connect/authorize", data=REQUEST | form))["error"] == "access_denied"


async def test_consent_form_from_another_site_is_refused(web: httpx2.AsyncClient) -> None:
    form = REQUEST | {"user": seeded_id("user", "anna"), "decision": "allow"}
    answer = await web.post("/connect/authorize", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 400


async def test_oauth_parameter_given_twice_is_refused(web: httpx2.AsyncClient) -> None:
    assert read_error(await web.post("/connect/token", content="grant_type=refresh_token&grant_type=x")) == (
        400,
        "invalid_request",
    )


async def test_access_token_gives_access_to_the_itwins_of_its_user(web: httpx2.AsyncClient) -> None:
    for user, count in (("tomasz", 7), ("priya", 3)):
        token = (await sign_in(web, user))["access_token"]
        assert len((await web.get("/itwins", headers=make_bearer(token))).json()["iTwins"]) == count
        user_info = (await web.get("/connect/userinfo", headers=make_bearer(token))).json()
        assert user_info["email"].startswith(user)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"redirect_uri": f"{CALLBACK}/"}, "invalid_grant"),
        ({"client_id": "native-other"}, "invalid_grant"),
        ({"code": "nope"}, "invalid_grant"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"resource": "https://api.bentley.com"}, "invalid_target"),
    ],
)
async def test_code_is_redeemed_only_by_its_application(
    web: httpx2.AsyncClient, changes: dict[str, str], error: str
) -> None:
    auth_code = await get_code(web)
    assert read_error(await redeem_code(web, auth_code, **changes)) == (400, error)
    assert (await redeem_code(web, auth_code)).status_code == 200


async def test_code_expires_after_five_minutes(web: httpx2.AsyncClient, clock: Clock) -> None:
    auth_code = await get_code(web)
    clock.forward(300)
    assert read_error(await redeem_code(web, auth_code)) == (400, "invalid_grant")


async def test_reused_code_revokes_its_refresh_token(web: httpx2.AsyncClient) -> None:
    auth_code = await get_code(web)
    tokens = (await redeem_code(web, auth_code)).json()
    assert read_error(await redeem_code(web, auth_code)) == (400, "invalid_grant")
    assert read_error(await refresh_tokens(web, tokens["refresh_token"])) == (400, "invalid_grant")


async def test_refresh_token_rotates_with_each_use(web: httpx2.AsyncClient, clock: Clock) -> None:
    first = await sign_in(web)
    clock.forward(3600)
    assert (await web.get("/itwins", headers=make_bearer(first["access_token"]))).status_code == 401
    second = (await refresh_tokens(web, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await web.get("/itwins", headers=make_bearer(second["access_token"]))).status_code == 200


async def test_reused_refresh_token_revokes_its_successors(web: httpx2.AsyncClient) -> None:
    first = await sign_in(web)
    second = (await refresh_tokens(web, first["refresh_token"])).json()
    assert read_error(await refresh_tokens(web, first["refresh_token"])) == (400, "invalid_grant")
    assert read_error(await refresh_tokens(web, second["refresh_token"])) == (400, "invalid_grant")


async def test_refresh_token_is_bound_to_client_and_consent(web: httpx2.AsyncClient) -> None:
    token = (await sign_in(web))["refresh_token"]
    assert read_error(await refresh_tokens(web, token, client_id="native-other")) == (400, "invalid_grant")
    assert read_error(await refresh_tokens(web, token, scope="itwin-platform email")) == (400, "invalid_scope")
    narrowed = (await refresh_tokens(web, token, scope="itwin-platform")).json()
    assert narrowed["scope"] == "itwin-platform"
    assert (await refresh_tokens(web, narrowed["refresh_token"])).json()["scope"] == "itwin-platform offline_access"


async def test_refresh_token_requires_offline_access(web: httpx2.AsyncClient) -> None:
    assert "refresh_token" not in await sign_in(web, scope="itwin-platform")


async def test_openid_scope_returns_an_id_token_that_is_not_an_access_token(web: httpx2.AsyncClient) -> None:
    tokens = await sign_in(web, scope="openid email itwin-platform", nonce="n-1")
    keys = KeySet.import_key_set((await web.get("/.well-known/openid-configuration/jwks")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["aud"], claims["nonce"], claims["sub"]) == (NATIVE, "n-1", seeded_id("user", "tomasz"))
    assert (await web.get("/itwins", headers=make_bearer(tokens["id_token"]))).status_code == 401


@pytest.mark.parametrize("by_header", [True, False])
async def test_service_application_registers_with_its_first_secret(web: httpx2.AsyncClient, by_header: bool) -> None:
    async def token(secret: str) -> httpx2.Response:
        if by_header:
            return await web.post("/connect/token", data=SERVICE, headers=make_basic("service-new", secret))
        return await web.post("/connect/token", data=SERVICE | {"client_id": "service-new", "client_secret": secret})

    first = await token("se:cret/&+ %")
    assert (first.status_code, first.json()["scope"], "refresh_token" in first.json()) == (200, "itwin-platform", False)
    wrong = await token("other")
    assert read_error(wrong) == (401, "invalid_client")
    assert ("www-authenticate" in wrong.headers) is by_header
    assert (await token("se:cret/&+ %")).status_code == 200


async def test_client_secret_is_accepted_in_header_and_body(web: httpx2.AsyncClient) -> None:
    header = await web.post("/connect/token", data=SERVICE, headers=make_basic("service-new", "a+b %"))
    body = await web.post("/connect/token", data=SERVICE | {"client_id": "service-new", "client_secret": "a+b %"})
    assert (header.status_code, body.status_code) == (200, 200)


@pytest.mark.parametrize("in_header", [True, False])
async def test_unregistered_application_with_a_secret_is_refused(web: httpx2.AsyncClient, in_header: bool) -> None:
    body = SERVICE if in_header else SERVICE | {"client_id": "portal", "client_secret": "s"}
    answer = await web.post("/connect/token", data=body, headers=make_basic("portal", "s") if in_header else {})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_service_application_sees_only_itwins_it_is_a_member_of(web: httpx2.AsyncClient) -> None:
    async def itwins(client_id: str) -> int:
        answer = await web.post("/connect/token", data=SERVICE, headers=make_basic(client_id, "s"))
        listed = await web.get("/itwins", headers=make_bearer(answer.json()["access_token"]))
        return len(listed.json()["iTwins"])

    assert await itwins("service-meridian-design-sync") == 3
    assert await itwins("service-new") == 0
    token = (await web.post("/connect/token", data=SERVICE, headers=make_basic("service-new", "s"))).json()[
        "access_token"
    ]
    user_info = (await web.get("/connect/userinfo", headers=make_bearer(token))).json()
    assert user_info["email"] == "service-new@apps.imsoidc.bentley.com"
    project = {"class": "Endeavor", "subClass": "Project", "displayName": "x"}
    assert (await web.post("/itwins", json=project, headers=make_bearer(token))).status_code == 403


@pytest.mark.parametrize("scope", ["openid", "email", "profile", "organization", "offline_access", "nope", ""])
async def test_service_application_gets_only_the_platform_scope(web: httpx2.AsyncClient, scope: str) -> None:
    form = SERVICE | {"scope": f"itwin-platform {scope}" if scope else ""}
    answer = await web.post("/connect/token", data=form, headers=make_basic("service-new", "s"))
    assert read_error(answer) == (400, "invalid_scope")


@pytest.mark.parametrize(
    ("form", "headers", "expected"),
    [
        ({}, {}, (401, "invalid_client")),
        ({"client_id": "service-new"}, {}, (401, "invalid_client")),
        ({"client_secret": "s"}, make_basic("service-new", "s"), (400, "invalid_request")),
        ({"client_id": "service-other"}, make_basic("service-new", "s"), (401, "invalid_client")),
        ({}, {"Authorization": "Basic ???"}, (401, "invalid_client")),
        ({"client_id": "native-new"}, {}, (400, "unauthorized_client")),
        ({"grant_type": "authorization_code"}, make_basic("service-new", "s"), (400, "unauthorized_client")),
    ],
)
async def test_token_endpoint_rejects_invalid_client_authentication(
    web: httpx2.AsyncClient, form: dict[str, str], headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert read_error(await web.post("/connect/token", data=SERVICE | form, headers=headers)) == expected


async def test_web_application_has_a_secret_and_needs_no_pkce(web: httpx2.AsyncClient) -> None:
    auth_code = await get_code(web, client_id="webapp-one", code_challenge="", code_challenge_method="")
    form = {"client_id": "webapp-one", "code_verifier": ""}
    assert read_error(await redeem_code(web, auth_code, **form)) == (401, "invalid_client")
    assert (await redeem_code(web, auth_code, client_secret="s", **form)).status_code == 200


async def test_revoked_access_token_is_refused(web: httpx2.AsyncClient) -> None:
    token = (await sign_in(web))["access_token"]
    revoked = await web.post("/connect/revocation", data={"token": token, "client_id": NATIVE})
    assert (revoked.status_code, revoked.content) == (200, b"")
    assert (await web.get("/itwins", headers=make_bearer(token))).status_code == 401


async def test_revoking_a_refresh_token_revokes_its_successors(web: httpx2.AsyncClient) -> None:
    first = await sign_in(web)
    second = (await refresh_tokens(web, first["refresh_token"])).json()
    await web.post("/connect/revocation", data={"token": first["refresh_token"], "client_id": NATIVE})
    assert read_error(await refresh_tokens(web, second["refresh_token"])) == (400, "invalid_grant")


async def test_revocation_rejects_foreign_tokens_and_accepts_unknown_ones(web: httpx2.AsyncClient) -> None:
    token = (await sign_in(web))["refresh_token"]
    foreign = await web.post("/connect/revocation", data={"token": token, "client_id": "native-other"})
    assert read_error(foreign) == (400, "invalid_grant")
    assert (await refresh_tokens(web, token)).status_code == 200
    assert (await web.post("/connect/revocation", data={"token": "nope", "client_id": NATIVE})).status_code == 200
    assert read_error(await web.post("/connect/revocation", data={"client_id": NATIVE})) == (
        400,
        "invalid_request",
    )


_NAMES = st.sampled_from(
    [*REQUEST, "grant_type", "code", "code_verifier", "refresh_token", "token", "decision", "user"]
)
_VALUES = st.sampled_from([*REQUEST.values(), "authorization_code", "allow", "refresh_token"]) | st.text(max_size=12)


@settings(max_examples=60)
@given(
    route=st.sampled_from([("GET", "authorize"), ("POST", "authorize"), ("POST", "token"), ("POST", "revocation")]),
    pairs=st.lists(st.tuples(_NAMES, _VALUES), max_size=9),
    header=st.none() | st.binary(max_size=12).map(lambda raw: "Basic " + base64.b64encode(raw).decode()),
)
async def test_sign_in_server_never_answers_500(
    web: httpx2.AsyncClient, route: tuple[str, str], pairs: list[tuple[str, str]], header: str | None
) -> None:
    method, path = route
    text = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
    url = f"/connect/{path}" + (f"?{text}" if method == "GET" else "")
    headers = {"Authorization": header} if header else {}
    answer = await web.request(method, url, content=None if method == "GET" else text, headers=headers)
    assert answer.status_code in (200, 302, 303, 400, 401)
    if "location" in answer.headers:
        assert "javascript:" not in answer.headers["location"]
