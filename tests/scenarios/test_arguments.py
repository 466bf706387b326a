"""Arguments as models really send them give the same answer as arguments of the declared types."""

import json
from typing import Any

import pytest
from mcp import Client

from tests.conftest import connect

pytestmark = pytest.mark.anyio

SENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"limit": "5"}, {"limit": 5}),
    ({"limit": 5.0}, {"limit": 5}),
    ({"includeInactive": "true"}, {"includeInactive": True}),
    ({"subClass": "Asset"}, {"subClass": ["Asset"]}),
    ({"subClass": '["Asset"]'}, {"subClass": ["Asset"]}),
    ({"search": None}, {}),
    ({"search": ""}, {}),
    ({"search": 2026}, {"search": "2026"}),
    ({"search": "Quay", "displayName": "", "number": None, "filter": "", "cursor": None}, {"search": "Quay"}),
]


async def ask(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    assert result.structured_content is not None
    return result.structured_content


@pytest.mark.parametrize(("sent", "meant"), SENT, ids=lambda value: json.dumps(value))
async def test_list_itwins_converts_arguments_as_models_send_them(
    agent: Client, sent: dict[str, Any], meant: dict[str, Any]
) -> None:
    first, second = await ask(agent, "list-itwins", sent), await ask(agent, "list-itwins", meant)
    assert first["page"].pop("cursor", None) or not second["page"].get("cursor")  # sealed anew each time
    second["page"].pop("cursor", None)
    assert first == second


@pytest.mark.parametrize("wrapped", [json.dumps, dict], ids=["as JSON text", "as an object"])
async def test_dynamic_mode_converts_the_arguments_of_the_tool_that_it_runs(wrapped: Any) -> None:
    async with connect(toolsets="dynamic") as client:
        run = {"name": "list-itwins", "arguments": wrapped({"limit": "2", "search": None, "subClass": "Asset"})}
        answer = (await ask(client, "run-reading-tool", run))["iTwins"]
        everything = [{"name": "list-itwins", "arguments": nothing} for nothing in (None, "", "{}", {})]
        lists = [(await ask(client, "run-reading-tool", run))["iTwins"] for run in everything]
        few = (await ask(client, "find-tools", {"query": "list iTwins", "limit": "2"}))["tools"]
    assert [item["subClass"] for item in answer] == ["Asset", "Asset"]
    assert all(item == lists[0] for item in lists)
    assert len(few) == 2


async def test_update_itwin_ignores_empty_fields(agent: Client) -> None:
    whole = {
        "displayName": "Quay 7",
        "class": "Thing",
        "subClass": "Asset",
        "type": "Quay",
        "geographicLocation": "Rotterdam",
        "latitude": "51.9",
        "longitude": 4.5,
        "ianaTimeZone": "Europe/Amsterdam",
    }
    created = (await ask(agent, "create-itwin", whole))["iTwin"]
    fields = [name for name in whole if name not in ("displayName", "class", "subClass")]
    for empty in (None, ""):
        others = dict.fromkeys([*fields, "number", "status", "clear"], empty)
        await ask(agent, "update-itwin", {"iTwinId": created["id"], "displayName": "Quay 8", **others})
    read = (await ask(agent, "get-itwin", {"iTwinId": created["id"]}))["iTwin"]
    assert {name: read[name] for name in fields} == {name: whole[name] for name in fields} | {"latitude": 51.9}
    assert read["displayName"] == "Quay 8"
    await ask(agent, "update-itwin", {"iTwinId": created["id"], "clear": '["latitude", "longitude"]', "type": ""})
    read = (await ask(agent, "get-itwin", {"iTwinId": created["id"]}))["iTwin"]
    assert [read[name] for name in fields] == ["Quay", "Rotterdam", None, None, "Europe/Amsterdam"]


@pytest.mark.parametrize(
    "options",
    [
        {"queryParameters": {"layers": "roads", "scale": "2"}, "minimumLevel": 3, "maximumLevel": 9},
        {
            "queryParameters": [{"name": "layers", "value": "roads"}, {"name": "scale", "value": 2}],
            "minimumLevel": "3",
            "maximumLevel": 9,
        },
        '{"queryParameters": "{\\"layers\\": \\"roads\\", \\"scale\\": 2}", "minimumLevel": 3, "maximumLevel": "9"}',
    ],
    ids=["map", "pairs", "text"],
)
async def test_create_repository_accepts_options_as_map_pairs_or_text(agent: Client, options: Any) -> None:
    itwin = (await ask(agent, "list-recent-itwins", {"limit": 1}))["iTwins"][0]["id"]
    arguments = {
        "iTwinId": itwin,
        "class": "GeographicInformationSystem",
        "subClass": "WebMapService",
        "uri": "https://maps.example.com/wms",
        "options": options,
        "authentication": {"type": "Basic", "username": "u", "password": "p", "key": None},
    }
    repository = (await ask(agent, "create-repository", arguments))["repository"]
    parameters = {"layers": "roads", "scale": "2"}
    assert repository["options"] == {"queryParameters": parameters, "minimumLevel": 3, "maximumLevel": 9}


async def test_unknown_argument_is_rejected_even_if_empty(agent: Client) -> None:
    for value in (None, "", "Quay"):
        result = await agent.call_tool("list-itwins", {"title": value})
        assert result.is_error
        assert result.structured_content is not None
        assert result.structured_content["error"]["message"].endswith("title is not an argument.")
