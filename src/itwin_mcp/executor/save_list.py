"""`save-list`: writes a whole list into a local file, page by page, as CSV (RFC 4180) or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import anyio.to_thread

from itwin_mcp.atomic_files import move_into_place, part_of
from itwin_mcp.capability.answer_schema import build_output_schema
from itwin_mcp.capability.catalog import Annotations, Catalog, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import LOCAL_PATH, build_input_schema
from itwin_mcp.capability.selection import SESSION
from itwin_mcp.capability.tool_actions import Action, BuiltIn, Call, Output, Steps
from itwin_mcp.errors import DetailCode, InvalidArguments
from itwin_mcp.executor.context import CallContext, Caller, Redirect, SaveTarget
from itwin_mcp.executor.files import LocalFiles
from itwin_mcp.executor.flow_steps import find_places, run_steps
from itwin_mcp.executor.further_reads import find_due_reads
from itwin_mcp.executor.paging import SHOWN, save_pages
from itwin_mcp.executor.sending import Run
from itwin_mcp.text import clean, find_similar

SAVE_LIST = "save-list"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters with which a spreadsheet formula begins; such text gets an apostrophe before it (OWASP)."""

_OUTPUT = Output("object", properties=(("saved", Output("object")),))
_SAVED = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "items": {"type": "integer"}, "bytes": {"type": "integer"}},
    "required": ["path", "items", "bytes"],
}
_ARGUMENTS = (
    ToolArgument(
        "tool",
        {"type": "string", "minLength": 1, "maxLength": 64, "description": "Name of the tool that lists."},
        True,
        None,
        ABSENT,
    ),
    ToolArgument(
        "arguments",
        {
            "type": "object",
            "description": "Its arguments, without cursor. All items are saved unless limit is given.",
            "default": {},
        },
        False,
        None,
        {},
    ),
    ToolArgument(
        "path",
        {**LOCAL_PATH, "examples": ["items.csv"], "description": "New local file, in a folder that the user allowed."},
        True,
        None,
        ABSENT,
        "target",
    ),
    ToolArgument(
        "format",
        {"type": "string", "enum": ["csv", "json"], "description": "csv unless path ends in .json."},
        False,
        None,
        ABSENT,
    ),
)
TOOL = Tool(
    name=SAVE_LIST,
    title="Save list",
    description=(
        "Save all items of a list to a local file: those of any list tool, or the lists in the answer of another tool "
        "that only reads. Returns the number of items and the first three. Use it when the user wants a file, or when "
        "there are more items than you need to read."
    ),
    toolset=SESSION,
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    arguments=_ARGUMENTS,
    input_schema=build_input_schema(_ARGUMENTS),
    output_schema=build_output_schema(
        _OUTPUT,
        {"properties": {"saved": _SAVED, "first": {"type": "array"}}},
        paged=True,
        cut=False,
        waits=False,
        resolves=True,
    ),
    action=BuiltIn(),
)
"""It changes nothing on the platform, and never replaces a file."""


class ListSaver:
    """The built-in tool `save-list`: runs another tool as if it were called, with its list going into a file."""

    def __init__(self, catalog: Catalog, files: LocalFiles, shows: Callable[[Caller, Tool], bool]) -> None:
        """`shows` says which tools a caller is shown."""
        self._catalog = catalog
        self._files = files
        self._shows = shows

    async def save(self, context: CallContext) -> Redirect:
        """Check the arguments of `save-list`; return a redirect to the tool that lists. Raises InvalidArguments."""
        checked = self._files.read(context.tool, name_file(context.arguments))
        target = SaveTarget(Path(checked["path"]), context.gate)
        return Redirect(self._choose(context.caller, checked["tool"]), checked["arguments"], target)

    def _choose(self, caller: Caller, name: str) -> Tool:
        """Return the tool of this name. Raises InvalidArguments, which suggests others.

        A tool that the caller is not shown does not exist for them. The dynamic tools show those that they find.
        """
        catalog = self._catalog
        runnable = {**catalog.reachable, **catalog.tools} if catalog.dynamic else catalog.tools
        shown = {tool.name: tool for tool in runnable.values() if self._shows(caller, tool)}
        tool = shown.get(name)
        if tool is not None and has_lists(tool):
            return tool
        why = "has no list to save, or changes data" if tool is not None else "is not a tool that is served here"
        lists = [candidate.name for candidate in shown.values() if has_lists(candidate)]
        close = find_similar(name, lists, 3) or sorted(lists)
        detail = {"code": DetailCode.INVALID_ARGUMENT, "target": "tool", "message": f"{name} {why}"}
        raise InvalidArguments(
            f"Nothing was saved: {name} {why}.", hint=f"{SAVE_LIST} takes {', '.join(close)}.", details=[detail]
        )


def has_lists(tool: Tool) -> bool:
    """Return whether `save-list` can run a tool: it only reads, and its answer has a list of objects."""
    action = tool.action
    if isinstance(action, BuiltIn) or not tool.annotations.read_only:
        return False
    if isinstance(action, Call):
        return action.operation.page is not None
    return any(_list_places(action.output))


def name_file(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with a path that ends in the format, and the format that it ends in."""
    path = arguments["path"]
    kind = arguments.get("format") or ("json" if path.lower().endswith(".json") else "csv")
    return {**arguments, "path": path if path.lower().endswith(f".{kind}") else f"{path}.{kind}", "format": kind}


async def run_saved(context: CallContext) -> CallContext:
    """Stage `run` of a tool whose lists go into a local file. Raises CallError."""
    run, save, action = context.run, context.save, context.tool.action
    assert save is not None
    assert not isinstance(action, BuiltIn)
    async with save.gate.write_locally(context.tool.name):
        fill = partial(run.thing_names.fill, run)
        limit = context.given.get("limit")
        return context.with_answer(await save_list(run, action, context.arguments, save.path, limit, fill))


NameThings = Callable[[Output, Any], Awaitable[bool]]
"""Fills in the names within items of this shape."""


async def save_list(
    run: Run, action: Action, arguments: Mapping[str, Any], path: Path, limit: int | None, name_things: NameThings
) -> dict[str, Any]:
    """Save all items of a tool's lists, or the first `limit`. Return where and how many, and the first few.

    The file appears when it is finished: complete, or as far as the list could be read, as `page` then says.
    """
    try:
        with part_of(path) as part:
            with part.open("x", encoding="utf-8", newline="") as file:
                rows: _Csv | _Json = _Csv(file) if path.suffix.lower() == ".csv" else _Json(file)
                page, first = await _write(run, action, arguments, rows, limit, name_things)
                rows.end()
            size = part.stat().st_size
            move_into_place(part, path)
    except FileExistsError:
        raise _unwritable(path, "it exists by now") from None
    except OSError as error:
        raise _unwritable(path, error.strerror or "it cannot be written") from None
    saved = {"path": str(path), "items": page["returned"], "bytes": size}
    return {"saved": saved, "first": first, "page": page}


async def _write(
    run: Run,
    action: Action,
    arguments: Mapping[str, Any],
    rows: _Csv | _Json,
    limit: int | None,
    name_things: NameThings,
) -> tuple[dict[str, Any], list[Any]]:
    """Write the items of one call. Return its `page` and the first few items."""
    if isinstance(action, Steps):
        answer = await run_steps(run, action, arguments)
        await name_things(action.output, answer)
        items = clean(list(_items_of(answer, action.output)))
        await anyio.to_thread.run_sync(rows.write, items)
        page = answer.get("page") or {"complete": True, "total": len(items)}
        return {**page, "returned": len(items)}, items[:SHOWN]
    operation, output = action.operation, action.output
    assert operation.page is not None
    reads = find_due_reads(action, arguments)
    if reads:
        names = ", ".join(read.name for read in reads)
        raise InvalidArguments(
            f"save-list cannot save {names}, which takes a request for every item.",
            hint=f"Save the list without it, or call {run.name} to read it.",
        )
    declared = [child.items for _, child in output.properties if child.path == operation.page.items and child.items]
    full = arguments["fields"] == "all"
    if declared and declared[0].properties and not full:
        rows.declare(tuple(_columns(declared[0])))

    async def take(items: list[Any]) -> None:
        if declared:
            await name_things(Output("array", items=declared[0]), items)
        await anyio.to_thread.run_sync(rows.write, clean(items))

    places = await find_places(run, action, arguments)
    listing = await save_pages(run, operation, places, output, take, full=full, limit=limit)
    return listing.page, listing.items


def _list_places(output: Output, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the lists of objects in a flow's answer, without lists inside their items."""
    for name, child in output.properties:
        if child.kind == "object":
            yield from _list_places(child, (*above, name))
        elif child.kind == "array" and child.items is not None and child.items.kind == "object":
            yield (*above, name)


def _items_of(answer: Mapping[str, Any], output: Output) -> Iterator[dict[str, Any]]:
    """Yield the items of all lists in a flow's answer; if there are several, `list` names the list of each item."""
    places = list(_list_places(output))
    for place in places:
        found: Any = answer
        for name in place:
            found = found.get(name) if isinstance(found, Mapping) else None
        for item in found if isinstance(found, list) else ():
            yield {"list": ".".join(place), **item} if len(places) > 1 else item


class _Json:
    """Writes one array, with an item on each line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._between = "[\n"

    def declare(self, columns: tuple[tuple[str, ...], ...]) -> None:
        """JSON has no columns."""

    def write(self, items: list[Any]) -> None:
        for item in items:
            self._file.write(self._between + json.dumps(item, ensure_ascii=False, separators=(",", ":")))
            self._between = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._between == "[\n" else "\n]\n")


class _Csv:
    """Writes a header and a row for each item. Members of an object get columns; a list is JSON in one cell."""

    def __init__(self, file: IO[str]) -> None:
        self._rows = csv.writer(file, lineterminator="\r\n")
        self._columns: tuple[tuple[str, ...], ...] = ()

    def declare(self, columns: tuple[tuple[str, ...], ...]) -> None:
        """Write the header row for these columns. If this is not called, the first items determine the columns."""
        self._columns = columns
        self._head()

    def write(self, items: list[Any]) -> None:
        if not self._columns and items:
            known = (item for item in items if isinstance(item, dict))
            self._columns = tuple((name,) for name in dict.fromkeys(key for item in known for key in item)) or ((),)
            self._head()
        for item in items:
            self._rows.writerow([_format_cell(_find_cell(item, column)) for column in self._columns])

    def end(self) -> None:
        """Nothing to write after the last row."""

    def _head(self) -> None:
        self._rows.writerow([_format_cell(".".join(column) or "value") for column in self._columns])


def _columns(output: Output, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the values in an item; objects with known members are split."""
    if output.kind == "object" and output.properties:
        for name, child in output.properties:
            yield from _columns(child, (*above, name))
    else:
        yield above


def _find_cell(item: Any, column: tuple[str, ...]) -> Any:
    for name in column:
        item = item.get(name) if isinstance(item, dict) else None
    return item


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _unwritable(path: Path, why: str) -> InvalidArguments:
    return InvalidArguments(f"The list cannot be saved as {path}: {why}.", hint="Choose another name or folder.")
