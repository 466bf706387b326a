"""Completions from the platform: filtered, bounded, cached for a minute, and never an error."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import (
    CompleteRequestParams,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import Unreachable
from itwin_mcp.executor.context import LOCAL
from itwin_mcp.executor.outcome import Outcome, Result
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.runtime import read_catalog
from itwin_mcp.server import completions
from itwin_mcp.server.completions import Completions
from itwin_mcp.settings import read_settings
from tests.conftest import connect

pytestmark = pytest.mark.anyio

VERSION_URI = "itwin://imodels/{iModelId}/namedversions/{namedVersionId}"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Record every tool that completions run, with its arguments."""
    calls: list[tuple[str, dict[str, Any]]] = []
    original_call = Executor.call

    async def call(self: Executor, tool: Tool, arguments: Any, *more: Any, **named: Any) -> dict[str, Any]:
        calls.append((tool.name, dict(arguments)))
        return await original_call(self, tool, arguments, *more, **named)

    monkeypatch.setattr(Executor, "call", call)
    return calls


async def complete_argument(client: Client, name: str, argument: str, typed: str, **context: str) -> Completion:
    result = await client.complete(
        PromptReference(name=name), {"name": argument, "value": typed}, context_arguments=context or None
    )
    return result.completion


async def complete_variable(client: Client, uri: str, argument: str, typed: str, **context: str) -> Completion:
    result = await client.complete(
        ResourceTemplateReference(uri=uri), {"name": argument, "value": typed}, context_arguments=context or None
    )
    return result.completion


@asynccontextmanager
async def connect_with_recent(mode: str) -> AsyncIterator[tuple[Client, list[dict[str, Any]]]]:
    """Yield a client, and the caller's recent iTwins."""
    async with connect(mode) as client:
        recent = (await client.call_tool("list-recent-itwins", {})).structured_content
        assert recent is not None
        yield client, recent["iTwins"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_itwin_completions_are_recent_ones_then_search_hits(
    mode: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    async with connect_with_recent(mode) as (client, recent):
        calls.clear()
        names = (await complete_argument(client, "review-project", "iTwinId", "")).values
        assert names == [itwin["displayName"] for itwin in recent]
        typed = recent[-1]["displayName"][2:7].upper()
        hits = await complete_argument(client, "review-project", "iTwinId", typed)
        assert recent[-1]["displayName"] in hits.values
        assert all(isinstance(value, str) for value in hits.values)
        assert [name for name, _ in calls] == ["list-recent-itwins", "list-itwins"]
        by_id_start = await complete_argument(client, "review-project", "iTwinId", recent[0]["id"][:8])
        assert by_id_start.values == [recent[0]["id"]]
        by_id_part = await complete_argument(client, "review-project", "iTwinId", recent[0]["id"][:5])
        assert recent[0]["id"] in by_id_part.values
        for year in ("2026", "2026-20"):
            assert (
                "Corridor Renewal 2026-2030"
                in (await complete_argument(client, "review-project", "iTwinId", year)).values
            )
        no_hits = await complete_argument(client, "review-project", "iTwinId", "no such project anywhere")
        assert (no_hits.values, no_hits.total, no_hits.has_more) == ([], 0, False)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_template_completions_are_ids_found_by_prefix_or_name(mode: str) -> None:
    async with connect_with_recent(mode) as (client, recent):
        uri = "itwin://itwins/{iTwinId}"
        assert (await complete_variable(client, uri, "iTwinId", "")).values == [itwin["id"] for itwin in recent]
        by_name = await complete_variable(client, uri, "iTwinId", recent[0]["displayName"])
        assert recent[0]["id"] in by_name.values


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_version_and_changeset_completions_belong_to_the_given_imodel(
    mode: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    async with connect_with_recent(mode) as (client, recent):
        imodels = (await complete_argument(client, "audit-access", "iModelId", "")).values
        assert imodels
        calls.clear()
        versions = await complete_argument(client, "investigate-changes", "newerVersionId", "", iModelId=imodels[0])
        assert [name for name, _ in calls] == ["list-named-versions"]
        assert all(isinstance(value, str) for value in versions.values)
        listed = (await client.call_tool("list-imodels", {"iTwinId": recent[0]["id"]})).structured_content
        assert listed is not None
        for imodel in listed["iModels"]:
            history = (await client.call_tool("list-changesets", {"iModelId": imodel["id"]})).structured_content
            assert history is not None
            ids = [changeset["id"] for changeset in history["changesets"]]
            uri = "itwin://imodels/{iModelId}/changesets/{changesetId}"
            offered = await complete_variable(client, uri, "changesetId", "", iModelId=imodel["id"])
            assert offered.values == ids[:100]
        without_imodel = await complete_variable(client, VERSION_URI, "namedVersionId", "")
        assert without_imodel.values == []
        with_unknown_imodel = await complete_argument(
            client, "investigate-changes", "newerVersionId", "", iModelId="never offered"
        )
        assert with_unknown_imodel.values == []


async def test_prefixed_argument_completes_like_the_argument(calls: list[tuple[str, dict[str, Any]]]) -> None:
    async with connect_with_recent("auto") as (client, recent):
        calls.clear()
        offered = await complete_argument(client, "prepare-handover", "toITwinId", "")
        assert offered.values == [itwin["displayName"] for itwin in recent]
        await complete_argument(client, "prepare-handover", "iModelId", "", toITwinId=recent[1]["displayName"])
        assert calls[-1][1]["iTwinId"] == recent[0]["id"], "the source is not in the target iTwin"


async def test_prompt_choices_complete_without_a_request(calls: list[tuple[str, dict[str, Any]]]) -> None:
    async with connect() as client:
        for typed, values in (("", ["clone", "fork"]), ("FO", ["fork"]), ("x", [])):
            assert (await complete_argument(client, "prepare-handover", "keep", typed)).values == values
    assert calls == []


async def test_unknown_context_has_no_completions() -> None:
    async with connect() as client:
        assert (await complete_argument(client, "review-project", "since", "20")).values == []
        for name, argument in (("no-prompt", "x"), ("review-project", "x")):
            with pytest.raises(MCPError) as caught:
                await complete_argument(client, name, argument, "")
            assert caught.value.error.code == -32602
        with pytest.raises(MCPError) as caught:
            await complete_variable(client, "itwin://nothing/{x}", "x", "")
        assert caught.value.error.code == -32602


async def test_completions_are_cached_for_a_minute(calls: list[tuple[str, dict[str, Any]]]) -> None:
    async with connect() as client:
        for typed in ("", "b", "br", "", "b"):
            await complete_argument(client, "review-project", "iTwinId", typed)
        assert len(calls) == 3


async def test_failed_completion_is_empty_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Executor, *_: Any, **__: Any) -> dict[str, Any]:
        raise Unreachable("Unreachable", "No answer came.", hint="Later.")

    async def hang(self: Executor, *_: Any, **__: Any) -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async with connect() as client:
        with caplog.at_level(logging.WARNING):
            monkeypatch.setattr(Executor, "call", fail)
            assert (await complete_argument(client, "review-project", "iTwinId", "")).values == []
            assert "Unreachable" in caplog.text
            monkeypatch.setattr(Executor, "call", hang)
            monkeypatch.setattr(completions, "MAX_SECONDS", 0.0)
            assert (await complete_argument(client, "review-project", "iTwinId", "x")).values == []
            assert "longer than" in caplog.text


async def test_completions_are_bounded_and_ambiguous_names_become_ids() -> None:
    class ManyITwins:
        async def call(self, tool: Tool, arguments: Any, **_: Any) -> Outcome:
            names = ["twice", "twice", "a\u202eb", "", "x" * 300, *(f"Pier {n}" for n in range(200))]
            itwins = [{"id": f"id-{n}", "displayName": name} for n, name in enumerate(names)]
            return Result({"iTwins": itwins, "page": {"returned": len(itwins), "complete": False, "total": 999}})

    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    params = CompleteRequestParams(
        ref=PromptReference(name="review-project"),
        argument=CompletionArgument(name="iTwinId", value=""),
        context=CompletionContext(arguments={}),
    )
    result = await Completions(catalog, ManyITwins(), lambda: LOCAL).complete(None, params)  # type: ignore[arg-type]
    assert result.completion.values[:6] == ["id-0", "id-1", "id-2", "id-3", "id-4", "Pier 0"]
    assert (len(result.completion.values), result.completion.total, result.completion.has_more) == (100, 999, True)


async def test_every_entity_argument_has_a_completion_source() -> None:
    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    for resource in catalog.resources:
        assert set(resource.variables) == set(resource.entities), resource.uri
        assert all(entity.sources for entity in resource.entities.values()), resource.uri
    for entity in catalog.entities.values():
        for source in entity.sources:
            assert source.items in catalog.tools[source.tool].output_schema["properties"]
    async with connect() as client:
        for resource in catalog.resources:
            for variable in resource.variables:
                await complete_variable(client, resource.uri, variable, "")
