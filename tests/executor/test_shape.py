"""An answer in the shape that the tool promises, or an error that says where the platform's is another."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import compile_path
from itwin_mcp.capability.plans import Call, Output
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.executor.shape import last_segment, shape, shape_part
from tests.conftest import shipped_catalog
from tests.executor.bench import ITWIN, bench, saying

pytestmark = pytest.mark.anyio


def out(kind: Any, path: str | None = None, **more: Any) -> Output:
    return Output(kind, compile_path(path) if path else None, **more)


NAME, ID = ("name", out("string", "$.name")), ("id", out("string", "$.id", required=True))
THING = out("object", properties=(("thing", out("object", "$.thing", properties=(ID, NAME))),))


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"thing": {"id": "1"}}, {"thing": {"id": "1", "name": None}}),
        ({"thing": {"id": "1", "name": None, "more": 1}, "other": 2}, {"thing": {"id": "1", "name": None}}),
        ({"thing": {"id": "", "name": "x"}}, {"thing": {"id": "", "name": "x"}}),
    ],
)
def test_a_declared_field_that_is_missing_is_null_and_an_undeclared_one_is_left_out(body: Any, answer: Any) -> None:
    assert shape(THING, body, {}) == answer


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"thing": {"name": "x"}}, "$.thing.id is missing"),
        ({"thing": {"id": None}}, "$.thing.id is missing"),
        ({"thing": {"id": 7}}, "$.thing.id is not a text"),
        ({"thing": {"id": "1", "name": False}}, "$.thing.name is not a text"),
        ({"thing": []}, "$.thing is not an object"),
        ({"thing": "x"}, "$.thing is not an object"),
        ({"thing": None}, "$.thing is missing"),
        ({"other": {"id": "1"}}, "$.thing is missing"),
        ({}, "$.thing is missing"),
        (None, "$.thing is missing"),
        ([{"id": "1"}], "$ is not an object"),
        ("text", "$ is not an object"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(body: Any, words: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        shape(THING, body, {})
    assert words in caught.value.message
    assert "report it" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("number", 7, True),
        ("number", 7.5, True),
        ("number", True, False),
        ("number", "7", False),
        ("number", float("inf"), False),
        ("boolean", False, True),
        ("boolean", 0, False),
        ("boolean", "false", False),
        ("string", 7, False),
        ("string", True, False),
        ("object", [], False),
        ("array", {}, False),
        ("array", [1, "x"], True),
    ],
)
def test_numbers_are_not_booleans_and_nothing_is_converted(kind: Any, value: Any, fits: bool) -> None:
    output = out("object", properties=(("v", out(kind, "$.v")), ("w", out("string", "$.w"))))
    if fits:
        assert shape(output, {"v": value}, {}) == {"v": value, "w": None}
    else:
        with pytest.raises(UnexpectedAnswer, match=r"\$\.v is not"):
            shape(output, {"v": value}, {})


def test_scalars_of_which_none_is_there_belong_to_another_answer() -> None:
    output = out("object", properties=(NAME, ("size", out("number", "$.info.size"))))
    with pytest.raises(UnexpectedAnswer, match="has none of the fields"):
        shape(output, {"iModel": {"name": "x"}}, {})
    assert shape(output, {"name": None}, {}) == {"name": None, "size": None}


def test_an_object_inside_of_the_subject_may_be_null() -> None:
    output = out("object", properties=(("extent", out("object", "$.iModel.extent")), ("tags", out("array", "$.tags"))))
    assert shape(output, {"iModel": {"extent": None}, "tags": None}, {}) == {"extent": None, "tags": None}


def test_an_open_object_passes_as_it_came() -> None:
    body = {"thing": {"a": [1, {"b": None}], "c": {"d": "e"}}}
    assert shape(out("object", properties=(("thing", out("object", "$.thing")),)), body, {}) == body


def test_literals_and_headers_need_no_body() -> None:
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
    assert shape(output, None, headers) == expected
    with pytest.raises(UnexpectedAnswer, match="header x-count is not a number"):
        shape(output, None, {"x-count": "many"})


@pytest.mark.parametrize(
    ("link", "segment"),
    [("https://x/a/b", "b"), ("https://x/a/b/", "b"), ("https://x/a/b?c=/d#/e", "b"), ("", ""), ("https://[", "")],
)
def test_the_last_segment_of_a_link_is_read_from_its_path(link: str, segment: str) -> None:
    assert last_segment(link) == segment


async def test_an_answer_to_a_write_that_nobody_can_read_says_that_the_change_was_made() -> None:
    for answer in (saying(201, "<html>"), saying(201, {"other": 1}), saying(200)):
        async with bench("things.yaml", answer) as it:
            error = await it.refused("make-thing", name="a")
            read = await it.refused("get-thing", thing=ITWIN)
        assert error["code"] == read["code"] == "UnexpectedAnswer"
        assert error["hint"].startswith("The platform accepted the change: do not repeat it")
        assert "accepted" not in read["hint"]


async def test_a_deletion_without_an_answer_is_told_by_its_literal() -> None:
    async with bench("things.yaml", saying(204)) as it:
        assert await it.call("drop-thing", thing=ITWIN) == {"deleted": True}


# --- every tool that is shipped ---------------------------------------------------------------------------------

# A picture has no JSON to be wrong; tests/server/test_guides.py looks at those.
TOOLS = [tool for tool in shipped_catalog().tools.values() if not any(one.binary for one in tool.operations)]
ANY = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just({"id": "x"})
RIGHT = {
    "string": st.text(max_size=3),
    "number": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "object": st.dictionaries(st.text(max_size=3), ANY, max_size=2),
    "array": st.lists(ANY, max_size=2),
}


def paths(output: Output, base: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Output]]:
    """Where an answer's values come from: keys, and None for each element of a list."""
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
    """Bodies that mostly fit: each field is right, missing, null or, now and then, something else."""
    body: Any = {}
    for where, one in paths(output):
        what = draw(st.sampled_from(["right"] * 6 + ["missing", "null", "any"]))
        if where and what != "missing" and (one.kind not in ("object", "array") or what != "right"):
            value = draw(RIGHT[one.kind]) if what == "right" else None if what == "null" else draw(ANY)
            body = place(body, where, value)
        elif where and what == "right" and not one.properties and one.items is None:
            body = place(body, where, draw(RIGHT[one.kind]))
    return body


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_whatever_the_platform_answers_the_answer_fits_the_published_schema_or_is_an_error(tool: Tool) -> None:
    validator = Draft202012Validator(tool.output_schema)
    fitting = 0

    @given(bodies(tool.action.output))
    def check(body: Any) -> None:
        nonlocal fitting
        try:
            if isinstance(tool.action, Call):
                answer = shape(tool.action.output, body, {})
            else:
                answer = shape_part(tool.action.output, body, {}, "$")
        except UnexpectedAnswer:
            return
        fitting += 1
        validator.validate(answer)

    check()
    assert fitting, "no body fitted: the test says nothing"
