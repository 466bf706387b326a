"""iTwin.js core-backend opens the sandbox's files, pushes and pulls."""

import lzma
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.interop.bentley.outcomes import BACKEND, MAKER, Outcomes, install_backend, read_sentences

pytestmark = pytest.mark.full


@pytest.mark.parametrize("sentence", read_sentences(BACKEND))
def test_core_backend_passes_each_check(sentence: str, outcomes: Outcomes) -> None:
    outcome: dict[str, Any] | None = outcomes.of(BACKEND).get(sentence)
    assert outcome is not None, f"the script ended before this check:\n{outcomes.errors(BACKEND)}"
    assert outcome["holds"], outcome["came"]


def test_maker_script_reproduces_the_shipped_imodel(tmp_path: Path) -> None:
    folder = install_backend() / "maker"
    shutil.copytree(MAKER, folder, dirs_exist_ok=True)
    made = tmp_path / "empty_imodel.bim"
    node = shutil.which("node") or pytest.skip("node is not installed")
    done = subprocess.run([node, "make.mjs", str(made)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    shipped = files("itwin_mcp.sandbox.storage").joinpath("empty_imodel.bim.xz").read_bytes()
    assert lzma.decompress(made.with_name(f"{made.name}.xz").read_bytes()) == lzma.decompress(shipped)
