"""Published schemas use only the keywords of JSON Schema that every client accepts."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.json_schema import make_example
from itwin_mcp.capability.linker import link_files
from tests.conftest import connect

pytestmark = pytest.mark.anyio

BOUNDS = {"minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "pattern", "format"}
KEYWORDS = {"type", "description", "enum", "default", "properties", "required", "items"} | BOUNDS
TYPES = {"string", "number", "integer", "boolean", "array", "object"}
OUTPUT_KEYWORDS = {"type", "description", "properties", "required", "items", "anyOf"}


def find_input_faults(schema: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the parts of a subschema of an input schema that some clients refuse."""
    yield from (f"{where}: {key}" for key in schema if key not in KEYWORDS)
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        yield f"{where}: type {kind!r}"
    if "enum" in schema and not all(isinstance(choice, str) for choice in schema["enum"]):
        yield f"{where}: enum {schema['enum']}"
    if kind == "array" and "items" not in schema:
        yield f"{where}: no items"
    if not set(schema.get("required", ())) <= set(schema.get("properties", ())):
        yield f"{where}: requires an undeclared property"
    for name, child in schema.get("properties", {}).items():
        if len(name) > 60:
            yield f"{where}.{name}: its name is too long"
        yield from find_input_faults(child, f"{where}.{name}")
    if "items" in schema:
        yield from find_input_faults(schema["items"], f"{where}[]")


def find_tool_faults(name: str, schema: Mapping[str, Any]) -> list[str]:
    """Return the parts of an input schema that some clients refuse. Its root may only have three keywords."""
    root_faults = [f"{name}: {key}" for key in schema if key not in ("type", "properties", "required")]
    if schema.get("type") != "object" or "properties" not in schema or len(name) > 60:
        root_faults.append(f"{name}: its root or its name")
    return [*root_faults, *find_input_faults(schema, name)]


def find_output_faults(schema: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from (f"{where}: {key}" for key in schema if key not in OUTPUT_KEYWORDS)
    for name, child in schema.get("properties", {}).items():
        yield from find_output_faults(child, f"{where}.{name}")
    if "items" in schema:
        yield from find_output_faults(schema["items"], f"{where}[]")


@pytest.mark.parametrize(
    "flags",
    [
        {"toolsets": "all"},
        {"toolsets": None},
        {"toolsets": "all", "read_only": True},
        {"toolsets": "all", "itwin_id": "1c4b1d5e-0000-4000-8000-000000000000"},
        {"toolsets": "dynamic"},
    ],
    ids=["all", "default", "read-only", "preset", "dynamic"],
)
async def test_listed_schemas_use_only_keywords_all_clients_accept(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any]
) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    preset = flags.pop("itwin_id", None)
    if preset:
        monkeypatch.setenv("ITWIN_ID", preset)
    async with connect(sandbox=False, **flags) as client:
        tools = (await client.list_tools()).tools
    assert [fault for tool in tools for fault in find_tool_faults(tool.name, tool.input_schema)] == []
    assert [fault for tool in tools for fault in find_output_faults(tool.output_schema or {}, tool.name)] == []


async def test_describe_tool_schemas_use_only_keywords_all_clients_accept() -> None:
    async with connect(toolsets="dynamic") as client:
        schema_faults: list[str] = []
        for name in link_files(find_shipped_files()).tools:
            answer = (await client.call_tool("describe-tool", {"name": name})).structured_content
            assert answer is not None
            schema_faults += find_tool_faults(name, answer["tool"]["inputSchema"])
        matches = (await client.call_tool("find-tools", {"query": "iTwin", "limit": 20})).structured_content
    assert schema_faults == []
    assert "inputSchema" not in json.dumps(matches)


def test_shipped_descriptions_state_every_unpublished_rule() -> None:
    assert link_files(find_shipped_files()).warnings == ()


def test_make_example_is_valid_for_every_shipped_argument() -> None:
    missing = []
    for tool in link_files(find_shipped_files()).tools.values():
        for argument in tool.arguments:
            if argument.entity is not None or argument.name.endswith("Id"):
                continue
            example = make_example(argument.schema)
            if example is ABSENT or not Draft202012Validator(argument.schema).is_valid(example):
                missing.append((tool.name, argument.name))
    assert missing == []
