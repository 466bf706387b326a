"""The catalog: linked tools, resources and prompts, and the selection of those to serve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.entities import Entities, Entity
from itwin_mcp.capability.expressions import JsonPath
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.selection import DYNAMIC, Selection
from itwin_mcp.capability.tool_actions import Access, Action, BuiltIn, ConfirmPlan, TransferPlan, list_operations
from itwin_mcp.capability.vocabulary import Vocabulary
from itwin_mcp.errors import Problem
from itwin_mcp.text import find_similar

if TYPE_CHECKING:
    from itwin_mcp.capability.inbound_compiler import InboundCredential
    from itwin_mcp.capability.routes import Route
    from itwin_mcp.capability.skill_compiler import DeclaredSkill


@dataclass(frozen=True, slots=True)
class Annotations:
    """MCP's annotations of a tool."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True, slots=True)
class ChangesetForm:
    """The form in which an operation accepts a changeset: with `only_id`, only as an id; otherwise also as an index.

    `baseline` is how it identifies the baseline: by the index 0, an empty id, or an absent argument. None means that it
    does not accept the baseline.
    """

    only_id: bool = False
    baseline: Literal["index", "empty", "absent"] | None = None


@dataclass(frozen=True, slots=True)
class ToolArgument:
    """One argument of a tool. The `default` is ABSENT if there is none.

    `local` marks the path of a local file: a `source` is read, a `target` is written.
    """

    name: str
    schema: Mapping[str, Any]
    required: bool
    entity: Entity | None
    default: Any
    local: Literal["source", "target"] | None = None
    preset: str | None = None
    """The setting that its default comes from; see `Preset`."""
    yields: bool = False
    """Whether it is optional even without the preset, because a list of entities can replace it."""
    changeset: ChangesetForm | None = None
    """Set for an argument that identifies a changeset."""

    is_one: bool = field(init=False)
    """Whether the argument takes one value instead of a list."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_one", self.schema.get("type") != "array")


@dataclass(frozen=True, slots=True)
class EmptyAnswer:
    """A note for answers in which all of these lists are empty."""

    lists: tuple[JsonPath, ...]
    note: str

    def is_meant_by(self, answer: Mapping[str, Any]) -> bool:
        """Return whether an answer has all of these lists, and all are empty."""
        return all(path.find(answer) == [] for path in self.lists)


@dataclass(frozen=True, eq=False)
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
    action: Action | BuiltIn
    file: str = ""
    """The capability file that declares it; empty for a built-in tool."""
    rule: Mapping[str, Any] = field(default_factory=dict)
    """A JSON Schema across the arguments, which is enforced but not published in `input_schema`."""
    transfer: TransferPlan | None = None
    confirm: ConfirmPlan | None = None
    lists: Mapping[str, str] = field(default_factory=dict)
    """The paths of a flow's outputs that are parts of lists, each with the tool that lists everything."""

    empty: EmptyAnswer | None = None

    @cached_property
    def is_built_in(self) -> bool:
        """Return whether the engine implements the tool, instead of a capability file."""
        return isinstance(self.action, BuiltIn)

    @cached_property
    def access(self) -> Access:
        """Return the level of access that a call requires."""
        if isinstance(self.action, BuiltIn) and self.action.access is not None:
            return self.action.access
        hints = self.annotations
        return Access.READ if hints.read_only else Access.DELETE if hints.destructive else Access.WRITE

    @cached_property
    def writes(self) -> bool:
        """Return whether a call may send a request that changes something."""
        return any(operation.method != "GET" for operation in self.operations)

    @cached_property
    def confirms(self) -> bool:
        """Return whether a call may ask the user first, as a download does before it replaces a local file."""
        return self.confirm is not None or (self.transfer is not None and self.transfer.direction == "download")

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """Return every operation that a call may send, including those that poll a job or read a preview."""
        reads = () if self.confirm is None else (self.confirm.target, *self.confirm.reads)
        return (*list_operations(self.action), *(read.operation for read in reads if read is not None))


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One MCP resource, or a resource template if its URI has variables."""

    name: str
    title: str
    uri: str
    description: str
    mime_type: str
    variables: tuple[str, ...]
    entities: Mapping[str, Entity]
    action: Action
    toolset: str

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return every operation that reading the resource may send."""
        return list_operations(self.action)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One MCP prompt. An argument is a tuple of name, title, description, and whether it is required."""

    name: str
    title: str
    description: str
    arguments: tuple[tuple[str, str | None, str, bool], ...]
    messages: tuple[tuple[Literal["user", "assistant"], str], ...]
    toolset: str
    quoted: frozenset[str] = frozenset()
    """The words in backticks in its text, which include the tools that it mentions."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The accepted values of each argument that does not accept arbitrary text."""


@dataclass(frozen=True, slots=True)
class StaticResource:
    """A text file next to a capability file, which is served unchanged."""

    name: str
    title: str
    uri: str
    description: str
    mime_type: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Skill:
    """An agent skill: the front matter of its SKILL.md, and its files, SKILL.md first."""

    name: str
    front: Mapping[str, Any]
    files: tuple[StaticResource, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Everything that is served, in the order of the files."""

    tools: Mapping[str, Tool]
    resources: tuple[Resource, ...] = ()
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    entities: Entities = field(default_factory=dict)
    statics: tuple[StaticResource, ...] = ()
    reachable: Mapping[str, Tool] = field(default_factory=dict)
    """Every tool that completions and the dynamic tools may run, including tools that are not listed."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """The tools that this server does not run, each with the reason."""
    warnings: tuple[Problem, ...] = ()
    """Warnings for the authors of capability files. `capability check` prints them."""
    routes: tuple[Route, ...] = ()
    """The operations that files expose over REST. Their tools are not listed to MCP clients."""
    inbound: tuple[InboundCredential, ...] = ()
    """The credentials that requests over HTTP must present, by path (`exposes.authentication`)."""
    declared_skills: tuple[DeclaredSkill, ...] = ()
    """The skills that capability files expose, from which `skills` builds guides."""
    skills: Callable[[], tuple[Skill, ...]] = tuple
    """Builds the agent skills when they are first needed."""
    vocabulary: Callable[[], Vocabulary] = Vocabulary
    """Reads the vocabulary of the tool search when it is first needed."""

    @property
    def dynamic(self) -> bool:
        """Return whether listed tools can find and run the tools that are not listed."""
        return any(tool.toolset == DYNAMIC for tool in self.tools.values())

    @property
    def toolsets(self) -> tuple[str, ...]:
        """Return the toolsets, in the order of the files."""
        return tuple(dict.fromkeys(tool.toolset for tool in self.tools.values()))

    @property
    def every_tool(self) -> Mapping[str, Tool]:
        """Return the tools of MCP and of REST, by name."""
        return {**self.tools, **{route.tool.name: route.tool for route in self.routes}}

    def select(
        self,
        *,
        toolsets: Sequence[str] = (),
        tools: Sequence[str] = (),
        exclude: Sequence[str] = (),
        read_only: bool = False,
        hidden: Collection[str] = (),
    ) -> Catalog:
        """Return the part of the catalog to serve.

        Resources and prompts are served with their toolset. A prompt is left out if a tool that it mentions cannot be
        run. Static resources are always served.

        Args:
            toolsets: Toolsets to serve. The default, without tools, is DEFAULT_TOOLSETS and all tools in users' files.
            tools: Single tools to serve in addition.
            exclude: Tools to leave out.
            read_only: Serve only tools that are annotated as read-only.
            hidden: Tools to leave out because the policy does not allow them.

        Raises:
            SettingsError: A name does not exist.
        """
        selection = Selection(toolsets, tools, exclude, read_only, {str(file) for file in find_shipped_files()}, hidden)
        toolsets_of_routes = {route.tool.toolset for route in self.routes}
        selection.check(self.tools, dict.fromkeys((*self.toolsets, *sorted(toolsets_of_routes))))
        served = {name: tool for name, tool in self.tools.items() if selection.lists(tool)}
        reachable = {name: tool for name, tool in self.tools.items() if selection.reaches(tool)}
        selected = replace(
            self,
            tools=served,
            reachable=reachable,
            resources=tuple(resource for resource in self.resources if selection.takes(resource.toolset)),
            routes=tuple(route for route in self.routes if selection.lists(route.tool)),
        )
        runnable = {*served, *reachable} if selected.dynamic else served.keys()
        prompts = {
            name: prompt
            for name, prompt in self.prompts.items()
            if selection.takes(prompt.toolset) and prompt.quoted & self.tools.keys() <= runnable
        }
        elsewhere = {name: selection.explain_absence(tool) for name, tool in self.tools.items() if name not in runnable}
        return replace(selected, prompts=prompts, elsewhere=elsewhere)

    def suggest_tool(self, name: str, among: Collection[str] | None = None) -> str:
        """Return why a tool is not served, or suggest one with a similar name; empty if there is none.

        `among` are the tools to suggest, by default all that are served.
        """
        if name in self.elsewhere:
            return f"It is not served here: {self.elsewhere[name]}."
        close = find_similar(name, {*(self.tools if among is None else among), *self.elsewhere})
        if not close:
            return ""
        reason = f" It is not served here: {self.elsewhere[close[0]]}." if close[0] in self.elsewhere else ""
        return f"Did you mean {close[0]!r}?{reason}"
