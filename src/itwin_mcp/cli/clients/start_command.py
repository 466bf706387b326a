"""The command that starts this installation again, depending on how it was installed."""

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
    """A program and its first arguments. The path is absolute, because desktop clients lack the shell's PATH."""

    program: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def find_start_command(environment: Mapping[str, str]) -> StartCommand:
    """Return the command that starts this installation again."""
    scripts = Path(sysconfig.get_path("scripts"))
    return choose_command(Path(sys.prefix), scripts, Path(sys.executable), environment, _find_source())


def choose_command(
    prefix: Path, scripts: Path, python: Path, environment: Mapping[str, str], source: str | None
) -> StartCommand:
    """Return the command for the Python environment at `prefix`.

    `source` is what pip or uv would install again, or None if the package runs from its sources. An environment that
    uvx or pipx created for one run may be deleted at any time, so the command creates it again.
    """
    script = scripts / (f"{NAME}.exe" if os.name == "nt" else NAME)
    if source is None:
        package = Path(itwin_mcp.__file__).parent.parent
        return StartCommand(str(python), ("-m", "itwin_mcp"), {"PYTHONPATH": str(package)})
    if any(part.startswith("archive-v") for part in prefix.parts):
        uvx = _find_sibling(environment.get("UV"), "uvx") or shutil.which("uvx", path=environment.get("PATH"))
        if uvx is not None:
            return StartCommand(uvx, ("--from", source, NAME))
    if (prefix / "pipx_metadata.json").is_file() and prefix.parent.name != "venvs":
        pipx = shutil.which("pipx", path=environment.get("PATH"))
        if pipx is not None:
            return StartCommand(pipx, ("run", "--spec", source, NAME))
    if script.is_file():
        return StartCommand(str(script))
    return StartCommand(str(python), ("-m", "itwin_mcp"))


def _find_sibling(program: str | None, name: str) -> str | None:
    """Return the path of another program in the same folder, or None."""
    if program is None:
        return None
    other = Path(program).with_name(name + Path(program).suffix)
    return str(other) if other.is_file() else None


def _find_source() -> str | None:
    """Return what pip or uv would install again: a folder, a URL, or our name and version."""
    try:
        distribution = metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        return None
    direct_url = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = direct_url.get("url")
    if url is None:
        return f"{NAME}=={distribution.version}"
    if url.startswith("file:"):
        return url2pathname(urlsplit(url).path)
    vcs = direct_url.get("vcs_info")
    return f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else str(url)
