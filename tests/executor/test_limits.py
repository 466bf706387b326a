"""Untrusted text is cleaned and stays readable; an answer stays within its size limit and reports what it omits."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itwin_mcp.errors import AnswerTooLarge
from itwin_mcp.executor.answers import add_other_fields
from itwin_mcp.executor.limits import fit, measure
from itwin_mcp.text import clean
from tests.executor.bench import IMODEL, ITWIN, answer_of, bench, query_of
from tests.steps import steps_of
from tests.upstream.loopback import Asked, loopback

# --- untrusted text ---------------------------------------------------------------------------------------------

STAYS = [
    *("plain text", "two\nlines\tand a tab", "Brücke № 7 — “Süd”", "გზა"),
    *("桥梁工程（二期）", "橋りょう ﾊｼ", "다리 공사"),
    *("🏗️ site", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👷🏽‍♀️", "1️⃣2️⃣", "✈︎", "🇳🇱", "❤️‍🔥", "☎️"),
    *("جسر رقم ٧", "می‌خواهم", "کتاب‌ها", "גשר", "שָׁלוֹם", "क्‍ष", "ശ്രീ ന്‍", "ක්‍රි", "ස්‍ත්‍රී", "ᠮᠣᠩᠭᠣᠯ᠎ᠠ", "۝١"),
]
GOES = {
    "tag characters": ("go\U000e0064\U000e0065\U000e006c\U000e007f on", "go on"),
    "tags after a flag": ("🏴\U000e0067\U000e0062\U000e007f", "🏴"),
    "override": ("a\u202egnp.exe\u202c", "agnp.exe"),
    "isolates": ("\u2066x\u2067y\u2068z\u2069", "xyz"),
    "embeddings and marks": ("\u202a\u202b\u202d\u200e\u200f\u061cx", "x"),
    "zero-width space": ("ig\u200bnore", "ignore"),
    "joiners in Latin": ("ig\u200cno\u200dre", "ignore"),
    "joiners in a row": ("می\u200c\u200d\u200cخ", "می‌خ"),
    "joiner at an end": ("👩\u200d", "👩"),
    "joiner between emoji and letter": ("👩\u200dx", "👩x"),
    "word joiner, BOM, soft hyphen": ("a\u2060b\ufeffc\u00add", "abcd"),
    "invisible operators": ("f\u2061x\u2062y\u2063z\u2064", "fxyz"),
    "selectors after letters": ("a\ufe0fb\ufe01c\U000e0101", "abc"),
    "selectors in a row": ("🏗\ufe0f\ufe0f\ufe0e\ufe00", "🏗\ufe0f"),
    "selector after a digit": ("1\ufe0f2", "12"),
    "controls": ("a\x00b\x07c\x1b[31md\x7fe\x85f\x9b", "abc[31mdef"),
    "private use": ("a\ue000\uf8ffb\U000f0000", "ab"),
    "surrogates": ("a\ud800b\udfff", "ab"),
    "noncharacters": ("a\ufffe\uffff\U0001ffffb", "ab"),
    "annotations": ("a\ufff9b\ufffac\ufffb", "abc"),
    "fillers": ("a\u3164b\u115f\u1160\uffa0\u034f", "ab"),
    "line ends": ("a\r\nb\rc\u2028d\u2029e", "a\r\nb\nc\nd\ne"),
    "shorthand format controls": ("a\U0001bca0\U0001d173b", "ab"),
}


@pytest.mark.parametrize("text", STAYS)
def test_clean_keeps_characters_that_languages_need(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("name", GOES)
def test_clean_strips_invisible_characters(name: str) -> None:
    given_text, cleaned = GOES[name]
    assert clean(given_text) == cleaned
    assert clean({given_text: [given_text, {"a": given_text}]}) == {cleaned: [cleaned, {"a": cleaned}]}


def test_clean_keeps_values_that_are_not_text() -> None:
    assert clean({"a": [1, 2.5, None, True]}) == {"a": [1, 2.5, None, True]}


TRICKY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\u200b\u200c\u200d\u202e\ufe0f\ufe0e\u20e31#👩🏽🏗🏳🌈می\u0915\u094d\u1820\u180b\u180e\r\n\u2028"
            "\U000e0041\U0001faff\u034f"
        ),
    )
)


@given(TRICKY)
def test_clean_is_idempotent(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    once.encode()
    assert not set(once) & set("\u200b\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


@given(TRICKY)
def test_clean_only_removes_characters(text: str) -> None:
    left = iter(re.sub("\r(?!\n)|[\u2028\u2029]", "\n", text))
    assert all(character in left for character in clean(text))


@pytest.mark.anyio
async def test_tool_and_resource_answers_are_cleaned() -> None:
    async def answer(request: Asked) -> None:
        await request.json(200, {"iTwin": {"id": ITWIN, "displayName": "A\u202e12\u200b \U000e0041桥"}})

    async with bench("", answer, shipped_files=True) as harness:
        assert (await harness.call("get-itwin", iTwinId=ITWIN))["iTwin"]["displayName"] == "A12 桥"
        resource = next(
            resource
            for resource in harness.catalog.resources
            if resource.entities == {"iTwinId": harness.catalog.entities["itwin"]}
        )
        read = answer_of(await harness.executor.read(resource, {"iTwinId": ITWIN}))
        assert "A12 桥" in json.dumps(read, ensure_ascii=False)


# --- the size limit ---------------------------------------------------------------------------------------------


def test_fit_returns_an_answer_within_the_limit_unchanged() -> None:
    answer = {"thing": {"id": "x", "text": "é" * 1_000}}
    size = measure(answer)
    assert fit(answer, size) is answer
    assert fit(answer, size - 1)["thing"] == {"id": "x", "text": None}


def test_fit_cuts_lists_and_reports_how_many_elements_are_left() -> None:
    rows = [{"id": str(index), "note": "n" * 100} for index in range(1_000)]
    comparison = {"changesets": rows, "few": ["a", "b"]}
    answer: dict[str, Any] = {"comparison": comparison, "page": {"returned": 1}, "resolved": []}
    fitted = fit(answer, 5_000)
    remaining = fitted["comparison"]["changesets"]
    assert remaining == rows[: len(remaining)]
    assert 20 < len(remaining) < 50
    assert measure(fitted) <= 5_000
    [entry] = fitted["truncated"]["fields"]
    assert entry == {"path": "$.comparison.changesets", "bytes": measure(rows), "kept": len(remaining), "of": 1_000}
    assert fitted["comparison"]["few"] == ["a", "b"]
    assert (fitted["page"], fitted["resolved"]) == (answer["page"], [])
    assert len(answer["comparison"]["changesets"]) == 1_000


def test_fit_leaves_out_the_largest_value_and_never_an_id() -> None:
    thing = {"id": "i" * 300, "extent": {"text": "x" * 9_000}, "name": "n" * 400, "owner": {"id": "o" * 900}}
    fitted = fit({"thing": thing}, 3_000)
    assert fitted["thing"] == {**thing, "extent": None}
    assert [entry["path"] for entry in fitted["truncated"]["fields"]] == ["$.thing.extent"]


def test_fit_keeps_the_items_before_a_cursor() -> None:
    items = [{"id": str(index), "text": "t" * 300} for index in range(20)]
    page = {"returned": 20, "complete": False, "cursor": "c" * 700}
    fitted = fit({"things": items, "page": page}, 5_000)
    assert measure(fitted) <= 5_000
    assert [item["id"] for item in fitted["things"]] == [str(index) for index in range(20)]
    assert fitted["page"] == page


def test_fit_cuts_warnings_before_the_items_of_a_page() -> None:
    items = [{"id": str(number), "name": "x" * 100} for number in range(10)]
    page = {"returned": 10, "complete": False, "cursor": "c" * 100}
    warnings = [{"path": f"$.items[*].{number}", "expected": "text", "got": "y" * 100} for number in range(20)]
    fitted = fit({"items": items, "page": page, "warnings": warnings}, 2_500)
    assert (fitted["items"], fitted["page"]) == (items, page)
    assert 0 < len(fitted["warnings"]) < 20


@pytest.mark.parametrize(
    "error",
    [
        {"message": "m", "hint": "h", "details": [{"code": "c", "message": "d" * 2_000}] * 50},
        {"message": "m", "hint": "h" * 100_000, "details": []},
        {"message": "🏗" * 60_000, "hint": "h", "details": [], "target": "t" * 9_000},
        {"message": "m", "hint": "h", "details": [], "conflictingLocks": [{"id": "i" * 90}] * 5_000},
    ],
)
def test_fit_always_fits_an_error_and_keeps_what_an_agent_needs(error: dict[str, Any]) -> None:
    completed = [{"step": "clone", "ids": [IMODEL]}]
    whole = {"code": "Odd", "operation": "get-itwin", "retryable": False, **error, "completed": completed}
    fitted = fit({"error": whole}, 2_000)
    assert measure(fitted) <= 2_000
    shown = fitted["error"]
    assert (shown["code"], shown["operation"], shown["retryable"]) == ("Odd", "get-itwin", False)
    assert shown["message"]
    assert shown["hint"]
    assert shown["completed"] == completed


def test_fit_raises_when_only_ids_are_left() -> None:
    with pytest.raises(AnswerTooLarge) as raised:
        fit({"thing": {"id": "i" * 9_000}}, 2_000, wrote=True)
    assert "The change was made" in raised.value.hint


ENGINE = st.sampled_from(["thing", "things", "page", "job", "preview", "error", "warnings", "resolved", "saved", "id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda children: (
        st.lists(children, max_size=12)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["id", "cursor"]), children, max_size=6)
    ),
    max_leaves=60,
)


@given(st.dictionaries(ENGINE, JSON, max_size=6), st.integers(2_000, 5_000))
def test_fit_never_exceeds_the_limit_and_changes_nothing_else(answer: dict[str, Any], limit: int) -> None:
    answer.pop("error", None)
    before = json.dumps(answer)
    try:
        fitted = fit(answer, limit)
    except AnswerTooLarge:
        return
    finally:
        assert json.dumps(answer) == before
    assert measure(fitted) <= limit
    assert ("truncated" in fitted) == (measure(answer) > limit)
    assert _is_part(fitted, answer)


def _is_part(part: Any, whole: Any) -> bool:
    """Return whether the part equals the whole, except for nulls and shortened lists."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name == "truncated" or _is_part(child, whole[name]) for name, child in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return all(map(_is_part, part, whole))
    return part is None or part == whole


def _matryoshka(size: int) -> Any:
    """Return lists in lists, 50 deep, each with values of its own."""
    value: Any = ["x" * 10]
    for _ in range(50):
        value = [value, *["y" * 250] * (size // 50)]
    return value


SHAPES: dict[str, Callable[[int], Any]] = {
    "long list": lambda size: [{"id": str(index), "text": "t" * 250} for index in range(size)],
    "many lists": lambda size: [["e" * 120] * 3 for _ in range(size)],
    "list of one with many members": lambda size: [{f"m{index}": "t" * 250 for index in range(size)} | {"id": "x"}],
    "many objects without ids": lambda size: {f"m{index}": {"text": "t" * 250} for index in range(size)},
    "lists in lists": _matryoshka,
    "ids only": lambda size: {f"m{index}": {"id": "i" * 250} for index in range(size)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_fit_takes_steps_in_proportion_to_the_size(shape: str) -> None:
    def measure(size: int) -> int:
        answer = {"subject": {"id": "x", "content": SHAPES[shape](size)}}
        return steps_of(lambda: fit(answer, 20_000))

    small, large = measure(400), measure(3_200)
    assert large < 8 * small * 1.5


# --- lists ------------------------------------------------------------------------------------------------------


def make_imodels(count: int, size: int = 300) -> list[dict[str, Any]]:
    return [
        {
            "id": f"22222222-2222-4222-8222-{index:012d}",
            "name": f"M{index}",
            "description": "d" * size,
            "extra": {"deep": [1]},
            "_links": {
                "self": {"href": "https://api.bentley.com/imodels/1"},
                "download": {"href": "https://store.blob.core.windows.net/f?se=1&sig=canary"},
            },
        }
        for index in range(count)
    ]


def serve_imodels(items: list[dict[str, Any]]) -> Any:
    async def answer(request: Asked) -> None:
        query = query_of(request)
        skip, top = int(query.get("$skip", 0)), int(query.get("$top", 100))
        links = {}
        if request.path.startswith("/itwins/"):
            await request.json(200, {"iTwin": {"id": ITWIN}})
            return
        if skip + top < len(items):
            links["next"] = {"href": f"https://api.bentley.com/imodels?iTwinId={ITWIN}&$skip={skip + top}&$top={top}"}
        await request.json(200, {"iModels": items[skip : skip + top], "_links": links})

    return answer


@pytest.mark.anyio
async def test_list_over_the_size_limit_continues_without_loss_or_duplicates() -> None:
    items = make_imodels(100)
    async with bench("", serve_imodels(items), shipped_files=True, max_result_bytes=5_000) as harness:
        names: list[str] = []
        cursor: dict[str, Any] = {}
        for _ in range(20):
            answer = await harness.call("list-imodels", iTwinId=ITWIN, limit=100, **cursor)
            assert measure(answer) <= 5_000
            assert answer["page"]["returned"] == len(answer["iModels"]) > 0
            assert "truncated" not in answer
            names += [item["name"] for item in answer["iModels"]]
            if answer["page"]["complete"]:
                break
            assert "bytes" in answer["page"]["stoppedBecause"]
            cursor = {"cursor": answer["page"]["cursor"]}
        assert names == [item["name"] for item in items]


@pytest.mark.anyio
async def test_oversized_item_is_returned_alone_without_its_largest_value() -> None:
    items = [*make_imodels(1, 9_000), *make_imodels(2)[1:]]
    async with bench("", serve_imodels(items), shipped_files=True, max_result_bytes=5_000) as harness:
        first = await harness.call("list-imodels", iTwinId=ITWIN)
        assert [item["name"] for item in first["iModels"]] == ["M0"]
        assert first["iModels"][0]["description"] is None
        assert first["truncated"]["fields"][0]["path"] == "$.iModels[0].description"
        second = await harness.call("list-imodels", iTwinId=ITWIN, cursor=first["page"]["cursor"])
        assert [item["name"] for item in second["iModels"]] == ["M1"]
        assert second["page"]["complete"]


@pytest.mark.anyio
async def test_truncated_flow_hints_at_the_list_tool_and_its_arguments() -> None:
    async def history(request: Asked) -> None:
        last = request.path.rpartition("/")[2]
        if last == "users":
            await request.json(200, {"users": []})
        elif last == "changesets":
            await request.json(200, {"changesets": [{"id": f"{n:040x}", "index": n} for n in range(3, 150)]})
        else:
            await request.json(200, {"namedVersion": {"id": last, "name": "Tender", "changesetIndex": int(last[0])}})

    async with bench("", serve_imodels(make_imodels(100)), shipped_files=True, max_result_bytes=5_000) as harness:
        stale = await harness.call("list-stale-imodels", iTwinId=ITWIN, since="2026-01-01")
    assert [item["path"] for item in stale["truncated"]["fields"]] == ["$.iModels.neverPushed"]
    assert stale["truncated"]["hint"] == "All of it, page by page: list-imodels (with iTwinId, orderBy)."
    async with bench("", history, shipped_files=True, max_result_bytes=5_000) as harness:
        versions = {"olderVersionId": ITWIN, "newerVersionId": IMODEL}
        compared = await harness.call("compare-named-versions", iModelId=IMODEL, **versions)
    hint = "All of it, page by page: list-changesets (with iModelId, afterIndex, lastIndex)."
    assert compared["truncated"]["hint"] == hint


@pytest.mark.anyio
async def test_fields_all_returns_every_field_except_signed_links() -> None:
    async with bench("", serve_imodels(make_imodels(2)), shipped_files=True) as harness:
        short = (await harness.call("list-imodels", iTwinId=ITWIN))["iModels"][0]
        full = (await harness.call("list-imodels", iTwinId=ITWIN, fields="all"))["iModels"][0]
        assert "extra" not in short
        links = {"self": {"href": "https://api.bentley.com/imodels/1"}}
        assert full == {**short, "extra": {"deep": [1]}, "_links": links}
        assert "canary" not in json.dumps(full)
        assert (await harness.refused("list-imodels", iTwinId=ITWIN, fields="none"))["code"] == "InvalidArguments"


def test_add_other_fields_keeps_declared_fields() -> None:
    widened = add_other_fields({"id": IMODEL, "name": None}, {"id": 7, "name": 3, "more": []})
    assert widened == {"id": IMODEL, "name": None, "more": []}
    assert add_other_fields("text", {"a": 1}) == "text"


# --- through the command line -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_call_command_limits_an_error_with_huge_details() -> None:
    async def refuse(request: Asked) -> None:
        details = [{"code": f"C{n}", "message": "é" * 1_900, "target": "t" * 1_900} for n in range(50)]
        error = {
            "code": "InvalidiTwinsRequest",
            "message": "Wrong. " * 280,
            "details": details,
            "more": ["m" * 900] * 90,
        }
        await request.json(422, {"error": error})

    async with loopback(refuse) as platform:
        environment = {
            "ITWIN_API_URL": platform.origin,
            "ITWIN_ACCESS_TOKEN": "x",
            "ITWIN_MCP_MAX_RESULT_BYTES": "3000",
        }
        command = [sys.executable, "-m", "itwin_mcp", "call", "list-recent-itwins"]
        with anyio.fail_after(60):
            done = await anyio.run_process(command, env=os.environ | environment, check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["error"]["code"] == "InvalidiTwinsRequest"
    assert measure(answer) <= 3_000
