"""The sign-in server: discovery, the page, tokens and what they open."""

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
    """A client without a token."""
    return http_as(None)


def answered(answer: httpx2.Response, callback: str = CALLBACK) -> dict[str, str]:
    """The parameters of a redirect back to the application."""
    assert answer.status_code in (302, 303), answer.text
    address, _, query = answer.headers["location"].partition("?")
    assert address == callback
    return {name: values[0] for name, values in parse_qs(query).items()}


async def code(web: httpx2.AsyncClient, user: str = "tomasz", **changes: str) -> str:
    form = REQUEST | {"user": seeded_id("user", user), "decision": "allow"} | changes
    return answered(await web.post("/connect/authorize", data=form), form["redirect_uri"])["code"]


async def redeem(web: httpx2.AsyncClient, given: str, **changes: str) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "code": given,
        "redirect_uri": CALLBACK,
        "client_id": NATIVE,
        "code_verifier": VERIFIER,
    }
    return await web.post("/connect/token", data=form | changes)


async def sign_in(web: httpx2.AsyncClient, user: str = "tomasz", **changes: str) -> dict[str, Any]:
    answer = await redeem(web, await code(web, user, **changes))
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def refresh(web: httpx2.AsyncClient, token: str, **changes: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": NATIVE}
    return await web.post("/connect/token", data=form | changes)


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["error"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(client_id: str, secret: str) -> dict[str, str]:
    text = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def test_discovery_tells_what_bentleys_clients_need(web: httpx2.AsyncClient) -> None:
    document = (await web.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == ORIGIN
    for name in ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"):
        assert document[name].startswith(f"{ORIGIN}/")
    assert document["response_types_supported"] == ["code"]
    assert document["subject_types_supported"] == ["public"]
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert {"client_secret_basic", "client_secret_post"} <= set(document["token_endpoint_auth_methods_supported"])


async def test_the_published_keys_verify_a_token_whose_scope_is_an_array(web: httpx2.AsyncClient) -> None:
    tokens = await sign_in(web)
    published = (await web.get("/.well-known/openid-configuration/jwks")).json()
    assert "d" not in published["keys"][0]
    token = jwt.decode(tokens["access_token"], KeySet.import_key_set(published), algorithms=["RS256"])
    assert token.claims["scope"] == ["itwin-platform", "offline_access"]
    assert (token.claims["iss"], token.claims["client_id"]) == (ORIGIN, NATIVE)
    assert token.claims["exp"] - token.claims["iat"] == tokens["expires_in"] == 3600
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "itwin-platform offline_access")


class Page(HTMLParser):
    """What a person and their screen reader find on the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def inputs(self, kind: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == "input" and attributes["type"] == kind]


async def test_the_page_offers_the_people_and_sends_the_request_on(web: httpx2.AsyncClient) -> None:
    answer = await web.get("/connect/authorize", params=REQUEST | {"login_hint": "Priya.Raman@meridian-infra.example"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    people = page.inputs("radio")
    assert [one["value"] for one in people] == [
        seeded_id("user", key) for key in ("anna", "tomasz", "priya", "marit", "luca")
    ]
    assert [one["value"] for one in people if "checked" in one] == [seeded_id("user", "priya")]
    hidden = {one["name"]: one["value"] for one in page.inputs("hidden")}
    assert REQUEST.items() <= hidden.items()
    assert {"h1", "fieldset", "legend", "label", "button"} <= {tag for tag, _ in page.found}
    chosen = {name: value or "" for name, value in hidden.items() if name}
    sent = await web.post("/connect/authorize", data=chosen | {"user": people[0]["value"] or "", "decision": "allow"})
    assert answered(sent)["code"]


async def test_nothing_in_a_request_becomes_markup(web: httpx2.AsyncClient) -> None:
    evil = '"><script>alert(1)</script>'
    page = await web.get("/connect/authorize", params=REQUEST | {"state": evil, "client_id": "native-<b>"})
    assert (page.status_code, "<script" in page.text, "<b>" in page.text) == (200, False, False)
    refused = await web.get("/connect/authorize", params=REQUEST | {"redirect_uri": evil})
    assert (refused.status_code, "<script" in refused.text) == (400, False)


async def test_the_answer_carries_state_and_issuer(web: httpx2.AsyncClient) -> None:
    form = REQUEST | {"user": seeded_id("user", "anna"), "decision": "allow"}
    given_back = answered(await web.post("/connect/authorize", data=form))
    assert (given_back["state"], given_back["iss"], set(given_back)) == ("st at&e", ORIGIN, {"code", "state", "iss"})


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
async def test_a_wrong_request_goes_back_to_the_application(
    web: httpx2.AsyncClient, changes: dict[str, str], error: str
) -> None:
    back = answered(await web.get("/connect/authorize", params=REQUEST | changes))
    assert (back["error"], back["state"], back["iss"]) == (error, "st at&e", ORIGIN)


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
async def test_where_the_application_is_in_doubt_nothing_is_sent_to_it(
    web: httpx2.AsyncClient, changes: dict[str, str]
) -> None:
    for answer in (
        await web.get("/connect/authorize", params=REQUEST | changes),
        await web.post("/connect/authorize", data=REQUEST | changes | {"decision": "allow"}),
    ):
        assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_the_first_redirect_address_is_kept_and_only_it_is_served(web: httpx2.AsyncClient) -> None:
    await code(web)
    other = await web.get("/connect/authorize", params=REQUEST | {"redirect_uri": f"{CALLBACK}/"})
    assert (other.status_code, CALLBACK in other.text) == (400, True)


async def test_who_cancels_or_is_nobody_gets_no_code(web: httpx2.AsyncClient) -> None:
    for form in ({"decision": "deny", "user": seeded_id("user", "anna")}, {"decision": "allow", "user": "x"}):
        assert answered(await web.post("/connect/authorize", data=REQUEST | form))["error"] == "access_denied"


async def test_another_site_cannot_send_the_form(web: httpx2.AsyncClient) -> None:
    form = REQUEST | {"user": seeded_id("user", "anna"), "decision": "allow"}
    answer = await web.post("/connect/authorize", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 400


async def test_a_parameter_given_twice_is_refused(web: httpx2.AsyncClient) -> None:
    assert refusal(await web.post("/connect/token", content="grant_type=refresh_token&grant_type=x")) == (
        400,
        "invalid_request",
    )


async def test_two_people_are_signed_in_at_once_and_see_their_own(web: httpx2.AsyncClient) -> None:
    for user, count in (("tomasz", 7), ("priya", 3)):
        token = (await sign_in(web, user))["access_token"]
        assert len((await web.get("/itwins", headers=bearer(token))).json()["iTwins"]) == count
        told = (await web.get("/connect/userinfo", headers=bearer(token))).json()
        assert told["email"].startswith(user)


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
async def test_a_code_is_redeemed_only_by_whoever_asked_for_it(
    web: httpx2.AsyncClient, changes: dict[str, str], error: str
) -> None:
    given_code = await code(web)
    assert refusal(await redeem(web, given_code, **changes)) == (400, error)
    assert (await redeem(web, given_code)).status_code == 200


async def test_a_code_lives_five_minutes(web: httpx2.AsyncClient, clock: Clock) -> None:
    given_code = await code(web)
    clock.forward(300)
    assert refusal(await redeem(web, given_code)) == (400, "invalid_grant")


async def test_a_code_used_twice_takes_its_refresh_token_along(web: httpx2.AsyncClient) -> None:
    given_code = await code(web)
    tokens = (await redeem(web, given_code)).json()
    assert refusal(await redeem(web, given_code)) == (400, "invalid_grant")
    assert refusal(await refresh(web, tokens["refresh_token"])) == (400, "invalid_grant")


async def test_a_refresh_token_is_replaced_by_each_use(web: httpx2.AsyncClient, clock: Clock) -> None:
    first = await sign_in(web)
    clock.forward(3600)
    assert (await web.get("/itwins", headers=bearer(first["access_token"]))).status_code == 401
    second = (await refresh(web, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await web.get("/itwins", headers=bearer(second["access_token"]))).status_code == 200


async def test_a_refresh_token_used_twice_ends_the_sign_in(web: httpx2.AsyncClient) -> None:
    first = await sign_in(web)
    second = (await refresh(web, first["refresh_token"])).json()
    assert refusal(await refresh(web, first["refresh_token"])) == (400, "invalid_grant")
    assert refusal(await refresh(web, second["refresh_token"])) == (400, "invalid_grant")


async def test_a_refresh_token_belongs_to_its_client_and_to_what_was_consented(web: httpx2.AsyncClient) -> None:
    token = (await sign_in(web))["refresh_token"]
    assert refusal(await refresh(web, token, client_id="native-other")) == (400, "invalid_grant")
    assert refusal(await refresh(web, token, scope="itwin-platform email")) == (400, "invalid_scope")
    narrowed = (await refresh(web, token, scope="itwin-platform")).json()
    assert narrowed["scope"] == "itwin-platform"
    assert (await refresh(web, narrowed["refresh_token"])).json()["scope"] == "itwin-platform offline_access"


async def test_without_offline_access_there_is_no_refresh_token(web: httpx2.AsyncClient) -> None:
    assert "refresh_token" not in await sign_in(web, scope="itwin-platform")


async def test_openid_gives_an_id_token_for_the_application(web: httpx2.AsyncClient) -> None:
    tokens = await sign_in(web, scope="openid email itwin-platform", nonce="n-1")
    keys = KeySet.import_key_set((await web.get("/.well-known/openid-configuration/jwks")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["aud"], claims["nonce"], claims["sub"]) == (NATIVE, "n-1", seeded_id("user", "tomasz"))
    assert (await web.get("/itwins", headers=bearer(tokens["id_token"]))).status_code == 401


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_service_application_registers_itself_and_keeps_its_secret(
    web: httpx2.AsyncClient, by_header: bool
) -> None:
    async def token(secret: str) -> httpx2.Response:
        if by_header:
            return await web.post("/connect/token", data=SERVICE, headers=basic("service-new", secret))
        return await web.post("/connect/token", data=SERVICE | {"client_id": "service-new", "client_secret": secret})

    first = await token("se:cret/&+ %")
    assert (first.status_code, first.json()["scope"], "refresh_token" in first.json()) == (200, "itwin-platform", False)
    wrong = await token("other")
    assert refusal(wrong) == (401, "invalid_client")
    assert ("www-authenticate" in wrong.headers) is by_header
    assert (await token("se:cret/&+ %")).status_code == 200


async def test_a_secret_is_the_same_by_header_and_by_body(web: httpx2.AsyncClient) -> None:
    header = await web.post("/connect/token", data=SERVICE, headers=basic("service-new", "a+b %"))
    body = await web.post("/connect/token", data=SERVICE | {"client_id": "service-new", "client_secret": "a+b %"})
    assert (header.status_code, body.status_code) == (200, 200)


@pytest.mark.parametrize("in_header", [True, False])
async def test_an_unknown_application_that_presents_a_secret_is_refused(
    web: httpx2.AsyncClient, in_header: bool
) -> None:
    body = SERVICE if in_header else SERVICE | {"client_id": "portal", "client_secret": "s"}
    answer = await web.post("/connect/token", data=body, headers=basic("portal", "s") if in_header else {})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_service_application_sees_only_iTwins_that_its_address_is_a_member_of(web: httpx2.AsyncClient) -> None:
    async def itwins(client_id: str) -> int:
        answer = await web.post("/connect/token", data=SERVICE, headers=basic(client_id, "s"))
        listed = await web.get("/itwins", headers=bearer(answer.json()["access_token"]))
        return len(listed.json()["iTwins"])

    assert await itwins("service-meridian-design-sync") == 3
    assert await itwins("service-new") == 0
    token = (await web.post("/connect/token", data=SERVICE, headers=basic("service-new", "s"))).json()["access_token"]
    told = (await web.get("/connect/userinfo", headers=bearer(token))).json()
    assert told["email"] == "service-new@apps.imsoidc.bentley.com"
    project = {"class": "Endeavor", "subClass": "Project", "displayName": "x"}
    assert (await web.post("/itwins", json=project, headers=bearer(token))).status_code == 403


@pytest.mark.parametrize("scope", ["openid", "email", "profile", "organization", "offline_access", "nope", ""])
async def test_a_service_application_may_ask_for_the_platform_only(web: httpx2.AsyncClient, scope: str) -> None:
    form = SERVICE | {"scope": f"itwin-platform {scope}" if scope else ""}
    answer = await web.post("/connect/token", data=form, headers=basic("service-new", "s"))
    assert refusal(answer) == (400, "invalid_scope")


@pytest.mark.parametrize(
    ("form", "headers", "expected"),
    [
        ({}, {}, (401, "invalid_client")),
        ({"client_id": "service-new"}, {}, (401, "invalid_client")),
        ({"client_secret": "s"}, basic("service-new", "s"), (400, "invalid_request")),
        ({"client_id": "service-other"}, basic("service-new", "s"), (401, "invalid_client")),
        ({}, {"Authorization": "Basic ???"}, (401, "invalid_client")),
        ({"client_id": "native-new"}, {}, (400, "unauthorized_client")),
        ({"grant_type": "authorization_code"}, basic("service-new", "s"), (400, "unauthorized_client")),
    ],
)
async def test_a_client_must_say_who_it_is_in_one_way(
    web: httpx2.AsyncClient, form: dict[str, str], headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert refusal(await web.post("/connect/token", data=SERVICE | form, headers=headers)) == expected


async def test_a_web_application_has_a_secret_and_may_do_without_pkce(web: httpx2.AsyncClient) -> None:
    given_code = await code(web, client_id="webapp-one", code_challenge="", code_challenge_method="")
    form = {"client_id": "webapp-one", "code_verifier": ""}
    assert refusal(await redeem(web, given_code, **form)) == (401, "invalid_client")
    assert (await redeem(web, given_code, client_secret="s", **form)).status_code == 200


async def test_a_revoked_access_token_opens_nothing(web: httpx2.AsyncClient) -> None:
    token = (await sign_in(web))["access_token"]
    revoked = await web.post("/connect/revocation", data={"token": token, "client_id": NATIVE})
    assert (revoked.status_code, revoked.content) == (200, b"")
    assert (await web.get("/itwins", headers=bearer(token))).status_code == 401


async def test_a_revoked_refresh_token_ends_the_sign_in(web: httpx2.AsyncClient) -> None:
    first = await sign_in(web)
    second = (await refresh(web, first["refresh_token"])).json()
    await web.post("/connect/revocation", data={"token": first["refresh_token"], "client_id": NATIVE})
    assert refusal(await refresh(web, second["refresh_token"])) == (400, "invalid_grant")


async def test_nobody_revokes_anothers_token_and_an_unknown_one_is_no_error(web: httpx2.AsyncClient) -> None:
    token = (await sign_in(web))["refresh_token"]
    foreign = await web.post("/connect/revocation", data={"token": token, "client_id": "native-other"})
    assert refusal(foreign) == (400, "invalid_grant")
    assert (await refresh(web, token)).status_code == 200
    assert (await web.post("/connect/revocation", data={"token": "nope", "client_id": NATIVE})).status_code == 200
    assert refusal(await web.post("/connect/revocation", data={"client_id": NATIVE})) == (400, "invalid_request")


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
async def test_no_request_makes_the_sign_in_server_fail(
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
