"""Odd answers of the platform never skip a question and never let a request pass the fence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import anyio
import mcp.types as t
import pytest

from itwin_mcp.executor.policy.thing_locations import Locations
from tests.conftest import agrees
from tests.executor.fenced import places as places_of
from tests.mutations.proxy import READS_NAMES, Exchange, Mutation, body_mutations, error_mutations, field_mutations
from tests.mutations.recordings import Mutated, Recording, distinct, mutated
from tests.scenarios.destructive import TARGETS
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio

SAMPLE = 25
"""The fast tests try one of so many mutations."""
FOLDERS = {name for name in TARGETS if name.startswith("download-")}
"""Tools that ask only about a local file, without reading the platform."""


class Person:
    """A user who agrees until `declines` is set."""

    def __init__(self) -> None:
        self.declines = False

    async def __call__(self, context: Any, asked: t.ElicitRequestParams) -> t.ElicitResult:
        return t.ElicitResult(action="decline") if self.declines else await agrees(context, asked)


def odd_answers(exchanges: list[Exchange]) -> Iterator[Mutation]:
    """Yield every odd answer, and errors of every shape."""
    for index, exchange in distinct(exchanges, writes=False):
        refusals = (error_mutations(index, exchange, status) for status in (302, 404, 500))
        yield from chain(field_mutations(index, exchange), body_mutations(index, exchange), *refusals)


async def declined(it: Mutated, person: Person, tool: str, folder: Path) -> Recording:
    """Record a call that the user declines after its losses were read."""
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
    """Check that a declined call changes nothing, for any odd answer to its reads."""
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
async def test_destructive_tools_ask_despite_one_odd_value(tool: str, tmp_path: Path) -> None:
    await try_confirming(tool, tmp_path, SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ASKING)
async def test_destructive_tools_ask_despite_any_odd_value(tool: str, tmp_path: Path) -> None:
    await try_confirming(tool, tmp_path, 1)


# --- the policy -------------------------------------------------------------------------------------------------


async def fenced_calls(it: Mutated) -> list[tuple[Recording, str]]:
    """Record calls about another iTwin than the allowed one, each with a text that must not be in its answer."""
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
    """Clear the cached iTwins of iModels, so that they are read again."""
    keeper = it.runtime.gatekeeper
    keeper.locations = Locations(it.runtime.upstream, keeper.paths, anyio.current_time)


async def try_fence(step: int) -> None:
    place = await places_of()
    policy = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "fence.yaml"
    rule = {"itwins": [place.itwin], "tools": {"allow": ["all"]}}
    policy.write_text(json.dumps({"itwin-mcp-policy": 1, "default": rule}), encoding="utf-8")
    tried = 0
    async with mutated(policy=policy) as it:
        for recording, foreign in await fenced_calls(it):
            before = {(one.method, one.target) for one in recording.exchanges}
            assert all(method == "GET" for method, _ in before - {READS_NAMES})
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


async def test_fence_holds_despite_one_odd_value() -> None:
    await try_fence(SAMPLE)


@pytest.mark.slow
async def test_fence_holds_despite_any_odd_value() -> None:
    await try_fence(1)
