"""Whatever the platform answers, a read gives what there is, and a change that was made is not reported as failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from mcp import MCPError
from mcp.types import ResourceTemplateReference

from tests.conftest import shipped_catalog
from tests.mutations.proxy import (
    MISSING,
    READS_NAMES,
    Exchange,
    Mutation,
    body_mutations,
    error_mutations,
    field_mutations,
    header_mutations,
    next_mutations,
    storage_mutations,
)
from tests.mutations.recordings import DOWNLOADS, Mutated, Recording, distinct, mutated, recorded, recorded_pages

pytestmark = pytest.mark.anyio

GROUPS = 8
"""Number of groups of tools, so that tests can run in parallel."""
SAMPLE = 20
"""The fast tests try one of so many mutations."""

TOOLS = shipped_catalog().tools
READS = {name for name, tool in TOOLS.items() if tool.annotations.read_only}
NEEDED = {
    "compare-named-versions": ("changesetIndex",),
    "describe-access": ("iTwinId",),
}
"""Fields of an answer that the next request of the call needs."""

Mutations = Callable[[int, Exchange], Iterator[Mutation]]


def has_nothing_to_give(recording: Recording, mutation: Mutation) -> bool:
    """Return whether a mutation removes the only subject of the answer or a value that the next request needs."""
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
    """Replay each call with each mutation of its answers. Fails with every answer that `judge` rejects."""
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
    """Accept an error only if nothing can be returned, and no more than one lost item of a list."""
    if is_error:
        code = answer["error"]["code"]
        empty = code == "NoChanges" and mutation.value in ([], None)
        return has_nothing_to_give(recording, mutation) and (code == "UnexpectedAnswer" or empty)
    if mutation.place is None or len(mutation.place) < 2 or "page" not in recording.answer:
        return True
    lists = [name for name, value in recording.answer.items() if isinstance(value, list) and name != "resolved"]
    return all(len(answer[name]) >= len(recording.answer[name]) - 1 for name in lists)


def judge_write(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """Reject an error that reports a completed write as failed."""
    if not is_error:
        return True
    error = answer["error"]
    said = "completed" in error or error.get("outcomeUnknown") is True or "job" in error
    return error["code"] == "UnexpectedAnswer" and error["retryable"] is False and said


def judge_refusal(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """Accept only errors with a code, a message and a hint, and no internal error."""
    if not is_error:
        return True  # a step that tolerates it, or a list that ends there
    error = answer["error"]
    texts = [error["code"], error["message"], error["hint"]]
    return error["code"] != "InternalError" and all(isinstance(text, str) and text for text in texts)


def odd_answers(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Replace every field, and the whole body."""
    yield from field_mutations(index, exchange)
    yield from body_mutations(index, exchange)


def group(recordings: dict[str, Recording], number: int, names: set[str]) -> list[Recording]:
    return [one for one in recordings.values() if one.tool in names][number::GROUPS]


async def test_reads_return_the_rest_despite_one_odd_value() -> None:
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
async def test_reads_return_the_rest_despite_any_odd_value(number: int) -> None:
    recordings = await recorded()
    async with mutated() as it:
        await run(it, group(recordings, number, READS), field_mutations, judge_read)


async def test_reads_of_an_odd_body_fail_with_unexpected_answer() -> None:
    recordings = await recorded()
    async with mutated() as it:
        reads = [one for one in recordings.values() if one.tool in READS]
        await run(it, reads, body_mutations, judge_read, step=4)
        await run(it, reads[::4], header_mutations, judge_read)


async def test_writes_with_an_odd_answer_are_not_reported_as_failed() -> None:
    recordings = await recorded()
    writes = [one for one in recordings.values() if one.tool in TOOLS and one.tool not in READS]
    assert len(writes) > 30
    async with mutated() as it:
        await run(it, writes, field_mutations, judge_write, writes=True, step=SAMPLE)
        await run(it, writes, body_mutations, judge_write, writes=True, step=4)
        await run(it, writes, header_mutations, judge_write, writes=True, step=4)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(GROUPS))
async def test_writes_with_any_odd_value_are_not_reported_as_failed(number: int) -> None:
    recordings = await recorded()
    async with mutated() as it:
        writes = group(recordings, number, TOOLS.keys() - READS)
        for mutations in (field_mutations, body_mutations, header_mutations):
            await run(it, writes, mutations, judge_write, writes=True)


# --- next pages -------------------------------------------------------------------------------------------------

END: tuple[Any, ...] = (None, MISSING, "", [], {})
"""Values that mark the end of a list instead of a next link."""


@pytest.mark.slow
async def test_lists_return_readable_pages_despite_odd_next_links() -> None:
    """Each list tries a third of the links, so that together they try all."""
    lists = await recorded_pages()
    assert len(lists) > 8

    def judge(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
        if is_error:
            return False
        page, whole = answer["page"], recording.answer["page"]
        if mutation.exchange == 0 and page["returned"] < whole["returned"]:
            return page["returned"] == 1 and (page["complete"] is (mutation.value in END))
        may_be_whole = whole["complete"] or mutation.value in END
        return page["returned"] == whole["returned"] and (may_be_whole or not page["complete"])

    async with mutated() as it:
        for one in lists:
            with_next = [exchange for exchange in one.exchanges if exchange.method == "GET"]
            pages = replace(one, exchanges=with_next)
            paths = {exchange.target.partition("?")[0] for exchange in with_next}
            for index, exchange in enumerate(with_next):
                for mutation in islice(next_mutations(index, exchange), len(one.tool) % 3, None, 3):
                    answer, is_error, replay = await it.replay(pages, mutation)
                    assert judge(pages, mutation, answer, is_error), (one.tool, mutation.name, answer)
                    sent = {(method, target.partition("?")[0]) for method, target in replay.sent} - {READS_NAMES}
                    assert sent <= {("GET", path) for path in paths}, (one.tool, mutation.name)


# --- files ------------------------------------------------------------------------------------------------------


def storage_exchanges(recording: Recording) -> list[tuple[int, Exchange]]:
    return [(index, one) for index, one in enumerate(recording.exchanges) if one.target.startswith("/storage/")]


@pytest.mark.slow
async def test_downloads_save_the_whole_file_or_nothing_despite_odd_values() -> None:
    recordings = await recorded()
    counts = Counter[str]()
    async with mutated() as it:
        for tool in sorted(DOWNLOADS):
            recording = recordings[tool]
            ours = [m for i, e in distinct(recording.exchanges, writes=False) for m in odd_answers(i, e)]
            ours += [m for i, e in storage_exchanges(recording) for m in storage_mutations(i, e)]
            for mutation in ours:
                answer, is_error, _ = await it.replay(recording, mutation)
                counts["calls"] += 1
                counts["failed"] += is_error
                path = it.received(recording)
                found = path.read_bytes() if path.exists() else None
                told = (tool, mutation.name, answer)
                assert not [one for one in it.folder.iterdir() if one.name.endswith(".part")], told
                assert (found is None) is is_error, told
                if is_error:
                    assert answer["error"]["code"] != "InternalError", told
                elif "storage" not in mutation.name:
                    assert found == recording.received, told
    print(dict(counts))


async def test_failed_uploads_report_completed_for_any_storage_answer() -> None:
    recordings = await recorded()
    counts = Counter[str]()
    async with mutated() as it:
        for tool in ("create-imodel-from-file", "push-changeset"):
            for index, exchange in storage_exchanges(recordings[tool]):
                for mutation in storage_mutations(index, exchange):
                    answer, is_error, _ = await it.replay(recordings[tool], mutation)
                    counts["calls"] += 1
                    counts["failed"] += is_error
                    if is_error:
                        error = answer["error"]
                        assert error["code"] != "InternalError", (tool, mutation.name, answer)
                        assert len(error["completed"]) == 1, (tool, mutation.name, answer)
    print(dict(counts))


@pytest.mark.slow
async def test_writes_with_odd_later_reads_are_not_reported_as_failed() -> None:
    recordings = await recorded()
    counts, wrong = Counter[str](), list[str]()
    async with mutated() as it:
        for recording in (one for one in recordings.values() if one.tool in TOOLS.keys() - READS - DOWNLOADS):
            made = [index for index, one in enumerate(recording.exchanges) if one.method != "GET"]
            later = [one for one in distinct(recording.exchanges, writes=False) if made and one[0] > made[0]]
            for mutation in (m for i, e in later for m in islice(odd_answers(i, e), 0, None, 3)):
                answer, is_error, replay = await it.replay(recording, mutation)
                counts["calls"] += 1
                counts["failed"] += is_error
                if is_error and replay.writes:
                    error = answer["error"]
                    said = "completed" in error or "job" in error
                    if error["code"] != "UnexpectedAnswer" or error["retryable"] or not said:
                        wrong.append(f"{recording.tool}: {mutation.name}: {str(answer)[:400]}")
    print(dict(counts))
    assert wrong == [], "\n".join(wrong[:40])


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500, 503])
async def test_refusals_of_any_shape_are_errors_with_message_and_hint(status: int) -> None:
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
"""Resource templates, each with a tool that has the same arguments."""


@pytest.mark.parametrize("template", RESOURCES)
async def test_resources_return_the_rest_despite_one_odd_value(template: str) -> None:
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


async def test_completions_offer_no_null_value() -> None:
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
