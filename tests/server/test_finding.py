"""`find-tools`: the right tool is among the first three, and no destructive tool ranks first."""

import csv
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp import Client

from itwin_mcp.capability import strict_yaml
from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.vocabulary import read_vocabulary
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.runtime import read_all, read_catalog
from itwin_mcp.server.dynamic_tools import DynamicTools
from itwin_mcp.server.tool_search import split_words, stem
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.client import UpstreamClient
from tests.conftest import connect
from tests.executor.bench import answer_of

pytestmark = pytest.mark.anyio

QUESTIONS = Path(__file__).parent / "questions"
TUNING_FLOOR = 0.98
UNTOUCHED_FLOOR = 0.93


def read_tools() -> dict[str, Tool]:
    tools = read_all(read_settings(os.environ, sandbox=True)).tools
    return {name: tool for name, tool in tools.items() if tool.toolset != "dynamic"}


TOOLS = read_tools()
DESTRUCTIVE = {name for name, tool in TOOLS.items() if tool.annotations.destructive}
WRITING = {name for name, tool in TOOLS.items() if not tool.annotations.read_only}


def read_questions(name: str) -> list[dict[str, str]]:
    with (QUESTIONS / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Client]:
    """Yield a client of a server that also has `sign-in` and `save-list`. These tests send nothing to the platform."""
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(sandbox=False, toolsets="dynamic", files_root=[tmp_path]) as client:
        yield client


async def ask(client: Client, query: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool("find-tools", {"query": query, **arguments})
    assert not result.is_error
    assert result.structured_content is not None
    return result.structured_content


async def find(client: Client, query: str, limit: int = 20) -> list[str]:
    return [tool["name"] for tool in (await ask(client, query, limit=limit))["tools"]]


async def find_misses(client: Client, questions: list[dict[str, str]]) -> list[tuple[str, str, list[str]]]:
    misses = []
    for row in questions:
        hits = await find(client, row["question"], 3)
        if not set(row["tools"].split(",")) & set(hits):
            misses.append((row["question"], row["tools"], hits))
    return misses


# --- hit rates ----------------------------------------------------------------------------------------------------


async def test_tuning_questions_find_their_tool(client: Client) -> None:
    questions = read_questions("tuning")
    misses = await find_misses(client, questions)
    assert len(questions) >= 100
    assert 1 - len(misses) / len(questions) >= TUNING_FLOOR, misses


async def test_untouched_questions_find_their_tool(client: Client) -> None:
    """Do not tune the search with these questions. Add questions that fail in practice to the tuning set."""
    questions = read_questions("untouched")
    misses = await find_misses(client, questions)
    assert len(questions) >= 150
    assert sum(row["language"] != "en" for row in questions) * 3 >= len(questions)
    assert 1 - len(misses) / len(questions) >= UNTOUCHED_FLOOR, f"{len(misses)} of {len(questions)} missed"


@pytest.mark.parametrize(("name", "floor"), [("tuning-beyond", 1.0), ("untouched-beyond", 0.84)])
async def test_question_for_another_api_names_that_api(client: Client, name: str, floor: float) -> None:
    questions = read_questions(name)
    named = 0
    for row in questions:
        answer = await ask(client, row["question"])
        named += any(row["api"] in api["api"] for api in answer.get("otherApis", ()))
    assert named / len(questions) >= floor


@pytest.mark.slow
async def test_find_tools_names_no_other_api_for_a_covered_question(client: Client) -> None:
    wrong = []
    for row in read_questions("tuning"):
        answer = await ask(client, row["question"])
        if "otherApis" in answer:
            wrong.append((row["question"], answer["otherApis"]))
    assert wrong == []


def test_no_question_is_in_both_sets() -> None:
    tuning = {tuple(split_words(row["question"])) for row in read_questions("tuning")}
    untouched = {tuple(split_words(row["question"])) for row in read_questions("untouched")}
    assert tuning & untouched == set()


# --- rules for every tool -----------------------------------------------------------------------------------------


async def test_exact_name_and_title_rank_first(client: Client) -> None:
    wrong = []
    for name, tool in TOOLS.items():
        queries = (name, tool.title, tool.title.upper(), name.replace("-", "_"), f"please call {name} now")
        wrong += [(query, name) for query in queries if (await find(client, query, 1)) != [name]]
    assert wrong == []


@pytest.mark.parametrize("query", ["who may {}?", "which things can I {}", "wer darf {}", "tell me how to {}"])
async def test_reading_question_ranks_no_writing_tool_first(client: Client, query: str) -> None:
    wrong = []
    for name in WRITING:
        hits = await find(client, query.format(TOOLS[name].title.lower()))
        wrong += [(name, hit) for hit in hits[:1] if hit in WRITING]
        wrong += [(name, hit) for hit in hits if hit in DESTRUCTIVE]
    assert wrong == []


@pytest.mark.parametrize("query", ["list released locks", "show the created imodels", "list of deleted itwins"])
async def test_past_tense_after_a_reading_verb_is_a_read(client: Client, query: str) -> None:
    assert (await find(client, query, 1))[0] not in WRITING


async def test_question_without_verb_finds_no_destructive_tool(client: Client) -> None:
    wrong = []
    for name in sorted(DESTRUCTIVE):
        nouns = " ".join(name.split("-")[1:]).replace("share", "shares")  # `share` is a verb too
        wrong += [(nouns, hit) for hit in await find(client, nouns) if hit in DESTRUCTIVE]
    assert wrong == []


async def test_destructive_tool_ranks_first_only_if_asked_for(client: Client) -> None:
    wrong = []
    for row in read_questions("tuning"):
        if not DESTRUCTIVE & set(row["tools"].split(",")):
            hits = await find(client, row["question"], 1)
            wrong += [(row["question"], hits)] if DESTRUCTIVE & set(hits) else []
    assert wrong == []


async def test_destructive_verb_finds_its_tool(client: Client) -> None:
    wrong = []
    for name in sorted(DESTRUCTIVE):
        verb, *nouns = name.split("-")
        hits = await find(client, f"please {verb} the {' '.join(nouns)} now", 3)
        wrong += [] if name in hits else [(name, hits)]
    assert wrong == []


# --- the answer ---------------------------------------------------------------------------------------------------


async def test_find_tools_shows_types_and_choices_of_arguments(client: Client) -> None:
    by_name = {tool["name"]: tool for tool in (await ask(client, "list-itwins"))["tools"]}
    arguments = by_name["list-itwins"]["arguments"]
    assert "status?: Active | Inactive | Trial" in arguments
    assert any(line.startswith("limit?: integer 1..") for line in arguments)
    locks = (await ask(client, "acquire-locks", limit=1))["tools"][0]["arguments"]
    assert "iModelId: string" in locks
    assert "objectIds: list of string" in locks
    assert "lockLevel?: shared | exclusive" in locks


async def test_find_tools_names_a_type_for_every_argument(client: Client) -> None:
    for name, tool in TOOLS.items():
        lines = (await ask(client, name, limit=1))["tools"][0]["arguments"]
        assert [line.split(":")[0].rstrip("?") for line in lines] == [argument.name for argument in tool.arguments]
        assert all(line.partition(": ")[2] for line in lines), lines


async def test_session_tools_are_found_and_called_directly(client: Client) -> None:
    for name in ("who-am-i", "sign-in"):
        best = (await ask(client, name, limit=1))["tools"][0]
        assert (best["name"], best["runWith"]) == (name, name)
        described = (await client.call_tool("describe-tool", {"name": name})).structured_content
        assert described is not None
        assert described["tool"]["inputSchema"]["type"] == "object"


@pytest.mark.parametrize("query", ["zzzz", '"', "NEAR( * ) AND -", "what is it?", "': DROP INDEX x; --", "\u0301"])
async def test_question_without_hits_lists_all_names_by_toolset(query: str) -> None:
    async with connect(toolsets="dynamic", exclude_tools="list-locks", read_only=True) as client:
        answer = await ask(client, query)
        names = {name for toolset in answer["toolsets"].values() for name in toolset}
        assert names == {name for name in TOOLS if name not in WRITING} - {"list-locks", "sign-in"}
        assert answer["toolsets"]["session"] == ["who-am-i", "read-guide"]


async def test_question_with_hits_lists_no_names(client: Client) -> None:
    assert set(await ask(client, "list the models of a project")) == {"tools"}


async def test_find_tools_answers_are_small_and_fit_their_schema(client: Client) -> None:
    (tool,) = (tool for tool in (await client.list_tools()).tools if tool.name == "find-tools")
    assert tool.output_schema is not None
    schema = Draft202012Validator(tool.output_schema)
    sizes = []
    for row in [*read_questions("tuning"), *read_questions("tuning-beyond"), {"question": "zzzz"}]:
        answer = await ask(client, row["question"])
        schema.validate(answer)
        sizes.append(len(json.dumps(answer, separators=(",", ":"))) / 4)
    assert sum(sizes) / len(sizes) < 900
    assert max(sizes) < 2200


async def test_query_description_asks_for_english_nouns(client: Client) -> None:
    (tool,) = (tool for tool in (await client.list_tools()).tools if tool.name == "find-tools")
    text = tool.input_schema["properties"]["query"]["description"]
    assert "English" in text
    for pair in ("project = iTwin", "model = iModel", "checkout = briefcase", "milestone = named version"):
        assert pair in text


async def test_search_understands_typos(client: Client) -> None:
    assert "list-changesets" in await find(client, "lsit chagnesets of the imodel", 3)
    assert "list-repositories" in await find(client, "list repositries", 3)


async def test_search_finds_tools_of_a_users_capability_file(tmp_path: Path) -> None:
    from tests.capability.files import GOOD

    file = tmp_path / "own.yaml"
    file.write_text(GOOD)
    settings = read_settings(os.environ, sandbox=True, toolsets="dynamic", capabilities=(file,))
    own_tools = [name for name, tool in read_catalog(settings).reachable.items() if tool.file == str(file)]
    async with connect(toolsets="dynamic", capabilities=(file,)) as client:
        for name in own_tools:
            assert (await find(client, name.replace("-", " "), 1)) == [name]
    assert own_tools


# --- the vocabulary -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_vocabulary_is_read_at_the_first_search() -> None:
    reads: list[str] = []

    def read_words() -> Any:
        reads.append("read")
        return catalog.vocabulary()

    catalog = read_catalog(read_settings(os.environ, sandbox=True, toolsets="dynamic"))
    dynamic = DynamicTools(replace(catalog, vocabulary=read_words), lambda _, __: True)
    async with UpstreamClient("https://api.bentley.com", None, user_agent="itwin-mcp/test") as upstream:
        executor = Executor(upstream, Seals(lambda: [b"k" * 32]), built_in=dynamic.handlers)
        described = answer_of(await executor.call(catalog.tools["describe-tool"], {"name": "list-itwins"}))
        assert (described["tool"]["name"], reads) == ("list-itwins", [])
        hits = answer_of(await executor.call(catalog.tools["find-tools"], {"query": "list itwins"}))
        assert hits["tools"]
    assert reads == ["read"]


def test_vocabulary_cache_is_rebuilt_if_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_shipped_files()[0].parent
    vocabulary = read_vocabulary(folder, tmp_path)
    (cache_file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(strict_yaml, "parse", None)
        assert read_vocabulary(folder, tmp_path) == vocabulary
    cache_file.write_text("{")
    assert read_vocabulary(folder, tmp_path) == vocabulary
    assert read_vocabulary(folder) == vocabulary


def test_vocabulary_names_existing_tools_and_words() -> None:
    vocabulary = read_vocabulary(find_shipped_files()[0].parent)
    assert set(vocabulary.asked) <= set(TOOLS)
    texts = (
        f"{tool.name} {tool.title} {tool.description} {tool.toolset} {json.dumps(tool.input_schema)} "
        f"{json.dumps(tool.output_schema)}"
        for tool in TOOLS.values()
    )
    tool_stems = {stem(word) for text in texts for word in split_words(text)}
    meanings = {
        stem(word) for meanings in vocabulary.meanings.values() for text in meanings for word in split_words(text)
    }
    assert meanings - tool_stems == set()
