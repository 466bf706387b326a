"""One sandbox process for all of Bentley's clients, with tokens of several users."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.interop.bentley.outcomes import Outcomes

PEOPLE = ("anna", "tomasz", "priya", "luca")


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Outcomes]:
    folder = tmp_path_factory.mktemp("bentley")
    database = folder / "platform.db"
    ours = [sys.executable, "-m", "itwin_mcp", "sandbox"]
    command = [*ours, "--port", "0", "--json", "--job-seconds", "0.2", "--sandbox-db", str(database)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        tokens = {}
        for name in PEOPLE:
            token = [*ours, "token", "--user", name, "--sandbox-db", str(database)]
            done = subprocess.run(token, capture_output=True, text=True, timeout=60, check=True, env=environment)
            tokens[name] = done.stdout.strip()
        make_files(folder)
        yield Outcomes(url, tokens, folder)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def make_files(folder: Path) -> None:
    """Write the files that clients upload: pictures, and baseline files, one of which is a briefcase."""
    picture = Image.linear_gradient("L").convert("RGB").resize((900, 560))
    picture.save(folder / "picture.png")
    picture.rotate(90).save(folder / "picture.jpg")
    (folder / "baseline.bim").write_bytes(bytes(range(256)) * 5000)
    (folder / "briefcase.bim").write_bytes(b"sandbox:briefcase" + bytes(4096))
