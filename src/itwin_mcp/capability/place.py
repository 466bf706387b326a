"""A place in a capability file, where a broken rule is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    ExpressionError,
    Literal,
    Path,
    StepValue,
    argument_slot,
    compile_path,
    compile_slots,
)
from itwin_mcp.capability.loader import Document, YamlPath
from itwin_mcp.errors import Problem


@dataclass(frozen=True, slots=True)
class Place:
    """A path into a document; every place of one linking shares the list of problems."""

    document: Document = field(repr=False)
    path: YamlPath
    problems: list[Problem] = field(repr=False)

    def at(self, *parts: str | int) -> Place:
        """A place below this one."""
        return Place(self.document, (*self.path, *parts), self.problems)

    def report(self, rule: str, message: str) -> None:
        """Note a broken rule here; linking goes on, so that all are found at once."""
        self.problems.append(self.document.problem(self.path, rule, message))

    def path_of(self, text: str) -> Path | None:
        """The JSONPath in this text; None, and a problem, where it is none."""
        try:
            return compile_path(text)
        except ExpressionError as error:
            self.report("expression", str(error))
            return None

    def slots_of(
        self, text: str, resolve: Callable[[str], Argument | StepValue | Literal] = argument_slot
    ) -> Expression | None:
        """The text with its slots; None, and a problem, where its braces are no slots."""
        try:
            return compile_slots(text, resolve)
        except ExpressionError as error:
            self.report("expression", str(error))
            return None
