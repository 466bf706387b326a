"""Capability files as plain Naftiko: our words stripped, in YAML that every reader of the format reads alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from itwin_mcp.capability.extensions import strip
from itwin_mcp.capability.linker import checked_files
from itwin_mcp.capability.loader import read_data
from itwin_mcp.capability.statics import static_files
from itwin_mcp.errors import SettingsError


def export(files: Iterable[Path], folder: Path) -> tuple[Path, ...]:
    """Write the files, and those they import, without our words; their places to one another stay.

    The texts of static resources are copied too; an engine of the format reads `file:///./…` from its working folder.

    Gives the files written. Raises CapabilityError for files that break rules, SettingsError for a folder that
    cannot be written or holds the files themselves.
    """
    sources = checked_files(files)
    base = Path(os.path.commonpath([source.parent for source in sources])) if sources else folder
    targets = {source: folder / source.relative_to(base) for source in sources}
    texts = {target: plain_yaml(strip(read_data(source))) for source, target in targets.items()}
    beside = {folder / one.relative_to(base): one for source in sources for one in _statics(source)}
    originals = {target for target in targets.values() if target.resolve() in sources}
    if originals:
        raise SettingsError(f"{folder} holds the capability files themselves: export to another folder.")
    try:
        for target, text in texts.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        for target, source in beside.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}. Give a folder that can be.") from None
    return tuple(texts)


def _statics(source: Path) -> tuple[Path, ...]:
    """The files that a capability file's static resources serve."""
    data = read_data(source)
    exposed = data.get("capability", {}).get("exposes", ()) if isinstance(data, dict) else ()
    places = [resource.get("location", "") for entry in exposed for resource in (entry.get("resources") or {}).values()]
    return tuple(file for place in places for file in static_files(place, source))


def plain_yaml(data: Any) -> str:
    """Block-style YAML that re-reads equal, here and in readers of YAML 1.1 and 1.2."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes whatever any reader might take for something other than text."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            return super().increase_indent(flow, indentless=False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value and _BLOCK.fullmatch(value) else '"' if _MISREAD.search(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False))


_MISREAD = re.compile(
    r"""
    ^[-+.]?[0-9]            # numbers of every kind, dates, times
    | ^\s | \s$ | \s\s      # blanks that folding would lose
    | [^\n\ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]  # what is read as an escape alone
    | ^(?:~|null|true|false|yes|no|on|off|y|n|[-+]?\.(?:inf|nan)|<<|=)$
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BLOCK = re.compile(r"[^\s][^\r\t\x00-\x09\x0b-\x1f\x7f-\xa0\u2028\u2029\ufeff]*[^\s]\n?")
