"""`exposes.authentication`: what requests over HTTP must present, and whose setting wins."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import SettingsError
from itwin_mcp.server.transports.inbound_check import require
from tests.server.rest.harbour import serve_harbour, write_file

pytestmark = pytest.mark.anyio

NAMESPACE = "    namespace: harbour\n"
MCP = """  - type: mcp
    namespace: harbour-tools
    port: 9124
    AUTHENTICATION
    tools:
      read-the-berth:
        ref: berth-flows.read-berth
"""


def protect(authentication: str) -> tuple[str, str]:
    """Return the edit that protects the harbour's REST API."""
    return NAMESPACE, f"{NAMESPACE}    authentication: {authentication}\n"


BEARER = '{type: bearer, token: "{{CALLER_TOKEN}}"}'
BASIC = '{type: basic, username: harbour, password: "{{CALLER_TOKEN}}"}'
HEADER = '{type: apikey, key: X-Api-Key, value: "{{CALLER_TOKEN}}"}'
QUERY = '{type: apikey, key: api_key, placement: query, value: "{{CALLER_TOKEN}}"}'


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("authentication", "right", "wrong", "challenge"),
    [
        (
            BEARER,
            [{"authorization": "Bearer token-of-callers"}, {"authorization": "bearer  token-of-callers"}],
            [{}, {"authorization": "Bearer token-of-caller"}, {"authorization": "Bearer"}, {"authorization": "\xff"}],
            "Bearer",
        ),
        (
            BASIC,
            [basic("harbour", "token-of-callers")],
            [{}, basic("harbour", ""), basic("", "token-of-callers"), basic("Harbour", "token-of-callers")],
            "Basic",
        ),
        (HEADER, [{"x-api-key": "token-of-callers"}], [{}, {"x-api-key": "token"}], "ApiKey"),
    ],
    ids=["bearer", "basic", "apikey"],
)
async def test_requests_need_the_credential_of_the_file(
    tmp_path: Path,
    authentication: str,
    right: list[dict[str, str]],
    wrong: list[dict[str, str]],
    challenge: str,
) -> None:
    async with serve_harbour(tmp_path, protect(authentication)) as harbour:
        for headers in wrong:
            for path in ("/rest/harbour/berths/b1", "/rest/%68arbour/berths/b1", "/rest/harbour/openapi.json"):
                sent = {name: value.encode("latin-1") for name, value in headers.items()}
                answer = await harbour.http.get(path, headers=sent)
                assert answer.status_code == 401, (path, headers)
                assert answer.headers["www-authenticate"].startswith(challenge)
                assert "token-of-callers" not in answer.text
        assert harbour.asked == []
        for headers in right:
            assert (await harbour.http.get("/rest/harbour/berths/b1", headers=headers)).status_code == 200
        twice = [(name, value) for name, value in right[0].items()] * 2
        assert (await harbour.http.get("/rest/harbour/berths/b1", headers=twice)).status_code == 401


async def test_a_key_in_the_query_goes_no_further(tmp_path: Path) -> None:
    async with serve_harbour(tmp_path, protect(QUERY)) as harbour:
        assert (await harbour.http.get("/rest/harbour/berths?api_key=wrong")).status_code == 401
        answer = await harbour.http.get("/rest/harbour/berths?quay=A&api_key=token-of-callers")
        assert answer.status_code == 200
        assert harbour.asked == ["GET /v1/berths?quay=A&lang=en"]


async def test_authentication_of_an_mcp_entry_protects_mcp_only(tmp_path: Path) -> None:
    entry = MCP.replace("AUTHENTICATION", f"authentication: {BEARER}")
    async with serve_harbour(tmp_path, ("  exposes:\n", f"  exposes:\n{entry}")) as harbour:
        hello: dict[str, Any] = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
        accept = {"accept": "application/json, text/event-stream"}
        assert (await harbour.http.post("/mcp", json=hello, headers=accept)).status_code == 401
        signed = {**accept, "authorization": "Bearer token-of-callers"}
        assert (await harbour.http.post("/mcp", json=hello, headers=signed)).status_code == 200
        assert (await harbour.http.get("/rest/harbour/berths/b1")).status_code == 200


async def test_http_token_replaces_the_authentication_of_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve_harbour(tmp_path, protect(BEARER), token="own") as harbour:
        for token, status in (("token-of-callers", 401), ("own", 200)):
            headers = {"authorization": f"Bearer {token}"}
            assert (await harbour.http.get("/rest/harbour/berths/b1", headers=headers)).status_code == status
    assert "--http-token takes the place of the authentication in" in caplog.text


async def test_stdio_warns_that_authentication_and_rest_do_not_apply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from itwin_mcp.runtime import warn_of_http_only
    from tests.capability.files import link_files

    with caplog.at_level(logging.WARNING):
        warn_of_http_only(link_files([write_file(tmp_path, "https://office.example", protect(BEARER))]))
    assert "Over stdio the authentication in" in caplog.text
    assert "Over stdio no REST API is served (harbour)" in caplog.text


@pytest.mark.parametrize(
    ("authentication", "problem"),
    [
        (BEARER, "Set HARBOUR_CALLER_TOKEN in the environment"),
        ("{type: digest, username: a, password: b}", "digest authentication"),
        (
            '{type: oauth2, authorizationServerUri: "https://sign-in.example", resource: "https://here.example"}',
            "set ITWIN_MCP_AUTH_ISSUER",
        ),
    ],
)
async def test_a_credential_without_a_value_stops_the_start(tmp_path: Path, authentication: str, problem: str) -> None:
    from tests.capability.files import link_files

    catalog = link_files([write_file(tmp_path, "https://office.example", protect(authentication))])
    with pytest.raises(SettingsError, match=problem):
        require(catalog.inbound, {})


async def test_two_credentials_at_one_path_are_refused(tmp_path: Path) -> None:
    from tests.capability.files import link_files

    entries = MCP.replace("AUTHENTICATION", f"authentication: {BEARER}")
    more = MCP.replace("AUTHENTICATION", f"authentication: {BASIC}").replace("harbour-tools", "more-tools")
    more = more.replace("read-the-berth", "read-it-too")
    catalog = link_files(
        [write_file(tmp_path, "https://office.example", ("  exposes:\n", f"  exposes:\n{entries}{more}"))]
    )
    with pytest.raises(SettingsError, match="Two entries at /mcp"):
        require(catalog.inbound, {"HARBOUR_CALLER_TOKEN": "t"})
