"""Act as a desktop host of an extension: unpack it, fill in the settings, and start its command."""

import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters


@dataclass(frozen=True)
class Extension:
    """An unpacked extension."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "manifest.json").read_text(encoding="utf-8")))

    def started(self, **settings: bool | str) -> dict[str, Any]:
        """Return command, arguments and environment, with these settings and the defaults of the others.

        A setting without a value or default stays a placeholder, as in real hosts.
        """
        manifest = self.manifest
        assert set(settings) <= set(manifest["user_config"])
        defaults = {name: one["default"] for name, one in manifest["user_config"].items() if "default" in one}
        values = {f"user_config.{name}": value for name, value in (defaults | settings).items()}
        values["__dirname"] = str(self.folder)

        def fill(text: str) -> str:
            return re.sub(r"\$\{([\w.]+)\}", lambda found: _text(values.get(found[1], found[0])), text)

        config = manifest["server"]["mcp_config"]
        return {
            "command": fill(config["command"]),
            "args": [fill(one) for one in config["args"]],
            "env": {name: fill(text) for name, text in config["env"].items()},
        }

    def parameters(self, *, instead: list[str] | None = None, **settings: bool | str) -> StdioServerParameters:
        """Return the parameters for our client. `instead` replaces the words before `-m` by another interpreter."""
        told = self.started(**settings)
        command = [told["command"], *told["args"]]
        if instead is not None:
            command = [*instead, *command[command.index("-m") :]]
        # tests/conftest.py replaced the developer's settings and folders by those of the test.
        return StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ) | told["env"])


def unpack(bundle: Path, folder: Path) -> Extension:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return Extension(folder)


def _text(value: bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else value
