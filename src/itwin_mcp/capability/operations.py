"""Operations of consumed APIs, compiled: how a request is built, a list paged, and a job awaited."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from itwin_mcp.capability.expressions import Expression, JsonPath

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a path template that an input fills."""

    name: str


PathTemplate: TypeAlias = tuple[tuple[str | Slot, ...], ...]
"""The segments of a path; each is text and slots."""


@dataclass(frozen=True, slots=True)
class WireParameter:
    """One input of an operation: its name for callers, its place and name on the wire, and its default value."""

    name: str
    place: Literal["query", "header", "path"]
    wire: str
    value: Expression | None


@dataclass(frozen=True, slots=True)
class BodyTemplate:
    """The body of a request: `data` is nested dicts and lists whose leaves are expressions over the inputs."""

    kind: Literal["json", "text", "xml", "sparql", "formUrlEncoded"]
    data: Any


@dataclass(frozen=True, slots=True)
class FilePlan:
    """A body that is a local file: its media type by file ending, and its maximum size in bytes."""

    types: Mapping[str, str]
    most: int


@dataclass(frozen=True, slots=True)
class Code:
    """How the platform writes the values of one member (`x-codes`)."""

    kind: Literal["bits", "words", "joined", "json"]
    table: Mapping[str, int | str] = field(default_factory=dict)
    """The platform's number or spelling for each word."""
    detail: str = ""
    """For `joined` the separator; for `json` the member for text that is not a JSON object."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential for another origin than the platform. `parts` are expressions over bound environment variables."""

    kind: Literal["basic", "apikey", "bearer"]
    parts: Mapping[str, Expression]
    variables: Mapping[str, str]
    """Name in the file -> name in the process environment."""


@dataclass(frozen=True, slots=True)
class PagePlan:
    """How an operation pages; see `extensions.Paging`."""

    style: Literal["link", "token", "skip"]
    items: JsonPath
    next: JsonPath | None
    size: str | None
    most: int
    skip: str | None
    token: str | None
    count: JsonPath | None
    within: int | None
    counts: JsonPath | None = None

    def size_for(self, items: int) -> int:
        """Return the page size that returns so many items in the fewest requests."""
        return self.most if self.counts is not None else min(self.most, items)


@dataclass(frozen=True, slots=True)
class WaitPlan:
    """How to await the job that an operation starts; see `extensions.Waiting`."""

    handle_place: Literal["header", "body", "input"]
    handle_name: str
    handle_path: JsonPath | None
    handle_as: str
    poll: Operation
    poll_slot: str
    state: JsonPath
    done: frozenset[str]
    failed: frozenset[str]
    """States are casefolded. Pending states are not listed: every other state is awaited, too."""
    result: Operation | None
    result_slot: str | None
    reason: JsonPath | None
    subject: str
    check: str | None
    default: int
    find: Operation | None = None
    causes: Mapping[str, str] = field(default_factory=dict)
    """The meaning of failed states, which are casefolded."""
    left: str | None = None
    """Advice about the thing that a failed job leaves."""


@dataclass(frozen=True, slots=True)
class NamesPlan:
    """How an operation returns the names of things; see `extensions.NameList`."""

    ids: str
    pattern: re.Pattern[str] | None
    most: int
    items: JsonPath
    id: str
    texts: tuple[Expression, ...]
    """Expressions over the fields of an item, as if they were arguments."""


@dataclass(frozen=True, slots=True)
class RefusalRead:
    """One read that shows the cause of a refusal.

    Paths lead into the `error`, the inputs of the refused operation (`given`), and the results of earlier reads.

    Attributes:
        by: Inputs with the values of the refused operation. If one of them has no value, the read is skipped.
        given: Its other inputs.
        match: The field of an item that must be `among` the values of a path.
        fields: The fields of each item to show. Without any, the read only serves later reads.
    """

    name: str
    operation: Operation
    by: tuple[str, ...]
    given: Mapping[str, str | JsonPath]
    items: JsonPath
    match: str | None
    among: JsonPath | None
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefusalPlan:
    """The reads after a refusal, and the hint for it; see `extensions.Refusal`."""

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
    """The names without which no request can be built: slots in the path, and slots inside text."""
    credential: Credential | None
    binary: bool
    outputs: Mapping[str, JsonPath]
    page: PagePlan | None
    wait: WaitPlan | None
    doc: str | None
    permission: str | None
    file: FilePlan | None = None
    codes: Mapping[str, Code] = field(default_factory=dict)
    """How members and inputs of these names are encoded."""
    refusals: Mapping[str, RefusalPlan] = field(default_factory=dict)
    """The reads that explain a refusal, by error code."""
    names: NamesPlan | None = None
    key: str = field(init=False)
    """`namespace.operation`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.namespace}.{self.name}")


def list_path_slots(template: PathTemplate) -> tuple[str, ...]:
    """Return the names of the slots in a path, in order."""
    return tuple(part.name for segment in template for part in segment if isinstance(part, Slot))
