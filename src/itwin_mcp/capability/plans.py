"""What operations are and what actions do, compiled once into frozen plans: calls, steps, pages, waits, transfers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from itwin_mcp.capability.expressions import Expression, Path, StepValue

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a path template that an input fills."""

    name: str


PathTemplate: TypeAlias = tuple[tuple[str | Slot, ...], ...]
"""The segments of a path; each is text and slots."""


@dataclass(frozen=True, slots=True)
class WireParameter:
    """One input of an operation: what callers name it, where it goes, its name there, and what it is when not given."""

    name: str
    place: Literal["query", "header", "path"]
    wire: str
    value: Expression | None


@dataclass(frozen=True, slots=True)
class BodyTemplate:
    """A body as values: `data` is nested dicts and lists whose leaves are expressions over the inputs."""

    kind: Literal["json", "text", "xml", "sparql", "formUrlEncoded"]
    data: Any


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The body of an operation that is a local file: its media type by ending, and its largest size in bytes."""

    types: Mapping[str, str]
    most: int


@dataclass(frozen=True, slots=True)
class Code:
    """How the platform writes the values of one member (`x-codes`)."""

    kind: Literal["bits", "words", "joined", "json"]
    table: Mapping[str, int | str] = field(default_factory=dict)
    """The platform's number or spelling for each word."""
    detail: str = ""
    """For `joined` the separator, for `json` the member that shows what is no JSON object."""


@dataclass(frozen=True, slots=True)
class Credential:
    """How a file says that a foreign origin is called: `parts` are expressions over bound environment variables."""

    kind: Literal["basic", "apikey", "bearer"]
    parts: Mapping[str, Expression]
    variables: Mapping[str, str]
    """Name in the file -> name in the process environment."""


@dataclass(frozen=True, slots=True)
class PagePlan:
    """How an operation pages; see `extensions.Paging`."""

    style: Literal["link", "token", "skip"]
    items: Path
    next: Path | None
    size: str | None
    most: int
    skip: str | None
    token: str | None
    count: Path | None
    within: int | None
    counts: Path | None = None

    def size_for(self, items: int) -> int:
        """The page size that gives so many items in the fewest requests."""
        return self.most if self.counts is not None else min(self.most, items)


@dataclass(frozen=True, slots=True)
class WaitPlan:
    """What an operation starts and how that is awaited; see `extensions.Waiting`."""

    handle_place: Literal["header", "body", "input"]
    handle_name: str
    handle_path: Path | None
    handle_as: str
    poll: Operation
    poll_slot: str
    state: Path
    done: frozenset[str]
    failed: frozenset[str]
    """States are casefolded; the pending ones need no list here, because they are awaited like unknown ones."""
    result: Operation | None
    result_slot: str | None
    reason: Path | None
    subject: str
    check: str | None
    default: int
    find: Operation | None = None
    causes: Mapping[str, str] = field(default_factory=dict)
    """What a failed state means; states are casefolded."""
    left: str | None = None
    """What to do with the thing that a failed job leaves."""


@dataclass(frozen=True, slots=True)
class RefusalRead:
    """One read that shows what a refusal is about.

    `by` are inputs that it takes from the refused operation: without a value for one of them it is left out. `given`
    are its other inputs. Of the `items` those count whose `match` field is `among` the values of a path. Paths lead
    into the `error`, the inputs (`given`) and what earlier reads found. The `fields` of each item are shown; without
    any, the read only serves later ones.
    """

    name: str
    operation: Operation
    by: tuple[str, ...]
    given: Mapping[str, str | Path]
    items: Path
    match: str | None
    among: Path | None
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefusalPlan:
    """What is read after a refusal, and the hint that goes with it; see `extensions.Refusal`."""

    reads: tuple[RefusalRead, ...]
    hint: str


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One consumed operation, linked."""

    namespace: str
    name: str
    method: Method
    origin: str
    path: PathTemplate
    parameters: tuple[WireParameter, ...]
    body: BodyTemplate | None
    inputs: frozenset[str]
    """Every name that a `with` may bind."""
    required: frozenset[str]
    """The names without which no request can be built: slots in the path and slots inside text."""
    credential: Credential | None
    binary: bool
    outputs: Mapping[str, Path]
    page: PagePlan | None
    wait: WaitPlan | None
    doc: str | None
    permission: str | None
    file: FilePlan | None = None
    codes: Mapping[str, Code] = field(default_factory=dict)
    """How members and inputs of these names are written."""
    refusals: Mapping[str, RefusalPlan] = field(default_factory=dict)
    """What explains a refusal, by its code."""

    @property
    def key(self) -> str:
        """`namespace.operation`."""
        return f"{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class Output:
    """One compiled output parameter.

    `literal` is a value that the file gives; an object without properties is passed on as it came.
    """

    kind: Literal["string", "number", "boolean", "object", "array"]
    path: Path | None = None
    literal: Any = None
    header: str | None = None
    last_segment: bool = False
    properties: tuple[tuple[str, Output], ...] = ()
    items: Output | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request: the operation, what fills its inputs, and how its answer is shaped."""

    operation: Operation
    bindings: Mapping[str, Expression]
    output: Output


@dataclass(frozen=True, slots=True)
class Requirement:
    """A step fails with this error when the path finds nothing."""

    path: Path
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A step is left out where `when` is empty, or `unless` is not."""

    when: Expression | None = None
    unless: Expression | None = None


@dataclass(frozen=True, slots=True)
class EachPlan:
    """A step runs once per element of these lists.

    With `most` once per distinct element, and for no more than so many; `name` is what later steps call the list of
    those that were answered.
    """

    lists: tuple[Expression, ...]
    most: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class DefaultsPlan:
    """Values of a step's inputs for which its bindings have none.

    Each has the place of the value, and the words that stand for it, if any. `name` is what mappings call the object
    of those that were taken.
    """

    values: tuple[tuple[str, Expression, Mapping[str, str] | None], ...]
    name: str


@dataclass(frozen=True, slots=True)
class RepeatPlan:
    """A step is sent until its answer has true at the path, at most so many times."""

    until: Path
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """One request of a flow, or several: `each` element one, `repeat` until it is done, all pages up to `most` items.

    A refusal with a status in `tolerate` leaves the step without a value. `partial` says why what it reads, though all
    of that, is not all there is.
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
        """Whether it may give less than there is; the answer then has a `page` that says why."""
        bounded = self.each is not None
        paged = self.operation.page is not None or self.partial is not None
        return bounded or self.repeat is not None or bool(self.tolerate) or paged


@dataclass(frozen=True, slots=True, eq=False)
class LookupStep:
    """The fields of those elements of an earlier step's result whose `match` is one of the values.

    With `compare` those whose `match` is a date before the value, or else those at or after it. `count` is the field
    that says how many of the values are an element's.
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


Step: TypeAlias = CallStep | LookupStep


@dataclass(frozen=True, slots=True)
class StepMapping:
    """Where in the answer a value goes; with `count` each distinct object of a list once, and there how often."""

    target: tuple[str, ...]
    value: Expression
    count: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Requests in order, and where in the answer their values go."""

    steps: tuple[Step, ...]
    mappings: tuple[StepMapping, ...]
    output: Output

    @property
    def may_be_cut(self) -> bool:
        """Whether a step may give less than there is."""
        calls = [step for step in self.steps if isinstance(step, CallStep)]
        return any(step.may_be_cut for step in calls) or (self.only_reads and len(calls) > 1)

    @property
    def only_reads(self) -> bool:
        """Whether nothing is changed: then the answer of one step can be left out of that of the flow."""
        return all(step.operation.method == "GET" for step in self.steps if isinstance(step, CallStep))


Action: TypeAlias = Call | Steps


def operations_of(action: Action) -> tuple[Operation, ...]:
    """Every operation that an action may send: also the awaited ones, and those that explain a refusal."""
    if isinstance(action, Call):
        first: tuple[Operation, ...] = (action.operation,)
    else:
        first = tuple(step.operation for step in action.steps if isinstance(step, CallStep))
    awaited = [
        operation
        for one in first
        if one.wait is not None
        for operation in (one.wait.poll, one.wait.result, one.wait.find)
        if operation is not None
    ]
    explaining = [read.operation for one in first for plan in one.refusals.values() for read in plan.reads]
    return (*first, *awaited, *explaining)


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """A local file that goes to, or comes from, a storage link right after its step; see `extensions.Transfer`."""

    direction: Literal["upload", "download"]
    link: StepValue
    headers: tuple[tuple[str, str], ...]
    most: int | None
    size: StepValue | None
    left: str | None


@dataclass(frozen=True, slots=True, eq=False)
class PreviewRead:
    """One request that shows a part of what would be lost."""

    name: str
    operation: Operation
    bindings: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that would be lost: `path` leads from what was read, by the read's name, to it; see `flows.Loss`."""

    read: str
    path: Path
    match: str | None = None
    wanted: Expression | None = None
    fields: tuple[str, ...] = ()
    replaced_by: str | None = None
    """The input whose value replaces this one."""
    kept_field: str | None = None
    kept: tuple[Expression, ...] = ()
    """Elements whose `kept_field` is one of these values are not lost."""
    while_empty: Path | None = None
    """Nothing is lost unless this list, from what was read, is empty."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfirmPlan:
    """How the person is asked before a tool does anything; see `flows.Confirm`."""

    question: Expression
    name: Expression
    target: PreviewRead | None = None
    reads: tuple[PreviewRead, ...] = ()
    loses: Mapping[str, Loss] = field(default_factory=dict)
    when: Loss | None = None
    unless: Loss | None = None
    person: bool = False
    """Whether nothing less than a person will do."""
    alike: frozenset[str] = frozenset()
    """Tools that a policy denies together with this one."""
