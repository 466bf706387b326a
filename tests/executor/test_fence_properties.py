"""Property test of policy limits: no arguments make any tool send a request that names another iTwin."""

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import CallError
from tests.executor.fenced import Fenced, Places, fenced, places

Serving = tuple[Fenced, Places, Any]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Serve all examples with one server, limited to one iTwin by its policy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CACHE"):
            patch.setenv(f"ITWIN_MCP_{name}_DIR", str(tmp_path_factory.mktemp(name.lower())))
        with start_blocking_portal() as portal:
            where = portal.call(places)
            entry = {"itwins": [where.itwin], "tools": {"allow": ["all"]}, "create-itwins": True}
            text = json.dumps({"itwin-mcp-policy": 1, "default": entry})
            with portal.wrap_async_context_manager(fenced(text)) as it:
                yield it, where, portal


def values(where: Places) -> list[str]:
    """Return the ids, links, filters and names of the two iTwins and their iModels."""
    ids = [where.itwin, where.foreign, where.imodel, where.foreign_imodel]
    links = [f"https://api.bentley.com/{kind}/{one}" for kind in ("iTwins", "imodels") for one in ids]
    filters = [f"parentId eq '{one}'" for one in (where.foreign, where.foreign.upper())]
    return [*ids, *(one.upper() for one in ids), *links, *filters, "NL-MAAS-0017", "Maas Crossing - Deck Renewal", "me"]


def of_schema(schema: dict[str, Any], pool: list[str], chance: Random) -> Any:
    """Return a value that usually fits a schema, with texts from the pool."""
    if "enum" in schema:
        return chance.choice([one for one in schema["enum"] if one is not None])
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else next(one for one in kinds if one != "null")
    if kind == "object":
        properties = schema.get("properties", {})
        chosen = [one for one in properties if one in schema.get("required", ()) or chance.random() < 0.5]
        free = {} if properties else {chance.choice(["iTwinId", "parentId", "a"]): chance.choice(pool)}
        return free | {one: of_schema(properties[one], pool, chance) for one in chosen}
    if kind == "array":
        return [of_schema(schema.get("items", {}), pool, chance)]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return chance.random() < 0.5 if kind == "boolean" else chance.choice(pool)


def arguments_of(tool: Tool, pool: list[str], chance: Random) -> dict[str, Any]:
    given = of_schema(dict(tool.input_schema), pool, chance)
    # Waiting and the size of pages do not matter here.
    return {name: value for name, value in given.items() if name not in ("limit", "cursor")} | (
        {"wait": 0} if "wait" in tool.input_schema["properties"] else {}
    )


@settings(max_examples=400)
@given(chance=st.randoms(use_true_random=False))
def test_policy_stops_requests_about_other_itwins_for_any_arguments(serving: Serving, chance: Random) -> None:
    it, where, portal = serving
    tool = chance.choice([tool for tool in it.runtime.gatekeeper.tools.values() if tool.operations])
    arguments = arguments_of(tool, values(where), chance)

    async def call() -> None:
        try:
            with anyio.move_on_after(10):
                await it.agreed(tool.name, **arguments)
        except CallError:
            return

    it.reached.clear()
    portal.call(call)
    for one in it.reached:
        assert not names_another(one.lower(), where), (tool.name, arguments, one)


def names_another(request: str, where: Places) -> bool:
    """Return whether a request is about the other iTwin or its iModel, decided independently of the code under test.

    The read that locates an iModel must name it. Names, descriptions and version ids may contain anything.
    """
    line, _, body = request.partition(" {")
    path, _, query = line.partition("?")
    if path == f"get /imodels/{where.foreign_imodel}":
        return False
    in_path = re.findall(r"/itwins/(?:favorites/|recents/)?([^/?]+)", path)
    in_path += re.findall(r"/imodels/(?:favorites/|recents/)?([^/?]+)", path)
    in_query = re.findall(r"(?:itwinid|parentid|itwinaccountid|imodelid)=([^&]*)", query)
    if re.fullmatch(r"get /itwins(/favorites|/recents)?", path):
        in_query.append(query)
    in_body = re.findall(r'"(?:itwinid|parentid|itwinaccountid|imodelid)":"([^"]*)"', body)
    slots = {"/itwins/": where.foreign, "/imodels/": where.foreign_imodel}
    wrong = [foreign for kind, foreign in slots.items() if kind in path and foreign in in_path]
    return bool(wrong) or any(one in text for text in (*in_query, *in_body) for one in slots.values())
