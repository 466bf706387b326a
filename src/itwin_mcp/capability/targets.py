"""Where mappings put values in a flow's answer: no two fill one output in one call, and every output is filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from itwin_mcp.capability import flows
from itwin_mcp.capability.expressions import Argument, StepValue
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import Condition, Step, StepMapping
from itwin_mcp.capability.suggestions import there_is


def check_targets(
    outputs: Mapping[str, flows.Orchestrated], mappings: Sequence[StepMapping], steps: Sequence[Step], place: Place
) -> None:
    """Report, at its place in the flow, every target and output that does not fit."""
    conditions = {step.name: step.condition for step in steps}
    known = dict(_outputs(outputs))
    targets = [mapping.target for mapping in mappings]
    for index, mapping in enumerate(mappings):
        here, target = place.at("mappings", index, "target"), mapping.target
        dotted = ".".join(target)
        if target not in known:
            names = (".".join(path) for path in known)
            here.report("unresolved-target", f"there is no output {dotted!r}: {there_is(names, dotted)}")
        elif any(
            _overlap(target, other.target) and not _exclude(mapping, other, conditions) for other in mappings[:index]
        ):
            message = f"the output {dotted!r} is filled twice: keep one mapping, or let one input decide between steps"
            here.report("unresolved-target", message)
        elif mapping.count is not None:
            output = known[target]
            if not isinstance(output, flows.OrchestratedArray) or mapping.count not in output.items:
                message = f"the elements of the output {dotted!r} have no number {mapping.count!r}: add it to its items"
                place.at("mappings", index, "x-count").report("x-count", message)
    for path, output in known.items():
        below = isinstance(output, flows.OrchestratedObject) and output.properties
        if not below and not any(path[: len(target)] == target for target in targets):
            message = f"no mapping fills the output {'.'.join(path)!r}: it would always be null"
            place.at("outputParameters", path[0]).report("output", message)


def _outputs(
    outputs: Mapping[str, flows.Orchestrated], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], flows.Orchestrated]]:
    """Every output that a mapping can fill, by its path."""
    for name, output in outputs.items():
        yield (*above, name), output
        if isinstance(output, flows.OrchestratedObject):
            yield from _outputs(output.properties, (*above, name))


def _exclude(one: StepMapping, other: StepMapping, conditions: Mapping[str, Condition]) -> bool:
    """Whether the steps of two mappings never both run, since an input that lets one run leaves the other out."""
    first, second = (
        conditions.get(mapping.value.step, Condition()) if isinstance(mapping.value, StepValue) else Condition()
        for mapping in (one, other)
    )
    return any(
        isinstance(when, Argument) and when == unless
        for when, unless in ((first.when, second.unless), (second.when, first.unless))
    )


def _overlap(later: tuple[str, ...], earlier: tuple[str, ...]) -> bool:
    """Whether a mapping replaces what an earlier one filled. It may add a member to an object that is there."""
    return later == earlier[: len(later)]
