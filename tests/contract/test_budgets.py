"""What the tools cost a model's context, held and printed: per tool, per toolset, per argument that several share."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.runtime import read_catalog
from itwin_mcp.server.tools import describe
from itwin_mcp.settings import read_settings
from tests.conftest import connect

pytestmark = pytest.mark.anyio

MOST_TOOLS = 30
MOST_TOKENS = 8_000
MOST_TOKENS_OF_ALL = 30_000
MOST_BYTES = 100_000
MOST_TOKENS_OF_DYNAMIC = 1_500
MOST_SHARED = 60
"""Tokens of one argument that three or more tools have."""


def catalog(toolsets: str | None) -> list[dict[str, Any]]:
    """The tools of a server at which a user can sign in and that may use a folder, so that none is missing."""
    settings = read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets=toolsets, files_root=[Path.cwd()])
    return [describe(tool) for tool in read_catalog(settings).tools.values()]


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def tokens(tool: Mapping[str, Any]) -> float:
    """What a model reads of a tool, in tokens of four bytes."""
    return size({key: tool[key] for key in ("name", "title", "description", "inputSchema")}) / 4


def table(tools: Sequence[Mapping[str, Any]]) -> str:
    rows = sorted(((tokens(tool), size(tool), tool["name"]) for tool in tools), reverse=True)
    lines = [f"{cost:7.0f} tokens {whole:7d} bytes  {name}" for cost, whole, name in rows]
    total = sum(tokens(tool) for tool in tools)
    return "\n".join([*lines, f"{total:7.0f} tokens {size(tools):7d} bytes  in all, {len(tools)} tools"])


def test_by_default_a_model_reads_few_tools() -> None:
    tools = catalog(None)
    print(f"\n{table(tools)}")
    assert len(tools) <= MOST_TOOLS
    assert sum(map(tokens, tools)) <= MOST_TOKENS, table(tools)


def test_all_of_them_fit_too() -> None:
    tools = catalog("all")
    print(f"\n{table(tools)}")
    assert sum(map(tokens, tools)) <= MOST_TOKENS_OF_ALL, table(tools)


def test_with_dynamic_the_whole_catalog_costs_next_to_nothing() -> None:
    tools = catalog("dynamic")
    print(f"\n{table(tools)}")
    assert {"sign-in", "find-tools"} <= {tool["name"] for tool in tools}
    assert sum(map(tokens, tools)) <= MOST_TOKENS_OF_DYNAMIC, table(tools)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_whole_default_answer_is_small(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(mode, sandbox=False, toolsets=None) as client:
        listed = await client.list_tools()
    whole = len(listed.model_dump_json(by_alias=True, exclude_none=True).encode())
    print(f"\n{whole} bytes of tools/list")
    assert whole <= MOST_BYTES


def test_arguments_that_many_tools_share_have_short_texts() -> None:
    costs: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tool in catalog("all"):
        for name, schema in tool["inputSchema"]["properties"].items():
            costs[name][json.dumps(schema, ensure_ascii=False, separators=(",", ":"))] += 1
    shared = {name: kinds for name, kinds in costs.items() if kinds.total() >= 3}
    rows = [
        (sum((len(text.encode()) + len(name) + 4) / 4 * times for text, times in kinds.items()), name, kinds)
        for name, kinds in shared.items()
    ]
    print()
    for cost, name, kinds in sorted(rows, key=lambda row: -row[0]):
        print(f"{cost:7.0f} tokens  {name} in {kinds.total()} tools, {len(kinds)} texts")
    long = {
        (name, text)
        for name, kinds in shared.items()
        for text, times in kinds.items()
        if times >= 3 and len(text.encode()) / 4 > MOST_SHARED
    }
    assert long == set()
