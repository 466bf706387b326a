"""Reads answers in other formats than JSON as JSON values: XML, CSV, TSV, PSV and YAML (`outputRawFormat`)."""

from __future__ import annotations

import csv
import io
from typing import Any
from xml.parsers import expat

from itwin_mcp.capability.strict_yaml import YamlRefused
from itwin_mcp.capability.strict_yaml import parse as parse_yaml
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.upstream.messages import Response

MAX_DEPTH = 64
TEXT = ""
"""The member for the text of an XML element that also has attributes or children."""
_SEPARATORS = {"csv": ",", "tsv": "\t", "psv": "|"}


class _Unreadable(ValueError):
    pass


def read_format(response: Response, kind: str) -> Any:
    """Return the body in a format as a JSON value.

    Raises:
        UnexpectedAnswer: The body is not in this format.
    """
    try:
        if kind == "xml":
            return _read_xml(response.content)
        text = response.content.decode("utf-8-sig")
        return parse_yaml(text) if kind == "yaml" else _read_rows(text, _SEPARATORS[kind])
    except (ValueError, csv.Error, expat.ExpatError, YamlRefused, RecursionError) as error:
        raise UnexpectedAnswer(
            f"The answer ({response.status}) is not readable as {kind.upper()}: {error}.",
            hint="The API may have changed. Look at the `outputRawFormat` of this operation in the capability file.",
            status=response.status,
        ) from None


def _read_rows(text: str, separator: str) -> list[dict[str, str]]:
    """Return a table as a list of objects, whose members are named by the first row. All values are text."""
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row]
    if not rows:
        return []
    names = rows[0]
    if len(set(names)) < len(names):
        raise _Unreadable("two columns have the same name")
    return [dict(zip(names, row, strict=False)) for row in rows[1:]]


def _read_xml(content: bytes) -> Any:
    """Return the content of the root element.

    Attributes and children are members, without their prefixes; repeated children are a list. An element with nothing
    but text is that text. DTDs, and so entities, are refused.
    """
    parser = expat.ParserCreate()
    stack: list[tuple[str, dict[str, Any], list[str]]] = []
    roots: list[Any] = []

    def refuse(*_: object) -> None:
        raise _Unreadable("it has a DTD")

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) >= MAX_DEPTH:
            raise _Unreadable(f"it is nested deeper than {MAX_DEPTH} levels")
        members = {_local(key): value for key, value in attributes.items() if not key.startswith("xmlns")}
        stack.append((_local(name), members, []))

    def end(_: str) -> None:
        name, members, texts = stack.pop()
        text = "".join(texts).strip()
        if members and text:
            members[TEXT] = text
        value: Any = members or text
        if not stack:
            roots.append(value)
            return
        around = stack[-1][1]
        if name not in around:
            around[name] = value
        elif isinstance(around[name], list):
            around[name].append(value)
        else:
            around[name] = [around[name], value]

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: stack[-1][2].append(text)
    parser.Parse(content, True)
    return roots[0]


def _local(name: str) -> str:
    return name.rpartition(":")[2]
