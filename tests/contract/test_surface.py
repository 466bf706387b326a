"""The public surface, one file per tool: what changes here changes what every agent reads."""

import json
from pathlib import Path

import pytest
from mcp import Client

from itwin_mcp.capability.catalog import shipped
from itwin_mcp.capability.linker import link_files
from itwin_mcp.settings import ENVIRONMENT
from tests.contract.snapshots import FOLDER, agree, agree_between

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.anyio


async def test_every_tool_is_what_its_snapshot_says(agent: Client) -> None:
    listed = await agent.list_tools()
    for tool in listed.tools:
        agree(f"tools/{tool.name}", tool.model_dump(by_alias=True, mode="json", exclude_none=True))
    kept = {file.stem for file in (FOLDER / "tools").glob("*.json")}
    assert kept == {tool.name for tool in listed.tools}


async def test_resource_templates_instructions_and_order_are_what_their_snapshot_says(agent: Client) -> None:
    templates = (await agent.list_resource_templates()).resource_templates
    agree(
        "server",
        {
            "instructions": agent.instructions,
            "tools": [tool.name for tool in (await agent.list_tools()).tools],
            "resourceTemplates": [one.model_dump(by_alias=True, mode="json", exclude_none=True) for one in templates],
        },
    )


async def test_every_tool_has_title_description_both_schemas_and_all_four_annotations(agent: Client) -> None:
    for tool in (await agent.list_tools()).tools:
        assert tool.title and tool.description and len(tool.description) >= 20, tool.name
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        hints = tool.annotations
        assert hints is not None
        given = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert None not in given, tool.name


def test_the_readme_lists_every_tool() -> None:
    catalog = link_files(shipped())
    rows = ["| toolset | tool | what it does | changes data |", "|---|---|---|---|"]
    for tool in catalog.tools.values():
        hints = tool.annotations
        changes = "no" if hints.read_only else "**removes**" if hints.destructive else "yes"
        first = tool.description.split(". ")[0].rstrip(".")
        rows.append(f"| {tool.toolset} | `{tool.name}` | {first}. | {changes} |")
    agree_between(ROOT / "README.md", "tools", "\n".join(rows) + "\n")


def test_the_readme_explains_every_setting() -> None:
    rows = ["| variable | what it says |", "|---|---|"]
    rows += [f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items()]
    agree_between(ROOT / "README.md", "settings", "\n".join(rows) + "\n")


def test_the_manifest_agrees_with_the_package() -> None:
    from itwin_mcp import __version__

    manifest = json.loads((ROOT / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["version"] == __version__
    used = set(manifest["server"]["mcp_config"]["env"])
    assert used <= set(ENVIRONMENT)
