"""Slots and paths: values keep their types, and absent is not null."""

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
    compile_path,
    compile_slots,
    evaluate,
    find_slots,
    format_for_wire,
    resolve_argument,
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
def test_plain_path_finds_value_or_absent(text: str, value: Any) -> None:
    path = compile_path(text)
    assert path.query is None
    assert path.find(ANSWER) is value or path.find(ANSWER) == value


@pytest.mark.parametrize("text", ["", "a", "a.b", "$.a.", "$a", "$..", "$[", "$[?(", "$.a b", "$[?@.a ==]", "$[99999999999999999999]", "$['a", "{{a}}"])  # fmt: skip
def test_compile_path_rejects_invalid_paths(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_path(text)


def test_rich_path_finds_the_list_of_all_matches() -> None:
    answer = {"items": [{"n": 1, "ok": True}, {"n": 2}, {"n": 3, "ok": True}]}
    assert compile_path("$.items[?@.ok == true].n").find(answer) == [1, 3]
    assert compile_path("$..n").find({}) == []


@pytest.mark.parametrize(
    "text", ["$.found[*].parts[*].id", "$.found[*]", "$.found[0].parts[*].id", "$.by[*].id", "$.found[*].size", "$.no[*]", "$.no[*].id", "$.found[*].no[*]", "$.found[*].size[*]", "$[*][*].parts", "$['found'][*].parts[1]"]
)  # fmt: skip
def test_star_path_finds_the_same_flat_list_as_jsonpath(text: str) -> None:
    import jsonpath

    parts = [{"id": 1}, {"id": None}, {"no-id": 3}]
    answer = {"found": [{"parts": parts, "size": 1}, {"parts": []}, {"parts": [{"id": 4}, 5]}, 6], "by": {"x": {"id": 7}, "y": {}}}  # fmt: skip
    path = compile_path(text)
    assert path.query is None and path.many
    assert path.find(answer) == jsonpath.findall(text, answer)
    assert path.find(ABSENT) == []


def test_rich_path_finds_nothing_in_too_deep_a_value() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    assert compile_path("$..b").find(deep) == []


def test_compile_path_imports_jsonpath_only_for_rich_paths() -> None:
    code = (
        "import sys; from itwin_mcp.capability.expressions import compile_path\n"
        "compile_path('$.a.b[0]').find({}); print('jsonpath' in sys.modules)\n"
        "compile_path('$.a[*].b[*]').find({}); print('jsonpath' in sys.modules)\n"
        "compile_path('$..a').find({}); print('jsonpath' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["False", "False", "True"]


def compile_text(text: str) -> Any:
    return compile_slots(text, resolve_argument)


@pytest.mark.parametrize("value", [5, 1.5, True, None, "text", [1, "a"], {"b": [None]}])
def test_evaluate_keeps_the_type_of_a_whole_text_slot(value: Any) -> None:
    for text in ("{{a}}", "{{ a }}"):
        assert evaluate(compile_text(text), {"a": value}, {}) == value
        assert type(evaluate(compile_text(text), {"a": value}, {})) is type(value)


def test_evaluate_returns_absent_not_null_for_a_missing_argument() -> None:
    assert evaluate(compile_text("{{a}}"), {}, {}) is ABSENT
    assert evaluate(compile_text("{{a}}"), {"a": None}, {}) is None
    assert not ABSENT


def test_evaluate_joins_slots_inside_text() -> None:
    expression = compile_text("a {{x}}/{{ y }} z")
    assert expression == Text(("a ", Argument("x"), "/", Argument("y"), " z"))
    assert evaluate(expression, {"x": True, "y": 1.5}, {}) == "a true/1.5 z"
    assert evaluate(compile_text("{{x}}{{y}}"), {"x": 1, "y": 2}, {}) == "12"


@pytest.mark.parametrize("missing", [{}, {"x": None}])
def test_evaluate_returns_absent_for_text_with_a_missing_slot(missing: dict[str, Any]) -> None:
    assert evaluate(compile_text("a {{x}}"), missing, {}) is ABSENT


def test_evaluate_does_not_expand_slots_in_argument_values() -> None:
    assert evaluate(compile_text("a {{x}}"), {"x": "{{y}}", "y": "secret"}, {}) == "a {{y}}"
    assert evaluate(compile_text("{{x}}"), {"x": "{{y}}", "y": "secret"}, {}) == "{{y}}"


def test_evaluate_returns_step_value_or_absent() -> None:
    value = StepValue("one", compile_path("$.id"))
    assert evaluate(value, {}, {"one": {"id": 5}}) == 5
    assert evaluate(value, {}, {"one": {}}) is ABSENT
    assert evaluate(value, {}, {}) is ABSENT


@pytest.mark.parametrize("text", ["", "plain", "{single}", "a } b { c", '{"a": {"b": 1} }', "100 %"])
def test_compile_slots_of_plain_text_is_a_literal(text: str) -> None:
    assert compile_text(text) == Literal(text)


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
def test_compile_slots_rejects_stray_braces(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_text(text)


def test_compile_slots_inlines_a_literal() -> None:
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
def test_format_for_wire_formats_values_for_urls(value: Any, text: str) -> None:
    assert format_for_wire(value) == text


def test_compile_slots_and_compile_path_take_linear_time() -> None:
    start = time.perf_counter()
    for text in ("{{" + " " * 400_000, "{{a}}" * 50_000, "{" * 400_000, "$" + ".a" * 100_000, "$['" + "a" * 400_000):
        try:
            compile_text(text)
            compile_path(text)
        except ExpressionError as error:
            assert len(str(error)) < 400  # noqa: PT017
    assert time.perf_counter() - start < 5


@given(st.text(st.sampled_from(list("{}ab #/. \n")), max_size=30))
def test_compile_slots_accepts_or_rejects_any_text(text: str) -> None:
    try:
        expression = compile_text(text)
    except ExpressionError:
        return
    names = find_slots(text)
    assert (expression == Literal(text)) == (not names)
    value = evaluate(expression, dict.fromkeys(names, "x"), {})
    assert value == text if not names else "{{" not in value


@given(
    st.text(st.sampled_from(list("$.[]'\"*?@()=<>&|!ab01-:, \\")), max_size=25).map("$".__add__) | st.text(max_size=20)
)
def test_compile_path_accepts_or_rejects_any_text(text: str) -> None:
    try:
        path = compile_path(text)
    except ExpressionError:
        return
    for value in (ANSWER, [], None, 5, "a"):
        path.find(value)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)))
def test_evaluate_keeps_any_json_in_a_whole_text_slot(value: Any) -> None:
    assert json.dumps(evaluate(compile_text("{{a}}"), {"a": value}, {})) == json.dumps(value)
