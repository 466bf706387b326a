"""The picture in the README is the demo's real output."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.house.documents import ROOT

PICTURE = ROOT / "docs/images/demo.svg"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
def test_picture_shows_what_the_demo_prints(tmp_path: Path) -> None:
    drawn = tmp_path / "demo.svg"
    subprocess.run([sys.executable, ROOT / "scripts/screenshot.py", drawn], check=True, timeout=120)
    assert drawn.read_text(encoding="utf-8") == PICTURE.read_text(encoding="utf-8"), "run python scripts/screenshot.py"


def test_picture_has_a_text_alternative_and_the_readme_too() -> None:
    picture = ET.parse(PICTURE).getroot()
    shown = "".join(node.text or "" for node in picture.iter(f"{SVG}text"))
    described = picture.findtext(f"{SVG}desc") or ""
    assert "list-recent-itwins" in shown
    assert "".join(described.split()) == "".join(shown.split())
    alternative = re.search(r"!\[([^\]]+)\]\(docs/images/demo\.svg\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert alternative is not None
    assert len(alternative[1]) > 80
