"""The command by which another program starts us, for each way in which we may have been installed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import itwin_mcp

NAME = "itwin-mcp"


@dataclass(frozen=True, slots=True)
class StartCommand:
    """A program by its whole path, since a desktop client has not the shell's PATH, and what comes before our verb."""

    program: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def start_command(environment: Mapping[str, str]) -> StartCommand:
    """How this very installation is started again."""
    scripts = Path(sysconfig.get_path("scripts"))
    return find(Path(sys.prefix), scripts, Path(sys.executable), environment, _source())


def find(prefix: Path, scripts: Path, python: Path, environment: Mapping[str, str], source: str | None) -> StartCommand:
    """The command for the Python environment at `prefix`; `source` is what we were installed from, None for not at all.

    An environment that uvx or pipx made for one run is swept away some day: there the command makes it anew.
    """
    script = scripts / (f"{NAME}.exe" if os.name == "nt" else NAME)
    if source is None:
        package = Path(itwin_mcp.__file__).parent.parent
        return StartCommand(str(python), ("-m", "itwin_mcp"), {"PYTHONPATH": str(package)})
    if any(part.startswith("archive-v") for part in prefix.parts):
        uvx = _beside(environment.get("UV"), "uvx") or shutil.which("uvx", path=environment.get("PATH"))
        if uvx is not None:
            return StartCommand(uvx, ("--from", source, NAME))
    if (prefix / "pipx_metadata.json").is_file() and prefix.parent.name != "venvs":
        pipx = shutil.which("pipx", path=environment.get("PATH"))
        if pipx is not None:
            return StartCommand(pipx, ("run", "--spec", source, NAME))
    if script.is_file():
        return StartCommand(str(script))
    return StartCommand(str(python), ("-m", "itwin_mcp"))


def _beside(program: str | None, name: str) -> str | None:
    """Another program of the same folder."""
    if program is None:
        return None
    other = Path(program).with_name(name + Path(program).suffix)
    return str(other) if other.is_file() else None


def _source() -> str | None:
    """What pip or uv would install again: a folder, an address, or our name with its version."""
    try:
        distribution = metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        return None
    told = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = told.get("url")
    if url is None:
        return f"{NAME}=={distribution.version}"
    if url.startswith("file:"):
        return url2pathname(urlsplit(url).path)
    vcs = told.get("vcs_info")
    return f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else str(url)
