"""Answers whose root is a list or a scalar, and outputs named like members that the engine adds."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

from typing import Any

import pytest

from itwin_mcp.capability.tool_actions import Call, CallStep, Steps
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.executor.answers import Warnings, shape
from itwin_mcp.executor.requests import bind
from tests.capability.files import Folder, edit

OUTPUT = '- {type: object, properties: {name: {type: string, mapping: "$.name"}}}\n      find'
SHIPS = [{"imo_number": "1", "dimensions": {"length": "12"}}, {"imo_number": "2"}]
ITEMS = 'items: {type: object, properties: {imo: {type: string, mapping: "$.imo_number"}, length: {type: number, mapping: "$.dimensions.length"}}}'
IMOS = [{"imo": "1", "length": 12}, {"imo": "2", "length": None}]

# (the output, what the API answers, the answer of the tool)
CASES: list[tuple[str, Any, Any]] = [
    (f'- {{type: array, mapping: "$", {ITEMS}}}', SHIPS, {"result": IMOS}),
    (f'- {{type: array, mapping: "$.", {ITEMS}}}', SHIPS, {"result": IMOS}),
    (f'- {{type: array, mapping: "$.vessel", {ITEMS}}}', {"vessel": SHIPS}, {"result": IMOS}),
    (f'- {{type: array, mapping: "$[0].fleet", {ITEMS}}}', [{"fleet": SHIPS}], {"result": IMOS}),
    ('- {type: array, mapping: "$", items: {type: string, mapping: "$."}}', ["a", "b"], {"result": ["a", "b"]}),
    ('- {type: number, mapping: "$.count"}', {"count": "3"}, {"result": 3}),
    ('- {type: string, mapping: "$"}', "afloat", {"result": "afloat"}),
    ('- {type: object, mapping: "$.ship", properties: {n: {type: string, mapping: "$.name"}}}', {"ship": {"name": "A"}}, {"n": "A"}),
    ('- {type: object, properties: {error: {type: string, mapping: "$.error"}}}', {"error": "none"}, {"result": {"error": "none"}}),
    ("", {"a": [1]}, {"result": {"a": [1]}}),
    ("", [1, "b"], {"result": [1, "b"]}),
]  # fmt: skip


@pytest.mark.parametrize(("output", "body", "answer"), CASES)
def test_root_of_an_answer_may_be_anything(folder: Folder, output: str, body: Any, answer: Any) -> None:
    text = edit((OUTPUT, f"{output}\n      find"))
    text = text if output else text.replace("        outputParameters:\n        \n      find", "      find")
    tool = folder.link(text).tools["get-part"]
    assert isinstance(tool.action, Call)
    warnings = Warnings()
    assert shape(tool.action.output, body, {}, warnings) == answer
    assert not warnings.entries
    assert ("result" in answer) == tool.action.output.wraps
    assert {"required": list(answer)} in tool.output_schema["anyOf"]


@pytest.mark.parametrize("body", [{"parts": []}, "parts"])
def test_read_of_a_root_list_rejects_another_answer(folder: Folder, body: Any) -> None:
    tool = folder.link(edit((OUTPUT, f'- {{type: array, mapping: "$", {ITEMS}}}\n      find'))).tools["get-part"]
    assert isinstance(tool.action, Call)
    with pytest.raises(UnexpectedAnswer, match=r"\$ is not a list"):
        shape(tool.action.output, body, {}, Warnings())


def test_paged_operation_may_answer_a_root_list(folder: Folder) -> None:
    text = edit(('items: "$.parts", next', 'items: "$", next'), ('mapping: "$.parts"', 'mapping: "$"'))
    page = folder.link(text).operations["parts-api.list-parts"].page
    assert page is not None
    assert page.items.find([1]) == [1]


def test_output_of_a_flow_named_like_ours_is_under_result(folder: Folder) -> None:
    text = edit(("target: found.parts", "target: job.parts"), ("          found:\n", "          job:\n"))
    catalog = folder.link(text)
    action = catalog.tools["find-part"].action
    assert isinstance(action, Steps)
    assert [name for name, _ in action.output.properties] == ["result"]
    assert [warning.rule for warning in catalog.warnings] == ["reserved-output"]


def test_member_of_a_lookup_is_that_of_its_first_element(folder: Folder) -> None:
    change = ('x-each: "$.one", with: {id: "{{each.id}}"}', 'with: {id: "{{one.id}}"}')
    action = folder.link(edit(change, ('value: "$.whole"', 'value: "$.one.name"'))).tools["find-part"].action
    assert isinstance(action, Steps)
    found = {"one": [{"id": "7", "name": "A"}, {"id": "8", "name": "B"}]}
    step = action.steps[2]
    assert isinstance(step, CallStep)
    assert bind(step.bindings, {}, found) == {"id": "7"}
    (mapping,) = action.mappings
    assert bind({"value": mapping.value}, {}, found) == {"value": "A"}
