"""Prompts are listed and filled in, and mention only existing tools."""

import os
import re

import pytest
from mcp import MCPError
from mcp.types import TextContent

from itwin_mcp.runtime import read_catalog
from itwin_mcp.server.prompts import fill
from itwin_mcp.settings import read_settings
from tests.conftest import connect

pytestmark = pytest.mark.anyio

ALL = {"review-project", "prepare-handover", "investigate-changes", "audit-access", "begin-authoring"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_prompts_are_listed_with_titles_and_arguments(mode: str) -> None:
    async with connect(mode) as client:
        listed = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert listed.keys() == ALL
        for prompt in listed.values():
            assert prompt.title
            assert prompt.description
            for argument in prompt.arguments or []:
                assert argument.title
                assert argument.description
        required = {argument.name: argument.required for argument in listed["review-project"].arguments or []}
        assert required == {"iTwinId": True, "since": False}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_prompt_arguments_are_inserted_once_and_not_expanded(mode: str) -> None:
    async with connect(mode) as client:
        arguments = {"iTwinId": "{{since}} & `rm`\u202e", "since": "{{iTwinId}}\x07"}
        prompt = await client.get_prompt("review-project", arguments)
        assert prompt.description
        (message,) = prompt.messages
        assert message.role == "user"
        assert isinstance(message.content, TextContent)
        assert "Review this iTwin for me: {{since}} & `rm`\n" in message.content.text
        assert "recent since: {{iTwinId}} (" in message.content.text
        without_since = await client.get_prompt("review-project", {"iTwinId": "A12"})
        assert isinstance(without_since.messages[0].content, TextContent)
        assert "{{" not in without_since.messages[0].content.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("review-project", {}, "needs iTwinId"),
        ("review-project", {"iTwinId": "  \x00"}, "needs iTwinId"),
        ("prepare-handover", {"name": "90%"}, "needs iModelId, toITwinId"),
        ("review-project", {"iTwinId": "x", "color": "red"}, "no argument color"),
        ("review-project", {"iTwinId": "x" * 2049}, "more than 2048"),
        ("no-such-prompt", {}, "Unknown prompt"),
    ],
)
async def test_invalid_get_prompt_request_returns_invalid_params(
    mode: str, name: str, arguments: dict[str, str], words: str
) -> None:
    async with connect(mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.get_prompt(name, arguments)
        assert caught.value.error.code == -32602
        assert words in caught.value.error.message


async def test_prompt_is_served_only_if_its_tools_are() -> None:
    for flags, names in (
        ({"toolsets": None}, {"review-project", "prepare-handover", "investigate-changes"}),
        ({"toolsets": "dynamic"}, ALL),
        ({"read_only": True}, {"review-project", "investigate-changes", "audit-access"}),
        ({"exclude_tools": "find-itwin"}, {"investigate-changes", "audit-access", "begin-authoring"}),
        ({"toolsets": "named-versions,changesets"}, {"investigate-changes"}),
    ):
        async with connect(**flags) as client:  # type: ignore[arg-type]
            assert {prompt.name for prompt in (await client.list_prompts()).prompts} == names, flags


def test_prompts_mention_only_existing_tools() -> None:
    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    quoted = {name for prompt in catalog.prompts.values() for name in prompt.quoted}
    assert quoted - catalog.tools.keys() <= {"job"}
    for prompt in catalog.prompts.values():
        text = " ".join(content for _, content in prompt.messages)
        mentioned = set(re.findall(r"\b(?:list|get|find|clone|fork|create|compare|describe|wait)-[a-z-]+[a-z]", text))
        assert mentioned <= prompt.quoted, f"{prompt.name} names tools without backticks"


def test_fill_replaces_slots_in_one_pass() -> None:
    assert fill("{{a}}{{ b }}{{c}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}}{{a}}"
