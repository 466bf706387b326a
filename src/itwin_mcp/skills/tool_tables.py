"""Markdown about a skill's tools, from the catalog: a table for SKILL.md, and a reference with every argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from itwin_mcp.capability.catalog import Tool, ToolArgument
from itwin_mcp.capability.json_schema import publish
from itwin_mcp.capability.parameters import make_page_arguments

_OPENING = """\
# Tools of this skill

Every argument of every tool that the guide names, generated from the catalog of itwin-mcp. Arguments that are not
marked as required are optional.
"""
_PAGED = """
## Arguments of every list
"""


def write_summary(tools: Sequence[Tool]) -> str:
    """Return the table for SKILL.md, one row per tool."""
    rows = ["| tool | what it does | changes data | toolset |", "|---|---|---|---|"]
    for tool in tools:
        first = tool.description.split(". ")[0].rstrip(".")
        rows.append(f"| `{tool.name}` | {_escape(first)}. | {_describe_change(tool)} | {tool.toolset} |")
    return "\n".join(rows)


def write_reference(tools: Sequence[Tool]) -> str:
    """Return the reference: each tool with its description and its arguments."""
    return "\n".join((_OPENING, *(line for tool in tools for line in _write_tool(tool)), *_write_paging(tools)))


def _write_tool(tool: Tool) -> Iterator[str]:
    own = [argument for argument in tool.arguments if argument not in make_page_arguments()]
    paged = len(own) < len(tool.arguments)
    yield f"## {tool.name}\n\n{tool.description}\n\nToolset {tool.toolset}. Changes data: {_describe_change(tool)}.\n"
    if own:
        yield _write_arguments(own) + "\n"
    if paged:
        yield f"It {'also ' if own else ''}takes the arguments of every list, below.\n"
    elif not own:
        yield "It takes no arguments.\n"


def _write_paging(tools: Sequence[Tool]) -> Iterator[str]:
    if any(argument in tool.arguments for tool in tools for argument in make_page_arguments()):
        yield _PAGED.lstrip("\n")
        yield _write_arguments(make_page_arguments()) + "\n"


def _write_arguments(arguments: Sequence[ToolArgument]) -> str:
    rows = ["| argument | value | what it is |", "|---|---|---|"]
    for argument in arguments:
        value = _escape(("required: " if argument.required else "") + _describe_value(publish(argument.schema)))
        rows.append(f"| `{argument.name}` | {value} | {_escape(str(argument.schema.get('description', '')))} |")
    return "\n".join(rows)


def _describe_value(schema: Mapping[str, Any]) -> str:
    """Describe the values that a schema allows: `one of a, b; default a`."""
    default = f"; default {_format(schema['default'])}" if "default" in schema else ""
    if "enum" in schema:
        return f"one of {', '.join(map(_format, schema['enum']))}{default}"
    text = _KINDS.get(schema["type"], str(schema["type"]))
    if "items" in schema:
        text += f" of {_describe_value(schema['items'])}"
    if "properties" in schema:
        text += f" with {', '.join(schema['properties'])}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return text + "".join(f" {bound}" for bound in bounds) + default


_KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}


def _format(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _describe_change(tool: Tool) -> str:
    hints = tool.annotations
    return "no" if hints.read_only else "**may remove or overwrite**" if hints.destructive else "yes"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
