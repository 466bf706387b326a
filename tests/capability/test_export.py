"""Export as plain Naftiko: without our words, valid for the format, and the same in every YAML reader."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.capability.documents import find_shipped_files, read_data
from itwin_mcp.capability.export import dump_plain_yaml, export_files, make_plain
from itwin_mcp.capability.extensions import WORDS, strip
from itwin_mcp.capability.linker import check_files, link_files
from itwin_mcp.capability.strict_yaml import parse
from itwin_mcp.errors import CapabilityError, SettingsError
from tests.capability.files import GOOD, SECTION, TOOL, Folder, edit

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]
SCHEMA = Path(os.environ.get("ITWIN_MCP_IKANOS_SCHEMA") or ROOT.parent / "shared" / "naftiko" / "ikanos-schema.json")
HAS_SCHEMA = pytest.mark.skipif(
    not SCHEMA.is_file(),
    reason=f"the format's JSON Schema is not at {SCHEMA}; set ITWIN_MCP_IKANOS_SCHEMA to its path",
)


def list_schema_errors(document: Any) -> list[str]:
    """Return the errors of a document against the JSON Schema of the format."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return [f"{list(error.absolute_path)}: {error.message[:300]}" for error in validator.iter_errors(document)]


def test_export_strips_x_words_but_keeps_x_names(tmp_path: Path) -> None:
    (written,) = export_files([DATA / "both-kinds.yaml"], tmp_path).files
    assert written.read_text(encoding="utf-8") == (DATA / "both-kinds.plain.yaml").read_text(encoding="utf-8")


@HAS_SCHEMA
def test_stripped_example_file_is_valid_naftiko() -> None:
    data = read_data(DATA / "both-kinds.yaml")
    assert list_schema_errors(strip(data)) == []
    assert list_schema_errors(data) != []


@HAS_SCHEMA
@pytest.mark.parametrize("file", check_files(find_shipped_files()), ids=lambda file: file.name)
def test_stripped_shipped_file_is_valid_naftiko(file: Path) -> None:
    assert list_schema_errors(strip(read_data(file))) == []


@pytest.mark.parametrize("file", check_files(find_shipped_files()), ids=lambda file: file.name)
def test_strip_leaves_no_x_word_in_a_shipped_file(file: Path) -> None:
    def list_keys(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(list_keys, node), set())
        return set(node).union(*map(list_keys, node.values())) if isinstance(node, dict) else set()

    assert not list_keys(strip(read_data(file))) & set(WORDS)


def test_strip_keeps_x_names_in_output_maps_only() -> None:
    assert strip({"outputParameters": {"x-a": {"type": "array", "items": {"x-b": {"x-schema": {}}}}}}) == {
        "outputParameters": {"x-a": {"type": "array", "items": {"x-b": {}}}}
    }
    assert strip({"outputParameters": [{"x-a": 1, "items": {"x-b": 1, "properties": {"x-c": {"x-schema": 1}}}}]}) == {
        "outputParameters": [{"items": {"properties": {"x-c": {}}}}]
    }


def test_strip_keeps_body_data_but_not_that_of_an_input_named_body() -> None:
    assert strip({"body": {"type": "json", "x-a": 1, "data": {"x-b": [{"x-c": 1}]}}}) == {
        "body": {"type": "json", "data": {"x-b": [{"x-c": 1}]}}
    }
    assert strip({"inputParameters": {"body": {"in": "query", "x-wire": "b", "data": {"x-a": 1}}}}) == {
        "inputParameters": {"body": {"in": "query", "data": {}}}
    }


def test_strip_omits_outputs_that_are_names() -> None:
    name_output = {"x-take": {"name": "a.b", "of": "id"}, "type": "string"}
    assert strip({"properties": {"id": {"x-take": "last-segment"}, "name": name_output}}) == {"properties": {"id": {}}}
    assert strip({"outputParameters": {"all": {"type": "array", "items": {"id": {}, "name": name_output}}}}) == {
        "outputParameters": {"all": {"type": "array", "items": {"id": {}}}}
    }


def test_strip_does_not_change_its_argument() -> None:
    document = {"x-a": 1, "tools": {"x-b": {"x-c": 1}}}
    assert strip(document) == {"tools": {"x-b": {}}}
    assert document == {"x-a": 1, "tools": {"x-b": {"x-c": 1}}}


# --- exported files --------------------------------------------------------------------------------------------------


def test_export_keeps_relative_paths_of_imported_files(folder: Folder, tmp_path: Path) -> None:
    folder.write(SECTION, "shared/bolts.yaml")
    tool = folder.write(TOOL.replace("./bolts.yaml", "./shared/bolts.yaml"), "tool.yaml")
    written = export_files([tool], tmp_path / "plain" / "deep").files
    assert [file.relative_to(tmp_path).as_posix() for file in written] == [
        "plain/deep/tool.yaml", "plain/deep/shared/bolts.yaml"
    ]  # fmt: skip
    assert list(link_files(written[:1]).tools) == ["list-bolts"]  # exported files can be linked again


def test_export_writes_the_stripped_shipped_files(tmp_path: Path) -> None:
    sources = check_files(find_shipped_files())
    written = export_files(find_shipped_files(), tmp_path).files
    assert {file.relative_to(tmp_path) for file in written} == {
        source.relative_to(find_shipped_files()[0].resolve().parent) for source in sources
    }
    plain, _ = make_plain({source: read_data(source) for source in sources})
    for source, target in zip(sources, written, strict=True):
        assert parse(target.read_text(encoding="utf-8")) == plain[source]


def test_export_spells_wire_names_and_reports_those_that_it_cannot_spell(folder: Folder, tmp_path: Path) -> None:
    text = edit(
        (
            "kind: {in: query}",
            'kind: {in: header, x-wire: X-Kind}\n              search: {in: query, x-wire: "$search"}',
        ),
        (
            "          kind: {type: string, required: false",
            '          words: {type: string, required: false, description: "Words."}\n'
            "          kind: {type: string, required: false",
        ),
        ("with: {kind: parts.kind}", "with: {kind: parts.kind, search: parts.words}"),
    )
    exported = export_files([folder.write(text)], tmp_path / "plain")
    data = parse(exported.files[0].read_text(encoding="utf-8"))["capability"]
    operation = data["consumes"][0]["resources"]["parts"]["operations"]["list-parts"]
    assert operation["inputParameters"] == {"X-Kind": {"in": "header"}}
    tool = data["exposes"][0]["tools"]["list-parts"]
    assert (tool["with"], list(tool["inputParameters"])) == ({"X-Kind": "parts.kind"}, ["kind"])
    assert data["aggregates"][0]["flows"]["find-part"]["steps"]["all"]["with"] == {"X-Kind": "flows.kind"}
    assert exported.losses == (
        ("parts-api.list-parts", "the query parameter $search is left out: the format cannot spell it"),
        ("parts-api.list-parts", "the query parameter $top is left out: the format cannot spell it"),
        ("list-parts", "the argument words is left out: it filled a parameter that is left out"),
    )
    assert exported.words == {"x-each": 1, "x-page": 1, "x-schema": 1, "x-wait": 1}


def test_export_of_our_files_reports_every_parameter_that_is_left_out() -> None:
    sources = {source: read_data(source) for source in check_files(find_shipped_files())}
    unspelled = {
        (f"{entry['namespace']}.{name}", parameter["x-wire"])
        for data in sources.values()
        for entry in data.get("consumes") or []
        for resource in entry["resources"].values()
        for name, operation in resource["operations"].items()
        for parameter in operation.get("inputParameters", {}).values()
        if "$" in parameter.get("x-wire", "")
    }
    plain, losses = make_plain(sources)
    reported = {
        (subject, message.split()[3]) for subject, message in losses if message.startswith("the query parameter")
    }
    assert len(unspelled) > 10
    assert reported == unspelled
    assert "$top" not in str(plain)


def test_export_rejects_a_broken_file(folder: Folder, tmp_path: Path) -> None:
    file = folder.write(GOOD.replace("ref: flows.find-part", "ref: flows.no"))
    with pytest.raises(CapabilityError):
        export_files([file], tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_export_rejects_the_folder_of_its_sources(folder: Folder) -> None:
    file = folder.write(GOOD)
    with pytest.raises(SettingsError, match="export to another folder"):
        export_files([file], file.parent)
    assert file.read_text(encoding="utf-8") == GOOD


def test_export_reports_a_folder_that_cannot_be_written(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        export_files([folder.write(GOOD)], tmp_path / "occupied")


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "On", "OFF", "y", "N", "true", "Null", "~", "5", "-5", "+5", "0x1F", "0o17", "010", "1e3", "1_000", ".5", ".inf", "-.NaN", "1:30", "2026-05-23", "1.0.0", "<<", "=", "-", "?", "*a", "&a", "!a", "@", "`", "%", "#", "{a", "[", "'a", '"a', "a:", "a#b", "", " a", "a ", "a\n", "\na", "a\tb", "a  b", "a\u2028b", "\x07", "\ufeff", "a: b", "a #b", "- a", "é", "🔩"],
)  # fmt: skip
def test_plain_yaml_keeps_ambiguous_text_as_text(text: str) -> None:
    document = {"value": text, text: [text]}
    written = dump_plain_yaml(document)
    assert parse(written) == document
    assert yaml.safe_load(written) == document


def test_plain_yaml_quotes_text_that_yaml_readers_misread() -> None:
    for text in ("y", "NO", "1e3", "0o17", "12:30", "2026-05-23", "1.0.0", "~", "on"):
        assert dump_plain_yaml({"a": text}) in (f'a: "{text}"\n', f"a: '{text}'\n")


def test_plain_yaml_is_block_style() -> None:
    written = dump_plain_yaml({"a": {"b": [{"c": "text", "d": []}, 5, None, True]}, "e": "one\ntwo\n"})
    assert written == "a:\n  b:\n    - c: text\n      d: []\n    - 5\n    - null\n    - true\ne: |\n  one\n  two\n"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    st.sampled_from(list("ab:-?,[]{}&*!|>'\"%@`#\\ \n\t01.~<=é\x00\x85\xa0\u2028\ufeff\uffff\r")), max_size=30
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(max_examples=300)
@given(st.recursive(VALUES, lambda i: st.lists(i, max_size=4) | st.dictionaries(TEXTS, i, max_size=4), max_leaves=12))
def test_plain_yaml_round_trips_in_both_yaml_readers(value: Any) -> None:
    written = dump_plain_yaml({"value": value})
    assert parse(written) == {"value": value}
    assert yaml.safe_load(written) == {"value": value}
