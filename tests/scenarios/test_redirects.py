"""Redirects of the platform to another service are reported and not followed."""

from typing import Any

import pytest
from mcp import Client

from tests.conftest import connect
from tests.executor.bench import IMODEL, ITWIN, bench

pytestmark = pytest.mark.anyio


async def find_federated_repository(client: Client) -> tuple[str, str]:
    """Find an iTwin and its repository of geospatial features, which the platform federates."""
    itwins = (await client.call_tool("list-itwins", {"limit": 50})).structured_content
    assert itwins is not None
    for itwin in itwins["iTwins"]:
        answer = await client.call_tool("list-repositories", {"iTwinId": itwin["id"]})
        assert answer.structured_content is not None
        for repository in answer.structured_content.get("repositories", []):
            if repository["class"] == "GeospatialFeatures":
                return itwin["id"], repository["id"]
    raise AssertionError("the portfolio has no federated repository")


async def test_redirect_to_another_service_is_reported_and_not_followed() -> None:
    async with connect(toolsets="all") as client:
        itwin, repository = await find_federated_repository(client)
        arguments = {"iTwinId": itwin, "repositoryId": repository}
        result = await client.call_tool("list-repository-resources", arguments)
    assert result.is_error
    assert result.structured_content is not None
    error = result.structured_content["error"]
    assert (error["code"], error["status"]) == ("KeptElsewhere", 302)
    assert "geospatial-features" in error["message"]


LOGINS = [
    "https://login.corp.example/adfs/ls/?wa=wsignin1.0",
    "https://proxy.corp.example/sso?return_to=x",
    "https://corp.okta.example/app/x?SAMLRequest=abc",
    "https://id.corp.example/oauth2/v1/authorize?client_id=1&redirect_uri=x",
    "/login",
    "http://10.0.0.1:8080/login.html",
]


@pytest.mark.parametrize("link", LOGINS)
@pytest.mark.parametrize("tool", ["get-itwin", "create-imodel"])
async def test_redirect_to_a_login_page_is_reported_as_a_proxy(tool: str, link: str) -> None:
    async def proxy(questions: Any) -> None:
        await questions.answer(302, b"", {"Location": link})

    async with bench("", proxy, shipped_files=True) as it:
        more = {"name": "Pier"} if tool.startswith("create") else {}
        error = await it.refused(tool, iTwinId=ITWIN, **more)
    assert error["code"] == "ConnectionFailed"
    assert "login page" in error["message"]
    assert not error["retryable"]


@pytest.mark.parametrize("link", ["", "http://[broken", "https://elsewhere.example/features/7", "https://a:b/x"])
async def test_redirect_to_any_other_address_is_reported_as_kept_elsewhere(link: str) -> None:
    async def platform(questions: Any) -> None:
        await questions.answer(302, b"", {"Location": link} if link else {})

    async with bench("", platform, shipped_files=True) as it:
        error = await it.refused("get-imodel", iModelId=IMODEL)
    assert error["code"] == "KeptElsewhere"
