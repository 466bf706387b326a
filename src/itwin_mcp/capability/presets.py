"""Arguments that a setting presets: they may be left out, and the published schema says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from itwin_mcp.capability.catalog import Catalog, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import published_schema
from itwin_mcp.capability.plans import Call


@dataclass(frozen=True, slots=True)
class Preset:
    """The id that a setting gives for an argument, and the setting's name."""

    setting: str
    id: str


def with_presets(catalog: Catalog, presets: Mapping[str, Preset]) -> Catalog:
    """The catalog in which the arguments of these names have a default.

    Only arguments that name an entity and have no default of their own, and never those of a destructive tool: what
    it is about must be said. Nor the argument that names what a job has just made: the setting names an older one. A
    tool whose own rule counts its arguments (`minProperties`) stays as it is: the rule would come to mean another.
    """
    if not presets:
        return catalog
    made = {
        operation.wait.poll.key: operation.wait.handle_as
        for operation in catalog.operations.values()
        if operation.wait is not None and operation.wait.handle_place != "input"
    }
    return replace(
        catalog,
        tools={name: _preset(tool, presets, made) for name, tool in catalog.tools.items()},
        reachable={name: _preset(tool, presets, made) for name, tool in catalog.reachable.items()},
    )


def _preset(tool: Tool, presets: Mapping[str, Preset], made: Mapping[str, str]) -> Tool:
    """`made` says of the operations that poll a job which argument names what it makes."""
    if tool.annotations.destructive or "minProperties" in tool.rule:
        return tool
    new = made.get(_polled(tool))
    arguments = tuple(_with_default(one, presets.get(one.name)) if one.name != new else one for one in tool.arguments)
    if arguments == tool.arguments:
        return tool
    return replace(tool, arguments=arguments, input_schema=published_schema(arguments))


def _polled(tool: Tool) -> str:
    """The operation that a tool reads, once or until the job has ended."""
    if not isinstance(tool.action, Call):
        return ""
    wait = tool.action.operation.wait
    return wait.poll.key if wait is not None and wait.handle_place == "input" else tool.action.operation.key


def _with_default(one: ToolArgument, preset: Preset | None) -> ToolArgument:
    if preset is None or one.entity is None or one.default is not ABSENT:
        return one
    schema = {**one.schema, "default": preset.id}
    return replace(one, schema=schema, required=False, default=preset.id, preset=preset.setting)
