"""The linked tools, resources and prompts, and the filters over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Literal

from itwin_mcp.capability.access import Access
from itwin_mcp.capability.expressions import Path
from itwin_mcp.capability.plans import Action, ConfirmPlan, Operation, TransferPlan, operations_of
from itwin_mcp.capability.selection import DYNAMIC, Selection
from itwin_mcp.capability.suggestions import find_similar
from itwin_mcp.capability.vocabulary import Vocabulary
from itwin_mcp.errors import Problem, SettingsError


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a client may assume of a tool before it calls it."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool

    @property
    def access(self) -> Access:
        """What a caller must be allowed."""
        return Access.READ if self.read_only else Access.DELETE if self.destructive else Access.WRITE


@dataclass(frozen=True, slots=True)
class ChangesetForm:
    """In which form an operation takes a changeset.

    With `only_id` it takes no index. `baseline` is what stands for the baseline: the index 0, an empty id, or an
    argument that is left out; None if the operation does not take the baseline.
    """

    only_id: bool = False
    baseline: Literal["index", "empty", "absent"] | None = None


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
    changeset: ChangesetForm | None = None
    """For an argument that names a changeset."""


@dataclass(frozen=True, slots=True)
class EmptyAnswer:
    """What an answer says if none of the lists at these paths has an item."""

    lists: tuple[Path, ...]
    note: str

    def is_meant_by(self, answer: Mapping[str, Any]) -> bool:
        """Return whether the answer has these lists, all of them empty."""
        found = [path.find(answer) for path in self.lists]
        return all(value == [] for value in found)


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
    rule: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema across the arguments: it is enforced, but not published in `input_schema`."""
    transfer: TransferPlan | None = None
    confirm: ConfirmPlan | None = None
    lists: Mapping[str, str] = field(default_factory=dict)
    """The outputs of a flow that are parts of lists, by path, and the tool that lists all; see `continuing`."""

    empty: EmptyAnswer | None = None

    @property
    def confirms(self) -> bool:
        """Whether a call may ask the person first; a download does before it replaces a local file."""
        return self.confirm is not None or (self.transfer is not None and self.transfer.direction == "download")

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every operation that a call of this tool may send, the awaited ones and those of a preview included."""
        shown = () if self.confirm is None else tuple(read.operation for read in self.confirm.reads)
        target = () if self.confirm is None or self.confirm.target is None else (self.confirm.target.operation,)
        return (*operations_of(self.action), *target, *shown)


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
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What may stand in an argument, for those that take no other text."""


@dataclass(frozen=True, slots=True)
class StaticResource:
    """A text that lies beside the capability file and is served as it is."""

    name: str
    title: str
    uri: str
    description: str
    mime_type: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Skill:
    """A guide for agents: the front matter of its SKILL.md, and its files, that one first."""

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
    statics: tuple[StaticResource, ...] = ()
    reachable: Mapping[str, Tool] = field(default_factory=dict)
    """Every tool that may be run, listed or not: completions read with them, the dynamic tools run them."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """The tools that exist and cannot be run here, each with the reason."""
    warnings: tuple[Problem, ...] = ()
    """What the authors of freshly read files should know; `capability check` prints it."""
    skills: Callable[[], tuple[Skill, ...]] = tuple
    """The guides for agents over the whole catalog, whatever part of it is served; made when first asked for."""
    vocabulary: Callable[[], Vocabulary] = Vocabulary
    """What people call things, for the search of tools; read when something is first searched."""

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
        hidden: Collection[str] = (),
    ) -> Catalog:
        """The part of the catalog that was asked for.

        Empty `toolsets` and `tools` mean DEFAULT_TOOLSETS and whatever is not in our own files; with both, their
        union. `exclude` is taken away from that, and `read_only` keeps the tools whose annotation says so. Resources
        go with their toolset, by default all are there; a prompt is there if every tool that it names can be run;
        static resources always are. A policy's `hidden` tools are left out too. Raises SettingsError for a name that
        does not exist.
        """
        asked = Selection(toolsets, tools, exclude, read_only, {str(file) for file in shipped()}, hidden)
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
        absent = {name: asked.explain_absence(tool) for name, tool in self.tools.items() if name not in runnable}
        return replace(selected, prompts=prompts, elsewhere=absent)

    def suggest_tool(self, name: str, among: Collection[str] | None = None) -> str:
        """Return a sentence for whoever named a tool that is not served: why it is not, or which name they meant.

        `among` are the tools that may be suggested, all that are served if None. Empty if there is nothing to say.
        """
        if name in self.elsewhere:
            return f"It is not served here: {self.elsewhere[name]}."
        close = find_similar(name, {*(self.tools if among is None else among), *self.elsewhere})
        if not close:
            return ""
        reason = f" It is not served here: {self.elsewhere[close[0]]}." if close[0] in self.elsewhere else ""
        return f"Did you mean {close[0]!r}?{reason}"


def shipped() -> tuple[FilePath, ...]:
    """Our own capability files: inside the installed package, or at the top of a source tree."""
    package = FilePath(__file__).resolve().parent.parent
    for folder in (package / "capabilities", package.parent.parent / "capabilities"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.yaml")))
    raise SettingsError(f"The capability files are missing from the installation at {package}: install it again.")
