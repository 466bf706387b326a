"""Four MCP SDKs, in six configurations, over stdio and HTTP: each lists, calls, reads and gets errors."""

import itertools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.driver import SDKS, SERVE_STDIO, Driver, drive
from tests.server.processes import Served

pytestmark = pytest.mark.interop

INVALID_PARAMS = -32602


@pytest.fixture(
    scope="module",
    params=itertools.product(SDKS, ["stdio", "HTTP"]),
    ids=lambda pair: f"{pair[0].name} over {pair[1]}",
)
def client(request: pytest.FixtureRequest, served: Served, environment: dict[str, str]) -> Iterator[Driver]:
    sdk, transport = request.param
    address = {"stdio": SERVE_STDIO} if transport == "stdio" else {"http": served.url}
    with drive(sdk, address, environment) as (hello, driver):
        assert hello == {"protocol": sdk.protocol, "server": "itwin-mcp"}
        yield driver


def test_sdk_lists_calls_reads_and_receives_progress_and_errors(client: Driver) -> None:
    tools = {tool["name"]: tool for tool in client.ask("list_tools")["tools"]}
    assert tools["delete-itwin"]["annotations"]["destructiveHint"] is True
    templates = {template["uriTemplate"] for template in client.ask("list_templates")["resourceTemplates"]}
    assert {"itwin://itwins/{iTwinId}", "itwin://imodels/{iModelId}"} <= templates

    recent = client.call("list-recent-itwins", limit=2)
    assert json.loads(recent["content"][0]["text"]) == recent["structuredContent"]
    itwin = recent["structuredContent"]["iTwins"][0]
    contents = client.ask("read", uri=f"itwin://itwins/{itwin['id']}")["contents"][0]
    assert json.loads(contents["text"])["iTwin"]["displayName"] == itwin["displayName"]

    made = client.call("create-imodel", iTwinId=itwin["id"], name=f"Pier {uuid.uuid4()}")
    assert made["structuredContent"]["iModel"]["state"] == "initialized"
    assert any(text and "The new iModel: scheduled" in text for text in made["progress"])
    name = made["structuredContent"]["iModel"]["name"]
    taken = client.fail("create-imodel", iTwinId=itwin["id"], name=name)
    assert (taken["code"], taken["status"]) == ("iModelExists", 409)
    refused = client.fail("get-itwin", iTwin=5)
    assert refused["code"] == "InvalidArguments"
    assert "iTwinId is missing" in refused["message"]
    assert "iTwin is not an argument" in refused["message"]


def test_sdk_gets_protocol_errors_for_unknown_tools_and_resources(client: Driver) -> None:
    client.ask("list_tools")
    unknown = client.call("open-the-pod-bay-doors")["raised"]
    assert unknown["code"] == INVALID_PARAMS
    assert "open-the-pod-bay-doors" in unknown["message"]
    missing = client.ask("read", uri=f"itwin://itwins/{uuid.uuid4()}")["raised"]
    assert missing["code"] == INVALID_PARAMS
    assert client.succeed("list-recent-itwins", limit=1)["page"]["returned"] == 1


def test_sdk_accepts_the_errors_of_every_tool(client: Driver) -> None:
    for tool in client.ask("list_tools")["tools"]:
        assert client.fail(tool["name"], surplus=1)["code"] == "InvalidArguments"
        required = tool["inputSchema"].get("required", [])
        if required and all(name.endswith("Id") for name in required):
            strangers = {name: str(uuid.uuid4()) for name in required}
            assert client.fail(tool["name"], **strangers)["hint"]


def test_sdk_accepts_the_answers_of_every_tool(client: Driver) -> None:
    tools = client.ask("list_tools")["tools"]
    things = make_things(client)
    answered = set()
    for tool in sorted(tools, key=lambda tool: (tool["annotations"]["destructiveHint"], tool["name"])):
        arguments = arguments_for(tool, things)
        if arguments is None:
            continue
        answer = client.call(tool["name"], **arguments)
        assert "raised" not in answer, f"{tool['name']}: {answer}"
        if not answer.get("isError"):
            answered.add(tool["name"])
    assert answered >= MUST_ANSWER, sorted(MUST_ANSWER - answered)


# Tools that need only what make_things creates. Other tools may return an error.
MUST_ANSWER = {
    *("list-itwins", "list-recent-itwins", "get-itwin", "read-guide", "create-itwin", "update-itwin"),
    *("list-imodels", "get-imodel", "create-imodel", "clone-imodel", "fork-imodel", "update-imodel", "delete-imodel"),
    *("wait-for-imodel", "delete-itwin"),
    *("list-named-versions", "get-named-version", "create-named-version", "update-named-version"),
}


def make_things(client: Driver) -> dict[str, Any]:
    """Create entities; return values by argument name, and under a tool's name those for this tool alone."""
    kind = {"class": "Thing", "subClass": "Asset"}
    itwin = client.succeed("create-itwin", displayName=f"Harbour {uuid.uuid4()}", **kind)["iTwin"]["id"]
    imodel = client.succeed("create-imodel", iTwinId=itwin, name="Quay")["iModel"]["id"]
    version = client.succeed("create-named-version", iModelId=imodel, name="As received")["namedVersion"]["id"]
    # A changeset carries one named version: another one needs another iModel.
    untagged = client.succeed("create-imodel", iTwinId=itwin, name="Quay, untagged")["iModel"]["id"]
    shared = kind | {"iTwinId": itwin, "iModelId": imodel, "namedVersionId": version, "guide": "errors"}
    return shared | {"create-named-version": {"iModelId": untagged}}


def arguments_for(tool: dict[str, Any], things: dict[str, Any]) -> dict[str, Any] | None:
    """Return the required arguments of a tool, with a free name if it writes, or None if a value is missing."""
    free = {name: f"Free {uuid.uuid4()}" for name in ("name", "displayName")}
    known = things | free | {"wait": 2} | things.get(tool["name"], {})
    wanted = set(tool["inputSchema"].get("required", ()))
    offered = {"wait"} if tool["annotations"]["readOnlyHint"] else {"wait", *free}
    wanted |= offered & tool["inputSchema"]["properties"].keys()
    return {name: known[name] for name in wanted} if wanted <= known.keys() else None
