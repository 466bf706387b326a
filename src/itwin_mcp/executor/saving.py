"""A whole list into a local file, page by page: CSV (RFC 4180) or JSON, without ever holding all of it."""

from __future__ import annotations

import csv
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import anyio.to_thread

from itwin_mcp.capability.plans import Operation, Output
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.fit import clean
from itwin_mcp.executor.paging import save_pages
from itwin_mcp.executor.sending import Run
from itwin_mcp.upstream.naming import put_in_place

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula; such text gets an apostrophe before it (OWASP)."""


async def save_list(
    run: Run, operation: Operation, values: Mapping[str, Any], output: Output, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """All items of a list in the file that `saveAs` names; gives where, how many, and the first few.

    The file appears when it is finished: whole, or as far as the platform gave the list, which `page` then says.
    """
    if "cursor" in arguments:
        raise InvalidArguments("saveAs writes the whole list: cursor cannot be given with it.", hint="Leave one out.")
    assert operation.page is not None
    path = Path(arguments["saveAs"])
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    declared = [child.items for _, child in output.properties if child.path == operation.page.items and child.items]
    full = arguments["fields"] == "all"
    columns = tuple(_columns(declared[0])) if declared and declared[0].properties and not full else ()
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            rows = _Csv(file, columns) if path.suffix.lower() == ".csv" else _Json(file)

            async def take(items: list[Any]) -> None:
                await anyio.to_thread.run_sync(rows.write, clean(items))

            listing, count = await save_pages(run, operation, values, output, take, full)
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
    saved = {"path": str(path), "items": count, "bytes": size}
    return {**listing.result, "page": listing.page, "saved": saved}


class _Json:
    """One array, an item on a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._between = "[\n"

    def write(self, items: list[Any]) -> None:
        for item in items:
            self._file.write(self._between + json.dumps(item, ensure_ascii=False, separators=(",", ":")))
            self._between = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._between == "[\n" else "\n]\n")


class _Csv:
    """A header and a row for each item; a member of an object has a column of its own, a list is JSON in one cell."""

    def __init__(self, file: IO[str], columns: tuple[tuple[str, ...], ...]) -> None:
        self._rows = csv.writer(file, lineterminator="\r\n")
        self._columns = columns
        if columns:
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
