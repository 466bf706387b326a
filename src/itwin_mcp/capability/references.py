"""References in `with`, paths and texts: to the inputs of a tool, and to the results of earlier steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
"""How `with` refers to an element of `x-each`, or to the object of `x-read`."""

_STEP_SLOT = re.compile(r"([a-zA-Z0-9-]+)((?:[.\[].*)?)", re.DOTALL)
_QUALIFIED = re.compile(r"([a-zA-Z0-9-]+)\.([a-zA-Z0-9-_*]+)")


@dataclass(slots=True)
class Scope:
    """The names that a text may refer to at one point of a flow; compiling adds the names of steps as it goes."""

    namespace: str
    """The prefix of inputs: `namespace.input`."""
    inputs: Mapping[str, bool]
    """The caller's inputs, and whether each always has a value."""
    steps: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    """The inputs that were referred to, to report the others as unused."""

    def compile_value(self, value: str | float, place: Place) -> Expression | None:
        """Compile a value of `with`: `namespace.input`, a text with slots, or a value as it is."""
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
            found = _STEP_SLOT.fullmatch(slot)
            if found is not None and found.group(1) in self.steps:
                path = compile_path(f"${found.group(2)}")
                if found.group(1) == FILE:
                    check_file_fact(path, place)
                return StepValue(found.group(1), path)
            return self._compile_input(slot, place)

        return place.compile_slots(value, resolve)

    def compile_step_value(self, text: str, place: Place) -> Expression:
        """Compile `$.step.field…`, or `$.input` for an argument; a text that is neither is reported."""
        compiled = place.compile_path(text)
        if compiled is None:
            return Literal(None)
        if compiled.query is not None or not compiled.parts or not isinstance(compiled.parts[0], str):
            message = f"{text[:80]!r} must be `$.`, the name of an earlier step or input, and plain keys, [0] or [*]"
            place.report("expression", message)
            return Literal(None)
        first = compiled.parts[0]
        if first in self.steps:
            found = JsonPath(text, compiled.parts[1:])
            if first == FILE:
                check_file_fact(found, place)
            return StepValue(first, found)
        if first in self.inputs:
            self.used.add(first)
            if len(compiled.parts) > 1:
                place.report("expression", f"{text[:80]!r} looks into the input {first!r}: use the whole input")
            return Argument(first)
        message = f"there is no earlier step or input {first!r}: {suggest([*self.steps, *self.inputs], first)}"
        place.report("unresolved-step", message)
        return Literal(None)

    def always_has(self, expression: Expression) -> bool:
        """Return whether an expression has a value even if the caller leaves out every optional input."""
        match expression:
            case Argument(name):
                return self.inputs.get(name, True)
            case Text(parts):
                return all(self.always_has(part) for part in parts if isinstance(part, (Argument, StepValue)))
        return True

    def check_new_name(self, name: str, place: Place, step: str | None = None) -> None:
        """Report a new name that is already taken. `step` is the step that gives the named value, if it is no step."""
        if name in (EACH, step) or name in self.inputs or name in self.steps:
            others = {EACH: "the element of x-each", FILE: "the file of x-transfer", step: "its own step"}
            other = others.get(name, "an input" if name in self.inputs else "another step")
            place.report("unique-name", f"the name {name!r} is already used for {other}: rename the step")

    def _compile_input(self, name: str, place: Place) -> Argument:
        if not is_name(name):
            raise ExpressionError(f"{{{{{name[:80]}}}}} is neither an input nor a value of an earlier step")
        if name not in self.inputs:
            message = f"there is no input {name!r}: {suggest([*self.inputs, *self.steps], name)}"
            place.report("slot-without-value", message)
        self.used.add(name)
        return Argument(name)
