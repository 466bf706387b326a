"""`x-transfer` and `x-body`: the arguments that they add, and the problems that are reported."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

from pathlib import Path

import pytest

from itwin_mcp.capability.extensions import strip
from itwin_mcp.capability.strict_yaml import parse
from tests.capability.files import Folder, edit, find_line, list_rules

TEXT = (Path(__file__).parents[1] / "executor" / "files" / "transfers.yaml").read_text(encoding="utf-8")
SEND = 'x-transfer: {upload: "$.make.file.link", headers: {x-ms-blob-type: BlockBlob}, most: 3000000, left: "The file waits: delete it, then send it again."}'
TAKE = 'x-transfer: {download: "$.read.file.link", size: "$.read.file.size"}'
BODY = "x-body: {types: {.png: image/png}, most: 1000}"


def test_transfer_tool_takes_file_path_and_has_matching_annotations(folder: Folder) -> None:
    tools = folder.link(TEXT).tools
    assert [argument.name for argument in tools["send-file"].arguments] == ["filePath"]
    assert [argument.name for argument in tools["take-file"].arguments] == ["fileId", "filePath", "overwrite"]
    assert [argument.name for argument in tools["send-picture"].arguments] == ["fileId", "filePath"]
    assert tools["take-file"].input_schema["required"] == ["fileId", "filePath"]
    annotations = tools["take-file"].annotations
    assert (annotations.read_only, annotations.destructive, annotations.open_world) == (False, True, True)
    assert not tools["send-file"].annotations.read_only
    assert not tools["send-picture"].annotations.read_only


def test_select_read_only_omits_download_tools(folder: Folder) -> None:
    assert dict(folder.link(TEXT).select(read_only=True).tools) == {}


# (what is wrong, the change, a text on the line of the problem, the rule)
CASES = [
    ("both directions", (TAKE, 'x-transfer: {download: "$.read.a", upload: "$.read.b"}'), "x-transfer: {download", "x-transfer"),
    ("no direction", (TAKE, "x-transfer: {}"), "x-transfer: {}", "x-transfer"),
    ("a size for an upload", ("most: 3000000, ", 'size: "$.make.file.size", '), "x-transfer: {upload", "x-transfer"),
    ("headers for a download", (TAKE, TAKE[:-1] + ", headers: {a: b}}"), "x-transfer: {download", "x-transfer"),
    ("a link of an unknown step", (TAKE, 'x-transfer: {download: "$.red.file.link"}'), "$.red.file", "x-transfer"),
    ("a link that is not a path", (TAKE, "x-transfer: {download: read}"), "download: read", "expression"),
    ("a link that is a rich path", (TAKE, 'x-transfer: {download: "$.read[*]"}'), "$.read[*]", "x-transfer"),
    ("a size that comes later", (SEND, 'x-transfer: {download: "$.make.file.link", size: "$.complete.file.size", left: "x"}'), "complete.file.size", "x-transfer"),
    ("a step that may be skipped", ("with: {id: f.fileId}}\n", 'with: {id: f.fileId}, x-when: "$.fileId"}\n'), "download: ", "x-transfer"),
    ("no description of what a failure leaves", (SEND, 'x-transfer: {upload: "$.make.file.link"}'), 'x-transfer: {upload: "$.make.file.link"}', "x-transfer"),
    ("a fact that files do not have", ("{{file.size}}", "{{file.colour}}"), "file.colour", "x-transfer"),
    ("a step named file", ("          read: {type: call", "          file: {type: call"), "file: {type: call", "unique-name"),
    ("an input that the engine adds", ("{fileId: {type: string, description: \"File.\"}}\n        steps", "{filePath: {type: string, description: \"File.\"}}\n        steps"), "filePath", "reserved-input"),
    ("a download with the hint readOnly", ('description: "Take a file."', 'description: "Take a file."\n        hints: {readOnly: true}'), "readOnly: true", "hints"),
    ("x-transfer next to a call", ("        call: api.put-picture\n", '        x-transfer: {upload: "$.a.b"}\n        call: api.put-picture\n'), 'upload: "$.a.b"', "x-transfer"),
    ("x-body next to a body", (BODY, BODY + ", body: {type: json, data: {}}"), "x-body", "x-body"),
    ("x-body of a GET", ("put-picture: {method: PUT", "put-picture: {method: GET"), "x-body", "x-body"),
    ("an ending without a dot", (".png: image/png", "png: image/png"), "x-body", "x-body"),
    ("an invalid media type", (".png: image/png", ".png: picture"), "x-body", "x-body"),
    ("an input named filePath", ("put-picture: {method: PUT, inputParameters: {", "put-picture: {method: PUT, inputParameters: {filePath: {in: query}, "), "x-body", "x-body"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_broken_x_transfer_or_x_body_is_reported_with_its_line(
    folder: Folder, change: tuple[str, str], part: str, rule: str
) -> None:
    text = edit(change, text=TEXT)
    problems = folder.find_problems(text)
    assert (find_line(text, part), rule) in {(problem.line, problem.rule) for problem in problems}, list_rules(problems)


def test_strip_removes_x_transfer_and_x_body() -> None:
    plain = str(strip(parse(TEXT)))
    assert "x-transfer" not in plain
    assert "x-body" not in plain
