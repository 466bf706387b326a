"""`--toolsets dynamic`: four tools that find, describe and run all others, which need not be listed then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from itwin_mcp.capability.catalog import Annotations, Catalog, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import build_input_schema, list_choices
from itwin_mcp.capability.selection import DYNAMIC, SESSION
from itwin_mcp.capability.tool_actions import Access, BuiltIn
from itwin_mcp.errors import DetailCode, InvalidArguments, SettingsError
from itwin_mcp.executor.context import CallContext, Caller, Redirect
from itwin_mcp.executor.outcome import Result
from itwin_mcp.executor.pipeline import BuiltInTool
from itwin_mcp.text import find_similar

if TYPE_CHECKING:
    from itwin_mcp.server.tool_search import ToolIndex

FIND = "find-tools"
DESCRIBE = "describe-tool"
RUN_READING = "run-reading-tool"
RUN_WRITING = "run-writing-tool"

_MIN_HITS = 3
"""With fewer hits, the names of all tools are listed."""


def _build_tool(
    name: str,
    title: str,
    description: str,
    arguments: tuple[ToolArgument, ...],
    members: Mapping[str, Any],
    annotations: Annotations,
    optional: Mapping[str, Any] | None = None,
    access: Access | None = None,
) -> Tool:
    """Return a tool whose answer has these members or an error, and perhaps the optional members."""
    output: dict[str, Any] = {
        "type": "object",
        "properties": {**members, **(optional or {}), "error": {"type": "object"}},
    }
    if members:
        output["anyOf"] = [{"required": [member]} for member in (*members, "error")]
    return Tool(
        name=name,
        title=title,
        description=description,
        toolset=DYNAMIC,
        annotations=annotations,
        arguments=arguments,
        input_schema=build_input_schema(arguments),
        output_schema=output,
        action=BuiltIn(access, runs=name in (RUN_READING, RUN_WRITING)),
    )


def _build_argument(
    name: str, schema: Mapping[str, Any], *, required: bool = True, default: Any = ABSENT
) -> ToolArgument:
    return ToolArgument(name, schema, required, None, default)


_LOCAL_READ = Annotations(read_only=True, destructive=False, idempotent=True, open_world=False)
_NAME = _build_argument(
    "name",
    {"type": "string", "minLength": 1, "maxLength": 64, "description": "Name of the tool, from find-tools."},
)
_RUN_ARGUMENTS = (
    _NAME,
    _build_argument(
        "arguments",
        {"type": "object", "description": "Its arguments, as describe-tool shows them.", "default": {}},
        required=False,
        default={},
    ),
)

TOOLS: tuple[Tool, ...] = (
    _build_tool(
        FIND,
        "Find tools",
        "Find the tools for a task among all that this server has for iTwins, iModels, changesets, named versions, "
        "briefcases, locks, checkpoints, users, shares, repositories, exports, favorites and images, best first. "
        "Then call the tool in runWith; call describe-tool first if the arguments are unclear. For a task that this "
        "server cannot do, otherApis names the API of the platform that can.",
        (
            _build_argument(
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
            _build_argument(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
                required=False,
                default=5,
            ),
        ),
        {"tools": {"type": "array", "items": {"type": "object", "required": ["name", "runWith"]}}},
        _LOCAL_READ,
        {
            "otherApis": {
                "type": "array",
                "description": "Tasks that this server cannot do, each with the API or library that can.",
                "items": {"type": "object", "required": ["api", "does"]},
            },
            "toolsets": {
                "type": "object",
                "description": "The names of all tools by toolset, if the query matched little.",
            },
        },
    ),
    _build_tool(
        DESCRIBE,
        "Describe tool",
        "Show what a tool does and the JSON Schema of its arguments.",
        (_NAME,),
        {"tool": {"type": "object", "required": ["name", "inputSchema", "runWith"]}},
        _LOCAL_READ,
    ),
    _build_tool(
        RUN_READING,
        "Run a reading tool",
        "Run a tool that only reads, and return its answer. Refuses tools that change data.",
        _RUN_ARGUMENTS,
        {},
        Annotations(read_only=True, destructive=False, idempotent=True, open_world=True),
    ),
    _build_tool(
        RUN_WRITING,
        "Run a writing tool",
        "Run a tool that creates, changes or deletes data, and return its answer. Deletions cannot be undone. "
        "Refuses tools that only read.",
        _RUN_ARGUMENTS,
        {},
        Annotations(read_only=False, destructive=True, idempotent=False, open_world=True),
        access=Access.WRITE,  # callers who may write but not delete use it too
    ),
)


class DynamicTools:
    """Handles calls of the four tools. They find and run every tool of a catalog that is reachable."""

    def __init__(self, catalog: Catalog, shows: Callable[[Caller, Tool], bool]) -> None:
        """`shows` returns whether a caller may see a tool. Raises SettingsError if no tool is reachable."""
        if not catalog.reachable:
            raise SettingsError("--toolsets dynamic has no tool to run. Exclude fewer tools.")
        self._catalog = catalog
        self._shows = shows
        self._findable = dict(catalog.reachable)
        self._findable.update((name, tool) for name, tool in catalog.tools.items() if tool.toolset == SESSION)

    @property
    def handlers(self) -> Mapping[str, BuiltInTool]:
        """The handler of each tool, by name."""
        return {FIND: self._find, DESCRIBE: self._describe, RUN_READING: self._run, RUN_WRITING: self._run}

    async def _find(self, context: CallContext) -> Result:
        hits = self._index.find(context.arguments["query"])
        shown = [tool for tool in hits.tools if self._shows(context.caller, tool)]
        answer: dict[str, Any] = {"tools": [_summarize(tool) for tool in shown[: context.arguments["limit"]]]}
        if hits.other_apis:
            answer["otherApis"] = [{"api": api.name, "does": api.does} for api in hits.other_apis]
        elif hits.weak or len(shown) < _MIN_HITS:
            visible = (tool for tool in self._findable.values() if self._shows(context.caller, tool))
            toolsets = defaultdict(list)
            for tool in visible:
                toolsets[tool.toolset].append(tool.name)
            answer["toolsets"] = dict(toolsets)
        return Result(answer)

    async def _describe(self, context: CallContext) -> Result:
        name = context.arguments["name"]
        return Result({"tool": _describe(self._findable.get(name) or self._find_runnable(name, DESCRIBE))})

    async def _run(self, context: CallContext) -> Redirect:
        """Redirect to the tool that a call names. Raises InvalidArguments if only the other runner may run it."""
        runner, arguments = context.tool.name, context.arguments
        tool = self._find_runnable(arguments["name"], runner)
        right_runner = _choose_runner(tool)
        if right_runner != runner:
            does = "changes data" if right_runner == RUN_WRITING else "only reads"
            reason = f"{tool.name} {does}, so {runner} does not run it"
            raise _build_error(reason, f"Call {right_runner} with the same arguments.")
        return Redirect(tool, arguments["arguments"])

    @cached_property
    def _index(self) -> ToolIndex:
        """The search index. It is built at the first search, because that takes longer than a search."""
        from itwin_mcp.server.tool_search import ToolIndex

        return ToolIndex(self._findable.values(), self._catalog.vocabulary())

    def _find_runnable(self, name: str, runner: str) -> Tool:
        """Return a reachable tool by name. Raises InvalidArguments, with a hint what to call instead."""
        tool = self._catalog.reachable.get(name)
        if tool is not None:
            return tool
        if name in self._catalog.tools:
            raise _build_error(f"{name} is not run by {runner}", f"Call {name} directly.")
        if name in self._catalog.elsewhere:
            raise _build_error(f"{name} is not served here", self._catalog.suggest_tool(name))
        similar = find_similar(name, self._catalog.reachable, 3)
        suggestion = f"Did you mean {' or '.join(similar)}? " if similar else ""
        raise _build_error(f"there is no tool of the name given to {runner}", f"{suggestion}Look for it with {FIND}.")


def _build_error(reason: str, hint: str) -> InvalidArguments:
    detail = {"code": DetailCode.INVALID_ARGUMENT, "target": "name", "message": reason}
    return InvalidArguments(f"Nothing was run: {reason}.", hint=hint, details=[detail])


def find_runner(catalog: Catalog, name: str) -> str | None:
    """Return the dynamic tool that can run the tool `name`, or None if there is none."""
    tool = catalog.reachable.get(name) if catalog.dynamic else None
    return _choose_runner(tool) if tool is not None else None


def _choose_runner(tool: Tool) -> str:
    """Return the name to call for a tool: its runner, or its own name if it is about the session."""
    if tool.toolset == SESSION:
        return tool.name
    return RUN_READING if tool.annotations.read_only else RUN_WRITING


def _summarize(tool: Tool) -> dict[str, Any]:
    """Return a short form of a tool: enough to choose it, and to run it if its arguments are simple."""
    return {
        "name": tool.name,
        "description": tool.description,
        "arguments": [_format_argument(argument) for argument in tool.arguments],
        "runWith": _choose_runner(tool),
    }


def _format_argument(argument: ToolArgument) -> str:
    """Return an argument in one line: `status?: Active | Inactive | Trial`. The question mark means optional."""
    return f"{argument.name}{'' if argument.required else '?'}: {_format_values(argument.schema)}"


def _format_values(schema: Mapping[str, Any]) -> str:
    """Return the values that a schema allows: its choices, or its type with the bounds of a number."""
    types = _list_types(schema)
    choices = " | ".join(str(choice) for choice in list_choices(schema) if choice is not None)
    if "array" in types and choices:
        return f"list of {choices}"
    if choices:
        return choices
    if types == ["array"]:
        return f"list of {_list_types(schema.get('items', {}))[0]}"
    bounds = ""
    if "minimum" in schema or "maximum" in schema:
        bounds = f" {schema.get('minimum', '')}..{schema.get('maximum', '')}"
    return (schema.get("format") or " | ".join(types)) + bounds


def _list_types(schema: Mapping[str, Any]) -> list[str]:
    declared = schema.get("type", "object")
    return [declared] if isinstance(declared, str) else [name for name in declared if name != "null"]


def _describe(tool: Tool) -> dict[str, Any]:
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
        "runWith": _choose_runner(tool),
    }
