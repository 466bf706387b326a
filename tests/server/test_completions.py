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

VERSION = "itwin://imodels/{iModelId}/namedversions/{namedVersionId}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Record every tool that completions run, with its arguments."""
    seen: list[tuple[str, dict[str, Any]]] = []
    whole = Executor.call

    async def call(self: Executor, tool: Tool, arguments: Any, *more: Any, **named: Any) -> dict[str, Any]:
        seen.append((tool.name, dict(arguments)))
        return await whole(self, tool, arguments, *more, **named)

    monkeypatch.setattr(Executor, "call", call)
    return seen


async def prompt(client: Client, name: str, argument: str, typed: str, **beside: str) -> Completion:
    result = await client.complete(
        PromptReference(name=name), {"name": argument, "value": typed}, context_arguments=beside or None
    )
    return result.completion


async def template(client: Client, uri: str, argument: str, typed: str, **beside: str) -> Completion:
    result = await client.complete(
        ResourceTemplateReference(uri=uri), {"name": argument, "value": typed}, context_arguments=beside or None
    )
    return result.completion


@asynccontextmanager
async def both(mode: str) -> AsyncIterator[tuple[Client, list[dict[str, Any]]]]:
    """Yield a client and the caller's recent iTwins."""
    async with connect(mode) as client:
        recent = (await client.call_tool("list-recent-itwins", {})).structured_content
        assert recent is not None
        yield client, recent["iTwins"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_itwin_completions_are_recent_ones_then_search_hits(
    mode: str, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    async with both(mode) as (client, recent):
        asked.clear()
        names = (await prompt(client, "review-project", "iTwinId", "")).values
        assert names == [itwin["displayName"] for itwin in recent]
        typed = recent[-1]["displayName"][2:7].upper()
        found = await prompt(client, "review-project", "iTwinId", typed)
        assert recent[-1]["displayName"] in found.values
        assert all(isinstance(value, str) for value in found.values)
        assert [name for name, _ in asked] == ["list-recent-itwins", "list-itwins"]
        started = await prompt(client, "review-project", "iTwinId", recent[0]["id"][:8])
        assert started.values == [recent[0]["id"]]
        shorter = await prompt(client, "review-project", "iTwinId", recent[0]["id"][:5])
        assert recent[0]["id"] in shorter.values
        for year in ("2026", "2026-20"):
            assert "Corridor Renewal 2026-2030" in (await prompt(client, "review-project", "iTwinId", year)).values
        nothing = await prompt(client, "review-project", "iTwinId", "no such project anywhere")
        assert (nothing.values, nothing.total, nothing.has_more) == ([], 0, False)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_template_completions_are_ids_found_by_prefix_or_name(mode: str) -> None:
    async with both(mode) as (client, recent):
        uri = "itwin://itwins/{iTwinId}"
        assert (await template(client, uri, "iTwinId", "")).values == [itwin["id"] for itwin in recent]
        by_name = await template(client, uri, "iTwinId", recent[0]["displayName"])
        assert recent[0]["id"] in by_name.values


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_version_and_changeset_completions_belong_to_the_given_imodel(
    mode: str, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    async with both(mode) as (client, recent):
        imodels = (await prompt(client, "audit-access", "iModelId", "")).values
        assert imodels
        asked.clear()
        versions = await prompt(client, "investigate-changes", "newerVersionId", "", iModelId=imodels[0])
        assert [name for name, _ in asked] == ["list-named-versions"]
        assert all(isinstance(value, str) for value in versions.values)
        listed = (await client.call_tool("list-imodels", {"iTwinId": recent[0]["id"]})).structured_content
        assert listed is not None
        for imodel in listed["iModels"]:
            history = (await client.call_tool("list-changesets", {"iModelId": imodel["id"]})).structured_content
            assert history is not None
            ids = [changeset["id"] for changeset in history["changesets"]]
            uri = "itwin://imodels/{iModelId}/changesets/{changesetId}"
            offered = await template(client, uri, "changesetId", "", iModelId=imodel["id"])
            assert offered.values == ids[:100]
        none = await template(client, VERSION, "namedVersionId", "")
        assert none.values == []
        unknown = await prompt(client, "investigate-changes", "newerVersionId", "", iModelId="never offered")
        assert unknown.values == []


async def test_prefixed_argument_completes_like_the_argument(asked: list[tuple[str, dict[str, Any]]]) -> None:
    async with both("auto") as (client, recent):
        asked.clear()
        offered = await prompt(client, "prepare-handover", "toITwinId", "")
        assert offered.values == [itwin["displayName"] for itwin in recent]
        await prompt(client, "prepare-handover", "iModelId", "", toITwinId=recent[1]["displayName"])
        assert asked[-1][1]["iTwinId"] == recent[0]["id"]  # the source is not looked for where the copy goes


async def test_prompt_choices_complete_without_a_request(asked: list[tuple[str, dict[str, Any]]]) -> None:
    async with connect() as client:
        for typed, values in (("", ["clone", "fork"]), ("FO", ["fork"]), ("x", [])):
            assert (await prompt(client, "prepare-handover", "keep", typed)).values == values
    assert asked == []


async def test_unknown_context_has_no_completions() -> None:
    async with connect() as client:
        assert (await prompt(client, "review-project", "since", "20")).values == []
        for name, argument in (("no-prompt", "x"), ("review-project", "x")):
            with pytest.raises(MCPError) as caught:
                await prompt(client, name, argument, "")
            assert caught.value.error.code == -32602
        with pytest.raises(MCPError) as caught:
            await template(client, "itwin://nothing/{x}", "x", "")
        assert caught.value.error.code == -32602


async def test_completions_are_cached_for_a_minute(asked: list[tuple[str, dict[str, Any]]]) -> None:
    async with connect() as client:
        for typed in ("", "b", "br", "", "b"):
            await prompt(client, "review-project", "iTwinId", typed)
        assert len(asked) == 3


async def test_failed_completion_is_empty_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(self: Executor, *_: Any, **__: Any) -> dict[str, Any]:
        raise Unreachable("Unreachable", "No answer came.", hint="Later.")

    async def slow(self: Executor, *_: Any, **__: Any) -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async with connect() as client:
        with caplog.at_level(logging.WARNING):
            monkeypatch.setattr(Executor, "call", down)
            assert (await prompt(client, "review-project", "iTwinId", "")).values == []
            assert "Unreachable" in caplog.text
            monkeypatch.setattr(Executor, "call", slow)
            monkeypatch.setattr(completions, "MAX_SECONDS", 0.0)
            assert (await prompt(client, "review-project", "iTwinId", "x")).values == []
            assert "longer than" in caplog.text


async def test_completions_are_bounded_and_ambiguous_names_become_ids() -> None:
    class Many:
        async def call(self, tool: Tool, arguments: Any, **_: Any) -> Outcome:
            names = ["twice", "twice", "a\u202eb", "", "x" * 300, *(f"Pier {n}" for n in range(200))]
            twins = [{"id": f"id-{n}", "displayName": name} for n, name in enumerate(names)]
            return Result({"iTwins": twins, "page": {"returned": len(twins), "complete": False, "total": 999}})

    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    params = CompleteRequestParams(
        ref=PromptReference(name="review-project"),
        argument=CompletionArgument(name="iTwinId", value=""),
        context=CompletionContext(arguments={}),
    )
    result = await Completions(catalog, Many(), lambda: LOCAL).complete(None, params)  # type: ignore[arg-type]
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
                await template(client, resource.uri, variable, "")
