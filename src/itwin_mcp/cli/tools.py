"""`itwin-mcp tools`: what agents are given."""

from __future__ import annotations

import json
from typing import Any

import click

from itwin_mcp.cli.options import every_tool, make_settings, settings_options
from itwin_mcp.errors import SettingsError


@click.group("tools", invoke_without_command=True)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: each tool with what it costs a model's context.")
@click.pass_context
def command(context: click.Context, /, as_json: bool, **flags: Any) -> None:
    """List the tools that the same options of `serve` would give.

    \b
    Examples:
      itwin-mcp tools
      itwin-mcp tools --toolsets imodels --json
      itwin-mcp tools describe clone-imodel
    """
    from itwin_mcp.runtime import read_catalog

    settings = make_settings(**flags)
    if context.invoked_subcommand is not None:
        context.obj = read_catalog(every_tool(settings))
        return
    catalog = read_catalog(settings)
    if as_json:
        click.echo(json.dumps(_figures(catalog), indent=2, ensure_ascii=False))
        return
    for toolset in catalog.toolsets:
        click.secho(toolset, bold=True)
        tools = [tool for tool in catalog.tools.values() if tool.toolset == toolset]
        width = max(len(tool.name) for tool in tools)
        for tool in tools:
            mark = " " if tool.annotations.read_only else "!" if tool.annotations.destructive else "~"
            click.echo(f"  {mark} {tool.name.ljust(width)}  {tool.description.split('. ')[0].rstrip('.')}.")
    click.echo("\n~ changes data   ! removes data   `itwin-mcp tools describe NAME` tells all of one")


@command.command("describe")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the tool as MCP clients get it.")
@click.pass_obj
def describe(catalog: Any, name: str, as_json: bool) -> None:
    """Tell everything of one tool: what it does, its arguments, what it sends.

    \b
    Examples:
      itwin-mcp tools describe create-imodel
      itwin-mcp tools describe create-imodel --json
    """
    from itwin_mcp.capability.published import publish

    tool = catalog.tools.get(name)
    if tool is None:
        raise SettingsError(f"There is no tool {name!r}. `itwin-mcp tools` lists them.")
    if as_json:
        from itwin_mcp.server.tools import describe as described

        click.echo(json.dumps(described(tool), indent=2, ensure_ascii=False))
        return
    click.secho(f"{tool.title}  ", bold=True, nl=False)
    click.echo(f"({tool.name}, toolset {tool.toolset})")
    click.echo(tool.description)
    click.echo()
    for argument in tool.arguments:
        schema = publish(argument.schema)
        need = (
            "required" if argument.required else f"default {schema['default']}" if "default" in schema else "optional"
        )
        click.echo(f"  {click.style(argument.name, fg='cyan')}  {schema['type']}, {need}")
        click.echo(f"      {schema['description']}")
        if "enum" in schema:
            click.echo(f"      one of: {', '.join(map(str, schema['enum']))}")
    click.echo()
    for operation in dict.fromkeys(tool.operations):
        click.echo(f"  sends {operation.method} {_path(operation)}" + (f"  {operation.doc}" if operation.doc else ""))
    if tool.most_requests is not None:
        click.echo(f"  at most {tool.most_requests} requests a call, beside look-ups of names and waiting for jobs")


def _path(operation: Any) -> str:
    from itwin_mcp.capability.plans import Slot

    segments = ["".join(f"{{{p.name}}}" if isinstance(p, Slot) else p for p in parts) for parts in operation.path]
    return f"{operation.origin}/{'/'.join(segments)}"


def _figures(catalog: Any) -> dict[str, Any]:
    """Each tool and what a model reads of it: name, title, description and input schema; 4 bytes a token."""
    from itwin_mcp.server.tools import describe as described

    rows = []
    for tool in catalog.tools.values():
        whole = described(tool)
        read = {key: whole[key] for key in ("name", "title", "description", "inputSchema")}
        row = {
            "name": tool.name,
            "title": tool.title,
            "toolset": tool.toolset,
            "readOnly": tool.annotations.read_only,
            "destructive": tool.annotations.destructive,
            "tokens": round(len(_compact(read)) / 4),
            "bytes": len(_compact(whole)),
        }
        rows.append(row)
    total = {key: sum(row[key] for row in rows) for key in ("tokens", "bytes")}
    return {"tools": rows, "total": {"tools": len(rows), **total}}


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
