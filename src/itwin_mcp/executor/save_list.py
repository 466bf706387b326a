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
"""The tool `save-list`, which changes nothing on the platform and never replaces a file."""


class ListSaver:
    """The built-in tool `save-list`: runs another tool as if it were called, with its list going into a file."""

    def __init__(self, catalog: Catalog, files: LocalFiles, shows: Callable[[Caller, Tool], bool]) -> None:
        """`shows` returns whether a caller is shown a tool."""
        self._catalog = catalog
        self._files = files
        self._shows = shows

    async def save(self, context: CallContext) -> Redirect:
        """Check the arguments of `save-list`; return a redirect to the tool that lists. Raises InvalidArguments."""
        checked = self._files.read(context.tool, name_file(context.arguments))
        target = SaveTarget(Path(checked["path"]), context.gate)
        return Redirect(self._choose(context.caller, checked["tool"]), checked["arguments"], target)

    def _choose(self, caller: Caller, name: str) -> Tool:
        """Return the tool with this name. Raises InvalidArguments with a suggestion of others.

        Tools that the caller is not shown are treated as unknown. The dynamic tools show every reachable tool.
        """
        catalog = self._catalog
        runnable = {**catalog.reachable, **catalog.tools} if catalog.dynamic else catalog.tools
        shown = {candidate.name: candidate for candidate in runnable.values() if self._shows(caller, candidate)}
        tool = shown.get(name)
        if tool is not None and has_lists(tool):
            return tool
        why = "has no list to save, or changes data" if tool is not None else "is not a tool that is served here"
        names = [candidate.name for candidate in shown.values() if has_lists(candidate)]
        similar = find_similar(name, names, 3) or sorted(names)
        detail = {"code": DetailCode.INVALID_ARGUMENT, "target": "tool", "message": f"{name} {why}"}
        raise InvalidArguments(
            f"Nothing was saved: {name} {why}.", hint=f"{SAVE_LIST} takes {', '.join(similar)}.", details=[detail]
        )


def has_lists(tool: Tool) -> bool:
    """Return whether `save-list` can run a tool: it only reads, and its answer has a list of objects."""
    action = tool.action
    if isinstance(action, BuiltIn) or not tool.annotations.read_only:
        return False
    return action.operation.page is not None if isinstance(action, Call) else any(_find_lists(action.output))


def name_file(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with a `path` that has the extension of its `format`; csv is the default."""
    path = arguments["path"]
    extension = arguments.get("format") or ("json" if path.lower().endswith(".json") else "csv")
    path = path if path.lower().endswith(f".{extension}") else f"{path}.{extension}"
    return {**arguments, "path": path, "format": extension}


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
"""Adds names next to the ids in a value of this shape."""


async def save_list(
    run: Run, action: Action, arguments: Mapping[str, Any], path: Path, limit: int | None, name_things: NameThings
) -> dict[str, Any]:
    """Save all items of a tool's lists, or the first `limit`. Return the answer of `save-list`.

    The file appears when it is finished. If the list could not be read to its end, `page` says so.
    """
    try:
        with part_of(path) as part:
            with part.open("x", encoding="utf-8", newline="") as file:
                writer: _CsvWriter | _JsonWriter = (
                    _CsvWriter(file) if path.suffix.lower() == ".csv" else _JsonWriter(file)
                )
                page, first = await _write_items(run, action, arguments, writer, limit, name_things)
                writer.end()
            size = part.stat().st_size
            move_into_place(part, path)
    except FileExistsError:
        raise _report_unwritable(path, "it exists by now") from None
    except OSError as error:
        raise _report_unwritable(path, error.strerror or "it cannot be written") from None
    saved = {"path": str(path), "items": page["returned"], "bytes": size}
    return {"saved": saved, "first": first, "page": page}


async def _write_items(
    run: Run,
    action: Action,
    arguments: Mapping[str, Any],
    writer: _CsvWriter | _JsonWriter,
    limit: int | None,
    name_things: NameThings,
) -> tuple[dict[str, Any], list[Any]]:
    """Write the items of one call. Return its `page` and the first items."""
    if isinstance(action, Steps):
        answer = await run_steps(run, action, arguments)
        await name_things(action.output, answer)
        items = clean(list(_find_items(answer, action.output)))
        await anyio.to_thread.run_sync(writer.write, items)
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
    shape = next(
        (child.items for _, child in output.properties if child.path == operation.page.items and child.items), None
    )
    full = arguments["fields"] == "all"
    if shape is not None and shape.properties and not full:
        writer.declare(tuple(_find_columns(shape)))

    async def write_page(items: list[Any]) -> None:
        if shape is not None:
            await name_things(Output("array", items=shape), items)
        await anyio.to_thread.run_sync(writer.write, clean(items))

    places = await find_places(run, action, arguments)
    return await save_pages(run, operation, places, output, write_page, full=full, limit=limit)


def _find_lists(output: Output, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the lists of objects in a flow's answer, without lists inside their items."""
    for name, child in output.properties:
        if child.kind == "object":
            yield from _find_lists(child, (*above, name))
        elif child.kind == "array" and child.items is not None and child.items.kind == "object":
            yield (*above, name)


def _find_items(answer: Mapping[str, Any], output: Output) -> Iterator[dict[str, Any]]:
    """Yield the items of all lists in a flow's answer; if there are several, `list` names the list of each item."""
    paths = list(_find_lists(output))
    for path in paths:
        items = _find_value(answer, path)
        for item in items if isinstance(items, list) else ():
            yield {"list": ".".join(path), **item} if len(paths) > 1 else item


class _JsonWriter:
    """Writes a JSON array with an item on each line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._separator = "[\n"

    def declare(self, columns: tuple[tuple[str, ...], ...]) -> None:
        """Do nothing: JSON has no columns."""

    def write(self, items: list[Any]) -> None:
        for item in items:
            self._file.write(self._separator + json.dumps(item, ensure_ascii=False, separators=(",", ":")))
            self._separator = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")


class _CsvWriter:
    """Writes a CSV header and a row for each item. Members of an object get columns; a list is JSON in one cell."""

    def __init__(self, file: IO[str]) -> None:
        self._rows = csv.writer(file, lineterminator="\r\n")
        self._columns: tuple[tuple[str, ...], ...] = ()

    def declare(self, columns: tuple[tuple[str, ...], ...]) -> None:
        """Write the header row for these columns. If this is not called, the first items determine the columns."""
        self._columns = columns
        self._rows.writerow([_format_cell(".".join(column) or "value") for column in columns])

    def write(self, items: list[Any]) -> None:
        if not self._columns and items:
            names = dict.fromkeys(name for item in items if isinstance(item, dict) for name in item)
            self.declare(tuple((name,) for name in names) or ((),))
        for item in items:
            self._rows.writerow([_format_cell(_find_value(item, column)) for column in self._columns])

    def end(self) -> None:
        """Do nothing: CSV ends with the last row."""


def _find_columns(output: Output, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the values in an item; objects with known members are split."""
    if output.kind == "object" and output.properties:
        for name, child in output.properties:
            yield from _find_columns(child, (*above, name))
    else:
        yield above


def _find_value(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _report_unwritable(path: Path, why: str) -> InvalidArguments:
    return InvalidArguments(f"The list cannot be saved as {path}: {why}.", hint="Choose another name or folder.")
