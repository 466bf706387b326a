"""`--toolsets dynamic`: a few tools that find, describe and run all the others, so that none fills a context unused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from itwin_mcp.capability.catalog import Annotations, Catalog, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import choices_of, published_schema
from itwin_mcp.capability.plans import Output, Steps
from itwin_mcp.capability.selection import DYNAMIC, SESSION
from itwin_mcp.capability.suggestions import find_similar
from itwin_mcp.errors import InvalidArguments, SettingsError
from itwin_mcp.executor.conversion import convert_arguments
from itwin_mcp.executor.validate import Check, compile_check

if TYPE_CHECKING:
    from itwin_mcp.server.search import ToolIndex

FIND = "find-tools"
DESCRIBE = "describe-tool"
RUN_READING = "run-reading-tool"
RUN_WRITING = "run-writing-tool"
RUNS = frozenset({RUN_READING, RUN_WRITING})

_FEW = 3
"""Hits below which all names are listed."""
_NAME: Mapping[str, Any] = {"type": "string", "minLength": 1, "maxLength": 64}
_ERROR: Mapping[str, Any] = {"error": {"type": "object"}}


def _tool(
    name: str,
    title: str,
    description: str,
    arguments: tuple[ToolArgument, ...],
    answers: Mapping[str, Any],
    annotations: Annotations,
    optional: Mapping[str, Any] | None = None,
) -> Tool:
    output: dict[str, Any] = {"type": "object", "properties": {**answers, **(optional or {}), **_ERROR}}
    if answers:
        output["anyOf"] = [{"required": [one]} for one in (*answers, "error")]
    return Tool(
        name=name,
        title=title,
        description=description,
        toolset=DYNAMIC,
        annotations=annotations,
        arguments=arguments,
        input_schema=published_schema(arguments),
        output_schema=output,
        action=Steps((), (), Output("object")),
        file="",
    )


def _argument(name: str, schema: Mapping[str, Any], *, required: bool = True, default: Any = ABSENT) -> ToolArgument:
    return ToolArgument(name, schema, required, None, default)


_LOOKS = Annotations(read_only=True, destructive=False, idempotent=True, open_world=False)
_RUN = (
    _argument("name", {**_NAME, "description": "Name of the tool, from find-tools."}),
    _argument(
        "arguments",
        {"type": "object", "description": "Its arguments, as describe-tool gives them.", "default": {}},
        required=False,
        default={},
    ),
)

TOOLS: tuple[Tool, ...] = (
    _tool(
        FIND,
        "Find tools",
        "Find the tools for a task among all that this server has for iTwins, iModels, changesets, named versions, "
        "briefcases, locks, checkpoints, users, shares, repositories, exports, favorites and images, best first. "
        "Then call the tool in runWith; see describe-tool first if the arguments are not plain. For a task that this "
        "server cannot do, otherApis names the API of the platform that can.",
        (
            _argument(
                "query",
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 400,
                    "description": "The task in a few words: the verb and this server's nouns, in English (translate "
                    "first). project = iTwin, model = iModel, checkout = briefcase, milestone = named version, "
                    "snapshot = checkpoint, guest link = share.",
                },
            ),
            _argument(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
                required=False,
                default=5,
            ),
        ),
        {"tools": {"type": "array", "items": {"type": "object", "required": ["name", "runWith"]}}},
        _LOOKS,
        {
            "otherApis": {
                "type": "array",
                "description": "What this server cannot do, and the API of the platform, or the library, that can.",
                "items": {"type": "object", "required": ["api", "does"]},
            },
            "toolsets": {
                "type": "object",
                "description": "The names of all tools by toolset, if the query matched little.",
            },
        },
    ),
    _tool(
        DESCRIBE,
        "Describe tool",
        "All of one tool: what it does and the JSON Schema of its arguments.",
        (_argument("name", {**_NAME, "description": "Name of the tool, from find-tools."}),),
        {"tool": {"type": "object", "required": ["name", "inputSchema", "runWith"]}},
        _LOOKS,
    ),
    _tool(
        RUN_READING,
        "Run a reading tool",
        "Run a tool that changes nothing, and give its answer. A tool that changes data is refused here.",
        _RUN,
        {},
        Annotations(read_only=True, destructive=False, idempotent=True, open_world=True),
    ),
    _tool(
        RUN_WRITING,
        "Run a writing tool",
        "Run a tool that creates, changes or deletes data, and give its answer. What is deleted is gone. "
        "A tool that only reads is refused here.",
        _RUN,
        {},
        Annotations(read_only=False, destructive=True, idempotent=False, open_world=True),
    ),
)


class Dynamic:
    """The four tools over everything that a catalog can run."""

    def __init__(self, catalog: Catalog) -> None:
        """Raises SettingsError where nothing can be searched."""
        if not catalog.reachable:
            raise SettingsError("--toolsets dynamic has no tool to run: exclude fewer.")
        self._tools = catalog.reachable
        self._catalog = catalog
        direct = {name: tool for name, tool in catalog.tools.items() if tool.toolset == SESSION}
        self._found = {**catalog.reachable, **direct}
        self._checks: dict[str, Check] = {}

    def answer(
        self, name: str, arguments: Mapping[str, Any], shows: Callable[[Tool], bool] = lambda _: True
    ) -> dict[str, Any]:
        """The answer of `find-tools` (of those that it `shows`) and `describe-tool`. Raises InvalidArguments."""
        ready = self._ready(name, arguments)
        if name == DESCRIBE:
            return {"tool": _whole(self._found.get(ready["name"]) or self._tool(ready["name"], name))}
        hits = self._index.find(ready["query"])
        shown = [tool for tool in hits.tools if shows(tool)]
        answer: dict[str, Any] = {"tools": [_brief(tool) for tool in shown[: ready["limit"]]]}
        if hits.other_apis:
            answer["otherApis"] = [{"api": api.name, "does": api.does} for api in hits.other_apis]
        elif hits.weak or len(shown) < _FEW:
            answer["toolsets"] = _names_by_toolset(tool for tool in self._found.values() if shows(tool))
        return answer

    @cached_property
    def _index(self) -> ToolIndex:
        """Made when something is first searched: reading the vocabulary takes longer than answering."""
        from itwin_mcp.server.search import ToolIndex

        return ToolIndex(self._found.values(), self._catalog.vocabulary())

    def runs(self, name: str) -> str | None:
        """The tool that runs the tool of this name; None if no tool does."""
        tool = self._tools.get(name)
        return _run_with(tool) if tool is not None else None

    def chosen(self, name: str, arguments: Mapping[str, Any]) -> tuple[Tool, Mapping[str, Any]]:
        """The tool that a run names, and its arguments. Raises InvalidArguments, also for a tool of the other kind."""
        ready = self._ready(name, arguments)
        tool = self._tool(ready["name"], name)
        right = _run_with(tool)
        if right != name:
            does = "changes data" if right == RUN_WRITING else "only reads"
            why = f"{tool.name} {does}, so that {name} does not run it"
            raise _refused(why, f"Call {right} with the same arguments.")
        return tool, ready["arguments"]

    def _ready(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        tool = next(tool for tool in TOOLS if tool.name == name)
        if name not in self._checks:
            self._checks[name] = compile_check(tool)
        return self._checks[name](convert_arguments(tool, arguments))

    def _tool(self, wanted: str, name: str) -> Tool:
        tool = self._tools.get(wanted)
        if tool is not None:
            return tool
        if wanted in self._catalog.tools:
            raise _refused(f"{wanted} is not run by {name}", f"Call {wanted} itself.")
        if wanted in self._catalog.elsewhere:
            raise _refused(f"{wanted} is not served here", self._catalog.suggest_tool(wanted))
        close = find_similar(wanted, self._tools, 3)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        raise _refused(f"there is no tool of the name given to {name}", f"{meant}Look for it with {FIND}.")


def _refused(why: str, hint: str) -> InvalidArguments:
    detail = {"code": "InvalidArgument", "target": "name", "message": why}
    return InvalidArguments(f"Nothing was run: {why}.", hint=hint, details=[detail])


def _run_with(tool: Tool) -> str:
    """Return the tool to call: the tools about the session are called directly."""
    if tool.toolset == SESSION:
        return tool.name
    return RUN_READING if tool.annotations.read_only else RUN_WRITING


def _names_by_toolset(tools: Iterable[Tool]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for tool in tools:
        names.setdefault(tool.toolset, []).append(tool.name)
    return names


def _brief(tool: Tool) -> dict[str, Any]:
    """Return what is needed to choose a tool, and to run a plain one."""
    return {
        "name": tool.name,
        "description": tool.description,
        "arguments": [_argument_line(argument) for argument in tool.arguments],
        "runWith": _run_with(tool),
    }


def _argument_line(argument: ToolArgument) -> str:
    """Return an argument in a line: `status?: Active | Inactive | Trial`. The mark means that it may be left out."""
    schema = argument.schema
    kind = schema.get("type", "object")
    kinds = [kind] if isinstance(kind, str) else [one for one in kind if one != "null"]
    said = " | ".join(str(choice) for choice in choices_of(schema) if choice is not None) or _type_of(kinds, schema)
    if "array" in kinds and choices_of(schema):
        said = f"list of {said}"
    return f"{argument.name}{'' if argument.required else '?'}: {said}"


def _type_of(kinds: Sequence[str], schema: Mapping[str, Any]) -> str:
    if kinds == ["array"]:
        of = schema.get("items", {}).get("type", "object")
        return f"list of {of if isinstance(of, str) else of[0]}"
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" {'' if low is None else low}..{'' if high is None else high}" if (low, high) != (None, None) else ""
    return (schema.get("format") or " | ".join(kinds)) + bounds


def _whole(tool: Tool) -> dict[str, Any]:
    hints = tool.annotations
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "annotations": {
            "readOnlyHint": hints.read_only,
            "destructiveHint": hints.destructive,
            "idempotentHint": hints.idempotent,
        },
        "toolset": tool.toolset,
        "runWith": _run_with(tool),
    }
