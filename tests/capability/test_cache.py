"""Parsed files are kept as JSON; any trouble with that only means that a file is parsed again."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import itwin_mcp
from itwin_mcp.capability import strict_yaml
from itwin_mcp.capability.catalog import shipped
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.loader import load
from itwin_mcp.errors import CapabilityError
from tests.capability.files import GOOD, SECTION, TOOL, Folder, bent, line_of


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "itwin-mcp"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were parsed as YAML."""
    texts: list[str] = []
    parse = strict_yaml.parse

    def noted(text: str, **bounds: int) -> object:
        texts.append(text)
        return parse(text, **bounds)

    monkeypatch.setattr(strict_yaml, "parse", noted)
    return texts


def test_a_second_start_parses_no_yaml_and_serves_the_same(folder: Folder, cache: Path, parsed: list[str]) -> None:
    folder.write(SECTION, "bolts.yaml")
    first = folder.link(GOOD, TOOL, cache=cache)
    assert len(parsed) == 3
    assert len(list(cache.iterdir())) == 3  # the imported file too
    parsed.clear()
    second = folder.link(GOOD, TOOL, cache=cache)
    assert parsed == []
    assert [(tool.name, tool.input_schema, tool.output_schema) for tool in second.tools.values()] == [
        (tool.name, tool.input_schema, tool.output_schema) for tool in first.tools.values()
    ]


def test_a_second_start_imports_neither_yaml_nor_jsonschema_nor_jsonpath(cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from itwin_mcp.capability.catalog import shipped; from itwin_mcp.capability.linker import link_files\n"
        f"print(len(link_files(shipped(), cache=Path({str(cache)!r})).tools))\n"
        "print(*(name for name in ('yaml', 'jsonschema', 'jsonpath') if name in sys.modules))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(2)
    ]
    assert runs[0][1] == "yaml jsonschema"
    assert runs[1][1] == ""
    assert runs[0][0] == runs[1][0] == str(len(link_files(shipped()).tools))


@pytest.mark.parametrize(
    "damage", ["", "{", "null", "[]", '"text"', '{"ikanos": "1.0.0-beta5", "surplus": 1}', "[" * 100_000, "\x00"]
)
def test_a_damaged_entry_means_parse_again_and_is_put_right(
    folder: Folder, cache: Path, parsed: list[str], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder.link(GOOD, cache=cache)
    (entry,) = cache.iterdir()
    whole = entry.read_text(encoding="utf-8")
    entry.write_text(damage, encoding="utf-8")
    parsed.clear()
    with caplog.at_level(logging.WARNING):
        assert folder.link(GOOD, cache=cache).tools
    assert len(parsed) == 1
    assert "is damaged; the file is parsed again" in caplog.text
    assert entry.read_text(encoding="utf-8") == whole


def test_an_entry_that_is_not_text_or_no_file_means_parse_again(folder: Folder, cache: Path) -> None:
    folder.link(GOOD, cache=cache)
    (entry,) = cache.iterdir()
    entry.write_bytes(b"\xff\xfe")
    assert folder.link(GOOD, cache=cache).tools
    entry.unlink()
    entry.mkdir()
    assert folder.link(GOOD, cache=cache).tools


def test_another_content_or_version_is_another_entry(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.link(GOOD, cache=cache)
    changed = bent(('display: "Flows"', 'display: "Streams"'))
    folder.link(changed, cache=cache)
    assert len(list(cache.iterdir())) == 2
    assert load(folder.write(changed), cache=cache).data["capability"]["aggregates"][0]["display"] == "Streams"
    monkeypatch.setattr(itwin_mcp, "__version__", "999.0")
    folder.link(GOOD, cache=cache)
    assert len(list(cache.iterdir())) == 3


def test_nothing_is_cached_unless_everything_holds(folder: Folder, cache: Path) -> None:
    broken = bent(("call: bolts-api.list-bolts", "call: bolts-api.list-nuts"), text=TOOL)
    folder.write(SECTION, "bolts.yaml")
    for _ in range(2):  # the second time it is refused just so
        with pytest.raises(CapabilityError, match="list-nuts"):
            folder.link(GOOD, broken, cache=cache)
        assert not cache.exists()


def test_a_mistake_found_after_a_cached_parse_still_names_its_line(folder: Folder, cache: Path) -> None:
    folder.write(SECTION, "bolts.yaml")
    folder.link(TOOL, cache=cache)
    with pytest.raises(CapabilityError) as caught:
        folder.link(TOOL, TOOL, cache=cache)
    assert [(Path(problem.file).name, problem.line) for problem in caught.value.problems] == [
        ("file1.yaml", line_of(TOOL, "      list-bolts:"))
    ]


def test_a_folder_that_cannot_be_written_only_warns(
    folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING):
        assert folder.link(GOOD, cache=occupied).tools
    assert "cannot be cached" in caplog.text
    assert occupied.read_text() == "a file, not a folder"


def test_a_write_that_fails_leaves_nothing_half_written(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    assert folder.link(GOOD, cache=cache).tools
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_what_is_cached_is_the_user_s_alone(folder: Folder, cache: Path) -> None:
    folder.link(GOOD, cache=cache)
    (entry,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)
