"""`shape` fits any answer of the platform to the output schema of a tool, and reports differences."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import compile_path
from itwin_mcp.capability.tool_actions import Call, Output
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.executor.answers import Warnings, find_last_segment, shape, shape_part
from tests.conftest import shipped_catalog
from tests.executor.bench import ITWIN, bench, saying
from tests.upstream.loopback import Asked, Handler

pytestmark = pytest.mark.anyio


def out(kind: Any, path: str | None = None, **more: Any) -> Output:
    return Output(kind, compile_path(path) if path else None, **more)


NAME, ID = ("name", out("string", "$.name")), ("id", out("string", "$.id"))
THING = out("object", properties=(("thing", out("object", "$.thing", properties=(ID, NAME))),))


def read(output: Output, body: Any, headers: Any = None, **more: Any) -> tuple[Any, list[tuple[str, str, str]]]:
    """Return the answer, and the warnings without their counts."""
    warnings = Warnings()
    answer = shape(output, body, headers or {}, warnings, **more)
    return answer, [(warning["path"], warning["expected"], warning["got"]) for warning in warnings.to_json()]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"thing": {"id": "1"}}, {"thing": {"id": "1", "name": None}}),
        ({"thing": {"id": "1", "name": None, "more": 1}, "other": 2}, {"thing": {"id": "1", "name": None}}),
        ({"thing": {"id": "", "name": "x"}}, {"thing": {"id": "", "name": "x"}}),
        ({"thing": {"name": "x"}}, {"thing": {"id": None, "name": "x"}}),
        ({"thing": {}}, {"thing": {"id": None, "name": None}}),
        ({"thing": None}, {"thing": None}),
    ],
)
def test_shape_sets_missing_fields_to_null_and_omits_undeclared_ones(body: Any, answer: Any) -> None:
    assert read(THING, body) == (answer, [])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"thing": []}, "$.thing is not an object"),
        ({"thing": "x"}, "$.thing is not an object"),
        ({"other": {"id": "1"}}, "$.thing is missing"),
        ({}, "$.thing is missing"),
        (None, "$.thing is missing"),
        ([{"id": "1"}], "$ is not an object"),
        ("text", "$ is not an object"),
    ],
)
def test_shape_raises_unexpected_answer_without_a_subject(body: Any, words: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        read(THING, body)
    assert words in caught.value.message
    assert "report it" in caught.value.hint
    answer, warnings = read(THING, body, written=True)
    assert answer == {"thing": None}
    assert [expected for _, expected, _ in warnings] == ["object"]


@pytest.mark.parametrize(
    ("kind", "value", "read_as"),
    [
        ("number", 7, 7),
        ("number", 7.5, 7.5),
        ("number", "7", 7),
        ("number", "-4", -4),
        ("number", "51.5", 51.5),
        ("number", "1e3", 1000.0),
        ("number", str(2**63), 2**63),
        ("boolean", False, False),
        ("boolean", "false", False),
        ("boolean", "True", True),
        ("string", 7, "7"),
        ("string", 7.5, "7.5"),
        ("string", True, "true"),
        ("array", [1, "x"], [1, "x"]),
    ],
)
def test_shape_converts_scalars_without_loss(kind: Any, value: Any, read_as: Any) -> None:
    output = out("object", properties=(("v", out(kind, "$.v")), ("w", out("string", "$.w"))))
    answer, warnings = read(output, {"v": value})
    assert repr(answer) == repr({"v": read_as, "w": None})
    assert warnings == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", True),
        ("number", float("inf")),
        ("number", "many"),
        ("number", "007"),
        ("number", " 7"),
        ("number", ""),
        ("number", "1e400"),
        ("number", "0.12345678901234567890123"),
        ("number", "9" * 5000),
        ("number", [7]),
        ("boolean", 0),
        ("boolean", "yes"),
        ("string", ["x"]),
        ("string", {"x": 1}),
        ("string", float("nan")),
        ("object", []),
        ("object", "x"),
        ("array", {}),
        ("array", "x"),
    ],
)
def test_shape_replaces_unconvertible_values_by_null_and_warns(kind: Any, value: Any) -> None:
    inner = out("object", "$.t", properties=(("v", out(kind, "$.v")), ("w", out("string", "$.w"))))
    answer, warnings = read(out("object", properties=(("t", inner),)), {"t": {"v": value, "w": "x"}})
    assert answer == {"t": {"v": None, "w": "x"}}
    assert [(path, expected) for path, expected, _ in warnings] == [("$.t.v", kind)]


def test_warnings_are_short_and_without_secrets() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    for got in (f"\u202eBearer {token}", [f"{'a' * 90} {token}"], {"sas": f"https://x/?sig={token}"}):
        _, [(_, _, shown)] = read(THING, {"thing": {"id": {"got": got}}})
        assert len(shown) <= 100
        assert "eyJ" not in shown
        assert "\u202e" not in shown


def test_warnings_are_counted_by_path_up_to_twenty() -> None:
    fields = tuple((f"f{n}", out("string", f"$.f{n}")) for n in range(30))
    output = out("object", properties=(("all", out("array", "$.all", items=out("object", properties=fields))),))
    warnings = Warnings()
    shape(output, {"all": [{f"f{n}": [] for n in range(30)}] * 3}, {}, warnings)
    reported = warnings.to_json()
    assert [(warning["path"], warning["count"]) for warning in reported] == [(f"$.all[*].f{n}", 3) for n in range(20)]


def test_shape_keeps_the_positions_of_scalar_items() -> None:
    output = out("object", properties=(("tags", out("array", "$.tags", items=out("string"))),))
    answer, warnings = read(output, {"tags": ["a", 7, None, {}, "b"]})
    assert answer == {"tags": ["a", "7", None, None, "b"]}
    assert warnings == [("$.tags[*]", "string", "{}")]


def test_shape_raises_if_no_scalar_field_is_present() -> None:
    output = out("object", properties=(NAME, ("size", out("number", "$.info.size"))))
    with pytest.raises(UnexpectedAnswer, match="has none of the fields"):
        read(output, {"iModel": {"name": "x"}})
    assert read(output, {"name": None}) == ({"name": None, "size": None}, [])


def test_shape_needs_one_of_several_subjects() -> None:
    output = out("object", properties=(("extent", out("object", "$.iModel.extent")), ("tags", out("array", "$.tags"))))
    assert read(output, {"iModel": {"extent": None}, "tags": None}) == ({"extent": None, "tags": None}, [])
    assert read(output, {"tags": ["x"]}) == ({"extent": None, "tags": ["x"]}, [])


def test_shape_passes_open_objects_unchanged() -> None:
    body = {"thing": {"a": [1, {"b": None}], "c": {"d": "e"}}}
    assert read(out("object", properties=(("thing", out("object", "$.thing")),)), body) == (body, [])


def test_shape_reads_literals_and_headers_without_a_body() -> None:
    output = out(
        "object",
        properties=(
            ("deleted", Output("boolean", literal=True)),
            ("none", Output("number", literal=0)),
            ("id", Output("string", header="location", last_segment=True)),
            ("count", Output("number", header="x-count")),
            ("whole", Output("boolean", header="x-whole")),
            ("tag", Output("string", header="etag")),
        ),
    )
    headers = {"location": "https://api.bentley.com/things/7?x=/8", "x-count": "12", "x-whole": "True"}
    expected = {"deleted": True, "none": 0, "id": "7", "count": 12, "whole": True, "tag": None}
    assert read(output, None, headers) == (expected, [])
    answer, warnings = read(output, None, {"x-count": "many"})
    assert answer["count"] is None
    assert warnings == [("header x-count", "number", "many")]


@pytest.mark.parametrize(
    ("link", "segment"),
    [("https://x/a/b", "b"), ("https://x/a/b/", "b"), ("https://x/a/b?c=/d#/e", "b"), ("", ""), ("https://[", "")],
)
def test_find_last_segment_reads_the_path_of_a_link(link: str, segment: str) -> None:
    assert find_last_segment(link) == segment


@pytest.mark.parametrize("answer", [saying(201, {"other": 1}), saying(200), saying(201, []), saying(201, "x")])
async def test_write_with_an_unexpected_answer_is_not_a_failure(answer: Handler) -> None:
    async with bench("things.yaml", answer) as it:
        made = await it.call("make-thing", name="a")
        error = await it.refused("get-thing", thing=ITWIN)
    assert made["thing"] is None
    assert len(made["warnings"]) == 1
    assert error["code"] == "UnexpectedAnswer"


async def test_write_with_broken_json_in_its_answer_is_not_a_failure() -> None:
    async def half(asked: Asked) -> None:
        await asked.answer(201, b'{"thing": {"id": "1"', {"Content-Type": "application/json"})

    async with bench("things.yaml", half) as it:
        made = await it.call("make-thing", name="a")
    assert made["thing"] is None
    assert made["warnings"][0] == {"path": "$", "expected": "JSON", "got": '{"thing": {"id": "1"', "count": 1}


async def test_write_with_too_large_an_answer_reports_completed() -> None:
    async with bench("things.yaml", saying(201, {"thing": {"name": "x" * 5_000}}), max_body=1_000) as it:
        error = await it.refused("make-thing", name="a")
    assert (error["code"], error["retryable"]) == ("UnexpectedAnswer", False)
    assert error["completed"] == [{"step": "make-thing", "ids": []}]


async def test_write_answered_with_html_has_an_unknown_outcome() -> None:
    async def page(asked: Asked) -> None:
        await asked.answer(200, b"<html><title>Sign in</title>", {"Content-Type": "text/html"})

    async with bench("things.yaml", page) as it:
        error = await it.refused("make-thing", name="a")
    assert (error["code"], error["outcomeUnknown"], error["retryable"]) == ("UnexpectedAnswer", True, False)
    assert "may have been made or not" in error["hint"]


async def test_deletion_without_a_body_returns_its_literal() -> None:
    async with bench("things.yaml", saying(204)) as it:
        assert await it.call("drop-thing", thing=ITWIN) == {"deleted": True}


# --- every tool that is shipped ---------------------------------------------------------------------------------

# Pictures have no JSON; tests/server/test_guides.py checks them.
TOOLS = [
    tool for tool in shipped_catalog().tools.values() if not any(operation.binary for operation in tool.operations)
]
ANY = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just({"id": "x"})
RIGHT = {
    "string": st.text(max_size=3),
    "number": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "object": st.dictionaries(st.text(max_size=3), ANY, max_size=2),
    "array": st.lists(ANY, max_size=2),
}


def paths(output: Output, base: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Output]]:
    """Yield the path of each value in an answer: keys, and None for the elements of a list."""
    here = base + (output.path.parts if output.path is not None else ())
    if output.path is not None:
        yield here, output
    for _, child in output.properties:
        yield from paths(child, here)
    if output.items is not None:
        yield from paths(output.items, (*here, None))


def place(body: Any, where: tuple[Any, ...], value: Any) -> Any:
    if not where:
        return value
    first, rest = where[0], where[1:]
    if first is None or isinstance(first, int):
        items = body if isinstance(body, list) and body else [{}]
        return [place(item, rest, value) for item in items]
    inside = body if isinstance(body, dict) else {}
    return {**inside, first: place(inside.get(first), rest, value)}


@st.composite
def bodies(draw: st.DrawFn, output: Output) -> Any:
    """Generate bodies that mostly fit: each field is right, missing, null or sometimes anything."""
    body: Any = {}
    for where, member in paths(output):
        what = draw(st.sampled_from(["right"] * 6 + ["missing", "null", "any"]))
        if where and what != "missing" and (member.kind not in ("object", "array") or what != "right"):
            value = draw(RIGHT[member.kind]) if what == "right" else None if what == "null" else draw(ANY)
            body = place(body, where, value)
        elif where and what == "right" and not member.properties and member.items is None:
            body = place(body, where, draw(RIGHT[member.kind]))
    return body


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_shaped_answers_fit_the_output_schema_of_every_tool(tool: Tool) -> None:
    validator = Draft202012Validator(tool.output_schema)

    @given(bodies(tool.action.output))
    def check(body: Any) -> None:
        warnings = Warnings()
        if isinstance(tool.action, Call):
            try:
                answer = shape(tool.action.output, body, {}, warnings)
            except UnexpectedAnswer:
                answer = shape(tool.action.output, body, {}, warnings, written=True)
        else:
            answer = shape_part(tool.action.output, body, {}, "$", warnings)
        validator.validate(answer | {"warnings": warnings.to_json()})

    check()
