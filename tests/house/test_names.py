"""Names of modules and public classes are unique in the core layers."""

import ast
from collections import defaultdict
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src/itwin_mcp"
CORE = ("capability", "executor", "upstream", "server", "hosting")


def list_modules() -> list[Path]:
    files = (file for layer in CORE for file in sorted((SOURCES / layer).rglob("*.py")))
    return [file for file in files if file.stem != "__init__"]


def find_duplicates(owners: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the names that more than one file defines, with the files."""
    return {name: files for name, files in owners.items() if len(files) > 1}


def test_no_two_core_modules_share_a_base_name() -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    for file in list_modules():
        owners[file.stem].append(str(file.relative_to(SOURCES)))
    assert find_duplicates(owners) == {}


def test_no_two_core_modules_share_a_public_class_name() -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    for file in list_modules():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].append(str(file.relative_to(SOURCES)))
    assert find_duplicates(owners) == {}
