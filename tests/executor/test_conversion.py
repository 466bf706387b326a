"""Arguments are converted to the declared types before anything reads them, and nothing is lost on the way."""

import json
from typing import Any

import pytest

from itwin_mcp.executor.arguments import convert_arguments
from tests.executor.bench import ITWIN, bench, linked, query_of, saying

pytestmark = pytest.mark.anyio

FINE = saying(200, {"thing": {"id": "1"}})
FORMS = (
    'kind: {type: string, required: false, description: "Kind.", x-schema: {enum: [plain, fancy]}}',
    # ruff: noqa: E501
    """kind: {type: string, required: false, description: "Kind."}
          free: {type: object, required: false, description: "Anything."}
          map: {type: object, required: false, description: "Map.", x-schema: {additionalProperties: {type: string}}}
          deep: {type: object, required: false, description: "Object.", x-schema: {properties: {size: {type: integer}, on: {type: boolean}, parts: {type: array, items: {type: object, properties: {n: {type: number}}}}}}}""",
)
WITH = ('note: "{{kind}}-{{mark}}"}', 'note: "{{kind}}-{{mark}}{{free}}{{map}}{{deep}}"}')


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"count": "5"}, {"count": 5}),
        ({"count": " 5 "}, {"count": 5}),
        ({"count": "5.0"}, {"count": 5}),
        ({"count": 5.0}, {"count": 5}),
        ({"count": "1e3"}, {"count": 1000}),
        ({"count": "90071992547409931.0"}, {"count": 90071992547409931}),
        ({"count": "5.5"}, {"count": "5.5"}),
        ({"count": "0x5"}, {"count": "0x5"}),
        ({"count": "9" * 5_000}, {"count": "9" * 5_000}),
        ({"count": "9" * 400, "north": "-" + "9" * 400}, {"count": 10**400 - 1, "north": 1 - 10**400}),
        ({"count": True}, {"count": True}),
        ({"north": "51.5"}, {"north": 51.5}),
        ({"north": "-4"}, {"north": -4}),
        ({"north": "NaN"}, {"north": "NaN"}),
        ({"north": "1e999"}, {"north": "1e999"}),
        ({"dry": "true"}, {"dry": True}),
        ({"dry": "False"}, {"dry": False}),
        ({"dry": "yes"}, {"dry": "yes"}),
        ({"tags": "Asset"}, {"tags": ["Asset"]}),
        ({"tags": '["Asset"]'}, {"tags": ["Asset"]}),
        ({"tags": '["Asset"'}, {"tags": ['["Asset"']}),
        ({"tags": '{"a": 1}'}, {"tags": ['{"a": 1}']}),
        ({"tags": 2026}, {"tags": ["2026"]}),
        ({"tags": [2026, False]}, {"tags": ["2026", "false"]}),
        ({"name": 2026}, {"name": "2026"}),
        ({"name": 2.5}, {"name": "2.5"}),
        ({"name": True}, {"name": "true"}),
        ({"name": 2**20_000}, {"name": 2**20_000}),
        ({"name": float("nan")}, {"name": float("nan")}),
        ({"name": '{"a": 1}'}, {"name": '{"a": 1}'}),
        ({"name": ""}, {"name": ""}),
        ({"name": None}, {}),
        ({"mark": ""}, {}),
        ({"mark": None, "tags": None, "north": None, "count": "", "dry": ""}, {}),
        ({"count": "null", "north": " null ", "dry": "null", "free": "null", "map": "null", "deep": "null"}, {}),
        ({"deep": {"size": "null", "parts": [{"n": "null"}]}}, {"deep": {"parts": [{}]}}),
        ({"name": "null", "mark": "null", "tags": "null"}, {"name": "null", "mark": "null", "tags": ["null"]}),
        ({"clear": []}, {}),
        ({"clear": "north"}, {"clear": ["north"]}),
        ({"unknown": None}, {"unknown": None}),
        ({"free": '{"a": null, "b": "5"}'}, {"free": {"a": None, "b": "5"}}),
        ({"free": {"a": None, "b": "5"}}, {"free": {"a": None, "b": "5"}}),
        ({"free": '{"a": NaN}'}, {"free": '{"a": NaN}'}),
        ({"free": "[" * 5_000}, {"free": "[" * 5_000}),
        ({"free": '{"a":' * 5_000}, {"free": '{"a":' * 5_000}),
        ({"map": {"a": 1, "b": None}}, {"map": {"a": "1"}}),
        ({"map": [{"name": "a", "value": 1}, {"name": 2, "value": "b"}]}, {"map": {"a": "1", "2": "b"}}),
        ({"map": '[{"name": "a", "value": "b"}]'}, {"map": {"a": "b"}}),
        ({"map": '{"a": "b"}'}, {"map": {"a": "b"}}),
        ({"deep": '{"size": "5", "on": null}'}, {"deep": {"size": 5}}),
        ({"deep": {"parts": '[{"n": "1.5"}, "{\\"n\\": 2}"]'}}, {"deep": {"parts": [{"n": 1.5}, {"n": 2}]}}),
        ({"deep": {"unknown": "5"}}, {"deep": {"unknown": "5"}}),
    ],
)
def test_convert_arguments_gives_the_declared_types_at_every_depth(given: Any, becomes: Any) -> None:
    tool = linked("things.yaml", dict([FORMS, WITH])).tools["make-thing"]
    once = convert_arguments(tool, given)
    again = convert_arguments(tool, once)
    for converted in (once, again):
        assert converted == becomes or (converted["name"] != converted["name"] and becomes["name"] != becomes["name"])
        assert list(map(type, converted.values())) == list(map(type, becomes.values()))


@pytest.mark.parametrize(
    "pairs",
    [[{"name": "a", "value": 1}, {"name": "a", "value": 2}], [{"name": "a"}], ["a"], [{"name": {}, "value": 1}]],
)
async def test_list_that_cannot_become_a_map_is_rejected(pairs: Any) -> None:
    async with bench("things.yaml", FINE, replacing=dict([FORMS, WITH])) as it:
        error = await it.refused("make-thing", name="a", map=pairs)
    shown = 'map must be a list of objects with name and value, each name once, not array (for example [{"name": '
    assert error["details"][0]["message"].startswith(shown)


async def test_error_lists_every_problem_with_a_valid_value() -> None:
    async with bench("", FINE, shipped_files=True) as it:
        error = await it.refused(
            "list-itwins", limit="many", subClass="Bridge", includeInactive="perhaps", fields="none", colour="red"
        )
    assert [detail["message"] for detail in error["details"]] == [
        "subClass.0 must be one of Account, Portfolio, Asset, Program, Project, WorkPackage",
        "includeInactive must be boolean, not string (for example true)",
        "limit must be integer, not string (for example 50)",
        "fields must be one of default, all",
        "colour is not an argument",
    ]


async def test_null_and_empty_arguments_of_an_update_change_nothing() -> None:
    """Models fill in every field of a schema: null or an empty text must not remove a value."""
    empty: dict[str, Any] = {"type": None, "geographicLocation": "", "latitude": None, "longitude": "", "clear": []}
    async with bench("", saying(200, {"iTwin": {"id": ITWIN}}), shipped_files=True) as it:
        await it.call("update-itwin", iTwinId=ITWIN, displayName="Quay 7", ianaTimeZone=None, number="", **empty)
        refused = await it.refused("update-itwin", iTwinId=ITWIN, ianaTimeZone=None, **empty)
    assert [json.loads(request.body) for request in it.server.requests] == [{"displayName": "Quay 7"}]
    assert refused["details"][0]["message"] == "nothing to change was given"


@pytest.mark.parametrize(
    ("tool", "ids", "body"),
    [
        ("update-itwin", {"iTwinId": ITWIN}, ["geographicLocation", "latitude", "longitude", "ianaTimeZone"]),
        ("update-imodel", {"iModelId": ITWIN}, ["description"]),
        ("update-named-version", {"iModelId": ITWIN, "namedVersionId": ITWIN}, ["description"]),
        ("update-repository", {"iTwinId": ITWIN, "repositoryId": "a"}, ["options"]),
    ],
)
async def test_clear_alone_sends_null(tool: str, ids: dict[str, str], body: list[str]) -> None:
    answer = {"iTwin": {"id": ITWIN}, "iModel": {"id": ITWIN}, "namedVersion": {"id": ITWIN}, "repository": {"id": "a"}}
    async with bench("", saying(200, answer), shipped_files=True) as it:
        await it.call(tool, **ids, clear=body)
    assert json.loads(it.server.requests[-1].body) == dict.fromkeys(body)


def test_clear_offers_every_removable_field() -> None:
    """`clear` replaces both. In other arguments an empty text has no special meaning."""
    from tests.executor.bench import shipped_catalog

    found = {
        tool.name: next(argument.schema["items"]["enum"] for argument in tool.arguments if argument.name == "clear")
        for tool in shipped_catalog().tools.values()
        if any(argument.name == "clear" for argument in tool.arguments)
    }
    assert found == {
        "clone-imodel": ["description"],
        "fork-imodel": ["description"],
        "update-imodel": ["description"],
        "update-itwin": ["geographicLocation", "latitude", "longitude", "ianaTimeZone"],
        "update-named-version": ["description"],
        "update-repository": ["authentication", "options"],
    }


async def test_cursor_matches_converted_arguments() -> None:
    page = {"things": [{"id": "1"}], "_links": {"next": {"href": "https://api.bentley.com/things?token=2"}}}
    async with bench("things.yaml", saying(200, page)) as it:
        first = await it.call("list-things", kind=2026, limit="1", cursor=None)
        again = await it.call("list-things", kind="2026", limit=1, cursor=first["page"]["cursor"], fields="")
    assert query_of(it.server.requests[0])["kind"] == "2026"
    assert again["things"] == [{"id": "1", "name": None}]
