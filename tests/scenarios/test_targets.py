"""What the platform finds fault with is told in the agent's own words: by the argument that it passed."""

from typing import Any

import pytest
from mcp import Client

pytestmark = pytest.mark.anyio


async def error_of(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is not None
    return dict(result.structured_content["error"])


async def itwin(client: Client) -> str:
    listed = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content
    assert listed is not None
    return str(listed["iTwins"][0]["id"])


async def test_a_taken_name_is_told_by_the_argument_that_gave_it(agent: Client) -> None:
    where = await itwin(agent)
    await agent.call_tool("create-imodel", {"iTwinId": where, "name": "Twice"})
    error = await error_of(agent, "create-imodel", iTwinId=where, name="Twice")
    assert [(detail["target"], detail["argument"]) for detail in error["details"]] == [("name", "name")]


async def test_create_itwin_makes_nothing_under_a_parent_that_cannot_be_read(agent: Client) -> None:
    nobody = "1c4b1d5e-0000-4000-8000-000000000000"
    error = await error_of(agent, "create-itwin", subClass="Asset", displayName="Orphan", parentId=nobody)
    assert (error["code"], error.get("completed")) == ("iTwinNotFound", None)
    found = (await agent.call_tool("find-itwin", {"name": "Orphan"})).structured_content
    assert found is not None
    assert not any(found["matches"].values())
