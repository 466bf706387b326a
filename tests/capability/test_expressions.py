"""Slots and paths: typed values stay typed, what is absent stays absent, and nothing is parsed twice."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itwin_mcp.capability.expressions import (
    ABSENT,
    Argument,
    ExpressionError,
    Literal,
    StepValue,
    Text,
    argument_slot,
    compile_path,
    compile_slots,
    evaluate,
    slots,
    wire_text,
)

ANSWER = {"a": {"b-c": [1, {"d": None}], "": "empty", "e.f": 2, "$top": 3}, "list": []}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$", ANSWER),
        ("$.", ANSWER),
        ("$.a.b-c[0]", 1),
        ("$.a.b-c[1].d", None),
        ("$['a']['e.f']", 2),
        ("$.a['$top']", 3),
        ("$.a['']", "empty"),
        ("$.list", []),
        ("$.x", ABSENT),
        ("$.a.b-c[2]", ABSENT),
        ("$.a[0]", ABSENT),
        ("$.a.b-c.d", ABSENT),
        ("$.a.b-c[1].d.e", ABSENT),
        ("$[0]", ABSENT),
    ],
)
def test_a_plain_path_is_a_walk(text: str, value: Any) -> None:
    path = compile_path(text)
    assert path.query is None
    assert path.find(ANSWER) is value or path.find(ANSWER) == value


@pytest.mark.parametrize("text", ["", "a", "a.b", "$.a.", "$a", "$..", "$[", "$[?(", "$.a b", "$[?@.a ==]", "$[99999999999999999999]", "$['a", "{{a}}"])  # fmt: skip
def test_what_is_no_path_is_refused_when_it_is_compiled(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_path(text)


def test_a_rich_path_gives_the_list_of_all_that_match() -> None:
    answer = {"items": [{"n": 1, "ok": True}, {"n": 2}, {"n": 3, "ok": True}]}
    assert compile_path("$.items[?@.ok == true].n").find(answer) == [1, 3]
    assert compile_path("$..n").find({}) == []


@pytest.mark.parametrize(
    "text", ["$.found[*].parts[*].id", "$.found[*]", "$.found[0].parts[*].id", "$.by[*].id", "$.found[*].size", "$.no[*]", "$.no[*].id", "$.found[*].no[*]", "$.found[*].size[*]", "$[*][*].parts", "$['found'][*].parts[1]"]
)  # fmt: skip
def test_every_element_is_one_flat_list_just_as_the_library_finds_it(text: str) -> None:
    import jsonpath

    parts = [{"id": 1}, {"id": None}, {"no-id": 3}]
    answer = {"found": [{"parts": parts, "size": 1}, {"parts": []}, {"parts": [{"id": 4}, 5]}, 6], "by": {"x": {"id": 7}, "y": {}}}  # fmt: skip
    path = compile_path(text)
    assert path.query is None and path.many
    assert path.find(answer) == jsonpath.findall(text, answer)
    assert path.find(ABSENT) == []


def test_a_rich_path_over_an_answer_too_deep_matches_nothing() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    assert compile_path("$..b").find(deep) == []


def test_the_library_is_imported_for_rich_paths_only() -> None:
    code = (
        "import sys; from itwin_mcp.capability.expressions import compile_path\n"
        "compile_path('$.a.b[0]').find({}); print('jsonpath' in sys.modules)\n"
        "compile_path('$.a[*].b[*]').find({}); print('jsonpath' in sys.modules)\n"
        "compile_path('$..a').find({}); print('jsonpath' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def compiled(text: str) -> Any:
    return compile_slots(text, argument_slot)


@pytest.mark.parametrize("value", [5, 1.5, True, None, "text", [1, "a"], {"b": [None]}])
def test_a_slot_that_is_the_whole_text_gives_the_value_as_it_is(value: Any) -> None:
    for text in ("{{a}}", "{{ a }}"):
        assert evaluate(compiled(text), {"a": value}, {}) == value
        assert type(evaluate(compiled(text), {"a": value}, {})) is type(value)


def test_a_slot_without_a_value_is_absent_which_is_not_null() -> None:
    assert evaluate(compiled("{{a}}"), {}, {}) is ABSENT
    assert evaluate(compiled("{{a}}"), {"a": None}, {}) is None
    assert not ABSENT


def test_slots_inside_text_give_text() -> None:
    expression = compiled("a {{x}}/{{ y }} z")
    assert expression == Text(("a ", Argument("x"), "/", Argument("y"), " z"))
    assert evaluate(expression, {"x": True, "y": 1.5}, {}) == "a true/1.5 z"
    assert evaluate(compiled("{{x}}{{y}}"), {"x": 1, "y": 2}, {}) == "12"


@pytest.mark.parametrize("missing", [{}, {"x": None}])
def test_text_with_a_slot_without_a_value_is_absent_as_a_whole(missing: dict[str, Any]) -> None:
    assert evaluate(compiled("a {{x}}"), missing, {}) is ABSENT


def test_what_a_caller_gives_is_never_read_for_slots() -> None:
    assert evaluate(compiled("a {{x}}"), {"x": "{{y}}", "y": "secret"}, {}) == "a {{y}}"
    assert evaluate(compiled("{{x}}"), {"x": "{{y}}", "y": "secret"}, {}) == "{{y}}"


def test_a_value_of_an_earlier_step_is_found_or_absent() -> None:
    value = StepValue("one", compile_path("$.id"))
    assert evaluate(value, {}, {"one": {"id": 5}}) == 5
    assert evaluate(value, {}, {"one": {}}) is ABSENT
    assert evaluate(value, {}, {}) is ABSENT


@pytest.mark.parametrize("text", ["", "plain", "{single}", "a } b { c", '{"a": {"b": 1} }', "100 %"])
def test_text_without_slots_is_what_it_says(text: str) -> None:
    assert compiled(text) == Literal(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "}}",
        "{{a",
        "a}}",
        "{{a}} }}",
        "{{ {{a}}",
        "}}{{a}}",
        "{{{a}}}",
        "{{{a}}",
        "{{a}}}",
        "{{}}",
        "{{ }}",
        "{{a b}}",
        "{{#a}}x{{/a}}",
        "{{^a}}",
        "{{a.b}}",
        "{{&a}}",
        "{{> a}}",
        "{{a}}{{{{b}}",
    ],
)
def test_braces_that_are_no_slot_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        compiled(text)


def test_a_literal_in_a_slot_becomes_part_of_the_text() -> None:
    assert compile_slots("a{{x}}b", lambda _: Literal(True)) == Text(("a", "true", "b"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (1.5, "1.5"),
        (["a", 1, None, True], "a,1,true"),
        ([], ""),
        ({"a": [1, None], "b": "é"}, '{"a":[1,null],"b":"é"}'),
    ],
)
def test_values_in_text_are_written_as_the_web_writes_them(value: Any, text: str) -> None:
    assert wire_text(value) == text


def test_long_texts_are_compiled_in_time_that_grows_with_them() -> None:
    began = time.perf_counter()
    for text in ("{{" + " " * 400_000, "{{a}}" * 50_000, "{" * 400_000, "$" + ".a" * 100_000, "$['" + "a" * 400_000):
        try:
            compiled(text)
            compile_path(text)
        except ExpressionError as error:
            assert len(str(error)) < 400  # noqa: PT017
    assert time.perf_counter() - began < 5


@given(st.text(st.sampled_from(list("{}ab #/. \n")), max_size=30))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        expression = compiled(text)
    except ExpressionError:
        return
    names = slots(text)
    assert (expression == Literal(text)) == (not names)
    value = evaluate(expression, dict.fromkeys(names, "x"), {})
    assert value == text if not names else "{{" not in value


@given(
    st.text(st.sampled_from(list("$.[]'\"*?@()=<>&|!ab01-:, \\")), max_size=25).map("$".__add__) | st.text(max_size=20)
)
def test_any_path_is_compiled_or_refused_and_then_finds_or_does_not(text: str) -> None:
    try:
        path = compile_path(text)
    except ExpressionError:
        return
    for value in (ANSWER, [], None, 5, "a"):
        path.find(value)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)))
def test_a_whole_slot_keeps_any_json(value: Any) -> None:
    assert json.dumps(evaluate(compiled("{{a}}"), {"a": value}, {})) == json.dumps(value)
