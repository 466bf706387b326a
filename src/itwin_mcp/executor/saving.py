"""`save-list`: a whole list into a local file, page by page, as CSV (RFC 4180) or JSON, without ever holding all."""

from __future__ import annotations

import csv
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import anyio.to_thread

from itwin_mcp.capability.catalog import Annotations, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import LOCAL_PATH, output_schema, published_schema
from itwin_mcp.capability.plans import Call, Output, Steps
from itwin_mcp.capability.selection import SESSION
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.fit import clean
from itwin_mcp.executor.paging import save_pages
from itwin_mcp.executor.request import bind
from itwin_mcp.executor.sending import Run
from itwin_mcp.executor.steps import run_steps
from itwin_mcp.executor.walk import SHOWN
from itwin_mcp.upstream.naming import put_in_place

SAVE_LIST = "save-list"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula; such text gets an apostrophe before it (OWASP)."""

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
        "Save all items of a list in a local file: those of any list tool, or the lists in the answer of another tool "
        "that only reads. Returns how many were saved and the first three. Use it when the user wants a file, or when "
        "there are more items than you need to read."
    ),
    toolset=SESSION,
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    arguments=_ARGUMENTS,
    input_schema=published_schema(_ARGUMENTS),
    output_schema=output_schema(
        _OUTPUT,
        {"properties": {"saved": _SAVED, "first": {"type": "array"}}},
        paged=True,
        cut=False,
        waits=False,
        resolves=True,
    ),
    action=Steps((), (), _OUTPUT),
    file="",
)
"""It changes nothing on the platform, and never replaces a file."""


def has_lists(tool: Tool) -> bool:
    """Whether `save-list` can run a tool: it only reads, and its answer has a list of objects."""
    if not tool.file or not tool.annotations.read_only:
        return False
    if isinstance(tool.action, Call):
        return tool.action.operation.page is not None
    return any(_list_places(tool.action.output))


def name_file(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with a path that ends in the format, and the format that it ends in."""
    path = arguments["path"]
    kind = arguments.get("format") or ("json" if path.lower().endswith(".json") else "csv")
    return {**arguments, "path": path if path.lower().endswith(f".{kind}") else f"{path}.{kind}", "format": kind}


async def save_list(
    run: Run, tool: Tool, arguments: Mapping[str, Any], path: Path, limit: int | None
) -> dict[str, Any]:
    """Save all items of a tool's lists, or the first `limit`. Return where and how many, and the first few.

    The file appears when it is finished: whole, or as far as the platform gave the list, which `page` then says.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            rows: _Csv | _Json = _Csv(file) if path.suffix.lower() == ".csv" else _Json(file)
            page, first = await _write(run, tool, arguments, rows, limit)
            rows.end()
        size = beside.stat().st_size
        put_in_place(beside, path)
    except FileExistsError:
        raise _unwritable(path, "it exists by now") from None
    except OSError as error:
        raise _unwritable(path, error.strerror or "it cannot be written") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    saved = {"path": str(path), "items": page["returned"], "bytes": size}
    return {"saved": saved, "first": first, "page": page}


async def _write(
    run: Run, tool: Tool, arguments: Mapping[str, Any], rows: _Csv | _Json, limit: int | None
) -> tuple[dict[str, Any], list[Any]]:
    """Write the items of one call. Return its `page` and the first few items."""
    action = tool.action
    if isinstance(action, Steps):
        answer = await run_steps(run, action, arguments)
        items = clean(list(_items_of(answer, action.output)))
        await anyio.to_thread.run_sync(rows.write, items)
        page = answer.get("page") or {"complete": True, "total": len(items)}
        return {**page, "returned": len(items)}, items[:SHOWN]
    operation, output = action.operation, action.output
    assert operation.page is not None
    declared = [child.items for _, child in output.properties if child.path == operation.page.items and child.items]
    full = arguments["fields"] == "all"
    if declared and declared[0].properties and not full:
        rows.declare(tuple(_columns(declared[0])))

    async def take(items: list[Any]) -> None:
        await anyio.to_thread.run_sync(rows.write, clean(items))

    values = bind(action.bindings, arguments, {})
    listing = await save_pages(run, operation, values, output, take, full=full, limit=limit)
    return listing.page, listing.items


def _list_places(output: Output, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of the lists of objects in a flow's answer; lists within their items are parts of these."""
    for name, child in output.properties:
        if child.kind == "object":
            yield from _list_places(child, (*above, name))
        elif child.kind == "array" and child.items is not None and child.items.kind == "object":
            yield (*above, name)


def _items_of(answer: Mapping[str, Any], output: Output) -> Iterator[dict[str, Any]]:
    """The items of all lists in a flow's answer; where there are several, `list` says in which one each is."""
    places = list(_list_places(output))
    for place in places:
        found: Any = answer
        for name in place:
            found = found.get(name) if isinstance(found, Mapping) else None
        for item in found if isinstance(found, list) else ():
            yield {"list": ".".join(place), **item} if len(places) > 1 else item


class _Json:
    """One array, an item on a line."""

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
    """A header and a row for each item; a member of an object has a column of its own, a list is JSON in one cell."""

    def __init__(self, file: IO[str]) -> None:
        self._rows = csv.writer(file, lineterminator="\r\n")
        self._columns: tuple[tuple[str, ...], ...] = ()

    def declare(self, columns: tuple[tuple[str, ...], ...]) -> None:
        """Write the header, for a list whose items have known members; else the first items say which there are."""
        self._columns = columns
        self._head()

    def write(self, items: list[Any]) -> None:
        if not self._columns and items:
            known = (item for item in items if isinstance(item, dict))
            self._columns = tuple((name,) for name in dict.fromkeys(key for item in known for key in item)) or ((),)
            self._head()
        for item in items:
            self._rows.writerow([_cell(_find(item, column)) for column in self._columns])

    def end(self) -> None:
        """Nothing follows the last row."""

    def _head(self) -> None:
        self._rows.writerow([_cell(".".join(column) or "value") for column in self._columns])


def _columns(output: Output, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of everything in an item that is no object of known members."""
    if output.kind == "object" and output.properties:
        for name, child in output.properties:
            yield from _columns(child, (*above, name))
    else:
        yield above


def _find(item: Any, column: tuple[str, ...]) -> Any:
    for name in column:
        item = item.get(name) if isinstance(item, dict) else None
    return item


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _unwritable(path: Path, why: str) -> InvalidArguments:
    return InvalidArguments(f"The list cannot be saved as {path}: {why}.", hint="Choose another name or folder.")
