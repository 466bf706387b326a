"""Compiler of output parameters: the shape of an answer, and its JSON Schema."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from itwin_mcp.capability.answer_schema import RESERVED_OUTPUTS
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import Argument, JsonPath, StepValue
from itwin_mcp.capability.flow_schema import (
    Mapped,
    MappedArray,
    MappedObject,
    MappedScalar,
    NameOf,
    Orchestrated,
    OrchestratedArray,
    OrchestratedObject,
    OrchestratedScalar,
)
from itwin_mcp.capability.json_schema import check_fragment
from itwin_mcp.capability.schema_types import JsonSchema
from itwin_mcp.capability.tool_actions import RESULT, CallStep, Condition, NameSource, Output, Step, StepMapping
from itwin_mcp.text import shorten

NameResolver = Callable[[NameOf, Place], NameSource | None]
"""Returns the source of a name. If there is none, it reports that and returns None."""


def compile_root_output(
    parameter: Mapped, place: Place, names: NameResolver, *, paged: bool
) -> tuple[Output, JsonSchema]:
    """Compile the whole answer of a single call. A list or scalar becomes the member `result` of an object.

    So does an object with a member named like one of ours, unless its operation pages.
    """
    if isinstance(parameter, MappedObject):
        reserved = sorted(RESERVED_OUTPUTS & parameter.properties.keys()) if not paged else []
        if not reserved:
            return compile_mapped_output(parameter, place, names)
        warn_of_reserved_outputs(reserved, place.at("properties"))
    return wrap_output(*compile_mapped_output(parameter, place, names, RESULT))


def wrap_output(output: Output, schema: JsonSchema) -> tuple[Output, JsonSchema]:
    """Return the output of an object whose member `result` is the given output."""
    wrapped = Output("object", properties=((RESULT, output),), wraps=True)
    return wrapped, {"type": "object", "properties": {RESULT: schema}}


def accept_single(output: Output) -> Output:
    """Return an output of XML, where one element and a list of one look the same."""
    return replace(
        output,
        one_is_list=output.kind == "array",
        properties=tuple((name, accept_single(child)) for name, child in output.properties),
        items=None if output.items is None else accept_single(output.items),
    )


def warn_of_reserved_outputs(names: Sequence[str], place: Place) -> None:
    """Warn that outputs named like members that the engine adds put the whole answer under `result`."""
    for name in names:
        message = f"the engine adds {name!r} to answers, so the whole answer is under {RESULT!r}: rename it to avoid it"
        place.at(name).warn("reserved-output", message)


def compile_mapped_output(
    parameter: Mapped, place: Place, names: NameResolver, name: str = ""
) -> tuple[Output, JsonSchema]:
    """Compile an output parameter of a single call, and return it with its schema. Problems are reported.

    The schema allows unknown fields, and null for every value except the objects of a list.
    """
    take = parameter.take if isinstance(parameter, MappedScalar) else None
    if isinstance(parameter, MappedScalar) and isinstance(take, NameOf):
        return _compile_name_output(parameter, take, place, names)
    mapping = parameter.mapping
    path = place.at("mapping").compile_path(mapping) if mapping is not None else None
    check_fragment(parameter.x_schema, place.at("x-schema"))
    annotations = _pick_annotations(parameter.x_schema)
    if isinstance(parameter, MappedObject):
        _check_names(parameter.properties, place.at("properties"))
        parts = [
            (key, *compile_mapped_output(child, place.at("properties", key), names, key))
            for key, child in parameter.properties.items()
        ]
        schema: JsonSchema = {"type": ["object", "null"] if name else "object"}
        if parts:
            schema["properties"] = {key: child_schema for key, _, child_schema in parts}
        # A member with x-read is not in this answer: it is added when its own request has been answered.
        own = tuple((key, child) for key, child, _ in parts if not _is_read_later(parameter.properties[key]))
        return Output("object", path, properties=own), schema | annotations
    if isinstance(parameter, MappedArray):
        items, items_schema = compile_mapped_output(parameter.items, place.at("items"), names)
        return Output("array", path, items=items), {"type": ["array", "null"], "items": items_schema} | annotations
    header = parameter.header
    output = Output(
        parameter.type,
        path,
        literal=_compile_literal(parameter, place),
        header=header.name.lower() if header else None,
        last_segment="last-segment" in (take, header.take if header else None),
    )
    return output, {"type": [parameter.type, "null"]} | annotations


def _compile_name_output(
    parameter: MappedScalar | OrchestratedScalar, take: NameOf, place: Place, names: NameResolver
) -> tuple[Output, JsonSchema]:
    """Compile an output that is the name of a thing. Another request reads its value."""
    sources = [parameter.mapping, parameter.value, parameter.header] if isinstance(parameter, MappedScalar) else []
    if parameter.type != "string" or any(source is not None for source in sources):
        message = "the output of a name must be of type string, without `mapping`, `value` and `x-header`"
        place.at("x-take").report("x-take", message)
    source = names(take, place.at("x-take", "name"))
    schema: JsonSchema = {"type": ["string", "null"]}
    return Output("string", name=source or NameSource(take.of)), schema | _pick_annotations(parameter.x_schema)


def _check_names(outputs: Mapping[str, Mapped] | Mapping[str, Orchestrated], place: Place) -> None:
    """Report each output that is a name and whose id is not next to it."""
    for key, output in outputs.items():
        take = output.take if isinstance(output, MappedScalar | OrchestratedScalar) else None
        if not isinstance(take, NameOf):
            continue
        texts = [name for name, other in outputs.items() if other.type == "string" and name != key]
        missing = f"next to the output {key!r} there is no id"
        place.at(key, "x-take", "of").check_known(take.of, texts, "x-take", missing)


def _is_read_later(parameter: Mapped) -> bool:
    return not isinstance(parameter, MappedArray) and parameter.read is not None


def _pick_annotations(fragment: JsonSchema | None) -> JsonSchema:
    """Return the title and description of an output's `x-schema`. Answers may break its other keywords."""
    return {name: value for name, value in (fragment or {}).items() if name in ("title", "description")}


def _compile_literal(parameter: MappedScalar, place: Place) -> str | float | bool | None:
    """Convert a static value to the type of its parameter. The format writes every static value as text."""
    sources = [source for source in (parameter.mapping, parameter.value, parameter.header) if source is not None]
    if len(sources) != 1:
        message = f"an output of type {parameter.type!r} needs exactly one of `mapping`, `value` and `x-header`"
        place.report("output", message)
    value = parameter.value
    if value is None or parameter.type == "string":
        return value
    if parameter.type == "boolean" and value in ("true", "false"):
        return value == "true"
    if parameter.type == "number":
        try:
            number = json.loads(value)
        except ValueError:
            number = None
        if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
            return number
    place.at("value").report("output", f"{shorten(value)!r} is not a {parameter.type}")
    return None


def compile_flow_outputs(
    parameters: Mapping[str, Orchestrated], place: Place, names: NameResolver, *, root: bool = True
) -> tuple[Output, JsonSchema]:
    """Compile the output parameters of a flow, and return them with their schema."""
    _check_names(parameters, place)
    parts: list[tuple[str, Output]] = []
    schemas: dict[str, JsonSchema] = {}
    for name, parameter in parameters.items():
        here = place.at(name)
        check_fragment(parameter.x_schema, here.at("x-schema"))
        annotations = _pick_annotations(parameter.x_schema)
        path = JsonPath(f"$['{name}']", (name,))
        if isinstance(parameter, OrchestratedObject):
            child, schema = compile_flow_outputs(parameter.properties, here.at("properties"), names, root=False)
            parts.append((name, Output("object", path, properties=child.properties)))
            schemas[name] = schema | annotations
        elif isinstance(parameter, OrchestratedArray):
            child, schema = compile_flow_outputs(parameter.items, here.at("items"), names, root=False)
            # The format can only describe elements with fields. Without fields, elements are passed on as they are.
            items = Output("object", None, properties=child.properties) if parameter.items else None
            parts.append((name, Output("array", path, items=items)))
            schemas[name] = {"type": ["array", "null"]} | annotations
            if items is not None:
                schemas[name]["items"] = schema | {"type": "object"}
        elif isinstance(parameter.take, NameOf):
            output, schemas[name] = _compile_name_output(parameter, parameter.take, here, names)
            parts.append((name, output))
        else:
            parts.append((name, Output(parameter.type, path, last_segment=parameter.take == "last-segment")))
            schemas[name] = {"type": [parameter.type, "null"]} | annotations
    result: JsonSchema = {"type": "object" if root else ["object", "null"]}
    if schemas:
        result["properties"] = schemas
    return Output("object", None, properties=tuple(parts)), result


def check_mappings(
    outputs: Mapping[str, Orchestrated],
    mappings: Sequence[StepMapping],
    steps: Sequence[Step],
    place: Place,
) -> None:
    """Report each mapping with an unknown or already filled target, and each output that no mapping fills."""
    conditions = {step.name: step.condition for step in steps}
    conditions |= {
        step.each.name: step.condition
        for step in steps
        if isinstance(step, CallStep) and step.each is not None and step.each.name is not None
    }
    fillable = dict(_list_outputs(outputs))
    names = [".".join(path) for path in fillable]
    targets = [mapping.target for mapping in mappings]
    for index, mapping in enumerate(mappings):
        here, target = place.at("mappings", index, "target"), mapping.target
        dotted = ".".join(target)
        if target not in fillable:
            here.check_known(dotted, names, "unresolved-target", "there is no output")
        elif any(
            _overwrites(target, other.target) and not _exclude_each_other(mapping, other, conditions)
            for other in mappings[:index]
        ):
            message = (
                f"the output {dotted!r} is filled twice: remove one mapping, or choose between the steps with one input"
            )
            here.report("unresolved-target", message)
        elif mapping.count is not None:
            output = fillable[target]
            if not isinstance(output, OrchestratedArray) or mapping.count not in output.items:
                message = f"the elements of the output {dotted!r} have no field {mapping.count!r}: add it to its items"
                place.at("mappings", index, "x-count").report("x-count", message)
    for path, output in fillable.items():
        has_members = isinstance(output, OrchestratedObject) and output.properties
        is_name = isinstance(output, OrchestratedScalar) and isinstance(output.take, NameOf)
        if not has_members and not is_name and not any(path[: len(target)] == target for target in targets):
            message = f"no mapping fills the output {'.'.join(path)!r}: it would always be null"
            place.at("outputParameters", path[0]).report("output", message)


def _list_outputs(
    outputs: Mapping[str, Orchestrated], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Orchestrated]]:
    """Yield every output that a mapping can fill, with its path."""
    for name, output in outputs.items():
        yield (*above, name), output
        if isinstance(output, OrchestratedObject):
            yield from _list_outputs(output.properties, (*above, name))


def _exclude_each_other(mapping: StepMapping, other: StepMapping, conditions: Mapping[str, Condition]) -> bool:
    """Return whether the steps of two mappings have opposite conditions, so that only one of them runs."""
    first, second = (
        conditions.get(either.value.step, Condition()) if isinstance(either.value, StepValue) else Condition()
        for either in (mapping, other)
    )
    return any(
        isinstance(when, Argument) and when in unless
        for when, unless in ((first.when, second.unless), (second.when, first.unless))
    )


def _overwrites(later: tuple[str, ...], earlier: tuple[str, ...]) -> bool:
    """Return whether a mapping overwrites an earlier one. A mapping may add a member to a filled object."""
    return later == earlier[: len(later)]
