"""The plain export: our words go by position, what stays is valid and re-reads equal in any reader."""

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

from itwin_mcp.capability.catalog import shipped
from itwin_mcp.capability.export import export, plain_yaml
from itwin_mcp.capability.extensions import WORDS, strip
from itwin_mcp.capability.linker import checked_files, link_files
from itwin_mcp.capability.loader import read_data
from itwin_mcp.capability.strict_yaml import parse
from itwin_mcp.errors import CapabilityError, SettingsError
from tests.capability.files import GOOD, SECTION, TOOL, Folder

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]
SCHEMA = Path(os.environ.get("ITWIN_MCP_IKANOS_SCHEMA") or ROOT.parent / "shared" / "naftiko" / "ikanos-schema.json")
HAS_SCHEMA = pytest.mark.skipif(
    not SCHEMA.is_file(),
    reason=f"the format's JSON Schema is not at {SCHEMA}; ITWIN_MCP_IKANOS_SCHEMA says where it is",
)


def complaints(document: Any) -> list[str]:
    """What the format's own schema says against a document."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return [f"{list(error.absolute_path)}: {error.message[:300]}" for error in validator.iter_errors(document)]


def test_both_kinds_of_x_keys_are_told_apart_by_position(tmp_path: Path) -> None:
    (written,) = export([DATA / "both-kinds.yaml"], tmp_path)
    assert written.read_text(encoding="utf-8") == (DATA / "both-kinds.plain.yaml").read_text(encoding="utf-8")


@HAS_SCHEMA
def test_the_file_of_both_kinds_is_valid_once_stripped() -> None:
    data = read_data(DATA / "both-kinds.yaml")
    assert complaints(strip(data)) == []
    assert complaints(data) != []


@HAS_SCHEMA
@pytest.mark.parametrize("file", checked_files(shipped()), ids=lambda file: file.name)
def test_every_shipped_file_is_plain_naftiko_once_stripped(file: Path) -> None:
    assert complaints(strip(read_data(file))) == []


@pytest.mark.parametrize("file", checked_files(shipped()), ids=lambda file: file.name)
def test_no_word_of_ours_is_left_in_a_shipped_file(file: Path) -> None:
    def keys(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(keys, node), set())
        return set(node).union(*map(keys, node.values())) if isinstance(node, dict) else set()

    assert not keys(strip(read_data(file))) & set(WORDS)


def test_a_map_of_outputs_holds_names_and_a_list_does_not() -> None:
    assert strip({"outputParameters": {"x-a": {"type": "array", "items": {"x-b": {"x-schema": {}}}}}}) == {
        "outputParameters": {"x-a": {"type": "array", "items": {"x-b": {}}}}
    }
    assert strip({"outputParameters": [{"x-a": 1, "items": {"x-b": 1, "properties": {"x-c": {"x-schema": 1}}}}]}) == {
        "outputParameters": [{"items": {"properties": {"x-c": {}}}}]
    }


def test_a_body_s_data_is_left_alone_and_an_input_called_body_is_not_one() -> None:
    assert strip({"body": {"type": "json", "x-a": 1, "data": {"x-b": [{"x-c": 1}]}}}) == {
        "body": {"type": "json", "data": {"x-b": [{"x-c": 1}]}}
    }
    assert strip({"inputParameters": {"body": {"in": "query", "x-wire": "b", "data": {"x-a": 1}}}}) == {
        "inputParameters": {"body": {"in": "query", "data": {}}}
    }


def test_stripping_leaves_the_document_itself_as_it_was() -> None:
    document = {"x-a": 1, "tools": {"x-b": {"x-c": 1}}}
    assert strip(document) == {"tools": {"x-b": {}}}
    assert document == {"x-a": 1, "tools": {"x-b": {"x-c": 1}}}


# --- the files --------------------------------------------------------------------------------------------------


def test_files_and_those_they_import_keep_their_places(folder: Folder, tmp_path: Path) -> None:
    folder.write(SECTION, "shared/bolts.yaml")
    tool = folder.write(TOOL.replace("./bolts.yaml", "./shared/bolts.yaml"), "tool.yaml")
    written = export([tool], tmp_path / "plain" / "deep")
    assert [file.relative_to(tmp_path).as_posix() for file in written] == [
        "plain/deep/tool.yaml", "plain/deep/shared/bolts.yaml"
    ]  # fmt: skip
    assert list(link_files(written[:1]).tools) == ["list-bolts"]  # the plain files are capability files too


def test_the_shipped_files_are_exported_to_what_they_say(tmp_path: Path) -> None:
    sources = checked_files(shipped())
    written = export(shipped(), tmp_path)
    assert {file.relative_to(tmp_path) for file in written} == {
        source.relative_to(shipped()[0].resolve().parent) for source in sources
    }
    for source, target in zip(sources, written, strict=True):
        assert parse(target.read_text(encoding="utf-8")) == strip(read_data(source))


def test_a_file_that_breaks_rules_is_not_exported(folder: Folder, tmp_path: Path) -> None:
    file = folder.write(GOOD.replace("ref: flows.find-part", "ref: flows.no"))
    with pytest.raises(CapabilityError):
        export([file], tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_the_files_themselves_are_never_overwritten(folder: Folder) -> None:
    file = folder.write(GOOD)
    with pytest.raises(SettingsError, match="export to another folder"):
        export([file], file.parent)
    assert file.read_text(encoding="utf-8") == GOOD


def test_a_folder_that_cannot_be_written_is_said(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        export([folder.write(GOOD)], tmp_path / "occupied")


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "On", "OFF", "y", "N", "true", "Null", "~", "5", "-5", "+5", "0x1F", "0o17", "010", "1e3", "1_000", ".5", ".inf", "-.NaN", "1:30", "2026-05-23", "1.0.0", "<<", "=", "-", "?", "*a", "&a", "!a", "@", "`", "%", "#", "{a", "[", "'a", '"a', "a:", "a#b", "", " a", "a ", "a\n", "\na", "a\tb", "a  b", "a\u2028b", "\x07", "\ufeff", "a: b", "a #b", "- a", "é", "🔩"],
)  # fmt: skip
def test_text_that_some_reader_would_take_for_something_else_stays_text(text: str) -> None:
    document = {"value": text, text: [text]}
    written = plain_yaml(document)
    assert parse(written) == document
    assert yaml.safe_load(written) == document


def test_what_yaml_1_1_or_1_2_misreads_stands_in_quotes() -> None:
    for text in ("y", "NO", "1e3", "0o17", "12:30", "2026-05-23", "1.0.0", "~", "on"):
        assert plain_yaml({"a": text}) in (f'a: "{text}"\n', f"a: '{text}'\n")


def test_the_export_is_readable_block_style() -> None:
    written = plain_yaml({"a": {"b": [{"c": "text", "d": []}, 5, None, True]}, "e": "one\ntwo\n"})
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
def test_any_data_re_reads_equal_here_and_in_a_reader_of_yaml_1_1(value: Any) -> None:
    written = plain_yaml({"value": value})
    assert parse(written) == {"value": value}
    assert yaml.safe_load(written) == {"value": value}
