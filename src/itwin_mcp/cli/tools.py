"""`itwin-mcp tools`: list and describe the tools that agents get."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from itwin_mcp.cli.options import find_tool, make_settings, select_all_tools, settings_options
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.settings import is_set

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Catalog
    from itwin_mcp.capability.operations import Operation

_list_json = json_option("Print JSON, with the tokens that each tool costs a model.")


@click.group("tools", invoke_without_command=True)
@settings_options
@_list_json
@click.pass_context
def command(context: click.Context, /, **flags: Any) -> None:
    """List the tools that `serve` offers with the same options.

    \b
    Examples:
      itwin-mcp tools
      itwin-mcp tools --toolsets imodels --json
      itwin-mcp tools describe clone-imodel
    """
    context.obj = flags
    if context.invoked_subcommand is None:
        _list_tools(flags)


@command.command("list")
@settings_options
@_list_json
@click.pass_obj
def list_tools(group_flags: Mapping[str, Any], /, **flags: Any) -> None:
    """List the tools, as `itwin-mcp tools` does.

    \b
    Examples:
      itwin-mcp tools list
      itwin-mcp tools list --read-only
    """
    _list_tools(_merge_flags(group_flags, flags))


@command.command("describe")
@click.argument("name")
@settings_options
@json_option("Print the tool as MCP clients see it.")
@click.pass_obj
def describe(group_flags: Mapping[str, Any], /, name: str, **flags: Any) -> None:
    """Show one tool: what it does, its arguments, and the requests it sends.

    \b
    Examples:
      itwin-mcp tools describe create-imodel
      itwin-mcp tools describe create-imodel --json
    """
    from itwin_mcp.runtime import read_catalog

    merged = _merge_flags(group_flags, flags)
    as_json = merged.pop("as_json")
    tool = find_tool(read_catalog(select_all_tools(make_settings(**merged))), name)
    if as_json:
        from itwin_mcp.server.tools import describe as describe_tool

        print_json(describe_tool(tool))
        return
    click.secho(f"{tool.title}  ", bold=True, nl=False)
    click.echo(f"({tool.name}, toolset {tool.toolset})")
    click.echo(tool.description)
    click.echo()
    for argument in tool.arguments:
        schema = tool.input_schema["properties"][argument.name]
        for line in _describe_value(argument.name, schema, required=argument.required, indent="  "):
            click.echo(line)
    click.echo()
    for operation in dict.fromkeys(tool.operations):
        click.echo(
            f"  sends {operation.method} {_format_url(operation)}" + (f"  {operation.doc}" if operation.doc else "")
        )


def _merge_flags(group_flags: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the options before a subcommand with those after it, which take precedence."""
    return {**group_flags, **{name: value for name, value in flags.items() if is_set(value)}}


def _list_tools(flags: dict[str, Any]) -> None:
    from itwin_mcp.runtime import read_catalog

    as_json = flags.pop("as_json")
    settings = make_settings(**flags)
    catalog = read_catalog(settings)
    if as_json:
        print_json(_measure_tools(catalog))
        return
    for toolset in catalog.toolsets:
        click.secho(toolset, bold=True)
        tools = [tool for tool in catalog.tools.values() if tool.toolset == toolset]
        width = max(len(tool.name) for tool in tools)
        for tool in tools:
            mark = " " if tool.annotations.read_only else "!" if tool.annotations.destructive else "~"
            click.echo(f"  {mark} {tool.name.ljust(width)}  {tool.description.split('. ')[0].rstrip('.')}.")
    click.echo("\n~ changes data   ! removes or overwrites data   `itwin-mcp tools describe NAME` shows one tool")
    if not (settings.toolsets or settings.tools):
        click.echo("This is the default set; `itwin-mcp tools --toolsets all` lists every tool.")


def _describe_value(name: str, schema: Mapping[str, Any], *, required: bool, indent: str) -> Iterator[str]:
    """Yield the type, description, choices and members of an argument or of one of its members."""
    need = "required" if required else f"default {_format(schema['default'])}" if "default" in schema else "optional"
    yield f"{indent}{click.style(name, fg='cyan')}  {_format_type(schema)}, {need}"
    if "description" in schema:
        yield f"{indent}    {schema['description']}"
    inner = schema.get("items", schema)
    if "enum" in inner:
        yield f"{indent}    one of: {', '.join(_format(choice) for choice in inner['enum'])}"
    for member, member_schema in inner.get("properties", {}).items():
        is_required = member in inner.get("required", ())
        yield from _describe_value(member, member_schema, required=is_required, indent=f"{indent}    ")


def _format_type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "value")
    return f"{kind} of {_format_type(schema['items'])}" if "items" in schema else str(kind)


def _format(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _format_url(operation: Operation) -> str:
    from itwin_mcp.capability.operations import Slot

    segments = [
        "".join(f"{{{part.name}}}" if isinstance(part, Slot) else part for part in segment)
        for segment in operation.path
    ]
    return f"{operation.origin}/{'/'.join(segments)}"


def _measure_tools(catalog: Catalog) -> dict[str, Any]:
    """Return the size of each tool in bytes, and an estimate of the tokens that it costs a model: 4 bytes a token.

    A model reads the name, the title, the description and the input schema.
    """
    from itwin_mcp.server.tools import describe as describe_tool

    rows: list[dict[str, Any]] = []
    for tool in catalog.tools.values():
        description = describe_tool(tool)
        for_model = {key: description[key] for key in ("name", "title", "description", "inputSchema")}
        rows.append(
            {
                "name": tool.name,
                "title": tool.title,
                "toolset": tool.toolset,
                "readOnly": tool.annotations.read_only,
                "destructive": tool.annotations.destructive,
                "tokens": round(_count_bytes(for_model) / 4),
                "bytes": _count_bytes(description),
            }
        )
    total = {key: sum(row[key] for row in rows) for key in ("tokens", "bytes")}
    return {"tools": rows, "total": {"tools": len(rows), **total}}


def _count_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
