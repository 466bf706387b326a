"""Guides become skills: shared texts put in, and tables of the tools that they name, from the catalog.

A guide is `capabilities/skills/NAME/SKILL.md`. A line `<!-- tools -->` in it stands for the table of the tools that it
names in backticks, any other `<!-- NAME -->` for the text `NAME.md` beside the guides' folders. `references/tools.md`
is made; every other reference that it links to is in its own folder or, if not there, among `capabilities/guides`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import Skill, StaticResource, Tool
from itwin_mcp.capability.strict_yaml import YamlRefused, parse
from itwin_mcp.errors import SettingsError
from itwin_mcp.skills import tables

SCHEME = "skill://"
MANIFEST = "SKILL.md"
MADE_BY = "itwin-mcp"
TOOLS = "references/tools.md"

_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_PLACE = re.compile(r"^<!-- ([a-z-]+) -->$", re.MULTILINE)
_QUOTED = re.compile(r"`([a-z0-9-]+)`|^ *itwin-mcp call ([a-z0-9-]+)", re.MULTILINE)
_LINK = re.compile(r"\]\((references/[a-z0-9-]+\.md)\)")


def read_skills(capabilities: Path, tools: Mapping[str, Tool]) -> tuple[Skill, ...]:
    """The skills of a folder of capabilities, by name. Raises SettingsError for a guide that cannot be read."""
    guides = sorted((capabilities / "skills").glob(f"*/{MANIFEST}"))
    return tuple(_skill(guide, capabilities, tools) for guide in guides)


def front_matter(text: str) -> dict[str, Any]:
    """The front matter of a SKILL.md; empty where it has none. Raises YamlRefused."""
    found = _FRONT.match(text)
    data = parse(found[1]) if found is not None else None
    return data if isinstance(data, dict) else {}


def made_by_us(front: Mapping[str, Any]) -> bool:
    """Whether a skill with this front matter was written by an earlier export."""
    metadata = front.get("metadata")
    return isinstance(metadata, dict) and str(metadata.get("made-by", "")).split(" ")[0] == MADE_BY


def references(text: str) -> set[str]:
    """The files inside its folder that a SKILL.md links to."""
    return {*_LINK.findall(text)}


def _skill(guide: Path, capabilities: Path, tools: Mapping[str, Tool]) -> Skill:
    name = guide.parent.name
    try:
        written = _text(guide)
        named = dict.fromkeys(quoted or called for quoted, called in _QUOTED.findall(written))
        used = [tools[one] for one in named if one in tools]
        body = _PLACE.sub(lambda place: _filled(place[1], guide, used), _stamped(written))
        front = front_matter(body)
        files = {MANIFEST: body}
        for path in sorted(references(body)):
            own = guide.parent / path
            files[path] = (
                tables.reference(used)
                if path == TOOLS
                else _text(own if own.is_file() else capabilities / "guides" / own.name)
            )
    except OSError as error:
        raise SettingsError(f"The skill {name} is damaged: {error}. Install itwin-mcp again.") from None
    except YamlRefused as error:
        raise SettingsError(f"{guide}: the front matter, line {error.line}: {error.message}.") from None
    return Skill(name, front, tuple(_resource(name, path, text, front) for path, text in files.items()))


def _filled(place: str, guide: Path, used: list[Tool]) -> str:
    if place != "tools":
        return _text(guide.parent.parent / f"{place}.md").rstrip()
    return f"## Tools\n\nEvery argument: [tools]({TOOLS}).\n\n{tables.summary(used)}"


def _stamped(text: str) -> str:
    """The guide with the mark in its front matter by which a later export knows its own."""
    found = _FRONT.match(text)
    if found is None:
        return text
    end = found.end(1)
    return f'{text[:end]}metadata:\n  made-by: "{MADE_BY} {__version__}"\n{text[end:]}'


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8").replace("\r\n", "\n")


def _resource(name: str, path: str, text: str, front: Mapping[str, Any]) -> StaticResource:
    whole = path == MANIFEST
    heading = next((line[2:] for line in text.splitlines() if line.startswith("# ")), name)
    return StaticResource(
        name=name if whole else Path(path).stem,
        title=heading,
        uri=f"{SCHEME}{name}/{path}",
        description=str(front.get("description", "")) if whole else f"A reference of the skill {name}.",
        mime_type="text/markdown",
        text=text,
    )
