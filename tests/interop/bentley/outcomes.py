"""Outcomes of the scripts in `scripts/`: one Node process per script, one JSON line per check."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.interop import makers

SCRIPTS = Path(__file__).parent / "scripts"
SHARED = ("harness.mjs", "entities.mjs")
AREAS = ("itwins", "imodels", "authoring", "sign_in")
PATIENCE = 180  # seconds for one script

# The latest published versions. The authoring client depends on an older management client.
PACKAGES = (
    "@itwin/imodels-client-management@6.2.2",
    "@itwin/imodels-client-authoring@6.0.2",
    "@itwin/object-storage-azure@3.0.5",
    "@itwin/itwins-client@1.6.1",
    "@itwin/service-authorization@2.1.0",
    "@itwin/core-bentley@5.13.3",
)

BACKEND = "backend"  # takes longer: `.ci/full` runs it
MAKER = Path(__file__).parents[3] / "scripts" / "imodel-file"


def install_backend() -> Path:
    """Return a folder with iTwin.js in node_modules, in the versions that made the sandbox's iModel."""
    pinned = json.loads((MAKER / "package.json").read_text())["dependencies"]
    itwinjs = [f"{package}@{version}" for package, version in pinned.items()]
    access = "@itwin/imodels-access-backend@6.0.2"
    name = f"core-backend@{pinned['@itwin/core-backend']}+{access.rpartition('/')[2]}"
    # A peer dependency of one of these packages is in no registry.
    return makers._npm("--legacy-peer-deps", *itwinjs, access, name=name)


def read_sentences(area: str) -> list[str]:
    """Return the sentences of a script's checks, read without running it."""
    return re.findall(r'^await check\("([^"]+)"', (SCRIPTS / f"{area}.mjs").read_text(), re.MULTILINE)


@dataclass
class Outcomes:
    """Outcomes of all scripts. Each script runs when it is first needed."""

    url: str
    tokens: dict[str, str] = field(repr=False)
    folder: Path
    _outcomes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, repr=False)
    _errors: dict[str, str] = field(default_factory=dict, repr=False)

    def of(self, area: str) -> dict[str, dict[str, Any]]:
        """Return the outcomes of a script by sentence."""
        if area not in self._outcomes:
            self._outcomes[area] = self._run(area)
        return self._outcomes[area]

    def errors(self, area: str) -> str:
        """Return what a script wrote to standard error."""
        self.of(area)
        return self._errors[area]

    def _run(self, area: str) -> dict[str, dict[str, Any]]:
        node = shutil.which("node") or pytest.skip("node is not installed")
        # Node resolves packages from the folders above the script.
        scripts = (install_backend() if area == BACKEND else makers._npm(*PACKAGES)) / "scripts"
        shutil.copytree(SCRIPTS, scripts, dirs_exist_ok=True)
        arguments = {"url": self.url, "tokens": self.tokens, "folder": str(self.folder)}
        command = [node, str(scripts / f"{area}.mjs"), json.dumps(arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE)
            out, err = done.stdout, done.stderr
        except subprocess.TimeoutExpired as timeout:
            # On POSIX these are bytes even with text=True.
            out, err = (
                text.decode() if isinstance(text, bytes) else text or "" for text in (timeout.stdout, timeout.stderr)
            )
            err += f"\nended after {PATIENCE} s"
        self._errors[area] = err
        return {line["check"]: line for line in map(json.loads, out.splitlines())}
