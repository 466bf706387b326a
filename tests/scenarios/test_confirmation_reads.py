"""Malformed answers of the platform never skip the question of a destructive tool, and cause no internal error."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from itwin_mcp.sandbox import Sandbox
from tests.conftest import connect
from tests.scenarios.destructive import DESTRUCTIVE, TARGETS
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio

SKIPPING = sorted(name for name, tool in DESTRUCTIVE.items() if tool.confirm is not None and tool.confirm.when)
"""The tools that skip their question when nothing would be lost."""
MISSING = object()
ODD: tuple[Any, ...] = (None, MISSING, "", 0, {}, [])
MAX_DEPTH = 3


def list_paths(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of all values in an answer. Only the first element of a list is visited."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, child in children:
        path = (*above, key)
        yield path
        if len(path) < MAX_DEPTH:
            yield from list_paths(child, path)


def mutate(body: Any, path: tuple[str | int, ...], odd: Any) -> Any:
    """Copy an answer with an odd value in one place."""
    changed = copy.deepcopy(body)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if odd is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = odd
    return changed


class Wire:
    """Changes one place of one answer of the sandbox, and records the writes that reached it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.changes: list[str] = []
        self.mutation: tuple[str, tuple[str | int, ...], Any] | None = None

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = Sandbox.answer

        def recorded(this: Sandbox, request: Any, body: bytes, upload: Any = None) -> Any:
            whole = answer(this, request, body, upload)
            key = f"{request.method} {request.url.path}"
            if request.method != "GET" and "/connect/" not in key:
                self.changes.append(key)
            if request.method != "GET" or not isinstance(whole.body, dict):
                return whole
            self.answers[key] = whole.body
            if self.mutation is None or self.mutation[0] != key:
                return whole
            return replace(whole, body=mutate(whole.body, *self.mutation[1:]))

        monkeypatch.setattr(Sandbox, "answer", recorded)


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return dict((await client.call_tool(tool, arguments)).structured_content or {})


@pytest.mark.parametrize("tool", SKIPPING)
async def test_odd_answer_never_skips_the_question_of_a_destructive_tool(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire()
    database = {"files_root": [tmp_path], "sandbox_db": tmp_path / "sandbox", "toolsets": "all"}
    async with connect(**database) as maker:
        arguments, _ = await TARGETS[tool](Desk(maker), tmp_path)
    async with connect(person=None, **database) as client:
        wire.patch(monkeypatch)
        assert "preview" in await call(client, tool, arguments)
        tried = 0
        for key, body in list(wire.answers.items()):
            for path in list_paths(body):
                for odd in ODD:
                    if odd is MISSING and path[-1] == 0:
                        continue  # the list that remains is whole, and it is empty
                    wire.mutation = (key, path, odd)
                    values = await call(client, tool, arguments)
                    code = values.get("error", {}).get("code", "asked" if "preview" in values else "done")
                    assert code not in ("done", "InternalError"), (wire.mutation, values)
                    tried += 1
    assert wire.changes == []
    assert tried > 20
