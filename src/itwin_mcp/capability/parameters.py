"""Arguments of tools and their schemas. A file declares them, the engine adds them, and settings may preset them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from itwin_mcp.capability.catalog import Catalog, ChangesetForm, Tool, ToolArgument
from itwin_mcp.capability.entities import Entities, Entity
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.json_schema import check_fragment, check_values, is_nullable, iterate_names, publish
from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.text import shorten

if TYPE_CHECKING:
    from itwin_mcp.capability.documents import Place
    from itwin_mcp.capability.extensions import EntityForm
    from itwin_mcp.capability.flow_schema import ToolInput
    from itwin_mcp.capability.schema_types import JsonSchema

ENTITY_SCHEMA: JsonSchema = {"type": "string", "minLength": 1, "maxLength": 2048}
MAX_ENTITIES = 100
"""Entities that one list may name. A call may read fewer, and reports which ones it left out."""

_LIMIT = {
    "type": "integer",
    "minimum": 1,
    "maximum": 10_000,
    "default": 50,
    "description": "Maximum number of items.",
}
_CURSOR = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096,
    "description": "page.cursor of an earlier answer, to continue it.",
}
_FIELDS = {
    "type": "string",
    "enum": ["default", "all"],
    "default": "default",
    "description": "all: every field of each item.",
}
FILE_PATH = "filePath"
OVERWRITE = "overwrite"
CLEAR = "clear"
"""The argument that names the arguments whose values are removed."""
LOCAL_PATH: JsonSchema = {"type": "string", "minLength": 1, "maxLength": 4096}
_FILE_PATH = {
    "upload": "Local file to read, in a folder that the user allowed.",
    "download": "Local file to write, in a folder that the user allowed.",
}
_OVERWRITE = {"type": "boolean", "default": False, "description": "Replace the file if it exists."}


_PUBLISHED_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


def compile_argument(name: str, parameter: ToolInput, entities: Entities, place: Place) -> ToolArgument:
    """Compile one declared argument. Problems are reported at its place."""
    if parameter.entity is not None and parameter.type not in ("string", "array"):
        message = f"the type of an argument that names an entity must be string or array, not {parameter.type!r}"
        place.at("x-entity").report("x-entity", message)
    several = parameter.entity is not None and parameter.type == "array"
    entity, changeset = _read_entity(parameter.entity, entities, place.at("x-entity"))
    if several and changeset is not None:
        place.at("x-entity").report("x-entity", "a list cannot name changesets: change its type to string")
    sound = check_fragment(parameter.x_schema, place.at("x-schema"))
    fragment = parameter.x_schema if sound and parameter.x_schema else {}
    for published_name in (name, *iterate_names(fragment)):
        if not _PUBLISHED_NAME.fullmatch(published_name):
            refused = f"some clients refuse the name {shorten(published_name)!r}"
            place.report("name", f"{refused}: use at most 60 letters, digits, - and _")
    schema: dict[str, Any] = {"type": parameter.type}
    if several:
        schema |= {"minItems": 1, "maxItems": MAX_ENTITIES, "items": dict(ENTITY_SCHEMA)}
    elif parameter.entity is not None:
        schema |= ENTITY_SCHEMA
    schema["description"] = parameter.description
    schema |= fragment
    if sound:
        check_values(schema, place.at("x-schema"))
    default = schema.get("default", ABSENT)
    required = parameter.required and default is ABSENT
    return ToolArgument(name, schema, required, entity, default, changeset=changeset)


def _read_entity(
    word: str | EntityForm | None, entities: Entities, place: Place
) -> tuple[Entity | None, ChangesetForm | None]:
    """Return the entity that `x-entity` names and, for an entity with a sequence, the form of its values."""
    form = None if word is None or isinstance(word, str) else word
    kind = word if word is None or isinstance(word, str) else word.kind
    entity = find_entity(kind, entities, place) if kind is not None else None
    if entity is None or entity.sequence is None:
        if entity is not None and form is not None:
            place.report("x-entity", "only an entity with a `sequence` has a form: write the kind alone")
        return entity, None
    return entity, ChangesetForm() if form is None else ChangesetForm(form.takes == "id", form.baseline)


def find_entity(kind: str, entities: Entities, place: Place) -> Entity | None:
    """Return the entity of a kind. If no file declares it, report that and return None."""
    place.check_known(kind, entities, "known-word", "there is no entity")
    return entities.get(kind)


def make_page_arguments() -> tuple[ToolArgument, ...]:
    """Return the arguments that the engine adds to a tool that pages."""
    return (
        ToolArgument("limit", _LIMIT, False, None, _LIMIT["default"]),
        ToolArgument("cursor", _CURSOR, False, None, ABSENT),
        ToolArgument("fields", _FIELDS, False, None, _FIELDS["default"]),
    )


def make_file_arguments(direction: Literal["upload", "download"]) -> tuple[ToolArgument, ...]:
    """Return the arguments that the engine adds to a tool that uploads or downloads a local file."""
    schema = {**LOCAL_PATH, "description": _FILE_PATH[direction]}
    if direction == "upload":
        return (ToolArgument(FILE_PATH, schema, True, None, ABSENT, "source"),)
    overwrite = ToolArgument(OVERWRITE, _OVERWRITE, False, None, _OVERWRITE["default"])
    return (ToolArgument(FILE_PATH, schema, True, None, ABSENT, "target"), overwrite)


def make_wait_argument(default: int) -> ToolArgument:
    """Return the argument that the engine adds to a tool that starts or polls a job. `default` is in seconds."""
    schema = {
        "type": "integer",
        "minimum": 0,
        "maximum": 55,
        "default": default,
        "description": "Seconds to wait for it to finish; 0 returns at once.",
    }
    return ToolArgument("wait", schema, False, None, default)


def list_removable_arguments(arguments: Sequence[ToolArgument]) -> list[str]:
    """Return the names of the arguments whose values `clear` can remove."""
    return [argument.name for argument in arguments if is_nullable(argument.schema)]


def make_clear_argument(arguments: Sequence[ToolArgument]) -> tuple[ToolArgument, ...]:
    """Return the argument that the engine adds to a tool with nullable arguments; empty for any other tool."""
    removable = list_removable_arguments(arguments)
    if not removable:
        return ()
    schema = {
        "type": "array",
        "items": {"type": "string", "enum": removable},
        "description": "Values to remove; arguments that are left out, empty or null change nothing.",
    }
    return (ToolArgument(CLEAR, schema, False, None, ABSENT),)


def build_input_schema(arguments: Sequence[ToolArgument]) -> JsonSchema:
    """Return the input schema that clients see, without rules across arguments."""
    schema: JsonSchema = {
        "type": "object",
        "properties": {argument.name: publish(argument.schema) for argument in arguments},
    }
    required = [argument.name for argument in arguments if argument.required]
    return schema | ({"required": required} if required else {})


def build_enforced_schema(arguments: Sequence[ToolArgument], rule: Mapping[str, Any]) -> JsonSchema:
    """Return the schema that arguments are validated against after conversion, with the tool's `rule` across them."""
    return {
        "type": "object",
        "properties": {argument.name: dict(argument.schema) for argument in arguments},
        "additionalProperties": False,
        "required": [argument.name for argument in arguments if argument.required],
        **rule,
    }


def list_choices(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Return the values that an argument, or each element of it, may have; empty if it has no `enum`."""
    items = schema.get("items")
    choices = schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None)
    return choices if isinstance(choices, list) else ()


# --- presets ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preset:
    """The default id of an argument, and the setting that it comes from."""

    setting: str
    id: str


def apply_presets(catalog: Catalog, presets: Mapping[str, Preset]) -> Catalog:
    """Return the catalog with presets as the defaults of the arguments with these names.

    Some arguments get no preset:
    - arguments of destructive tools, because the caller must name what to destroy;
    - an argument that identifies what a job has just created, because the preset identifies something older;
    - arguments of a tool whose rule counts them (`minProperties`), because a preset would change the count.
    """
    if not presets:
        return catalog
    created = {
        operation.wait.poll.key: operation.wait.handle_as
        for operation in catalog.operations.values()
        if operation.wait is not None and operation.wait.handle_place != "input"
    }
    return replace(
        catalog,
        tools={name: _apply_presets(tool, presets, created) for name, tool in catalog.tools.items()},
        reachable={name: _apply_presets(tool, presets, created) for name, tool in catalog.reachable.items()},
        routes=tuple(replace(route, tool=_apply_presets(route.tool, presets, created)) for route in catalog.routes),
    )


def _apply_presets(tool: Tool, presets: Mapping[str, Preset], created: Mapping[str, str]) -> Tool:
    """Add presets to a tool. `created` maps polling operations to the argument for what their job creates."""
    if tool.annotations.destructive or "minProperties" in tool.rule:
        return tool
    job_argument = created.get(_find_polled_operation(tool))
    arguments = tuple(
        argument if argument.name == job_argument else _add_default(argument, presets.get(argument.name))
        for argument in tool.arguments
    )
    if arguments == tool.arguments:
        return tool
    return replace(tool, arguments=arguments, input_schema=build_input_schema(arguments))


def _find_polled_operation(tool: Tool) -> str:
    """Return the key of the operation that a tool with one call sends, or polls until a job has ended."""
    if not isinstance(tool.action, Call):
        return ""
    wait = tool.action.operation.wait
    return wait.poll.key if wait is not None and wait.handle_place == "input" else tool.action.operation.key


def _add_default(argument: ToolArgument, preset: Preset | None) -> ToolArgument:
    if preset is None or argument.entity is None or argument.default is not ABSENT:
        return argument
    schema = {**argument.schema, "default": preset.id}
    return replace(
        argument, schema=schema, required=False, default=preset.id, preset=preset.setting, yields=not argument.required
    )


# --- confirmations ----------------------------------------------------------------------------------------------

CONFIRMATION = "confirmation"
"""The argument that takes the token of a preview, to confirm the call."""
_CONFIRMATION = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096,
    "description": "preview.confirmation of the same call before, once the person has agreed.",
}


def add_confirmation_arguments(catalog: Catalog) -> Catalog:
    """Return the catalog with a `confirmation` argument in every tool that confirms, unless it needs a person."""
    return replace(
        catalog,
        tools={name: _add_confirmation_argument(tool) for name, tool in catalog.tools.items()},
        reachable={name: _add_confirmation_argument(tool) for name, tool in catalog.reachable.items()},
        routes=tuple(replace(route, tool=_add_confirmation_argument(route.tool)) for route in catalog.routes),
    )


def _add_confirmation_argument(tool: Tool) -> Tool:
    if not tool.confirms or (tool.confirm is not None and tool.confirm.person):
        return tool
    arguments = (*tool.arguments, ToolArgument(CONFIRMATION, _CONFIRMATION, False, None, ABSENT))
    return replace(tool, arguments=arguments, input_schema=build_input_schema(arguments))
