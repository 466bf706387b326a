"""Compiled operations of consumed APIs, with the plans for requests, paging and jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from itwin_mcp.capability.expressions import Argument, Expression, JsonPath, Text

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a path template that an input fills."""

    name: str


def list_arguments(expression: Expression) -> tuple[str, ...]:
    """Return the names that an expression refers to."""
    parts = expression.parts if isinstance(expression, Text) else (expression,)
    return tuple(part.name for part in parts if isinstance(part, Argument))


PathTemplate: TypeAlias = tuple[tuple[str | Slot, ...], ...]
"""The segments of a path. Each is a sequence of texts and slots."""


@dataclass(frozen=True, slots=True)
class WireParameter:
    """One input of an operation: its name for callers, its place and name in the request, and its fixed value."""

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
    """The platform's encoding of one member; see `extensions.MemberCode`."""

    kind: Literal["bits", "words", "joined", "json"]
    table: Mapping[str, int | str] = field(default_factory=dict)
    """The platform's number or spelling for each word."""
    detail: str = ""
    """For `joined`, the separator. For `json`, the member that gets text without a JSON object."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential for an API outside the platform. `parts` are expressions over environment variables."""

    kind: Literal["basic", "apikey", "bearer"]
    parts: Mapping[str, Expression]
    variables: Mapping[str, str]
    """The environment variable, or key in a file, for each variable of the file."""

    def list_used(self) -> frozenset[str]:
        """Return the environment variables, or keys in files, that the credential needs."""
        names = {name for part in self.parts.values() for name in list_arguments(part)}
        return frozenset(self.variables[name] for name in names if name in self.variables)


@dataclass(frozen=True, slots=True)
class PagePlan:
    """The paging of an operation; see `extensions.Paging`."""

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
        """Return the page size that reads this number of items in the fewest requests."""
        return self.most if self.counts is not None else min(self.most, items)


@dataclass(frozen=True, slots=True)
class WaitPlan:
    """The plan to await the job that an operation starts; see `extensions.Waiting`."""

    handle_place: Literal["header", "body", "input"]
    handle_name: str
    handle_path: JsonPath | None
    handle_as: str
    poll: Operation
    poll_slot: str
    state: JsonPath
    done: frozenset[str]
    failed: frozenset[str]
    """States are case-folded. Every state that is neither done nor failed is awaited."""
    result: Operation | None
    result_slot: str | None
    reason: JsonPath | None
    subject: str
    check: str | None
    default: int
    find: Operation | None = None
    causes: Mapping[str, str] = field(default_factory=dict)
    """The meaning of each failed state, which is case-folded."""
    left: str | None = None
    """Advice about the thing that a failed job leaves behind."""


@dataclass(frozen=True, slots=True)
class NamesPlan:
    """The plan to read the names of things with an operation; see `extensions.NameList`."""

    ids: str
    pattern: re.Pattern[str] | None
    most: int
    items: JsonPath
    id: str
    texts: tuple[Expression, ...]
    """Expressions whose arguments are the fields of an item."""


@dataclass(frozen=True, slots=True)
class RefusalRead:
    """One read that shows the cause of a refusal.

    Paths begin with `error`, `given` (the inputs of the refused operation) or the name of an earlier read.

    Attributes:
        by: Inputs that have the same values as in the refused operation. If one has no value, the read is skipped.
        given: Values of the other inputs.
        match: The field that selects items: its value must be `among` the values at a path.
        fields: The fields of each item to show. If empty, only later reads use the result.
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
    """One operation of a consumed API."""

    namespace: str
    name: str
    method: Method
    origin: str
    path: PathTemplate
    parameters: tuple[WireParameter, ...]
    body: BodyTemplate | None
    inputs: frozenset[str]
    """The names that `with` may bind."""
    required: frozenset[str]
    """The inputs without which no request can be built: slots in the path, and slots inside text."""
    credential: Credential | None
    binary: bool
    outputs: Mapping[str, JsonPath]
    page: PagePlan | None
    wait: WaitPlan | None
    doc: str | None
    permission: str | None
    file: FilePlan | None = None
    codes: Mapping[str, Code] = field(default_factory=dict)
    """The encodings of members and inputs, by name."""
    refusals: Mapping[str, RefusalPlan] = field(default_factory=dict)
    """The plans that explain a refusal, by error code."""
    names: NamesPlan | None = None
    raw_format: str = "json"
    """The format of the answer, as `outputRawFormat` names it."""
    bound: tuple[WireParameter, ...] = ()
    """The parameters whose values contain bound variables. They are added with the credential."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment variable, or key in a file, of each variable in `bound`."""
    key: str = field(init=False)
    """`namespace.operation`."""

    def list_references(self) -> frozenset[str]:
        """Return what the credential and the bound parameters read: environment variables, or keys in files."""
        credential = () if self.credential is None else self.credential.list_used()
        return frozenset((*credential, *self.variables.values()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.namespace}.{self.name}")


def list_path_slots(template: PathTemplate) -> tuple[str, ...]:
    """Return the names of the slots in a path, in order."""
    return tuple(part.name for segment in template for part in segment if isinstance(part, Slot))
