"""Snapshots of the public surface. UPDATE_SNAPSHOTS=1 rewrites them; read the difference."""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "surface"
UPDATING = os.environ.get("UPDATE_SNAPSHOTS") == "1"


def agree(name: str, value: Any) -> None:
    """Check that a value equals its snapshot."""
    file = FOLDER / f"{name}.json"
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    if UPDATING:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return
    assert file.is_file(), f"{file} is missing: run UPDATE_SNAPSHOTS=1 pytest tests/contract and read the difference"
    assert json.loads(file.read_text(encoding="utf-8")) == value


def agree_between(file: Path, marker: str, text: str) -> None:
    """Check that a document has this text between `<!-- marker: … -->` and `<!-- /marker -->`."""
    document = file.read_text(encoding="utf-8")
    start = document.index("-->", document.index(f"<!-- {marker}:")) + 4
    end = document.index(f"<!-- /{marker} -->")
    if UPDATING:
        file.write_text(document[:start] + text + document[end:], encoding="utf-8")
        return
    assert document[start:end] == text, f"{file.name} is out of date: run UPDATE_SNAPSHOTS=1 pytest tests/contract"
