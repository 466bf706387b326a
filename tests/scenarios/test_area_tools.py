"""Helpers for the tests of each area, and checks of all tools together: covered operations and token budgets."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client

from itwin_mcp.capability.catalog import Catalog, Resource, Tool
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.runtime import read_catalog
from itwin_mcp.sandbox.operations import OPERATIONS
from itwin_mcp.server.instructions import build_instructions
from itwin_mcp.settings import read_settings

pytestmark = pytest.mark.anyio

DAILY = {"itwins", "imodels", "named-versions", "changesets"}
"""The default toolsets, without the session tools."""
MOVING = "files"
"""The toolset that transfers files. tests/scenarios/test_files.py covers it."""


@dataclass(slots=True)
class Desk:
    """A client that validates every answer against the published output schema."""

    client: Client
    _schemas: dict[str, Any] = field(default_factory=dict)

    async def ask(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Return the structured answer of a call that succeeds."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.structured_content
        answer = await self._checked(tool, result.structured_content)
        assert "error" not in answer
        return answer

    async def refused(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Return the error of a refused call."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        return dict((await self._checked(tool, result.structured_content))["error"])

    async def read(self, uri: str) -> Any:
        """Return the parsed JSON of a resource."""
        contents = (await self.client.read_resource(uri)).contents[0]
        return json.loads(contents.text)  # type: ignore[union-attr]

    async def itwin(self, number: str) -> str:
        """Return the id of the iTwin with a number."""
        answer = await self.ask("find-itwin", name=number)
        return str(answer["matches"]["byNumber"][0]["id"])

    async def imodel(self, number: str, name: str) -> str:
        """Return the id of the iModel with a name, in the iTwin with a number."""
        answer = await self.ask("find-imodel", iTwinId=await self.itwin(number), name=name)
        return str(answer["matches"]["byName"][0]["id"])

    async def roads(self) -> str:
        """Return the id of the sandbox's iModel with the longest history, locks and briefcases."""
        return await self.imodel("NL-A12-0042", "A12 Interchange - Roads")

    async def _checked(self, tool: str, answer: dict[str, Any] | None) -> dict[str, Any]:
        if not self._schemas:
            self._schemas = {tool.name: tool.output_schema for tool in (await self.client.list_tools()).tools}
        assert answer is not None
        jsonschema.Draft202012Validator(self._schemas[tool]).validate(answer)
        return dict(answer)


def catalog_slugs(catalog: Catalog) -> set[str]:
    """Return the names of consumed operations that equal the name of their documentation page."""
    return {operation.name for operation in catalog.operations.values() if _slug(operation) == operation.name}


def _slug(operation: Operation) -> str:
    both = operation.namespace in ("itwins-api", "imodels-api")
    assert operation.doc is not None or not both, operation.key
    return (operation.doc or operation.name).rpartition("/")[2]


def _reached(part: Tool | Resource) -> Iterator[str]:
    if isinstance(part, Tool):
        yield from (_slug(operation) for operation in part.operations)
    elif isinstance(part.action, Call):
        yield _slug(part.action.operation)


def test_every_documented_operation_is_used_by_a_tool_or_resource() -> None:
    catalog = link_files(find_shipped_files())
    reached = {slug for part in (*catalog.tools.values(), *catalog.resources) for slug in _reached(part)}
    documented = {operation.slug for operation in OPERATIONS}
    assert documented - reached == set()
    assert documented <= catalog_slugs(catalog)


def test_every_tool_is_called_in_a_scenario() -> None:
    scenarios = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    tools = [tool for tool in link_files(find_shipped_files()).tools.values() if tool.toolset != MOVING]
    assert [tool.name for tool in tools if f'"{tool.name}"' not in scenarios] == []


def test_descriptions_contain_no_request_counts() -> None:
    catalog = link_files(find_shipped_files())
    texts = {tool.name: tool.description for tool in catalog.tools.values()}
    for tool in catalog.tools.values():
        texts |= {f"{tool.name}: {name}": str(schema) for name, schema in tool.input_schema["properties"].items()}
    texts["instructions"] = build_instructions(read_catalog(read_settings({}, toolsets="all")))
    assert [name for name, text in texts.items() if re.search(r"\d[^.]{0,20}\brequests?\b", text)] == []


def test_tool_descriptions_stay_within_the_token_budgets() -> None:
    def tokens(tool: Tool) -> int:
        read = {"name": tool.name, "title": tool.title, "description": tool.description, "input": tool.input_schema}
        return len(json.dumps(read, separators=(",", ":"), ensure_ascii=False).encode()) // 4

    catalog = link_files(find_shipped_files())
    daily = [tool for tool in catalog.tools.values() if tool.toolset in DAILY]
    assert len(daily) <= 30
    assert sum(map(tokens, daily)) <= 8_000
    assert sum(map(tokens, catalog.tools.values())) <= 30_000


def test_same_argument_has_the_same_description_in_every_tool() -> None:
    texts: dict[str, set[str]] = {}
    for tool in link_files(find_shipped_files()).tools.values():
        for argument in tool.arguments if tool.toolset != MOVING else ():
            if argument.required and argument.name in (
                "namedVersionId",
                "briefcaseId",
                "userId",
                "exportId",
                "shareId",
            ):
                texts.setdefault(argument.name, set()).add(str(argument.schema["description"]))
    assert {name: len(words) for name, words in texts.items()} == dict.fromkeys(texts, 1)
