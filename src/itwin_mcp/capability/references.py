"""Compiler of references in `with`, paths and texts: to the inputs of a tool, and to the results of earlier steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    ExpressionError,
    JsonPath,
    Literal,
    StepValue,
    Text,
    compile_path,
    is_name,
)
from itwin_mcp.capability.transfers import FILE, check_file_fact
from itwin_mcp.text import suggest

EACH = "each"
"""The name by which `with` refers to an element of `x-each`, or to the object of `x-read`."""

_STEP_SLOT = re.compile(r"([a-zA-Z0-9-]+)((?:[.\[].*)?)", re.DOTALL)
_QUALIFIED = re.compile(r"([a-zA-Z0-9-]+)\.([a-zA-Z0-9-_*]+)")


@dataclass(slots=True)
class Scope:
    """The names that a text may refer to at one point of a flow. The compiler adds each step after compiling it."""

    namespace: str
    """The prefix of inputs: `namespace.input`."""
    inputs: Mapping[str, bool]
    """The names of the caller's inputs. The value is whether the input always has a value."""
    steps: set[str] = field(default_factory=set)
    lookups: set[str] = field(default_factory=set)
    """The steps that are lookups. A member of one means that of the first element that it found."""
    used: set[str] = field(default_factory=set)
    """The inputs that something refers to. All others are reported as unused."""

    def add_each(self) -> Scope:
        """Return a scope in which texts may also refer to `each`."""
        return replace(self, steps=self.steps | {EACH})

    def compile_value(self, value: str | float, place: Place) -> Expression | None:
        """Compile a value of `with`: `namespace.input`, a text with slots, or a constant."""
        if not isinstance(value, str):
            return Literal(value)
        qualified = _QUALIFIED.fullmatch(value)
        if qualified is not None:
            namespace, name = qualified.groups()
            if namespace == self.namespace:
                return self._compile_input(name, place)
            if name in self.inputs:
                self.used.add(name)
                message = f"{value!r} would be sent as text: write {self.namespace}.{name} for the input"
                place.report("unresolved-input", message)
                return None
        if value.startswith("$this."):
            message = f"{value!r} would be sent as text: write {self.namespace}.<input> or {{{{input}}}}"
            place.report("unresolved-input", message)
            return None

        def resolve(slot: str) -> Argument | StepValue | Literal:
            match = _STEP_SLOT.fullmatch(slot)
            if match is None or match[1] not in self.steps:
                return self._compile_input(slot, place)
            path = compile_path(f"${match[2]}")
            if match[1] == FILE:
                check_file_fact(path, place)
            return StepValue(match[1], self._enter(match[1], path))

        return place.compile_slots(value, resolve)

    def compile_step_value(self, text: str, place: Place) -> Expression:
        """Compile `$.step.field…`, or `$.input` for an argument. Any other text is reported."""
        compiled = place.compile_path(text)
        if compiled is None:
            return Literal(None)
        if compiled.query is not None or not compiled.parts or not isinstance(compiled.parts[0], str):
            message = f"{text[:80]!r} must be `$.`, the name of an earlier step or input, and plain keys, [0] or [*]"
            place.report("expression", message)
            return Literal(None)
        first = compiled.parts[0]
        if first in self.steps:
            path = JsonPath(text, compiled.parts[1:])
            if first == FILE:
                check_file_fact(path, place)
            return StepValue(first, self._enter(first, path))
        if first in self.inputs:
            self.used.add(first)
            if len(compiled.parts) > 1:
                place.report("expression", f"{text[:80]!r} looks into the input {first!r}: use the whole input")
            return Argument(first)
        names = [*self.steps, *self.inputs]
        place.check_known(first, names, "unresolved-step", "there is no earlier step or input")
        return Literal(None)

    def _enter(self, step: str, path: JsonPath) -> JsonPath:
        """Return the path of a member of a lookup as that of its first element: `$.ship.name` is `$.ship[0].name`."""
        if step in self.lookups and path.query is None and path.parts and isinstance(path.parts[0], str):
            return JsonPath(path.text, (0, *path.parts))
        return path

    def always_has(self, expression: Expression) -> bool:
        """Return whether an expression has a value even if the caller leaves out every optional input."""
        match expression:
            case Argument(name):
                return self.inputs.get(name, True)
            case Text(parts):
                return all(self.always_has(part) for part in parts if isinstance(part, (Argument, StepValue)))
        return True

    def check_new_name(self, name: str, place: Place, step: str | None = None) -> None:
        """Report a new name that is already taken. For the name of a value of a step, `step` is that step."""
        if name in (EACH, step) or name in self.inputs or name in self.steps:
            owners = {EACH: "the element of x-each", FILE: "the file of x-transfer", step: "its own step"}
            owner = owners.get(name, "an input" if name in self.inputs else "another step")
            place.report("unique-name", f"the name {name!r} is already used for {owner}: rename the step")

    def _compile_input(self, name: str, place: Place) -> Argument:
        if not is_name(name):
            raise ExpressionError(f"{{{{{name[:80]}}}}} is neither an input nor a value of an earlier step")
        if name not in self.inputs:
            message = f"there is no input {name!r}: {suggest([*self.inputs, *self.steps], name)}"
            place.report("slot-without-value", message)
        self.used.add(name)
        return Argument(name)
