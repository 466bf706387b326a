"""Reads the arguments of a call from an HTTP request. Whether they are valid is decided where every call is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.types import Receive, Scope

from itwin_mcp.capability.routes import Route

MAX_BODY = 512 * 1024
"""Bytes, as of a call over MCP to a hosted server."""
MAX_QUERY_VALUES = 1000


class BadRequest(Exception):
    """The request is not HTTP as this server reads it. Its message is for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def split_path(scope: Scope) -> tuple[str, ...]:
    """Return the decoded segments of the path. An encoded slash stays in its segment.

    Raises:
        BadRequest: A segment is empty, `.` or `..`, or is not UTF-8 text without control characters.
    """
    raw = scope.get("raw_path") or scope["path"].encode()
    segments = []
    for part in raw.split(b"?")[0].removeprefix(b"/").split(b"/"):
        try:
            segment = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest(400, "The path is not UTF-8.") from None
        if segment in ("", ".", "..") or not segment.isprintable():
            raise BadRequest(400, "The path has a segment that is empty, . or .., or has control characters.")
        segments.append(segment)
    return tuple(segments)


async def read_arguments(route: Route, in_path: Mapping[str, str], scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the arguments of a request, as text where HTTP has only text.

    Raises:
        BadRequest: The query, the headers or the body cannot be read, or have an unknown argument.
    """
    lists = {argument.name for argument in route.tool.arguments if not argument.is_one}
    taken = {argument.name: route.find_place(argument.name) for argument in route.tool.arguments}
    taken = {name: place for name, place in taken.items() if name not in route.fixed}
    arguments: dict[str, Any] = dict(route.fixed)
    arguments |= {name: value for name, value in in_path.items() if name not in route.fixed}
    in_query = {name for name, place in taken.items() if place == "query"}
    arguments |= _read_query(scope["query_string"], in_query, lists)
    arguments |= _read_headers(scope, [name for name, place in taken.items() if place == "header"])
    arguments |= _read_cookies(scope, [name for name, place in taken.items() if place == "cookie"])
    body = await _read_body(scope, receive)
    in_body = {name for name, place in taken.items() if place == "body"}
    unknown = sorted(body.keys() - in_body)
    if unknown:
        raise BadRequest(400, f"The body has the unknown member {unknown[0][:80]!r}. {_list_known(in_body)}")
    return arguments | body


def _read_query(query: bytes, known: set[str], lists: set[str]) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_VALUES
        )
    except ValueError:
        raise BadRequest(400, "The query cannot be read: it must be percent-encoded UTF-8.") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in known:
            raise BadRequest(400, f"The query has the unknown parameter {name[:80]!r}. {_list_known(known)}")
        if name not in found:
            found[name] = value
        elif name in lists:
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        else:
            raise BadRequest(400, f"The query has the parameter {name!r} twice.")
    return found


def _read_headers(scope: Scope, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        values = [value for key, value in scope["headers"] if key == name.lower().encode()]
        if len(values) > 1:
            raise BadRequest(400, f"The header {name!r} is there twice.")
        for value in values:
            text = value.decode("latin-1")
            if not text.isprintable():
                raise BadRequest(400, f"The header {name!r} has control characters.")
            found[name] = text
    return found


def _read_cookies(scope: Scope, names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    cookies: SimpleCookie = SimpleCookie()
    try:
        for key, value in scope["headers"]:
            if key == b"cookie":
                cookies.load(value.decode("latin-1"))
    except CookieError:
        raise BadRequest(400, "The header 'Cookie' cannot be read.") from None
    return {name: cookies[name].value for name in names if name in cookies}


async def _read_body(scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the JSON object of the body, empty if there is none. Raises BadRequest."""
    content = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise BadRequest(400, "The request ended before its body did.")
        content += message.get("body", b"")
        if len(content) > MAX_BODY:
            raise BadRequest(413, f"The body is larger than {MAX_BODY // 1024} KiB.")
        if not message.get("more_body", False):
            break
    if not content:
        return {}
    # A page of another site cannot send this type without asking first, which the check of Origin refuses.
    types = [value.decode("latin-1") for key, value in scope["headers"] if key == b"content-type"]
    if len(types) != 1 or not _is_json(types[0]):
        raise BadRequest(415, "Send the body as application/json.")
    try:
        value = json.loads(content, parse_constant=_reject_constant, object_pairs_hook=_build_object)
    except (ValueError, RecursionError):
        raise BadRequest(400, "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise BadRequest(400, "The body must be a JSON object whose members are the inputs.")
    return value


def _is_json(content_type: str) -> bool:
    essence, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower()
    return essence.strip().lower() == "application/json" and charset in ("", "charset=utf-8", 'charset="utf-8"')


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. A repeated member is refused, because another reader may take the other value."""
    built = dict(pairs)
    if len(built) < len(pairs):
        raise ValueError("a member is there twice")
    return built


def _reject_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _list_known(names: set[str]) -> str:
    return f"There are: {', '.join(sorted(names))}." if names else "There are none."
