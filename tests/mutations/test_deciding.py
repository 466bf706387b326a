"""No odd answer lets more through than the right one: no question is skipped, and no fence is passed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import mcp.types as t
import pytest

from itwin_mcp.executor.homes import READS_AN_IMODEL, Homes
from tests.conftest import agrees, shipped_catalog
from tests.executor.fenced import places as places_of
from tests.mutations.proxy import Exchange, Mutation, body_mutations, error_mutations, field_mutations
from tests.mutations.recordings import Mutated, Recording, distinct, mutated
from tests.scenarios.destructive import TARGETS
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio

SAMPLE = 25
"""Of so many mutations plain pytest tries one."""
FOLDERS = {name for name in TARGETS if name.startswith("download-")}
"""Tools whose question is about a local file alone: nothing is read for it from the platform."""


class Person:
    """Somebody who agrees until they decline."""

    def __init__(self) -> None:
        self.declines = False

    async def __call__(self, context: Any, asked: t.ElicitRequestParams) -> t.ElicitResult:
        return t.ElicitResult(action="decline") if self.declines else await agrees(context, asked)


def odd_answers(exchanges: list[Exchange]) -> Iterator[Mutation]:
    """Every odd answer, and refusals of every shape."""
    for index, exchange in distinct(exchanges, writes=False):
        refusals = (error_mutations(index, exchange, status) for status in (302, 404, 500))
        yield from chain(field_mutations(index, exchange), body_mutations(index, exchange), *refusals)


async def declined(it: Mutated, person: Person, tool: str, folder: Path) -> Recording:
    """A call that the person declines after it read what would be lost."""
    person.declines = False
    arguments, _ = await TARGETS[tool](Desk(it.client), folder)
    person.declines = True
    with it.proxy.recording() as exchanges:
        answer, is_error = await it.ask(tool, arguments)
    assert is_error
    assert answer["error"]["code"] == "Declined"
    assert all(one.method == "GET" for one in exchanges)
    return Recording(tool, arguments, exchanges, answer)


async def try_confirming(tool: str, folder: Path, step: int) -> None:
    """A declined call changes nothing, whatever was read for its question."""
    person, tried = Person(), 0
    async with mutated(person=person, files_root=[folder]) as it:
        recording = await declined(it, person, tool, folder)
        for mutation in islice(odd_answers(recording.exchanges), len(tool) % step, None, step):
            answer, _, replay = await it.replay(recording, mutation)
            tried += 1
            assert replay.writes == [], (mutation.name, replay.writes)
            code = answer["error"]["code"] if "error" in answer else "preview" if "preview" in answer else "done"
            assert code not in ("done", "InternalError"), (mutation.name, answer)
    print({"tool": tool, "calls": tried, "writes": 0})
    assert tried


ASKING = sorted(TARGETS.keys() - FOLDERS)


@pytest.mark.parametrize("tool", ASKING)
async def test_confirming_tools_ask_whatever_one_value_is(tool: str, tmp_path: Path) -> None:
    await try_confirming(tool, tmp_path, SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ASKING)
async def test_confirming_tools_ask_whatever_any_value_is(tool: str, tmp_path: Path) -> None:
    await try_confirming(tool, tmp_path, 1)


# --- the policy -------------------------------------------------------------------------------------------------


async def fenced_calls(it: Mutated) -> list[tuple[Recording, str]]:
    """Calls of a caller who is kept to one iTwin, about another one; and a text that must not be in an answer."""
    place = await places_of()
    beyond: list[tuple[str, dict[str, Any]]] = [
        ("get-imodel", {"iModelId": place.foreign_imodel}),
        ("update-imodel", {"iModelId": place.foreign_imodel, "description": "x"}),
        ("list-named-versions", {"iModelId": place.foreign_imodel}),
        ("list-itwins", {}),
        ("find-imodel", {"name": "Maas Crossing - Deck Renewal"}),
    ]
    calls = []
    for tool, arguments in beyond:
        forget(it)
        with it.proxy.recording() as exchanges:
            answer, _ = await it.ask(tool, arguments)
        calls.append((Recording(tool, arguments, exchanges, answer), place.foreign))
    return calls


def forget(it: Mutated) -> None:
    """Forget in which iTwins iModels are, so that the platform is asked again."""
    keeper = it.runtime.gatekeeper
    keeper.homes = Homes(it.runtime.upstream, shipped_catalog().operations[READS_AN_IMODEL])


async def try_fence(step: int) -> None:
    place = await places_of()
    policy = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "fence.yaml"
    rule = {"itwins": [place.itwin], "tools": {"allow": ["all"]}}
    policy.write_text(json.dumps({"itwin-mcp-policy": 1, "default": rule}), encoding="utf-8")
    tried = 0
    async with mutated(policy=policy) as it:
        for recording, foreign in await fenced_calls(it):
            before = {(one.method, one.target) for one in recording.exchanges}
            assert all(method == "GET" for method, _ in before)
            assert foreign not in json.dumps(recording.answer)
            for mutation in islice(odd_answers(recording.exchanges), 0, None, step):
                forget(it)
                answer, is_error, replay = await it.replay(recording, mutation)
                tried += 1
                assert replay.writes == [], (recording.tool, mutation.name)
                assert foreign not in json.dumps(answer), (recording.tool, mutation.name, answer)
                if "error" in recording.answer:
                    assert is_error, (recording.tool, mutation.name, answer)
                    assert {*replay.sent} <= before, (recording.tool, mutation.name, replay.sent)
    print({"calls": tried})
    assert tried


async def test_a_fence_holds_whatever_one_value_is() -> None:
    await try_fence(SAMPLE)


@pytest.mark.slow
async def test_a_fence_holds_whatever_any_value_is() -> None:
    await try_fence(1)
