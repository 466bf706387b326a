"""What another service keeps: the platform answers with a redirect, which is an answer and is not followed."""

import pytest
from mcp import Client

from tests.conftest import connect

pytestmark = pytest.mark.anyio


async def federated(client: Client) -> tuple[str, str]:
    """An iTwin and its repository of geospatial features, which the platform federates."""
    itwins = (await client.call_tool("list-itwins", {"limit": 50})).structured_content
    assert itwins is not None
    for itwin in itwins["iTwins"]:
        found = await client.call_tool("list-repositories", {"iTwinId": itwin["id"]})
        assert found.structured_content is not None
        for repository in found.structured_content.get("repositories", []):
            if repository["class"] == "GeospatialFeatures":
                return itwin["id"], repository["id"]
    raise AssertionError("the portfolio has no federated repository")


async def test_a_redirect_is_told_as_such_and_not_followed() -> None:
    async with connect(toolsets="all") as client:
        itwin, repository = await federated(client)
        arguments = {"iTwinId": itwin, "repositoryId": repository}
        result = await client.call_tool("list-repository-resources", arguments)
    assert result.is_error
    assert result.structured_content is not None
    error = result.structured_content["error"]
    assert (error["code"], error["status"]) == ("KeptElsewhere", 302)
    assert "geospatial-features" in error["message"]
