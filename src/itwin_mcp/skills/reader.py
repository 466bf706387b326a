"""Reads agent skills from guides, and inserts shared texts and tables of tools from the catalog.

A guide is `capabilities/skills/NAME/SKILL.md`. The line `<!-- tools -->` is replaced by a table of the tools that the
guide names in backticks, and any other `<!-- NAME -->` by the text `NAME.md` next to the guides' folders. The file
`references/tools.md` is generated. Every other linked reference is read from the guide's folder or, if it is not
there, from `capabilities/guides`.
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
from itwin_mcp.skills import tool_tables

SCHEME = "skill://"
MANIFEST = "SKILL.md"
MADE_BY = "itwin-mcp"
TOOLS = "references/tools.md"

_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_PLACEHOLDER = re.compile(r"^<!-- ([a-z-]+) -->$", re.MULTILINE)
_QUOTED = re.compile(r"`([a-z0-9-]+)`|^ *itwin-mcp call ([a-z0-9-]+)", re.MULTILINE)
_LINK = re.compile(r"\]\((references/[a-z0-9-]+\.md)\)")


def read_skills(capabilities: Path, tools: Mapping[str, Tool]) -> tuple[Skill, ...]:
    """Return the skills of a capabilities folder, sorted by name. Raises SettingsError if a guide cannot be read."""
    guides = sorted((capabilities / "skills").glob(f"*/{MANIFEST}"))
    return tuple(_read_skill(guide, capabilities, tools) for guide in guides)


def read_front_matter(text: str) -> dict[str, Any]:
    """Return the front matter of a SKILL.md, empty if it has none. Raises YamlRefused."""
    front = _FRONT.match(text)
    data = parse(front[1]) if front is not None else None
    return data if isinstance(data, dict) else {}


def split_front_matter(text: str) -> tuple[str, str]:
    """Return the front matter of a SKILL.md as text, empty if it has none, and what follows it."""
    front = _FRONT.match(text)
    return ("", text) if front is None else (front[1], text[front.end() :])


def is_made_by_us(front: Mapping[str, Any]) -> bool:
    """Return whether this front matter says that an earlier export wrote the skill."""
    metadata = front.get("metadata")
    return isinstance(metadata, dict) and str(metadata.get("made-by", "")).split(" ")[0] == MADE_BY


def find_references(text: str) -> set[str]:
    """Return the paths of the references that a SKILL.md links to."""
    return {*_LINK.findall(text)}


def _read_skill(guide: Path, capabilities: Path, tools: Mapping[str, Tool]) -> Skill:
    name = guide.parent.name
    try:
        source = _read_text(guide)
        named = dict.fromkeys(quoted or called for quoted, called in _QUOTED.findall(source))
        used = [tools[tool_name] for tool_name in named if tool_name in tools]
        body = _PLACEHOLDER.sub(lambda match: _fill_placeholder(match[1], guide, used), _add_mark(source))
        front = read_front_matter(body)
        files = {MANIFEST: body}
        for path in sorted(find_references(body)):
            own = guide.parent / path
            files[path] = (
                tool_tables.write_reference(used)
                if path == TOOLS
                else _read_text(own if own.is_file() else capabilities / "guides" / own.name)
            )
    except OSError as error:
        raise SettingsError(f"The skill {name} is damaged: {error}. Reinstall itwin-mcp.") from None
    except YamlRefused as error:
        raise SettingsError(f"{guide}: the front matter, line {error.line}: {error.message}.") from None
    return Skill(name, front, tuple(build_resource(name, path, text, front) for path, text in files.items()))


def _fill_placeholder(placeholder: str, guide: Path, used: list[Tool]) -> str:
    if placeholder != "tools":
        return _read_text(guide.parent.parent / f"{placeholder}.md").rstrip()
    return f"## Tools\n\nEvery argument: [tools]({TOOLS}).\n\n{tool_tables.write_summary(used)}"


def _add_mark(text: str) -> str:
    """Add `made-by` to the front matter, so that a later export recognizes the folder."""
    front = _FRONT.match(text)
    if front is None:
        return text
    end = front.end(1)
    return f'{text[:end]}metadata:\n  made-by: "{MADE_BY} {__version__}"\n{text[end:]}'


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8").replace("\r\n", "\n")


def build_resource(name: str, path: str, text: str, front: Mapping[str, Any]) -> StaticResource:
    """Return a file of a skill as the resource that serves it."""
    is_guide = path == MANIFEST
    heading = next((line[2:] for line in text.splitlines() if line.startswith("# ")), name)
    return StaticResource(
        name=name if is_guide else Path(path).stem,
        title=heading,
        uri=f"{SCHEME}{name}/{path}",
        description=str(front.get("description", "")) if is_guide else f"A reference of the skill {name}.",
        mime_type="text/markdown",
        text=text,
    )
