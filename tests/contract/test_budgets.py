"""Limits for the tokens that a model reads: of each toolset, and of arguments that several tools share."""

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
"""Limit for the tokens of an argument that at least three tools have with the same text."""


def list_tools(toolsets: str | None) -> list[dict[str, Any]]:
    """Return the listed tools. With a client id and a files root, no tool of the toolsets is omitted."""
    settings = read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets=toolsets, files_root=[Path.cwd()])
    return [describe(tool) for tool in read_catalog(settings).tools.values()]


def count_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def count_tokens(tool: Mapping[str, Any]) -> float:
    """Estimate the tokens of the parts of a tool that a model reads, with four bytes for a token."""
    return count_bytes({key: tool[key] for key in ("name", "title", "description", "inputSchema")}) / 4


def format_table(tools: Sequence[Mapping[str, Any]]) -> str:
    rows = sorted(((count_tokens(tool), count_bytes(tool), tool["name"]) for tool in tools), reverse=True)
    lines = [f"{token_count:7.0f} tokens {byte_count:7d} bytes  {name}" for token_count, byte_count, name in rows]
    total = sum(count_tokens(tool) for tool in tools)
    return "\n".join([*lines, f"{total:7.0f} tokens {count_bytes(tools):7d} bytes  in all, {len(tools)} tools"])


def test_default_toolset_keeps_its_token_budget() -> None:
    tools = list_tools(None)
    print(f"\n{format_table(tools)}")
    assert len(tools) <= MAX_TOOLS
    assert sum(map(count_tokens, tools)) <= MAX_TOKENS, format_table(tools)


def test_toolset_all_keeps_its_token_budget() -> None:
    tools = list_tools("all")
    print(f"\n{format_table(tools)}")
    assert sum(map(count_tokens, tools)) <= MAX_TOKENS_OF_ALL, format_table(tools)


def test_toolset_dynamic_keeps_its_token_budget() -> None:
    tools = list_tools("dynamic")
    print(f"\n{format_table(tools)}")
    assert {"sign-in", "find-tools"} <= {tool["name"] for tool in tools}
    assert sum(map(count_tokens, tools)) <= MAX_TOKENS_OF_DYNAMIC, format_table(tools)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_default_tools_list_answer_keeps_its_byte_budget(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(mode, sandbox=False, toolsets=None) as client:
        answer = await client.list_tools()
    byte_count = len(answer.model_dump_json(by_alias=True, exclude_none=True).encode())
    print(f"\n{byte_count} bytes of tools/list")
    assert byte_count <= MAX_BYTES


def test_shared_arguments_keep_their_token_budget() -> None:
    schemas: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tool in list_tools("all"):
        for name, schema in tool["inputSchema"]["properties"].items():
            schemas[name][json.dumps(schema, ensure_ascii=False, separators=(",", ":"))] += 1
    shared = {name: texts for name, texts in schemas.items() if texts.total() >= 3}
    rows = [
        (sum((len(text.encode()) + len(name) + 4) / 4 * count for text, count in texts.items()), name, texts)
        for name, texts in shared.items()
    ]
    print()
    for token_count, name, texts in sorted(rows, key=lambda row: -row[0]):
        print(f"{token_count:7.0f} tokens  {name} in {texts.total()} tools, {len(texts)} texts")
    too_long = {
        (name, text)
        for name, texts in shared.items()
        for text, count in texts.items()
        if count >= 3 and len(text.encode()) / 4 > MAX_SHARED
    }
    assert too_long == set()
