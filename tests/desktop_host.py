"""Unpack a desktop extension and fill in its settings, as desktop hosts do."""

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

    def start_command(self, **settings: bool | str) -> dict[str, Any]:
        """Return command, arguments and environment, with these settings and the defaults of the others.

        A setting without a value or default stays a placeholder, as in real hosts.
        """
        manifest = self.manifest
        assert set(settings) <= set(manifest["user_config"])
        defaults = {name: option["default"] for name, option in manifest["user_config"].items() if "default" in option}
        values = {f"user_config.{name}": value for name, value in (defaults | settings).items()}
        values["__dirname"] = str(self.folder)

        def fill(text: str) -> str:
            return re.sub(r"\$\{([\w.]+)\}", lambda match: _text(values.get(match[1], match[0])), text)

        config = manifest["server"]["mcp_config"]
        return {
            "command": fill(config["command"]),
            "args": [fill(argument) for argument in config["args"]],
            "env": {name: fill(text) for name, text in config["env"].items()},
        }

    def parameters(self, *, interpreter: list[str] | None = None, **settings: bool | str) -> StdioServerParameters:
        """Return the parameters for our client. `interpreter` replaces the words before `-m`."""
        config = self.start_command(**settings)
        command = [config["command"], *config["args"]]
        if interpreter is not None:
            command = [*interpreter, *command[command.index("-m") :]]
        # tests/conftest.py replaced the developer's settings and folders by those of the test.
        return StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ) | config["env"])


def unpack(bundle: Path, folder: Path) -> Extension:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return Extension(folder)


def _text(value: bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else value
