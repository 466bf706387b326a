"""The linked tools, resources and prompts, compiled once into frozen plans; and the filters over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Literal, TypeAlias

from itwin_mcp.capability.expressions import Expression, Path, StepValue
from itwin_mcp.capability.selection import DYNAMIC, Selection
from itwin_mcp.errors import SettingsError

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
    pending: frozenset[str]
    done: frozenset[str]
    result: Operation | None
    result_slot: str | None
    reason: Path | None
    subject: str
    check: str | None
    default: int
    find: Operation | None = None


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
    required: bool = False
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


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """One request of a flow; `each` runs it once per element of a list."""

    name: str
    operation: Operation
    bindings: Mapping[str, Expression]
    require: Requirement | None
    when: Expression | None
    each: Expression | None


@dataclass(frozen=True, slots=True, eq=False)
class LookupStep:
    """The fields of those elements of an earlier step's result whose `match` is one of the values."""

    name: str
    index: str
    match: str
    value: Expression
    fields: tuple[str, ...]
    require: Requirement | None
    when: Expression | None


Step: TypeAlias = CallStep | LookupStep


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Requests in order, and where in the answer their values go."""

    steps: tuple[Step, ...]
    mappings: tuple[tuple[tuple[str, ...], Expression], ...]
    output: Output


Action: TypeAlias = Call | Steps


def operations_of(action: Action) -> tuple[Operation, ...]:
    """Every operation that an action may send, the awaited ones included."""
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
    return (*first, *awaited)


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """A local file that goes to, or comes from, a storage link right after its step; see `extensions.Transfer`."""

    direction: Literal["upload", "download"]
    link: StepValue
    headers: tuple[tuple[str, str], ...]
    most: int | None
    size: StepValue | None
    left: str | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a client may assume of a tool before it calls it."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True, slots=True)
class ToolArgument:
    """One argument of a tool; `default` is applied when it is left out, ABSENT where there is none.

    `local` says that it is the path of a local file: one that is read, or one that is written.
    """

    name: str
    schema: Mapping[str, Any]
    required: bool
    entity: str | None
    default: Any
    local: Literal["source", "target"] | None = None
    preset: str | None = None
    """The setting that its default comes from; see `presets`."""


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """One MCP tool."""

    name: str
    title: str
    description: str
    toolset: str
    annotations: Annotations
    arguments: tuple[ToolArgument, ...]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    action: Action
    file: str
    transfer: TransferPlan | None = None

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every operation that a call of this tool may send, the awaited ones included."""
        return operations_of(self.action)


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One MCP resource; a template when its URI has variables."""

    name: str
    title: str
    uri: str
    description: str
    mime_type: str
    variables: tuple[str, ...]
    entities: Mapping[str, str]
    action: Action
    toolset: str

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every operation that reading it may send."""
        return operations_of(self.action)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One MCP prompt; `arguments` are (name, title, description, required)."""

    name: str
    title: str
    description: str
    arguments: tuple[tuple[str, str | None, str, bool], ...]
    messages: tuple[tuple[Literal["user", "assistant"], str], ...]
    toolset: str
    quoted: frozenset[str] = frozenset()
    """What stands in backticks in its text: the tools that it tells an agent to use are among them."""


@dataclass(frozen=True, slots=True)
class StaticResource:
    """A text that lies beside the capability file and is served as it is."""

    name: str
    title: str
    uri: str
    description: str
    mime_type: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Everything that is served, in the order of the files."""

    tools: Mapping[str, Tool]
    resources: tuple[Resource, ...] = ()
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    statics: tuple[StaticResource, ...] = ()
    reachable: Mapping[str, Tool] = field(default_factory=dict)
    """Every tool that may be run, listed or not: completions read with them, the dynamic tools run them."""

    @property
    def dynamic(self) -> bool:
        """Whether the tools that are not listed can be found and run by those that are."""
        return any(tool.toolset == DYNAMIC for tool in self.tools.values())

    @property
    def toolsets(self) -> tuple[str, ...]:
        """The toolsets, in the order of the files."""
        return tuple(dict.fromkeys(tool.toolset for tool in self.tools.values()))

    def select(
        self,
        *,
        toolsets: Sequence[str] = (),
        tools: Sequence[str] = (),
        exclude: Sequence[str] = (),
        read_only: bool = False,
    ) -> Catalog:
        """The part of the catalog that was asked for.

        Empty `toolsets` and `tools` mean DEFAULT_TOOLSETS and whatever is not in our own files; with both, their
        union. `exclude` is taken away from that, and `read_only` keeps the tools whose annotation says so. Resources
        go with their toolset, by default all are there; a prompt is there if every tool that it names can be run;
        static resources always are. Raises SettingsError for a name that does not exist.
        """
        asked = Selection(toolsets, tools, exclude, read_only, {str(file) for file in shipped()})
        asked.check(self.tools, self.toolsets)
        served = {name: tool for name, tool in self.tools.items() if asked.lists(tool)}
        reachable = {name: tool for name, tool in self.tools.items() if asked.reaches(tool)}
        selected = replace(
            self,
            tools=served,
            reachable=reachable,
            resources=tuple(resource for resource in self.resources if asked.takes(resource.toolset)),
        )
        runnable = {*served, *reachable} if selected.dynamic else served.keys()
        prompts = {
            name: prompt
            for name, prompt in self.prompts.items()
            if asked.takes(prompt.toolset) and prompt.quoted & self.tools.keys() <= runnable
        }
        return replace(selected, prompts=prompts)


def shipped() -> tuple[FilePath, ...]:
    """Our own capability files: inside the installed package, or at the top of a source tree."""
    package = FilePath(__file__).resolve().parent.parent
    for folder in (package / "capabilities", package.parent.parent / "capabilities"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.yaml")))
    raise SettingsError(f"The capability files are missing from the installation at {package}: install it again.")
