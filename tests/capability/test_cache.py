"""The cache of parsed files: a later start parses nothing, and damaged list_entries are replaced."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import itwin_mcp
from itwin_mcp.capability import strict_yaml
from itwin_mcp.capability.documents import find_shipped_files, load_document
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CapabilityError
from tests.capability.files import GOOD, SECTION, TOOL, Folder, edit, find_line


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "itwin-mcp"


def list_entries(cache: Path) -> list[Path]:
    """Return the entries of the test's files, without the entry of our own `entities.yaml`, which is always read."""
    return [file for file in cache.iterdir() if b"x-entities" not in file.read_bytes()]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the texts that are parsed as YAML."""
    texts: list[str] = []
    parse = strict_yaml.parse

    def record(text: str, **bounds: int) -> object:
        texts.append(text)
        return parse(text, **bounds)

    monkeypatch.setattr(strict_yaml, "parse", record)
    return texts


def test_link_files_parses_no_yaml_with_a_filled_cache(folder: Folder, cache: Path, parsed: list[str]) -> None:
    folder.write(SECTION, "bolts.yaml")
    first = folder.link(GOOD, TOOL, cache=cache)
    assert len(parsed) == 4  # with our own entities.yaml
    assert len(list_entries(cache)) == 3  # with the imported file
    parsed.clear()
    second = folder.link(GOOD, TOOL, cache=cache)
    assert parsed == []
    assert [(tool.name, tool.input_schema, tool.output_schema) for tool in second.tools.values()] == [
        (tool.name, tool.input_schema, tool.output_schema) for tool in first.tools.values()
    ]


def test_link_files_imports_no_parser_with_a_filled_cache(cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from itwin_mcp.capability.documents import find_shipped_files\n"
        "from itwin_mcp.capability.linker import link_files\n"
        f"print(len(link_files(find_shipped_files(), cache=Path({str(cache)!r})).tools))\n"
        "print(*(name for name in ('yaml', 'jsonschema', 'jsonpath') if name in sys.modules))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(2)
    ]
    assert runs[0][1] == "yaml jsonschema"
    assert runs[1][1] == ""
    assert runs[0][0] == runs[1][0] == str(len(link_files(find_shipped_files()).tools))


@pytest.mark.parametrize(
    "damage", ["", "{", "null", "[]", '"text"', '{"ikanos": "1.0.0-beta5", "surplus": 1}', "[" * 100_000, "\x00"]
)
def test_damaged_cache_entry_is_replaced(
    folder: Folder, cache: Path, parsed: list[str], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder.link(GOOD, cache=cache)
    (entry,) = list_entries(cache)
    original = entry.read_text(encoding="utf-8")
    entry.write_text(damage, encoding="utf-8")
    parsed.clear()
    with caplog.at_level(logging.WARNING):
        assert folder.link(GOOD, cache=cache).tools
    assert len(parsed) == 1
    assert "is damaged; the file is parsed again" in caplog.text
    assert entry.read_text(encoding="utf-8") == original


def test_unreadable_cache_entry_is_ignored(folder: Folder, cache: Path) -> None:
    folder.link(GOOD, cache=cache)
    (entry,) = list_entries(cache)
    entry.write_bytes(b"\xff\xfe")
    assert folder.link(GOOD, cache=cache).tools
    entry.unlink()
    entry.mkdir()
    assert folder.link(GOOD, cache=cache).tools


def test_cache_entry_depends_on_content_and_version(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.link(GOOD, cache=cache)
    changed = edit(('display: "Flows"', 'display: "Streams"'))
    folder.link(changed, cache=cache)
    assert len(list_entries(cache)) == 2
    assert load_document(folder.write(changed), cache=cache).data["capability"]["aggregates"][0]["display"] == "Streams"
    monkeypatch.setattr(itwin_mcp, "__version__", "999.0")
    folder.link(GOOD, cache=cache)
    assert len(list_entries(cache)) == 3


def test_cache_stays_empty_if_any_file_is_broken(folder: Folder, cache: Path) -> None:
    broken = edit(("call: bolts-api.list-bolts", "call: bolts-api.list-nuts"), text=TOOL)
    folder.write(SECTION, "bolts.yaml")
    for _ in range(2):  # the second run must not find it in the cache
        with pytest.raises(CapabilityError, match="list-nuts"):
            folder.link(GOOD, broken, cache=cache)
        assert not cache.exists()


def test_problem_in_a_cached_file_names_its_line(folder: Folder, cache: Path) -> None:
    folder.write(SECTION, "bolts.yaml")
    folder.link(TOOL, cache=cache)
    with pytest.raises(CapabilityError) as caught:
        folder.link(TOOL, TOOL, cache=cache)
    assert [(Path(problem.file).name, problem.line) for problem in caught.value.problems] == [
        ("file1.yaml", find_line(TOOL, "      list-bolts:"))
    ]


def test_unwritable_cache_folder_is_a_warning(folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING):
        assert folder.link(GOOD, cache=occupied).tools
    assert "cannot be cached" in caplog.text
    assert occupied.read_text() == "a file, not a folder"


def test_failed_cache_write_leaves_no_file(folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    assert folder.link(GOOD, cache=cache).tools
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_cache_files_are_readable_by_the_user_only(folder: Folder, cache: Path) -> None:
    folder.link(GOOD, cache=cache)
    (entry,) = list_entries(cache)
    assert (cache.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)
