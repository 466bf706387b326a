"""The daily work of an agent through MCP: find a project, create an iModel, fork it, tag it, read errors."""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from tests.conftest import agrees, connect

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["in memory, 2026-07-28", "in memory, 2025-11-25", "a subprocess over stdio"])
async def day(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    if request.param.startswith("a subprocess"):
        args = ["-m", "itwin_mcp", "serve", "--sandbox", "--job-seconds", "0"]
        server = stdio_client(StdioServerParameters(command=sys.executable, args=args))
        async with Client(server, elicitation_callback=agrees) as client:
            yield client
    else:
        async with connect("legacy" if "2025" in request.param else "auto") as client:
            yield client


async def ask(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Return the structured answer of a call that succeeds. The text content is the same JSON."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    assert result.structured_content is not None
    assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]
    return dict(result.structured_content)


async def refused(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Return the error of a refused call."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is not None
    return dict(result.structured_content["error"])


async def test_agent_creates_forks_and_tags_an_imodel(
    day: Client,
) -> None:
    recent = await ask(day, "list-recent-itwins", limit=5)
    assert recent["page"]["returned"] == len(recent["iTwins"]) == 5
    itwin = (await ask(day, "get-itwin", iTwinId=recent["iTwins"][0]["id"]))["iTwin"]

    created = (await ask(day, "create-imodel", iTwinId=itwin["id"], name="Pier 7"))["iModel"]
    assert created["state"] == "initialized"
    fork = (await ask(day, "fork-imodel", iModelId=created["id"], iTwinId=itwin["id"], name="Pier 7 fork"))["iModel"]
    assert fork["id"] != created["id"]
    assert (await ask(day, "wait-for-imodel", iModelId=fork["id"]))["iModel"]["state"] == "initialized"

    version = (await ask(day, "create-named-version", iModelId=fork["id"], name="As received"))["namedVersion"]
    listed = await ask(day, "list-named-versions", iModelId=fork["id"])
    assert [version["id"] for version in listed["namedVersions"]] == [version["id"]]
    assert listed["page"] == {"returned": 1, "complete": True, "total": 1}

    error = await refused(day, "create-imodel", iTwinId=itwin["id"], name="Pier 7")
    assert error["code"] == "iModelExists"
    assert error["status"] == 409
    assert error["operation"] == "create-imodel"
    assert error["retryable"] is False
    assert error["details"][0]["target"] == "name"
    assert "name" in error["hint"]


async def test_agent_updates_hides_clones_and_deletes(day: Client) -> None:
    itwin = (await ask(day, "create-itwin", displayName="Quay wall", **{"class": "Thing", "subClass": "Asset"}))[
        "iTwin"
    ]
    changed = (await ask(day, "update-itwin", iTwinId=itwin["id"], type="Quay", latitude=51.9))["iTwin"]
    assert (changed["type"], changed["latitude"]) == ("Quay", 51.9)
    cleared = (await ask(day, "update-itwin", iTwinId=itwin["id"], clear=["latitude"]))["iTwin"]
    assert (cleared["type"], cleared["latitude"]) == ("Quay", None)

    imodel = (await ask(day, "create-imodel", iTwinId=itwin["id"], name="Section 1"))["iModel"]
    renamed = (await ask(day, "update-imodel", iModelId=imodel["id"], name="Section 1a", description="North"))["iModel"]
    assert (renamed["name"], renamed["description"]) == ("Section 1a", "North")
    version = (await ask(day, "create-named-version", iModelId=imodel["id"], name="Draft"))["namedVersion"]
    hidden = await ask(day, "update-named-version", iModelId=imodel["id"], namedVersionId=version["id"], state="hidden")
    assert hidden["namedVersion"]["state"] == "hidden"
    read = await ask(day, "get-named-version", iModelId=imodel["id"], namedVersionId=version["id"])
    assert read["namedVersion"]["state"] == "hidden"

    clone = (await ask(day, "clone-imodel", iModelId=imodel["id"], iTwinId=itwin["id"], name="Copy"))["iModel"]
    assert (await ask(day, "delete-imodel", iModelId=clone["id"])) == {"deleted": True}
    assert (await refused(day, "get-imodel", iModelId=clone["id"]))["code"] == "iModelNotFound"
    assert (await ask(day, "delete-itwin", iTwinId=itwin["id"])) == {"deleted": True}
    assert (await refused(day, "get-itwin", iTwinId=itwin["id"]))["code"] == "iTwinNotFound"


async def test_create_imodel_without_waiting_returns_a_job_to_wait_for(day: Client) -> None:
    itwin = (await ask(day, "list-recent-itwins", limit=1))["iTwins"][0]
    started = await ask(day, "create-imodel", iTwinId=itwin["id"], name="Later", wait=0)
    job = started["job"]
    assert set(started) == {"job"}
    assert job["checkWith"] == "wait-for-imodel"
    waited = await ask(day, job["checkWith"], iModelId=job["iModelId"])
    assert waited["iModel"]["name"] == "Later"


async def test_list_itwins_continues_with_its_cursor_until_complete(day: Client) -> None:
    complete = await ask(day, "list-itwins", limit=1000)
    assert complete["page"]["complete"] is True
    collected, cursor, rounds = [], {}, 0
    while True:
        part = await ask(day, "list-itwins", limit=3, **cursor)
        collected += part["iTwins"]
        rounds += 1
        if part["page"]["complete"]:
            break
        cursor = {"cursor": part["page"]["cursor"]}
    assert collected == complete["iTwins"]
    assert rounds > 2


async def test_itwin_is_read_by_link_and_as_resource(day: Client) -> None:
    itwin = (await ask(day, "list-recent-itwins", limit=1))["iTwins"][0]
    link = f"https://api.bentley.com/iTwins/{itwin['id'].upper()}/repositories"
    read = await ask(day, "get-itwin", iTwinId=link)
    assert read["iTwin"]["id"] == itwin["id"]
    assert read["resolved"] == [{"argument": "iTwinId", "given": link, "id": itwin["id"]}]
    contents = (await day.read_resource(f"itwin://itwins/{itwin['id']}")).contents[0]
    assert contents.mime_type == "application/json"
    assert json.loads(contents.text)["iTwin"]["id"] == itwin["id"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        ("get-itwin", {}, "iTwinId is missing"),
        ("get-itwin", {"iTwinId": ["a"]}, "iTwinId must be string, not array"),
        ("get-itwin", {"iTwinId": "x", "iTwin": "y"}, "iTwin is not an argument"),
        ("get-itwin", {"iTwinId": "https://evil.example/itwins/1"}, "is a link, but has no id of the kind itwin"),
        ("get-itwin", {"iTwinId": "a" * 10_000}, "at most 2048 characters"),
        ("get-itwin", {"iTwinId": "bad\u0000id"}, "has characters that no id has"),
        (
            "get-repository-resource",
            {
                "iTwinId": "1c4b1d5e-0000-4000-8000-000000000000",
                "repositoryId": "1c4b1d5e-0000-4000-8000-000000000000",
                "resourceId": "../imodels",
            },
            "has characters that no id has",
        ),
        ("list-itwins", {"limit": 0}, "limit must be at least 1"),
        ("list-itwins", {"status": "Retired"}, "status must be one of Active, Inactive, Trial"),
        ("list-itwins", {"cursor": "forged"}, "cursor cannot be used"),
        ("update-itwin", {"iTwinId": "1c4b1d5e-0000-4000-8000-000000000000"}, "nothing to change was given"),
        ("clone-imodel", {"iModelId": "i", "iTwinId": "t", "changesetIndex": 3}, "did you mean changeset?"),
        (
            "get-changeset",
            {"iModelId": "i", "changesetId": "3"},
            "changesetId is not an argument (did you mean changeset?)",
        ),
    ],
)
async def test_invalid_call_is_rejected_with_the_name_of_the_argument(
    agent: Client, tool: str, arguments: dict[str, Any], named: str
) -> None:
    error = await refused(agent, tool, **arguments)
    assert error["code"] == "InvalidArguments"
    assert named in error["message"]
    assert "status" not in error
    assert len(json.dumps(error)) < 2_000
