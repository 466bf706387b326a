"""Versions of the format, and the words that are read, warned about and not served."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

import pytest

from itwin_mcp.capability.expressions import Argument
from itwin_mcp.capability.tool_actions import Call
from tests.capability.files import Folder, edit, find_line, list_rules

SCRIPT = ("one: {type: lookup, index: all, match: kind, lookupValue: \"$.kind\", outputParameters: [id, name]}", "one: {type: script, language: python, file: a.py}")  # fmt: skip
SERVER = '  - {type: mcp, namespace: other, endpoint: "https://other.example.org/mcp", tools: {find: {description: "Find."}}}\n'


@pytest.mark.parametrize("version", ["beta4", "beta5", "beta6", "beta7"])
def test_link_files_reads_every_version(folder: Folder, version: str) -> None:
    catalog = folder.link(edit(("1.0.0-beta5", f"1.0.0-{version}")))
    assert (len(catalog.tools), catalog.warnings) == (3, ())


# (what is not served, the change, a text on the line of the warning)
CASES = [
    ("control", ("  - type: mcp\n", "  - {type: control, port: 3001}\n  - type: mcp\n"), "type: control"),
    ("tunnel", ("  - type: http\n", "  - type: http\n    tunnel: {type: ziti, service: a, identity: b}\n"), "tunnel:"),
    ("outputSchema", ("delete-part: {", "delete-part: {outputSchema: x, "), "outputSchema"),
    ("ttlMs", ("    transport: stdio\n", "    ttlMs: 5\n"), "ttlMs"),
    ("cacheScope", ("    transport: stdio\n", "    cacheScope: public\n"), "cacheScope"),
    ("port", ("    transport: stdio\n", "    port: 3001\n"), "port: 3001"),
    ("address", ("    transport: stdio\n", '    address: "0.0.0.0"\n'), "address: "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_link_files_warns_of_what_is_not_served_and_serves_the_rest(
    folder: Folder, change: tuple[str, str], part: str
) -> None:
    text = edit(change)
    catalog = folder.link(text)
    assert list_rules(list(catalog.warnings)) == [(find_line(text, part), "not-served")]
    assert catalog.tools.keys() == {"list-parts", "get-part", "find-part"}


def test_tool_that_runs_a_script_is_left_out(folder: Folder) -> None:
    catalog = folder.link(edit(SCRIPT))
    assert catalog.tools.keys() == {"list-parts", "get-part"}
    (warning,) = catalog.warnings
    assert "'find-part' is left out: the step 'one' runs a script" in warning.message


def test_tool_that_calls_an_mcp_server_is_left_out(folder: Folder) -> None:
    call = "all: {type: call, call: parts-api.list-parts, with: {kind: flows.kind}}"
    changes = (("  aggregates:\n", SERVER + "  aggregates:\n"), (call, "all: {type: call, call: other.find}"))
    catalog = folder.link(edit(("1.0.0-beta5", "1.0.0-beta7"), *changes))
    assert catalog.tools.keys() == {"list-parts", "get-part"}
    messages = " ".join(warning.message for warning in catalog.warnings)
    assert "the MCP server 'other' is not called" in messages
    assert "'find-part' is left out: 'other.find' calls an MCP server" in messages


def test_version_decides_whether_an_mcp_server_may_be_consumed(folder: Folder) -> None:
    text = edit(("  aggregates:\n", SERVER + "  aggregates:\n"))
    assert list_rules(folder.find_problems(text)) == [(find_line(text, "type: mcp, namespace: other"), "known-word")]


def test_path_needs_neither_a_leading_slash_nor_declared_slots(folder: Folder) -> None:
    text = edit(('path: "/parts"', 'path: "parts"'), ("get-part: {method: GET, inputParameters: {id: {in: path}}}", "get-part: {method: GET}"))  # fmt: skip
    operations = folder.link(text).operations
    assert operations["parts-api.list-parts"].path == (("v1",), ("parts",))
    assert operations["parts-api.get-part"].required == {"id"}


def test_input_without_a_binding_fills_the_slot_with_its_name(folder: Folder) -> None:
    old = 'partId: {type: string, description: "Part."}\n        call: parts-api.get-part\n        with: {id: parts.partId}'
    new = 'id: {type: string, description: "Part."}\n        call: parts-api.get-part'
    catalog = folder.link(edit((old, new)))
    action = catalog.tools["get-part"].action
    assert isinstance(action, Call)
    assert (dict(action.bindings), catalog.warnings) == ({"id": Argument("id")}, ())
