"""Actions, compiled: what a tool, flow or resource does, as one call or as steps, and how it transfers and confirms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, TypeAlias

from itwin_mcp.capability.entity_declarations import PeopleForm
from itwin_mcp.capability.expressions import Expression, JsonPath, StepValue
from itwin_mcp.capability.operations import Operation


class Access(IntEnum):
    """A level of access that a tool requires of its caller. Each level includes the ones below."""

    NONE = 0
    READ = 1
    WRITE = 2
    DELETE = 3
    """Remove or overwrite."""


@dataclass(frozen=True, slots=True)
class NameSource:
    """Where the name of a thing is read, whose id is the sibling output `of`: with an operation, or in a step."""

    of: str
    operation: Operation | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One output parameter: a value at `path`, in a `header`, or the `literal` of the file.

    An object without `properties` is passed on as it is.
    """

    kind: Literal["string", "number", "boolean", "object", "array"]
    path: JsonPath | None = None
    literal: Any = None
    header: str | None = None
    last_segment: bool = False
    name: NameSource | None = None
    """Set if the value is the name of a thing. It is null until `executor.thing_names` fills it in."""
    properties: tuple[tuple[str, Output], ...] = ()
    items: Output | None = None
    members: tuple[str, ...] | None = field(init=False, compare=False, repr=False)
    """The members of a `path` that has only members, as most paths do; otherwise None."""
    member: str | None = field(init=False, compare=False, repr=False)
    """The member that is passed on as the value, for a scalar with such a path; otherwise None."""
    has_names: bool = field(init=False, compare=False, repr=False)
    """Whether it contains names of things."""
    asks_for_names: bool = field(init=False, compare=False, repr=False)
    """Whether it contains names that need a request of their own."""

    def __post_init__(self) -> None:
        plain = self.path is not None and all(isinstance(part, str) for part in self.path.parts)
        members = self.path.parts if self.path is not None and plain and self.path.query is None else None
        object.__setattr__(self, "members", members)
        alone = members is not None and len(members) == 1 and self.kind not in ("object", "array")
        plain = alone and self.literal is None and self.name is None and self.header is None and not self.last_segment
        object.__setattr__(self, "member", members[0] if members and plain else None)
        asks = self.name is not None and self.name.operation is not None
        inner = (*(child for _, child in self.properties), *(() if self.items is None else (self.items,)))
        named = self.name is not None or any(child.has_names for child in inner)
        object.__setattr__(self, "has_names", named)
        object.__setattr__(self, "asks_for_names", asks or any(child.asks_for_names for child in inner))


@dataclass(frozen=True, slots=True)
class AcrossPlan:
    """A list that is read of several places. The input `fills` takes their ids; see `flow_schema.Across`."""

    fills: str
    lists: tuple[Expression, ...]
    steps: Steps
    label: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """The error with which a step fails if `path` finds nothing in its result."""

    path: JsonPath
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a step: it is skipped if `when` has no value, or if one of `unless` has one."""

    when: Expression | None = None
    unless: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FurtherRead:
    """One more GET for each object at `within` in the shaped answer; its value becomes the member `name`."""

    within: JsonPath
    name: str
    operation: Operation
    bindings: Mapping[str, Expression]
    output: Output
    condition: Condition


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request: the operation, what fills its inputs, how its answer is shaped, and what is read afterwards."""

    operation: Operation
    bindings: Mapping[str, Expression]
    output: Output
    across: AcrossPlan | None = None
    containing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each search argument, the members of an item, one of which must contain its text."""
    further: tuple[FurtherRead, ...] = ()


@dataclass(frozen=True, slots=True)
class EachPlan:
    """A step runs once for each element of `lists`.

    Attributes:
        most: The maximum number of distinct elements; None for all, duplicates included.
        name: How later steps refer to the list of the elements that were answered.
        label: The members of the element that each item of its answer gets, and their names there.
        again: The argument that takes the ids of the elements that were left out.
    """

    lists: tuple[Expression, ...]
    most: int | None = None
    name: str | None = None
    label: tuple[tuple[str, str], ...] = ()
    again: str | None = None


@dataclass(frozen=True, slots=True)
class DefaultsPlan:
    """Values for inputs of a step that its bindings leave empty.

    Each has its input, where the value is, and words for the value, if any. Mappings refer to the object of the values
    that were used by `name`.
    """

    values: tuple[tuple[str, Expression, Mapping[str, str] | None], ...]
    name: str


@dataclass(frozen=True, slots=True)
class RepeatPlan:
    """A step is repeated until its answer has true at `until`, at most `most` times."""

    until: JsonPath
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """One request of a flow, or several: one for `each` element, `repeat` until done, all pages up to `most` items.

    An error with a status in `tolerate` leaves the step without a value. `partial` says of which part of a whole the
    step reads everything.
    """

    name: str
    operation: Operation
    bindings: Mapping[str, Expression]
    require: Requirement | None
    condition: Condition
    each: EachPlan | None = None
    most: int | None = None
    repeat: RepeatPlan | None = None
    tolerate: frozenset[int] = frozenset()
    partial: str | None = None
    defaults: DefaultsPlan | None = None

    @property
    def may_be_cut(self) -> bool:
        """Return whether the step may return less than there is; the answer then has a `page` that says why."""
        bounded = self.each is not None
        paged = self.operation.page is not None or self.partial is not None
        return bounded or self.repeat is not None or bool(self.tolerate) or paged


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A field that a lookup step adds to its elements; see `flow_schema.AddedField`."""

    name: str
    value: Any
    path: JsonPath | None
    list: Expression | None = None
    match: str = ""
    of: str = ""
    only: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ChangesPlan:
    """How to turn existing entries into the wanted ones; see `flow_schema.Changes`."""

    field: str
    otherwise: tuple[str, ...]
    called: tuple[str, ...]
    first: Expression | None
    first_has: Expression | None
    keep: str


@dataclass(frozen=True, slots=True, eq=False)
class LookupStep:
    """Picks elements of an earlier step's result whose field `match` is among the values, with some of their fields.

    With `compare`, it picks those whose date is before the value, or at or after it. `count` adds a field with the
    number of values that matched an element.
    """

    name: str
    index: str
    match: str
    value: Expression
    fields: tuple[str, ...]
    require: Requirement | None
    condition: Condition
    compare: Literal["before", "after"] | None = None
    count: str | None = None
    added: tuple[FieldPlan, ...] = ()
    changes: ChangesPlan | None = None
    within: str | None = None
    """A field that must be equal in the element and in the object that contains the value."""


Step: TypeAlias = CallStep | LookupStep


@dataclass(frozen=True, slots=True)
class StepMapping:
    """Where a value goes in the answer. With `count`, distinct objects of a list, and how often each occurs."""

    target: tuple[str, ...]
    value: Expression
    count: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Steps in order, and where their values go in the answer."""

    steps: tuple[Step, ...]
    mappings: tuple[StepMapping, ...]
    output: Output

    @property
    def may_be_cut(self) -> bool:
        """Return whether a step may return less than there is."""
        calls = [step for step in self.steps if isinstance(step, CallStep)]
        return any(step.may_be_cut for step in calls) or (self.only_reads and len(calls) > 1)

    @property
    def only_reads(self) -> bool:
        """Return whether the flow changes nothing. Then it can answer without a step that failed."""
        return all(step.operation.method == "GET" for step in self.steps if isinstance(step, CallStep))


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """An action of this program itself, which no capability file can declare.

    `access` is what a caller must be allowed, if that differs from the tool's annotations. `runs` says that it runs the
    tool in its argument `name`, with its argument `arguments`.
    """

    access: Access | None = None
    runs: bool = False


Action: TypeAlias = Call | Steps
"""An action that a capability file can declare."""


def list_called_operations(action: Action | BuiltIn) -> tuple[Operation, ...]:
    """Return the operations that an action calls, in order."""
    if isinstance(action, BuiltIn):
        return ()
    if isinstance(action, Call):
        before = list_called_operations(action.across.steps) if action.across is not None else ()
        return (*before, action.operation)
    return tuple(step.operation for step in action.steps if isinstance(step, CallStep))


def list_operations(action: Action | BuiltIn) -> tuple[Operation, ...]:
    """Return every operation that an action may send, including those that poll a job or explain a refusal."""
    further = action.further if isinstance(action, Call) else ()
    first = (*list_called_operations(action), *(read.operation for read in further))
    awaited = [
        operation
        for called in first
        if called.wait is not None
        for operation in (called.wait.poll, called.wait.result, called.wait.find)
        if operation is not None
    ]
    explaining = [read.operation for called in first for plan in called.refusals.values() for read in plan.reads]
    return (*first, *awaited, *explaining)


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """An upload or download of a local file, right after the step that returns its link; see `extensions.Transfer`."""

    direction: Literal["upload", "download"]
    link: StepValue
    headers: tuple[tuple[str, str], ...]
    most: int | None
    size: StepValue | None
    left: str | None


@dataclass(frozen=True, slots=True, eq=False)
class PreviewRead:
    """One request that reads a part of what would be lost."""

    name: str
    operation: Operation
    bindings: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that would be lost: the value at `path` of a read; see `flow_schema.LossSpec`."""

    read: str
    path: JsonPath
    match: str | None = None
    wanted: Expression | None = None
    fields: tuple[str, ...] = ()
    replaced_by: str | None = None
    """The input whose value replaces this one."""
    kept_field: str | None = None
    kept: tuple[Expression, ...] = ()
    """Elements whose `kept_field` is one of these values are not lost."""
    while_empty: JsonPath | None = None
    """Nothing is lost unless this list, in what was read, is empty."""
    most: int | None = None
    """The maximum number of elements to show."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfirmPlan:
    """How the user confirms before a tool does anything; see `flow_schema.Confirm`."""

    question: Expression
    name: Expression
    target: PreviewRead | None = None
    reads: tuple[PreviewRead, ...] = ()
    lookups: tuple[LookupStep, ...] = ()
    about: Mapping[str, JsonPath] = field(default_factory=dict)
    loses: Mapping[str, Loss] = field(default_factory=dict)
    when: Loss | None = None
    unless: Loss | None = None
    person: bool = False
    """Whether only a person may confirm."""
    alike: frozenset[str] = frozenset()
    """Tools that a policy denies together with this one."""
    people: tuple[PeopleForm, ...] = ()
    """How answers say who somebody is, so that names can take the place of ids."""
