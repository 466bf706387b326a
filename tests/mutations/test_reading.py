"""Odd answers of the platform: reads return the readable data, and completed writes are not reported as failed."""

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
    mutate_body,
    mutate_fields,
    mutate_headers,
    mutate_next_link,
    mutate_storage,
    mutate_to_error,
)
from tests.mutations.recordings import (
    DOWNLOADS,
    MutatedServer,
    Recording,
    record_calls,
    record_pages,
    select_exchanges,
    serve_mutated,
)

pytestmark = pytest.mark.anyio

GROUPS = 8
"""Number of groups of tools, so that tests can run in parallel."""
SAMPLE = 20
"""The fast tests try every 20th mutation."""

TOOLS = shipped_catalog().tools
READS = {name for name, tool in TOOLS.items() if tool.annotations.read_only}
NEEDED = {
    "compare-named-versions": ("changesetIndex",),
    "describe-access": ("iTwinId",),
}
"""Fields of an answer that the next request of the call needs."""

Mutations = Callable[[int, Exchange], Iterator[Mutation]]


def removes_needed_value(recording: Recording, mutation: Mutation) -> bool:
    """Return whether a mutation changes the only entity of the answer or a value that the next request needs."""
    return mutation.place is None or len(mutation.place) == 1 or mutation.place[-1] in NEEDED.get(recording.tool, ())


async def replay_mutations(
    server: MutatedServer,
    recordings: list[Recording],
    mutations: Mutations,
    judge: Callable[[Recording, Mutation, dict[str, Any], bool], bool],
    *,
    writes: bool = False,
    step: int = 1,
) -> Counter[str]:
    """Replay each call with every `step`th mutation of its answers, and check that `judge` accepts each answer."""
    counts, wrong = Counter[str](), list[str]()
    for recording in recordings:
        for index, exchange in select_exchanges(recording.exchanges, writes=writes):
            for mutation in islice(mutations(index, exchange), len(wrong) % step, None, step):
                answer, is_error, _ = await server.replay(recording, mutation)
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
    """Return whether a read handles a mutation well.

    It may fail only if it has nothing to return. A list may lose at most one item.
    """
    if is_error:
        code = answer["error"]["code"]
        empty = code == "NoChanges" and mutation.value in ([], None)
        return removes_needed_value(recording, mutation) and (code == "UnexpectedAnswer" or empty)
    if mutation.place is None or len(mutation.place) < 2 or "page" not in recording.answer:
        return True
    lists = [name for name, value in recording.answer.items() if isinstance(value, list) and name != "resolved"]
    return all(len(answer[name]) >= len(recording.answer[name]) - 1 for name in lists)


def judge_write(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """Return whether a write handles a mutation well: an error must say that the write was or may be completed."""
    if not is_error:
        return True
    error = answer["error"]
    reports_write = "completed" in error or error.get("outcomeUnknown") is True or "job" in error
    return error["code"] == "UnexpectedAnswer" and error["retryable"] is False and reports_write


def judge_refusal(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
    """Return whether an error has a code, a message and a hint, and is not an internal error."""
    if not is_error:
        return True  # some steps tolerate an error, and a list ends at one
    error = answer["error"]
    texts = [error["code"], error["message"], error["hint"]]
    return error["code"] != "InternalError" and all(isinstance(text, str) and text for text in texts)


def mutate_answer(index: int, exchange: Exchange) -> Iterator[Mutation]:
    """Yield mutations of every field and of the whole body."""
    yield from mutate_fields(index, exchange)
    yield from mutate_body(index, exchange)


def select_group(recordings: dict[str, Recording], number: int, tools: set[str]) -> list[Recording]:
    return [recording for recording in recordings.values() if recording.tool in tools][number::GROUPS]


@pytest.mark.slow
async def test_reads_return_the_rest_despite_one_odd_value() -> None:
    recordings = await record_calls()
    reads = [recording for recording in recordings.values() if recording.tool in READS]
    assert len(reads) > 60
    async with serve_mutated() as server:
        for recording in reads:
            answer, is_error, replay = await server.replay(recording)
            assert not is_error
            assert not replay.unknown, recording.tool
            assert "warnings" not in answer, recording.tool
        await replay_mutations(server, reads, mutate_fields, judge_read, step=SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(GROUPS))
async def test_reads_return_the_rest_despite_any_odd_value(number: int) -> None:
    recordings = await record_calls()
    async with serve_mutated() as server:
        await replay_mutations(server, select_group(recordings, number, READS), mutate_fields, judge_read)


async def test_reads_of_an_odd_body_fail_with_unexpected_answer() -> None:
    recordings = await record_calls()
    async with serve_mutated() as server:
        reads = [recording for recording in recordings.values() if recording.tool in READS]
        await replay_mutations(server, reads, mutate_body, judge_read, step=4)
        await replay_mutations(server, reads[::4], mutate_headers, judge_read)


async def test_writes_with_an_odd_answer_are_not_reported_as_failed() -> None:
    recordings = await record_calls()
    writes = [recording for recording in recordings.values() if recording.tool in TOOLS.keys() - READS]
    assert len(writes) > 30
    async with serve_mutated() as server:
        await replay_mutations(server, writes, mutate_fields, judge_write, writes=True, step=SAMPLE)
        await replay_mutations(server, writes, mutate_body, judge_write, writes=True, step=4)
        await replay_mutations(server, writes, mutate_headers, judge_write, writes=True, step=4)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(GROUPS))
async def test_writes_with_any_odd_value_are_not_reported_as_failed(number: int) -> None:
    recordings = await record_calls()
    async with serve_mutated() as server:
        writes = select_group(recordings, number, TOOLS.keys() - READS)
        for mutations in (mutate_fields, mutate_body, mutate_headers):
            await replay_mutations(server, writes, mutations, judge_write, writes=True)


# --- next pages -------------------------------------------------------------------------------------------------

END: tuple[Any, ...] = (None, MISSING, "", [], {})
"""Values that mark the end of a list instead of a next link."""


@pytest.mark.slow
async def test_lists_return_readable_pages_despite_odd_next_links() -> None:
    """Each list is tested with a third of the links, and together the lists are tested with all of them."""
    lists = await record_pages()
    assert len(lists) > 8

    def judge(recording: Recording, mutation: Mutation, answer: dict[str, Any], is_error: bool) -> bool:
        if is_error:
            return False
        page, whole = answer["page"], recording.answer["page"]
        if mutation.exchange == 0 and page["returned"] < whole["returned"]:
            return page["returned"] == 1 and (page["complete"] is (mutation.value in END))
        may_be_whole = whole["complete"] or mutation.value in END
        return page["returned"] == whole["returned"] and (may_be_whole or not page["complete"])

    async with serve_mutated() as server:
        for recording in lists:
            reads = [exchange for exchange in recording.exchanges if exchange.method == "GET"]
            pages = replace(recording, exchanges=reads)
            paths = {exchange.target.partition("?")[0] for exchange in reads}
            for index, exchange in enumerate(reads):
                for mutation in islice(mutate_next_link(index, exchange), len(recording.tool) % 3, None, 3):
                    answer, is_error, replay = await server.replay(pages, mutation)
                    assert judge(pages, mutation, answer, is_error), (recording.tool, mutation.name, answer)
                    sent = {(method, target.partition("?")[0]) for method, target in replay.sent} - {READS_NAMES}
                    assert sent <= {("GET", path) for path in paths}, (recording.tool, mutation.name)


# --- files ------------------------------------------------------------------------------------------------------


def list_storage_exchanges(recording: Recording) -> list[tuple[int, Exchange]]:
    exchanges = enumerate(recording.exchanges)
    return [(index, exchange) for index, exchange in exchanges if exchange.target.startswith("/storage/")]


@pytest.mark.slow
async def test_downloads_save_the_whole_file_or_nothing_despite_odd_values() -> None:
    recordings = await record_calls()
    counts = Counter[str]()
    async with serve_mutated() as server:
        for tool in sorted(DOWNLOADS):
            recording = recordings[tool]
            mutations: list[Mutation] = []
            for index, exchange in select_exchanges(recording.exchanges, writes=False):
                mutations += mutate_answer(index, exchange)
            for index, exchange in list_storage_exchanges(recording):
                mutations += mutate_storage(index, exchange)
            for mutation in mutations:
                answer, is_error, _ = await server.replay(recording, mutation)
                counts["calls"] += 1
                counts["failed"] += is_error
                path = server.get_download_path(recording)
                content = path.read_bytes() if path.exists() else None
                context = (tool, mutation.name, answer)
                assert not [file for file in server.folder.iterdir() if file.name.endswith(".part")], context
                assert (content is None) is is_error, context
                if is_error:
                    assert answer["error"]["code"] != "InternalError", context
                elif "storage" not in mutation.name:
                    assert content == recording.received, context
    print(dict(counts))


async def test_failed_uploads_report_completed_for_any_storage_answer() -> None:
    recordings = await record_calls()
    counts = Counter[str]()
    async with serve_mutated() as server:
        for tool in ("create-imodel-from-file", "push-changeset"):
            for index, exchange in list_storage_exchanges(recordings[tool]):
                for mutation in mutate_storage(index, exchange):
                    answer, is_error, _ = await server.replay(recordings[tool], mutation)
                    counts["calls"] += 1
                    counts["failed"] += is_error
                    if is_error:
                        error = answer["error"]
                        assert error["code"] != "InternalError", (tool, mutation.name, answer)
                        assert len(error["completed"]) == 1, (tool, mutation.name, answer)
    print(dict(counts))


@pytest.mark.slow
async def test_writes_with_odd_later_reads_are_not_reported_as_failed() -> None:
    recordings = await record_calls()
    counts, wrong = Counter[str](), list[str]()
    async with serve_mutated() as server:
        for recording in (one for one in recordings.values() if one.tool in TOOLS.keys() - READS - DOWNLOADS):
            writes = [index for index, exchange in enumerate(recording.exchanges) if exchange.method != "GET"]
            mutations: list[Mutation] = []
            for index, exchange in select_exchanges(recording.exchanges, writes=False):
                if writes and index > writes[0]:
                    mutations += islice(mutate_answer(index, exchange), 0, None, 3)
            for mutation in mutations:
                answer, is_error, replay = await server.replay(recording, mutation)
                counts["calls"] += 1
                counts["failed"] += is_error
                if is_error and replay.writes:
                    error = answer["error"]
                    reports_write = "completed" in error or "job" in error
                    if error["code"] != "UnexpectedAnswer" or error["retryable"] or not reports_write:
                        wrong.append(f"{recording.tool}: {mutation.name}: {str(answer)[:400]}")
    print(dict(counts))
    assert wrong == [], "\n".join(wrong[:40])


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500, 503])
async def test_platform_errors_of_any_shape_have_a_message_and_a_hint(status: int) -> None:
    recordings = await record_calls()

    def make_errors(index: int, exchange: Exchange) -> Iterator[Mutation]:
        return mutate_to_error(index, exchange, status)

    async with serve_mutated() as server:
        await replay_mutations(
            server, [recordings["get-imodel"], recordings["list-itwins"]], make_errors, judge_refusal, step=2
        )
        await replay_mutations(server, [recordings["create-itwin"]], make_errors, judge_refusal, writes=True, step=2)


RESOURCES = {
    "itwin://itwins/{iTwinId}": "get-itwin",
    "itwin://imodels/{iModelId}": "get-imodel",
    "itwin://imodels/{iModelId}/changesets/{changesetId}": "get-changeset",
    "itwin://repositories/{repositoryId}": "get-global-repository",
}
"""Resource templates, each with a tool that has the same arguments."""


@pytest.mark.parametrize("template", RESOURCES)
async def test_resources_return_the_rest_despite_one_odd_value(template: str) -> None:
    recordings = await record_calls()
    arguments = recordings[RESOURCES[template]].arguments
    uri = template.format(**arguments, changesetId=arguments.get("changeset"))
    failed, empty = dict[str, str](), set[str]()
    async with serve_mutated() as server:
        with server.proxy.recording() as exchanges:
            await server.client.read_resource(uri)
        for mutation in islice(mutate_fields(0, exchanges[0]), 0, None, 5):
            with server.proxy.replaying(exchanges, mutation):
                try:
                    read = await server.client.read_resource(uri)
                except MCPError as error:
                    failed[mutation.name] = error.error.data["error"]["code"]
                    empty.add(mutation.name if len(mutation.place or ()) == 1 else "")
                else:
                    assert isinstance(json.loads(read.contents[0].text), dict)  # type: ignore[union-attr]
    assert {*failed} == empty
    assert {*failed.values()} <= {"UnexpectedAnswer"}


async def test_completions_offer_no_null_value() -> None:
    reference = ResourceTemplateReference(type="ref/resource", uri="itwin://itwins/{iTwinId}")
    async with serve_mutated() as server:
        with server.proxy.recording() as exchanges:
            answer = await server.client.complete(reference, {"name": "iTwinId", "value": ""})
        assert answer.completion.values
    for mutation in islice(mutate_fields(0, exchanges[0]), 0, None, 40):
        async with serve_mutated() as server:
            with server.proxy.replaying(exchanges, mutation):
                values = (await server.client.complete(reference, {"name": "iTwinId", "value": ""})).completion.values
            assert not {"None", "null", ""} & {*values}, mutation.name
