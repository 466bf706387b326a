"""Compiled actions of tools, flows and resources: one call or steps, with plans for transfers and confirmations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from itwin_mcp.capability.expressions import Expression, JsonPath, StepValue
from itwin_mcp.capability.operations import Operation

if TYPE_CHECKING:
    from itwin_mcp.capability.entity_declarations import PeopleForm


RESULT = "result"
"""The member that holds an answer that cannot be the structured content itself."""


class Access(IntEnum):
    """The access that a tool requires of its caller. Each level includes the lower ones."""

    NONE = 0
    READ = 1
    WRITE = 2
    DELETE = 3
    """Allows tools that delete or overwrite."""


@dataclass(frozen=True, slots=True)
class NameSource:
    """The source of a thing's name: an operation or a step. The output `of` next to the name has the thing's id."""

    of: str
    operation: Operation | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One output parameter: the value at `path`, in a `header`, or the constant `literal`.

    An object without `properties` is passed on unchanged.
    """

    kind: Literal["string", "number", "boolean", "object", "array", "any"]
    """`any` passes every value on unchanged."""
    path: JsonPath | None = None
    literal: Any = None
    header: str | None = None
    last_segment: bool = False
    name: NameSource | None = None
    """Set if the value is the name of a thing. It is null until `executor.thing_names` fills it in."""
    properties: tuple[tuple[str, Output], ...] = ()
    items: Output | None = None
    one_is_list: bool = False
    """Whether a single value is a list of one, and a missing one an empty list, as in XML."""
    wraps: bool = False
    """Whether the answer as the file declares it is the member RESULT, because it is no object of its own."""
    members: tuple[str, ...] | None = field(init=False, compare=False, repr=False)
    """The parts of `path` if all are members, as in most paths, so that they can be read fast; otherwise None."""
    member: str | None = field(init=False, compare=False, repr=False)
    """The member that is passed on as the value, for a scalar with such a path; otherwise None."""
    has_names: bool = field(init=False, compare=False, repr=False)
    """Whether it contains names of things."""
    asks_for_names: bool = field(init=False, compare=False, repr=False)
    """Whether it contains names that need another request."""

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
    """A list that is read from several places. The input `fills` takes the id of each; see `flow_schema.Across`."""

    fills: str
    lists: tuple[Expression, ...]
    steps: Steps
    label: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """The error of a step whose result has nothing at `path`."""

    path: JsonPath
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a step. The step is skipped if `when` has no value, or if one of `unless` has a value."""

    when: Expression | None = None
    unless: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FurtherRead:
    """One more GET for each object at `within` in the answer. Its output becomes the object's member `name`."""

    within: JsonPath
    name: str
    operation: Operation
    bindings: Mapping[str, Expression]
    output: Output
    condition: Condition


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request: an operation, expressions for its inputs, the shape of the answer, and further reads."""

    operation: Operation
    bindings: Mapping[str, Expression]
    output: Output
    across: AcrossPlan | None = None
    containing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each search argument, the members of an item. One of them must contain the argument's text."""
    further: tuple[FurtherRead, ...] = ()


@dataclass(frozen=True, slots=True)
class EachPlan:
    """The plan to run a step once for each element of `lists`.

    Attributes:
        most: The maximum number of distinct elements; None for all, including duplicates.
        name: The name by which later steps refer to the list of processed elements.
        label: The members of the element that are copied to each item of its answer, with their names there.
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

    Each is a tuple of the input, the value, and a translation of the value, if any. Mappings refer by `name` to the
    values that were used.
    """

    values: tuple[tuple[str, Expression, Mapping[str, str] | None], ...]
    name: str


@dataclass(frozen=True, slots=True)
class RepeatPlan:
    """The repetition of a step, at most `most` times, until its answer has true at `until`."""

    until: JsonPath
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """One request of a flow, or several: for `each` element, `repeat` until done, or all pages up to `most` items.

    If the status of an error is in `tolerate`, the step has no value. `partial` names the part that the step reads if
    it does not read everything.
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
        """Return whether the result may be incomplete. The answer then has a `page` that reports why."""
        return bool(self.each or self.repeat or self.tolerate or self.partial or self.operation.page)


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
    """The plan to change existing entries into the wanted ones; see `flow_schema.Changes`."""

    field: str
    otherwise: tuple[str, ...]
    called: tuple[str, ...]
    first: Expression | None
    first_has: Expression | None
    keep: str


@dataclass(frozen=True, slots=True, eq=False)
class LookupStep:
    """Picks the elements of an earlier step's result whose field `match` has one of the values, with some fields.

    With `compare`, it picks the elements whose date is before the value, or at or after it. `count` adds a field with
    the number of values that matched the element.
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
    """A field whose value must be the same in the element and in the object that contains the looked-up value."""


Step: TypeAlias = CallStep | LookupStep


@dataclass(frozen=True, slots=True)
class StepMapping:
    """The output that gets a value. With `count`, it gets distinct objects, and this field the number of each."""

    target: tuple[str, ...]
    value: Expression
    count: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Steps in order, and the mappings of their values to the outputs."""

    steps: tuple[Step, ...]
    mappings: tuple[StepMapping, ...]
    output: Output

    @property
    def may_be_cut(self) -> bool:
        """Return whether the answer may be incomplete."""
        calls = [step for step in self.steps if isinstance(step, CallStep)]
        return any(step.may_be_cut for step in calls) or (self.only_reads and len(calls) > 1)

    @property
    def only_reads(self) -> bool:
        """Return whether the flow only reads. Such a flow can answer even if a step fails."""
        return all(step.operation.method == "GET" for step in self.steps if isinstance(step, CallStep))


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """An action that the engine implements, and that capability files cannot declare.

    `access` is the required access, if it does not follow from the tool's annotations. With `runs`, the action runs the
    tool in its argument `name` with the arguments in its argument `arguments`.
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
    """An upload or download of a local file after the step that returns its link; see `extensions.Transfer`."""

    direction: Literal["upload", "download"]
    link: StepValue
    headers: tuple[tuple[str, str], ...]
    most: int | None
    size: StepValue | None
    left: str | None


@dataclass(frozen=True, slots=True, eq=False)
class PreviewRead:
    """One request that reads things that would be lost."""

    name: str
    operation: Operation
    bindings: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Loss:
    """The value at `path` of a read that would be lost; see `flow_schema.LossSpec`."""

    read: str
    path: JsonPath
    match: str | None = None
    wanted: Expression | None = None
    fields: tuple[str, ...] = ()
    replaced_by: str | None = None
    """The input whose value replaces the lost one."""
    kept_field: str | None = None
    kept: tuple[Expression, ...] = ()
    """Elements whose `kept_field` is one of these values are not lost."""
    while_empty: JsonPath | None = None
    """A list in the same read. There is a loss only if it is empty."""
    most: int | None = None
    """The maximum number of elements to show."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfirmPlan:
    """The plan to have the user confirm a call; see `flow_schema.Confirm`."""

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
    """The forms of answers that list people, so that the preview can show names instead of ids."""
