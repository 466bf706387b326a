"""Bodies written as JSON text with slots, and tools whose answer is written in the file."""

# ruff: noqa: E501  (parts of a capability file)

from typing import Any

import pytest

from itwin_mcp.capability.tool_actions import Steps
from itwin_mcp.executor.requests import build_request
from itwin_mcp.upstream.messages import JsonBody
from tests.capability.files import Folder, edit, find_line, list_rules

BODY = """body:
              type: json
              data: {name: "{{name}}", label: "Part {{label}}", sizes: ["{{size}}"], made: true}
"""
TEMPLATE = """body: |
              {"name": "{{name}}", "note": "of {{label}}", "sizes": {{sizes}}, "made": {{made}}, "count": "{{count}}"}
"""


@pytest.mark.parametrize("change", [TEMPLATE, TEMPLATE.replace("body: |\n", "body:\n              type: json\n              data: |\n  ")])  # fmt: skip
def test_slots_of_a_json_text_cannot_break_it(folder: Folder, change: str) -> None:
    operation = folder.link(edit((BODY, change))).operations["parts-api.create-part"]
    values: dict[str, Any] = {
        "name": 'A", "made": "x\n{{label}}',
        "label": "\\",
        "sizes": [1, "b"],
        "made": True,
        "count": 5,
    }
    request = build_request(operation, values)
    expected = {"name": values["name"], "note": "of \\", "sizes": [1, "b"], "made": True, "count": "5"}
    assert request.body == JsonBody(expected)
    # A slot without a value removes its member; the slot inside of text needs one.
    assert build_request(operation, {"label": "b", "name": None}).body == JsonBody({"note": "of b"})
    assert operation.required == {"label"}


def test_text_that_is_not_json_is_a_problem(folder: Folder) -> None:
    text = edit((BODY, 'body: "{name: {{name}}"\n'))
    assert (find_line(text, 'body: "{name'), "body") in list_rules(folder.find_problems(text))


def test_tool_without_a_call_answers_what_the_file_says(folder: Folder) -> None:
    mock = """find-ship:
        description: "Find a ship."
        inputParameters: {imo: {type: string, description: "Number."}, spare: {type: string, description: "Not used."}}
        outputParameters:
          imo: {type: string, value: "no {{imo}}"}
          crew: {type: number, value: "12"}
          afloat: {type: boolean, value: "true"}
      find-part: {display"""
    catalog = folder.link(edit(("find-part: {display", mock)))
    tool = catalog.tools["find-ship"]
    assert isinstance(tool.action, Steps)
    assert (tool.annotations.read_only, catalog.warnings) == (True, ())
    assert tool.output_schema["properties"].keys() >= {"imo", "crew", "afloat"}
