"""The cache of the linked catalog: a later start links nothing, and entries that do not fit are replaced."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import itwin_mcp
from itwin_mcp.capability import linker
from itwin_mcp.capability.catalog import Annotations
from itwin_mcp.capability.catalog_cache import load_catalog
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.encoding import DecodingError, decode, encode
from itwin_mcp.capability.expressions import compile_path
from itwin_mcp.errors import CapabilityError, Problem
from itwin_mcp.runtime import read_all
from itwin_mcp.settings import read_settings
from tests.capability.files import GOOD, SECTION, TOOL, Folder

WITH_GUIDES = (
    TOOL
    + """\
    resources:
      guides:
        display: "Guides"
        uri: "parts://guides"
        description: "Guides."
        mimeType: "text/markdown"
        location: "file:///./guides"
"""
)
GUIDE = "# A guide\n\nThis guide explains the parts of a machine.\n"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "itwin-mcp"


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Collect the files that are linked."""
    files: list[Path] = []
    add = linker._Linker.add

    def record(self: linker._Linker, file: Path, *, sections: bool = False) -> None:
        files.append(file)
        add(self, file, sections=sections)

    monkeypatch.setattr(linker._Linker, "add", record)
    return files


def find_entry(cache: Path) -> Path:
    (entry,) = cache.glob("catalog-*.json")
    return entry


def find_differences(one: Any, other: Any, pairs: dict[int, Any], path: str = "$") -> list[str]:
    """Return the paths at which two values differ in a type, a field, or in which objects are shared.

    `pairs` maps the objects of one graph, by their `id`, to those of the other.
    """
    if type(one) is not type(other):
        return [f"{path}: {type(one)} {type(other)}"]
    if is_dataclass(one) or isinstance(one, BaseModel):
        if "__eq__" not in type(one).__dict__ and pairs.setdefault(id(one), other) is not other:
            return [f"{path}: another object"]
        names = [field.name for field in fields(one)] if is_dataclass(one) else list(type(one).model_fields)
        parts = [(name, getattr(one, name), getattr(other, name)) for name in names]
    elif isinstance(one, dict):
        if list(one) != list(other):
            return [f"{path}: keys"]
        parts = [(key, value, other[key]) for key, value in one.items()]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{path}: length"]
        parts = [(str(index), *both) for index, both in enumerate(zip(one, other, strict=True))]
    else:
        return [] if one == other else [f"{path}: {one!r} {other!r}"]
    return [difference for name, *both in parts for difference in find_differences(*both, pairs, f"{path}.{name}")]


def test_stored_catalog_equals_the_linked_catalog_in_every_field(cache: Path, linked: list[Path]) -> None:
    whole = load_catalog(find_shipped_files(), cache=cache)
    linked.clear()
    stored = load_catalog(find_shipped_files(), cache=cache)
    assert linked == []
    assert len(stored.tools) > 100
    assert find_differences(whole, stored, {}) == []
    assert stored.entities["imodel"].parent is stored.entities["itwin"]


def test_stored_catalog_has_its_lazy_parts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.runtime.load_catalog", load_catalog)  # tests share one linked catalog otherwise
    settings = read_settings({"ITWIN_MCP_CACHE_DIR": str(cache)})
    linked, stored = read_all(settings), read_all(settings)
    assert stored.vocabulary() == linked.vocabulary()
    assert stored.vocabulary().meanings
    assert [skill.name for skill in stored.skills()] == [skill.name for skill in linked.skills()]


def test_warnings_constants_and_queries_are_encoded() -> None:
    values = (Problem("a.yaml", 1, "rule", "text"), re.compile("a", re.IGNORECASE), compile_path("$.a[*]"), {1: ("a",)})
    assert decode(encode(values)) == values
    query = decode(encode(compile_path("$..a")))
    assert query.find({"b": {"a": 1}}) == [1]


@pytest.mark.parametrize("value", [object(), Path("a"), {"a": {object()}}])
def test_encode_refuses_other_types(value: object) -> None:
    with pytest.raises(TypeError):
        encode(value)


def change(text: str, **parts: Any) -> str:
    return json.dumps({**json.loads(text), **parts})


ROW = [0, True, False, True, False]
"""An encoded object of the class Annotations."""


@pytest.mark.parametrize(
    "parts",
    [
        {"objects": []},
        {"objects": [ROW[:-1]]},
        {"objects": [[*ROW, None]]},
        {"objects": [[1, *ROW[1:]]]},
        {"objects": [[0, [0, 1], False, True, False], ROW]},
        {"classes": [["catalog.Annotations", ["read_only"]]]},
        {"classes": [["catalog.find_similar", []]]},
        {"classes": [["subprocess.Popen", ["args"]]]},
        {"classes": []},
        {"root": [99]},
        {"root": [4, "key"]},
        {"root": [6, "("]},
        {"root": []},
    ],
)
def test_decode_refuses_damaged_data(parts: Mapping[str, Any]) -> None:
    text = encode(Annotations(*ROW[1:]))
    assert decode(text) == Annotations(*ROW[1:])
    with pytest.raises(DecodingError):
        decode(change(text, **parts))


def reorder(content: bytes) -> bytes:
    first, second, encoded = content.split(b"\n")
    data = json.loads(encoded)
    return b"\n".join([first, second, json.dumps({**data, "objects": data["objects"][::-1]}).encode()])


def reorder_with_digest(content: bytes, name: str) -> bytes:
    body = reorder(content).partition(b"\n")[2]
    return sha256(name.encode() + body).hexdigest().encode() + b"\n" + body


@pytest.mark.parametrize("damage", ["empty", "truncated", "changed", "reordered", "reordered and signed", "foreign"])
def test_damaged_entry_is_replaced_with_one_warning(
    folder: Folder, cache: Path, linked: list[Path], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    file = folder.write(GOOD)
    folder.write(SECTION, "bolts.yaml")
    load_catalog([file], cache=cache)
    entry = find_entry(cache)
    original = entry.read_bytes()
    if damage == "foreign":  # the entry of other files
        load_catalog([file, folder.write(TOOL, "tool.yaml")], cache=cache)
        (foreign,) = set(cache.glob("catalog-*.json")) - {entry}
        damaged = foreign.read_bytes()
    else:
        damaged = {
            "empty": b"",
            "truncated": original[:-100],
            "changed": original.replace(b"parts-api", b"parts-app"),
            "reordered": reorder(original),
            "reordered and signed": reorder_with_digest(original, entry.name),
        }[damage]
    assert damaged != original
    entry.write_bytes(damaged)
    linked.clear()
    with caplog.at_level(logging.WARNING):
        assert load_catalog([file], cache=cache).tools
    assert linked == [file]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the files are linked again" in caplog.text
    assert entry.read_bytes() == original


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("parts.yaml", WITH_GUIDES.replace("List bolts.", "List all bolts.")),
        ("bolts.yaml", SECTION.replace('"/bolts"', '"/all-bolts"')),
        ("guides/first.md", GUIDE.replace("explains", "describes")),
        ("guides/second.md", GUIDE),
    ],
)
def test_changed_input_is_linked_again(
    folder: Folder, cache: Path, linked: list[Path], caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    folder.write(SECTION, "bolts.yaml")
    folder.write(GUIDE, "guides/first.md")
    file = folder.write(WITH_GUIDES)
    for _ in range(2):
        load_catalog([file], cache=cache)
    assert linked == [file]
    folder.write(text, name)
    for _ in range(2):
        changed = load_catalog([file], cache=cache)
    assert linked == [file, file]
    assert find_differences(linker.link_files([file]), changed, {}) == []
    assert caplog.records == []  # editing a file is not a fault


def test_missing_import_is_reported_despite_the_entry(folder: Folder, cache: Path) -> None:
    section = folder.write(SECTION, "bolts.yaml")
    file = folder.write(TOOL)
    load_catalog([file], cache=cache)
    section.unlink()
    with pytest.raises(CapabilityError, match="there is no file"):
        load_catalog([file], cache=cache)


def test_entry_depends_on_the_version_and_the_files(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.write(GOOD)
    load_catalog([file], cache=cache)
    monkeypatch.setattr(itwin_mcp, "__version__", "999.0")
    load_catalog([file], cache=cache)
    assert len(list(cache.glob("catalog-*.json"))) == 2


def test_unwritable_folder_is_a_warning(folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING):
        assert load_catalog([folder.write(GOOD)], cache=occupied).tools
    assert "The linked catalog cannot be cached" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_entry_that_others_can_write_is_replaced(
    folder: Folder, cache: Path, linked: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = folder.write(GOOD)
    load_catalog([file], cache=cache)
    entry = find_entry(cache)
    assert (cache.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)
    entry.chmod(0o666)
    for _ in range(2):
        load_catalog([file], cache=cache)
    assert linked == [file, file]
    assert len(caplog.records) == 1
    assert "other users can write it" in caplog.text
    assert entry.stat().st_mode & 0o777 == 0o600


def write_many(folder: Folder, count: int) -> Path:
    """Write a capability file with this number of flows and of tools that list what a flow reads."""
    names = [f"things-{index}" for index in range(count)]
    operations = "".join(
        f"      {name}:\n        path: /{name}\n        operations:\n          list-{name}:\n"
        "            inputParameters: {top: {in: query}}\n"
        '            x-page: {style: link, items: "$.things", next: "$.next", size: top, most: 100}\n'
        for name in names
    )
    flows = "".join(
        f"      find-{name}:\n        description: Find things.\n        semantics: {{safe: true}}\n        steps:\n"
        f"          all: {{type: call, call: many-api.list-{name}}}\n"
        '        mappings: [{target: found, value: "$.all"}]\n'
        "        outputParameters: {found: {type: array, items: {id: {type: string}}}}\n"
        for name in names
    )
    tools = "".join(
        f"      find-{name}: {{display: Find, ref: many-flows.find-{name}}}\n"
        f"      list-{name}:\n        description: List things.\n        call: many-api.list-{name}\n"
        "        outputParameters:\n        - type: object\n          properties:\n"
        '            things: {type: array, mapping: "$.things", items: {type: object, properties: {}}}\n'
        for name in names
    )
    return folder.write(
        'ikanos: "1.0.0-beta5"\ncapability:\n  consumes:\n  - type: http\n    namespace: many-api\n'
        f"    baseUri: https://many.example.org\n    resources:\n{operations}"
        f"  aggregates:\n  - display: Flows\n    namespace: many-flows\n    flows:\n{flows}"
        f"  exposes:\n  - type: mcp\n    namespace: many\n    tools:\n{tools}",
        f"many-{count}.yaml",
    )


def count_calls(function: Callable[[], object]) -> int:
    """Return the number of functions that a function calls, directly or not, which no other process can change."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def test_linking_and_loading_take_linear_time(folder: Folder, cache: Path) -> None:
    linking, loading = [], []
    for count in (20, 40, 80):
        files = [write_many(folder, count)]
        whole = load_catalog(files, cache=cache)
        assert len(load_catalog(files, cache=cache).tools) == len(whole.tools) == 2 * count
        assert whole.tools["find-things-1"].lists == {"$.found": "list-things-1"}
        linking.append(count_calls(lambda: linker.link_files(files, cache=cache)))  # noqa: B023
        loading.append(count_calls(lambda: load_catalog(files, cache=cache)))  # noqa: B023
    for first, second, third in (linking, loading):
        assert third - second <= 2.05 * (second - first)
