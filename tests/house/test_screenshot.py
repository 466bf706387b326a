"""The picture in the README shows the real output of the demo."""

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
def test_screenshot_script_draws_the_picture_in_the_readme(tmp_path: Path) -> None:
    drawn = tmp_path / "demo.svg"
    subprocess.run([sys.executable, ROOT / "scripts/screenshot.py", drawn], check=True, timeout=120)
    assert drawn.read_text(encoding="utf-8") == PICTURE.read_text(encoding="utf-8"), "run python scripts/screenshot.py"


def test_picture_and_readme_have_a_text_alternative() -> None:
    picture = ET.parse(PICTURE).getroot()
    shown = "".join(node.text or "" for node in picture.iter(f"{SVG}text"))
    described = picture.findtext(f"{SVG}desc") or ""
    assert "list-recent-itwins" in shown
    assert "".join(described.split()) == "".join(shown.split())
    alternative = re.search(r"!\[([^\]]+)\]\(docs/images/demo\.svg\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert alternative is not None
    assert len(alternative[1]) > 80
