"""Errors of the platform name the argument of the tool that caused them."""

from typing import Any

import pytest
from mcp import Client

pytestmark = pytest.mark.anyio


async def error_of(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is not None
    return dict(result.structured_content["error"])


async def read_recent_itwin(client: Client) -> str:
    listed = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content
    assert listed is not None
    return str(listed["iTwins"][0]["id"])


async def test_taken_name_error_names_the_argument(agent: Client) -> None:
    itwin = await read_recent_itwin(agent)
    await agent.call_tool("create-imodel", {"iTwinId": itwin, "name": "Twice"})
    error = await error_of(agent, "create-imodel", iTwinId=itwin, name="Twice")
    assert [(detail["target"], detail["argument"]) for detail in error["details"]] == [("name", "name")]


@pytest.mark.parametrize(("tool", "more"), [("create-itwin", {}), ("provision-project", {"iModelName": "Model"})])
async def test_missing_parent_is_reported_as_parent_id(agent: Client, tool: str, more: dict[str, str]) -> None:
    nobody = "1c4b1d5e-0000-4000-8000-000000000000"
    error = await error_of(agent, tool, subClass="Project", displayName="Orphan", parentId=nobody, **more)
    assert (error["code"], error.get("completed")) == ("iTwinNotFound", None)
    assert [detail["argument"] for detail in error["details"]] == ["parentId"]
    answer = (await agent.call_tool("find-itwin", {"name": "Orphan"})).structured_content
    assert answer is not None
    assert not any(answer["matches"].values())
