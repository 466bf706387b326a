"""Budgets of a model's context: tokens of each toolset, and of arguments that several tools share."""

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

MAX_TOOLS = 30
MAX_TOKENS = 8_000
MAX_TOKENS_OF_ALL = 30_000
MAX_BYTES = 100_000
MAX_TOKENS_OF_DYNAMIC = 1_500
MAX_SHARED = 60
"""Tokens of an argument that three or more tools have."""


def catalog(toolsets: str | None) -> list[dict[str, Any]]:
    """The tools of a server at which a user can sign in and that may use a folder, so that none is missing."""
    settings = read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets=toolsets, files_root=[Path.cwd()])
    return [describe(tool) for tool in read_catalog(settings).tools.values()]


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def tokens(tool: Mapping[str, Any]) -> float:
    """Return the size of what a model reads of a tool, in tokens of four bytes."""
    return size({key: tool[key] for key in ("name", "title", "description", "inputSchema")}) / 4


def table(tools: Sequence[Mapping[str, Any]]) -> str:
    rows = sorted(((tokens(tool), size(tool), tool["name"]) for tool in tools), reverse=True)
    lines = [f"{cost:7.0f} tokens {whole:7d} bytes  {name}" for cost, whole, name in rows]
    total = sum(tokens(tool) for tool in tools)
    return "\n".join([*lines, f"{total:7.0f} tokens {size(tools):7d} bytes  in all, {len(tools)} tools"])


def test_default_toolset_keeps_its_token_budget() -> None:
    tools = catalog(None)
    print(f"\n{table(tools)}")
    assert len(tools) <= MAX_TOOLS
    assert sum(map(tokens, tools)) <= MAX_TOKENS, table(tools)


def test_toolset_all_keeps_its_token_budget() -> None:
    tools = catalog("all")
    print(f"\n{table(tools)}")
    assert sum(map(tokens, tools)) <= MAX_TOKENS_OF_ALL, table(tools)


def test_toolset_dynamic_keeps_its_token_budget() -> None:
    tools = catalog("dynamic")
    print(f"\n{table(tools)}")
    assert {"sign-in", "find-tools"} <= {tool["name"] for tool in tools}
    assert sum(map(tokens, tools)) <= MAX_TOKENS_OF_DYNAMIC, table(tools)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_default_tools_list_answer_keeps_its_byte_budget(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(mode, sandbox=False, toolsets=None) as client:
        listed = await client.list_tools()
    whole = len(listed.model_dump_json(by_alias=True, exclude_none=True).encode())
    print(f"\n{whole} bytes of tools/list")
    assert whole <= MAX_BYTES


def test_shared_arguments_keep_their_token_budget() -> None:
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
        if times >= 3 and len(text.encode()) / 4 > MAX_SHARED
    }
    assert long == set()
