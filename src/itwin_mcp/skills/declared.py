"""Builds the skills that capability files declare: a SKILL.md with a table of tools, and a reference of arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import Skill, Tool
from itwin_mcp.capability.routes import Route
from itwin_mcp.capability.skill_compiler import DeclaredSkill, SkillTool
from itwin_mcp.skills import tool_tables
from itwin_mcp.skills.reader import MADE_BY, MANIFEST, TOOLS, build_resource, split_front_matter

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def build_skill(declared: DeclaredSkill) -> Skill:
    """Return a declared skill with its files.

    The text of the file's own SKILL.md comes first; its front matter is replaced by what the capability file says.
    """
    front = {
        **declared.front,
        "metadata": {**declared.front.get("metadata", {}), "made-by": f"{MADE_BY} {__version__}"},
    }
    own = split_front_matter(declared.texts.get(MANIFEST, ""))[1].strip()
    title = f"# {declared.name}\n\n{_put_on_one_line(declared.front['description'])}"
    used = [tool.source.tool if isinstance(tool.source, Route) else tool.source for tool in declared.tools]
    tools = [tool for tool in used if tool is not None]
    parts = [own or title]
    if declared.tools:
        parts.append(_write_tools(declared.tools, has_reference=bool(tools)))
    files = {MANIFEST: f"---\n{_write_front(front)}---\n\n" + "\n\n".join(parts) + "\n"}
    files |= {path: text for path, text in sorted(declared.texts.items()) if path != MANIFEST}
    if tools and TOOLS not in files:
        files[TOOLS] = tool_tables.write_reference(tools)
    resources = tuple(build_resource(declared.name, path, text, front) for path, text in files.items())
    return Skill(declared.name, front, resources)


def _write_front(front: Mapping[str, Any]) -> str:
    """Write front matter. JSON is YAML, so that no text of a file is read as anything but text."""
    lines = []
    for key, value in front.items():
        if isinstance(value, Mapping):
            lines.append(f"{key}:")
            lines += [f"  {json.dumps(name)}: {json.dumps(text, ensure_ascii=False)}" for name, text in value.items()]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "".join(f"{line}\n" for line in lines)


def _write_tools(tools: Sequence[SkillTool], *, has_reference: bool) -> str:
    rows = ["## Tools", ""]
    if has_reference:
        rows += [f"Every argument: [tools]({TOOLS}).", ""]
    rows += ["| tool | what it does | how |", "|---|---|---|"]
    for tool in tools:
        rows.append(f"| `{tool.name}` | {_escape(tool.description)} | {_describe_source(tool)} |")
    return "\n".join(rows)


def _describe_source(tool: SkillTool) -> str:
    match tool.source:
        case Tool(name=name):
            return f"call the MCP tool `{name}`"
        case Route(method=method, namespace=namespace, template=template):
            return f"send `{method} /rest/{namespace}{template}`"
    return f"follow [{tool.name}]({tool.instruction})"


def _escape(text: str) -> str:
    return _put_on_one_line(text).replace("|", "\\|")


def _put_on_one_line(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()
