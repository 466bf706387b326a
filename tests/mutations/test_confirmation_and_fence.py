"""Odd answers of the platform never make a server skip a confirmation or violate a policy."""

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
from tests.mutations.proxy import READS_NAMES, Exchange, Mutation, mutate_body, mutate_fields, mutate_to_error
from tests.mutations.recordings import MutatedServer, Recording, select_exchanges, serve_mutated
from tests.scenarios.destructive import TARGETS
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio

SAMPLE = 25
"""The fast tests try every 25th mutation."""
FOLDERS = {name for name in TARGETS if name.startswith("download-")}
"""Tools that only confirm overwriting a local file, without reading from the platform."""


class Person:
    """A user who agrees until `declines` is set."""

    def __init__(self) -> None:
        self.declines = False

    async def __call__(self, context: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
        return t.ElicitResult(action="decline") if self.declines else await agrees(context, question)


def mutate_answer(exchanges: list[Exchange]) -> Iterator[Mutation]:
    """Yield mutations of every read: odd values, odd bodies and errors."""
    for index, exchange in select_exchanges(exchanges, writes=False):
        refusals = (mutate_to_error(index, exchange, status) for status in (302, 404, 500))
        yield from chain(mutate_fields(index, exchange), mutate_body(index, exchange), *refusals)


async def record_declined_call(server: MutatedServer, person: Person, tool: str, folder: Path) -> Recording:
    """Record a call of a destructive tool that the user declines."""
    person.declines = False
    arguments, _ = await TARGETS[tool](Desk(server.client), folder)
    person.declines = True
    with server.proxy.recording() as exchanges:
        answer, is_error = await server.ask(tool, arguments)
    assert is_error
    assert answer["error"]["code"] == "Declined"
    assert all(exchange.method == "GET" for exchange in exchanges)
    return Recording(tool, arguments, exchanges, answer)


async def try_confirming(tool: str, folder: Path, step: int) -> None:
    """Check that a declined call changes nothing, for any odd answer to its reads."""
    person, tried = Person(), 0
    async with serve_mutated(person=person, files_root=[folder]) as server:
        recording = await record_declined_call(server, person, tool, folder)
        for mutation in islice(mutate_answer(recording.exchanges), len(tool) % step, None, step):
            answer, _, replay = await server.replay(recording, mutation)
            tried += 1
            assert replay.writes == [], (mutation.name, replay.writes)
            code = answer["error"]["code"] if "error" in answer else "preview" if "preview" in answer else "done"
            assert code not in ("done", "InternalError"), (mutation.name, answer)
    print({"tool": tool, "calls": tried, "writes": 0})
    assert tried


ASKING = sorted(TARGETS.keys() - FOLDERS)


@pytest.mark.parametrize("tool", ASKING)
async def test_destructive_tools_ask_despite_sampled_odd_answers(tool: str, tmp_path: Path) -> None:
    await try_confirming(tool, tmp_path, SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ASKING)
async def test_destructive_tools_ask_despite_any_odd_answer(tool: str, tmp_path: Path) -> None:
    await try_confirming(tool, tmp_path, 1)


# --- the policy -------------------------------------------------------------------------------------------------


async def record_forbidden_calls(server: MutatedServer) -> list[tuple[Recording, str]]:
    """Record calls about an iTwin that the policy forbids, each with a text that must not be in its answer."""
    place = await places_of()
    requests: list[tuple[str, dict[str, Any]]] = [
        ("get-imodel", {"iModelId": place.foreign_imodel}),
        ("update-imodel", {"iModelId": place.foreign_imodel, "description": "x"}),
        ("list-named-versions", {"iModelId": place.foreign_imodel}),
        ("list-itwins", {}),
        ("find-imodel", {"name": "Maas Crossing - Deck Renewal"}),
    ]
    calls = []
    for tool, arguments in requests:
        clear_locations(server)
        with server.proxy.recording() as exchanges:
            answer, _ = await server.ask(tool, arguments)
        calls.append((Recording(tool, arguments, exchanges, answer), place.foreign))
    return calls


def clear_locations(server: MutatedServer) -> None:
    """Clear the cached iTwins of iModels, so that they are read again."""
    keeper = server.runtime.gatekeeper
    keeper.locations = Locations(server.runtime.upstream, keeper.paths, anyio.current_time)


async def try_policy(step: int) -> None:
    """Check that a policy holds for forbidden calls, for any odd answer to their reads."""
    place = await places_of()
    policy = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "fence.yaml"
    rule = {"itwins": [place.itwin], "tools": {"allow": ["all"]}}
    policy.write_text(json.dumps({"itwin-mcp-policy": 1, "default": rule}), encoding="utf-8")
    tried = 0
    async with serve_mutated(policy=policy) as server:
        for recording, foreign in await record_forbidden_calls(server):
            recorded = {(exchange.method, exchange.target) for exchange in recording.exchanges}
            assert all(method == "GET" for method, _ in recorded - {READS_NAMES})
            assert foreign not in json.dumps(recording.answer)
            for mutation in islice(mutate_answer(recording.exchanges), 0, None, step):
                clear_locations(server)
                answer, is_error, replay = await server.replay(recording, mutation)
                tried += 1
                assert replay.writes == [], (recording.tool, mutation.name)
                assert foreign not in json.dumps(answer), (recording.tool, mutation.name, answer)
                if "error" in recording.answer:
                    assert is_error, (recording.tool, mutation.name, answer)
                    assert {*replay.sent} <= recorded, (recording.tool, mutation.name, replay.sent)
    print({"calls": tried})
    assert tried


async def test_policy_is_enforced_despite_sampled_odd_answers() -> None:
    await try_policy(SAMPLE)


@pytest.mark.slow
async def test_policy_is_enforced_despite_any_odd_answer() -> None:
    await try_policy(1)
