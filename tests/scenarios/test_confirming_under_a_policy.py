"""A policy refuses, pre-approves and counts the calls of every destructive tool, before the user is asked."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from tests.conftest import connect
from tests.hosting.served import keep_policy
from tests.scenarios.destructive import DESTRUCTIVE, Arguments, two_targets
from tests.scenarios.test_area_tools import Desk
from tests.scenarios.test_confirming import Person, Record, answer_of, does, files_are_linked_once, record

__all__ = ["files_are_linked_once", "record"]

pytestmark = pytest.mark.anyio

WRITING = sorted(name for name, tool in DESTRUCTIVE.items() if tool.writes)
"""The other tools replace local files, which no policy covers, so they always ask."""
FEW = ("delete-imodel", "release-all-locks")
MOSTLY_SLOW = [tool if tool in FEW else pytest.param(tool, marks=pytest.mark.slow) for tool in WRITING]
OTHER_ITWIN = "00000000-0000-4000-8000-00000000e15e"


@dataclass
class Targets:
    """Arguments for two targets, the iTwins of the targets, and a user who declines."""

    arguments: Arguments
    other_arguments: Arguments
    itwins: list[str]
    person: Person
    usual: dict[str, Any]

    @asynccontextmanager
    async def agent(self, **rule: Any) -> AsyncIterator[Client]:
        """Connect a client under a default policy entry."""
        default = {"itwins": "all", "tools": {"allow": ["all"]}} | rule
        policy = keep_policy(json.dumps({"itwin-mcp-policy": 1, "default": default}))
        async with connect(policy=policy, person=self.person, **self.usual) as client:
            yield client

    def pre_approved(self, tool: str, per_hour: int) -> dict[str, Any]:
        return {"pre-approved": [{"tools": [tool], "itwins": self.itwins, "per-hour": per_hour}]}


@asynccontextmanager
async def at_work(tool: str, record: Record) -> AsyncIterator[Targets]:
    usual = {"files_root": [record.root], "sandbox_db": record.root / "sandbox"}
    async with connect(**usual) as maker:
        arguments, other_arguments, itwins = await two_targets(tool, Desk(maker), record.root)
    person = Person()
    person.answer = does("decline")
    record.changes.clear()
    yield Targets(arguments, other_arguments, itwins, person, usual)


def decisions() -> list[tuple[str, str | None]]:
    """Return the decisions in the audit log, with who confirmed each."""
    lines = Path(os.environ["ITWIN_MCP_STATE_DIR"], "audit.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["decision"], line.get("confirmed")) for line in map(json.loads, lines)]


@pytest.mark.parametrize("tool", MOSTLY_SLOW)
async def test_policy_refusal_asks_nobody_and_sends_nothing(tool: str, record: Record) -> None:
    async with at_work(tool, record) as work, work.agent(itwins=[OTHER_ITWIN]) as client:
        assert (await answer_of(client, tool, work.arguments))["code"] == "PolicyRefused"
    assert work.person.asked == []
    assert record.nothing_happened()
    assert decisions()[-1] == ("refused", None)


@pytest.mark.parametrize("tool", MOSTLY_SLOW)
async def test_pre_approved_tool_runs_without_asking_up_to_its_cap(tool: str, record: Record) -> None:
    async with at_work(tool, record) as work, work.agent(**work.pre_approved(tool, 1)) as client:
        done = await client.call_tool(tool, work.other_arguments)
        assert not done.is_error, done.structured_content
        assert work.person.asked == []
        assert record.something_happened()
        assert decisions()[-1] == ("done", "policy")
        record.changes.clear()
        assert (await answer_of(client, tool, work.arguments))["code"] == "Declined"
    assert len(work.person.asked) == 1
    assert record.nothing_happened()
    assert decisions()[-1] == ("declined", None)


@pytest.mark.parametrize("changeset", ["latest", "baseline", "Tender Draft"])
async def test_pre_approved_release_all_locks_accepts_a_changeset_by_name(changeset: str, record: Record) -> None:
    tool = "release-all-locks"
    async with at_work(tool, record) as work:
        arguments = work.arguments | {"changeset": changeset}
        async with work.agent() as client:
            assert (await answer_of(client, tool, arguments))["code"] == "Declined"
            assert ", changeset )" not in work.person.asked[-1].message
        async with work.agent(**work.pre_approved(tool, 1)) as client:
            done = await client.call_tool(tool, arguments)
            assert not done.is_error, done.structured_content
    assert len(work.person.asked) == 1
    assert decisions()[-1] == ("done", "policy")


@pytest.mark.parametrize("tool", MOSTLY_SLOW)
async def test_spent_budget_refuses_without_asking(tool: str, record: Record) -> None:
    async with at_work(tool, record) as work, work.agent(**{"writes-per-hour": 1}) as client:
        work.person.answer = Person().answer
        assert not (await client.call_tool(tool, work.other_arguments)).is_error
        record.changes.clear()
        questions = len(work.person.asked)
        assert (await answer_of(client, tool, work.arguments))["code"] == "BudgetSpent"
    assert len(work.person.asked) == questions
    assert record.nothing_happened()
