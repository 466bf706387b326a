"""Export of capability files as plain Naftiko: without our `x-` words, in YAML that every reader reads alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itwin_mcp.capability.documents import read_data
from itwin_mcp.capability.extensions import strip
from itwin_mcp.capability.linker import check_files
from itwin_mcp.capability.static_resources import find_static_files
from itwin_mcp.capability.wire_names import WireNames, count_words
from itwin_mcp.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Export:
    """The files written, and what plain Naftiko cannot say.

    `losses` are pairs of an operation or tool and a sentence. `words` are our words, and how often each was left out.
    """

    files: tuple[Path, ...]
    losses: tuple[tuple[str, str], ...]
    words: Mapping[str, int]


def export_files(files: Iterable[Path], folder: Path) -> Export:
    """Write the files and those that they import, without our words, and report what is lost by that.

    Relative paths are kept. The files of static resources are copied too, because other engines of the format read
    `file:///./…` from their working folder.

    Raises:
        CapabilityError: A file breaks rules.
        SettingsError: The folder cannot be written, or contains the files themselves.
    """
    sources = check_files(files)
    base = Path(os.path.commonpath([source.parent for source in sources])) if sources else folder
    targets = {source: folder / source.relative_to(base) for source in sources}
    originals = {source: read_data(source) for source in sources}
    plain, losses = make_plain(originals)
    contents = {targets[source]: dump_plain_yaml(data).encode() for source, data in plain.items()}
    copies = {folder / text.relative_to(base): text for source in sources for text in _list_static_files(source)}
    if any(target.resolve() in sources for target in targets.values()):
        raise SettingsError(f"{folder} contains the capability files themselves: export to another folder.")
    try:
        contents |= {target: source.read_bytes() for target, source in copies.items()}
        for target, content in contents.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from None
    return Export(tuple(targets.values()), losses, count_words(originals.values()))


def make_plain(sources: Mapping[Path, Any]) -> tuple[dict[Path, Any], tuple[tuple[str, str], ...]]:
    """Return the data of files that are exported together without our words, and what is lost with `x-wire`."""
    names = WireNames()
    for data in sources.values():
        names.add(data)
    plain = {}
    for source, data in sources.items():
        plain[source] = strip(names.rewrite(data))
        names.drop_unused_inputs(strip(data), plain[source])
    return plain, tuple(names.losses)


def _list_static_files(source: Path) -> tuple[Path, ...]:
    """Return the files that the static resources of a capability file serve."""
    data = read_data(source)
    exposed = data.get("capability", {}).get("exposes", ()) if isinstance(data, dict) else ()
    places = [resource.get("location", "") for entry in exposed for resource in (entry.get("resources") or {}).values()]
    return tuple(file for place in places for file in find_static_files(place, source))


def dump_plain_yaml(data: Any) -> str:
    """Return block-style YAML that readers of YAML 1.1 and 1.2 read as the same data."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Indents lists in mappings, too."""

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
    | ^\s | \s$ | \s\s      # spaces that folding would lose
    | [^\n\ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]  # characters that must be escaped
    | ^(?:~|null|true|false|yes|no|on|off|y|n|[-+]?\.(?:inf|nan)|<<|=)$
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BLOCK = re.compile(r"[^\s][^\r\t\x00-\x09\x0b-\x1f\x7f-\xa0\u2028\u2029\ufeff]*[^\s]\n?")
