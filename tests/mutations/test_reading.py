"""Whatever the platform answers, a read gives what there is, and a change that was made is not reported as failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from mcp import MCPError
from mcp.types import ResourceTemplateReference

from tests.conftest import shipped_catalog
from tests.mutations.proxy import (
    Exchange,
    Mutation,
    body_mutations,
    error_mutations,
    field_mutations,
    header_mutations,
)
from tests.mutations.recordings import Mutated, Recording, distinct, mutated, recorded

pytestmark = pytest.mark.anyio

GROUPS = 8
"""The tools are shared out, so that the tests can run side by side."""
SAMPLE = 20
"""Of so many mutations plain pytest tries one."""

TOOLS = shipped_catalog().tools
READS = {name for name, tool in TOOLS.items() if tool.annotations.read_only}
NEEDED = {
    "compare-named-versions": ("changesetIndex",),
    "describe-access": ("iTwinId",),
}
"""The fields of an answer without which the rest of a call cannot be done."""

Mutations = Callable[[int, Exchange], Iterator[Mutation]]


def has_nothing_to_give(recording: Recording, mutation: Mutation) -> bool:
    """Whether a mutation takes the answer's only subject, or what the next request needs."""
    return mutation.place is None or len(mutation.place) == 1 or mutation.place[-1] in NEEDED.get(recording.tool, ())


async def run(
    it: Mutated,
    recordings: list[Recording],
    mutations: Mutations,
    judge: Callable[[Recording, Mutation, dict[str, Any], bool], bool],
    *,
    writes: bool = False,
    step: int = 1,
) -> Counter[str]:
    """Replay each call with each mutation of its answers; fails with all that `judge` finds wrong."""
    counts, wrong = Counter[str](), list[str]()
    for recording in recordings:
        for index, exchange in distinct(recording.exchanges, writes=writes):
            for mutation in islice(mutations(index, exchange), len(wrong) % step, None, step):
                answer, is_error, _ = await it.replay(recording, mutation)
                counts["calls"] += 1
                counts["failed"] += is_error
                counts["with warnings"] += "warnings" in answer
                if not judge(recording, mutation, answer, is_error):
                    wrong.append(f"{recording.tool}: {mutation.name}: {str(answer)[:300]}")
    print(dict(counts))
    assert wrong == [], f"{len(wrong)} of {counts['calls']}:\n" + "\n".join(wrong[:40])
    assert counts["calls"]
    return counts


def judge_read(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """A read fails only where there is nothing to give, and one odd item loses no other."""
    if is_error:
        code = answer["error"]["code"]
        empty = code == "NoChanges" and mutation.value in ([], None)
        return has_nothing_to_give(recording, mutation) and (code == "UnexpectedAnswer" or empty)
    if mutation.place is None or len(mutation.place) < 2 or "page" not in recording.answer:
        return True
    lists = [name for name, value in recording.answer.items() if isinstance(value, list) and name != "resolved"]
    return all(len(answer[name]) >= len(recording.answer[name]) - 1 for name in lists)


def judge_write(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """A change that the platform made is never reported as one that failed."""
    if not is_error:
        return True
    error = answer["error"]
    said = "completed" in error or error.get("outcomeUnknown") is True or "job" in error
    return error["code"] == "UnexpectedAnswer" and error["retryable"] is False and said


def judge_refusal(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """A refusal in any shape is an error that says something, and nothing that contradicts itself."""
    if not is_error:
        return True  # a step that tolerates it, or a list that ends there
    error = answer["error"]
    texts = [error["code"], error["message"], error["hint"]]
    return error["code"] != "InternalError" and all(isinstance(text, str) and text for text in texts)


def group(recordings: dict[str, Recording], number: int, names: set[str]) -> list[Recording]:
    return [one for one in recordings.values() if one.tool in names][number::GROUPS]


async def test_reads_give_what_there_is_whatever_one_value_is() -> None:
    recordings = await recorded()
    reads = [one for one in recordings.values() if one.tool in READS]
    assert len(reads) > 60
    async with mutated() as it:
        for one in reads:
            answer, is_error, replay = await it.replay(one)
            assert not is_error
            assert not replay.unknown, one.tool
            assert "warnings" not in answer, one.tool
        await run(it, reads, field_mutations, judge_read, step=SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(GROUPS))
async def test_reads_give_what_there_is_whatever_any_value_is(number: int) -> None:
    recordings = await recorded()
    async with mutated() as it:
        await run(it, group(recordings, number, READS), field_mutations, judge_read)


async def test_reads_fail_in_words_when_the_whole_answer_is_odd() -> None:
    recordings = await recorded()
    async with mutated() as it:
        reads = [one for one in recordings.values() if one.tool in READS]
        await run(it, reads, body_mutations, judge_read, step=4)
        await run(it, reads[::4], header_mutations, judge_read)


async def test_writes_are_not_reported_as_failed_whatever_their_answer_is() -> None:
    recordings = await recorded()
    writes = [one for one in recordings.values() if one.tool in TOOLS and one.tool not in READS]
    assert len(writes) > 30
    async with mutated() as it:
        await run(it, writes, field_mutations, judge_write, writes=True, step=SAMPLE)
        await run(it, writes, body_mutations, judge_write, writes=True, step=4)
        await run(it, writes, header_mutations, judge_write, writes=True, step=4)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(GROUPS))
async def test_writes_are_not_reported_as_failed_whatever_any_value_is(number: int) -> None:
    recordings = await recorded()
    async with mutated() as it:
        writes = group(recordings, number, TOOLS.keys() - READS)
        for mutations in (field_mutations, body_mutations, header_mutations):
            await run(it, writes, mutations, judge_write, writes=True)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500, 503])
async def test_refusals_of_any_shape_are_errors_in_words(status: int) -> None:
    recordings = await recorded()

    def refused(index: int, exchange: Exchange) -> Iterator[Mutation]:
        return error_mutations(index, exchange, status)

    async with mutated() as it:
        await run(it, [recordings["get-imodel"], recordings["list-itwins"]], refused, judge_refusal, step=2)
        await run(it, [recordings["create-itwin"]], refused, judge_refusal, writes=True, step=2)


RESOURCES = {
    "itwin://itwins/{iTwinId}": "get-itwin",
    "itwin://imodels/{iModelId}": "get-imodel",
    "itwin://imodels/{iModelId}/changesets/{changesetId}": "get-changeset",
    "itwin://repositories/{repositoryId}": "get-global-repository",
}
"""Resource templates, each with a tool that takes the same arguments."""


@pytest.mark.parametrize("template", RESOURCES)
async def test_resources_hold_what_there_is_whatever_one_value_is(template: str) -> None:
    recordings = await recorded()
    arguments = recordings[RESOURCES[template]].arguments
    uri = template.format(**arguments, changesetId=arguments.get("changeset"))
    failed, empty = dict[str, str](), set[str]()
    async with mutated() as it:
        with it.proxy.recording() as exchanges:
            await it.client.read_resource(uri)
        for mutation in islice(field_mutations(0, exchanges[0]), 0, None, 5):
            with it.proxy.replaying(exchanges, mutation):
                try:
                    read = await it.client.read_resource(uri)
                except MCPError as error:
                    failed[mutation.name] = error.error.data["error"]["code"]
                    empty.add(mutation.name if len(mutation.place or ()) == 1 else "")
                else:
                    assert isinstance(json.loads(read.contents[0].text), dict)  # type: ignore[union-attr]
    assert {*failed} == empty
    assert {*failed.values()} <= {"UnexpectedAnswer"}


async def test_completions_offer_no_value_that_is_none() -> None:
    reference = ResourceTemplateReference(type="ref/resource", uri="itwin://itwins/{iTwinId}")
    async with mutated() as it:
        with it.proxy.recording() as exchanges:
            offered = await it.client.complete(reference, {"name": "iTwinId", "value": ""})
        assert offered.completion.values
    for mutation in islice(field_mutations(0, exchanges[0]), 0, None, 40):
        async with mutated() as it:
            with it.proxy.replaying(exchanges, mutation):
                values = (await it.client.complete(reference, {"name": "iTwinId", "value": ""})).completion.values
            assert not {"None", "null", ""} & {*values}, mutation.name
