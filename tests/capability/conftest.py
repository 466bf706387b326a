"""A folder of capability files for each test."""

from pathlib import Path

import pytest

from tests.capability.files import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")
