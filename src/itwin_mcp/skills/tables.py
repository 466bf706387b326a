"""What the catalog says of a skill's tools, as Markdown: a table for SKILL.md, and a reference with every argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from itwin_mcp.capability.catalog import Tool, ToolArgument
from itwin_mcp.capability.parameters import page_arguments
from itwin_mcp.capability.published import publish

_OPENING = """\
# Tools of this skill

Every argument of every tool that the guide names, made from the catalog of itwin-mcp. What is not required may be left
out.
"""
_PAGED = """
## Arguments of every list
"""


def summary(tools: Sequence[Tool]) -> str:
    """The table of SKILL.md: one row a tool."""
    rows = ["| tool | what it does | changes data | toolset |", "|---|---|---|---|"]
    for tool in tools:
        first = tool.description.split(". ")[0].rstrip(".")
        rows.append(f"| `{tool.name}` | {_cell(first)}. | {_changes(tool)} | {tool.toolset} |")
    return "\n".join(rows)


def reference(tools: Sequence[Tool]) -> str:
    """The reference: each tool with its whole description and its arguments."""
    return "\n".join((_OPENING, *(line for tool in tools for line in _entry(tool)), *_paging(tools)))


def _entry(tool: Tool) -> Iterator[str]:
    own = [one for one in tool.arguments if one not in page_arguments()]
    paged = len(own) < len(tool.arguments)
    yield f"## {tool.name}\n\n{tool.description}\n\nToolset {tool.toolset}. Changes data: {_changes(tool)}.\n"
    if own:
        yield _arguments(own) + "\n"
    if paged:
        yield f"It {'also ' if own else ''}takes the arguments of every list, below.\n"
    elif not own:
        yield "It takes no arguments.\n"


def _paging(tools: Sequence[Tool]) -> Iterator[str]:
    if any(one in tool.arguments for tool in tools for one in page_arguments()):
        yield _PAGED.lstrip("\n")
        yield _arguments(page_arguments()) + "\n"


def _arguments(arguments: Sequence[ToolArgument]) -> str:
    rows = ["| argument | value | what it is |", "|---|---|---|"]
    for one in arguments:
        value = _cell(("required: " if one.required else "") + _value(publish(one.schema)))
        rows.append(f"| `{one.name}` | {value} | {_cell(str(one.schema.get('description', '')))} |")
    return "\n".join(rows)


def _value(schema: Mapping[str, Any]) -> str:
    """What may be given, in words: `one of a, b; a when left out`."""
    default = f"; {_plain(schema['default'])} when left out" if "default" in schema else ""
    if "enum" in schema:
        return f"one of {', '.join(map(_plain, schema['enum']))}{default}"
    text = _KINDS.get(schema["type"], str(schema["type"]))
    if "items" in schema:
        text += f" of {_value(schema['items'])}"
    if "properties" in schema:
        text += f" with {', '.join(schema['properties'])}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return text + "".join(f" {bound}" for bound in bounds) + default


_KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _changes(tool: Tool) -> str:
    hints = tool.annotations
    return "no" if hints.read_only else "**may remove or overwrite**" if hints.destructive else "yes"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
