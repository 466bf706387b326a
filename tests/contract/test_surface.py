"""The public surface, that is, the texts that agents read, equals its snapshots."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pydantic import BaseModel

from itwin_mcp.runtime import read_catalog
from itwin_mcp.settings import read_settings, render_settings_tables
from tests.conftest import connect
from tests.contract.snapshots import FOLDER, agree, agree_between

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def agent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Connect to a server with a client id and a files root, so that every tool is listed."""
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(sandbox=False, files_root=[ROOT]) as client:
        yield client


def dump(item: BaseModel) -> dict[str, Any]:
    """Return an item of the protocol as JSON."""
    return item.model_dump(by_alias=True, mode="json", exclude_none=True)


async def test_tools_match_their_snapshots(agent: Client) -> None:
    tools = (await agent.list_tools()).tools
    for tool in tools:
        agree(f"tools/{tool.name}", dump(tool))
    assert {file.stem for file in (FOLDER / "tools").glob("*.json")} == {tool.name for tool in tools}


async def test_resource_templates_and_instructions_match_their_snapshot(agent: Client) -> None:
    templates = (await agent.list_resource_templates()).resource_templates
    agree(
        "server",
        {
            "instructions": agent.instructions,
            "tools": [tool.name for tool in (await agent.list_tools()).tools],
            "resourceTemplates": [dump(template) for template in templates],
        },
    )


async def test_prompts_and_guides_match_their_snapshot(agent: Client) -> None:
    guides = (await agent.list_resources()).resources
    prompts = (await agent.list_prompts()).prompts
    agree(
        "teaching",
        {
            "prompts": [dump(prompt) for prompt in prompts],
            "resources": [dump(guide) for guide in guides],
        },
    )


@pytest.mark.parametrize("toolsets", [None, "dynamic"])
async def test_default_and_dynamic_toolsets_match_their_snapshots(
    monkeypatch: pytest.MonkeyPatch, toolsets: str | None
) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(sandbox=False, toolsets=toolsets) as client:
        tools = (await client.list_tools()).tools
        listed = [dump(tool) if toolsets else tool.name for tool in tools]
        agree(toolsets or "default", {"instructions": client.instructions, "tools": listed})


async def test_tools_have_title_description_schemas_and_annotations(agent: Client) -> None:
    for tool in (await agent.list_tools()).tools:
        assert tool.title and tool.description and len(tool.description) >= 20, tool.name
        assert tool.input_schema["type"] == "object"
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        hints = tool.annotations
        assert hints is not None
        values = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert None not in values, tool.name


def test_tools_page_lists_every_tool_by_toolset() -> None:
    catalog = read_catalog(
        read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets="all", files_root=[ROOT])
    )
    default = {tool.toolset for tool in read_catalog(read_settings(os.environ)).tools.values()}
    parts = []
    toolsets = dict.fromkeys(tool.toolset for tool in catalog.tools.values())
    for toolset in sorted(toolsets, key=lambda name: (name not in default, name)):
        parts.append(f"## {toolset}\n")
        if toolset in default:
            parts.append("Served by default.\n")
        rows = ["| tool | what it does | changes data |", "|---|---|---|"]
        for tool in catalog.tools.values():
            if tool.toolset == toolset:
                hints = tool.annotations
                changes = "no" if hints.read_only else "**may remove or overwrite**" if hints.destructive else "yes"
                first = tool.description.split(". ")[0].rstrip(".")
                rows.append(f"| `{tool.name}` | {first}. | {changes} |")
        parts.append("\n".join(rows) + "\n")
    agree_between(ROOT / "docs/tools.md", "tools", "\n" + "\n".join(parts))


def test_settings_page_explains_every_setting() -> None:
    parts = [f"## {title}\n\n{table}" for title, table in render_settings_tables().items()]
    agree_between(ROOT / "docs/settings.md", "settings", "\n" + "\n".join(parts))
