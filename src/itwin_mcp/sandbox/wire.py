"""A request and its answer, as the handlers of a service see them.

A handler is a function `(call: Call) -> Answer` that a `Route` names. Handlers are synchronous: the body has been read,
and each request is one transaction on `call.sql`, which an `ApiError` rolls back. Read query values with
`call.query.get`, body properties with `call.read_fields(problems)`, and pages with `paging`.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from urllib.parse import quote, unquote_plus

from itwin_mcp.sandbox import store
from itwin_mcp.sandbox.callers import Caller
from itwin_mcp.sandbox.errors import ApiError, Problems

Json = dict[str, Any]


class Query:
    """A query string. Names ignore case, and empty pairs are skipped (Bentley's clients send `?&$top=2`)."""

    def __init__(self, text: str) -> None:
        self.pairs: list[tuple[str, str]] = []
        for pair in text.split("&"):
            if pair:
                name, _, value = pair.partition("=")
                self.pairs.append((unquote_plus(name), unquote_plus(value)))

    def get(self, name: str) -> str | None:
        """Return the first value of that name, or None if it is absent or empty."""
        return self.get_raw(name) or None

    def get_raw(self, name: str) -> str | None:
        """Return the first value of that name, which may be empty: `$continuationToken=` starts paging by token."""
        lower_name = name.lower()
        return next((value for key, value in self.pairs if key.lower() == lower_name), None)

    def encode_with(self, changes: Mapping[str, str | None]) -> str:
        """Return the query string with changed values. A value of None removes the parameter."""
        changed_names = {name.lower() for name in changes}
        pairs = [(name, value) for name, value in self.pairs if name.lower() not in changed_names]
        pairs += [(name, value) for name, value in changes.items() if value is not None]
        return "&".join(f"{quote(name, safe='$')}={quote(value, safe='$,:')}" for name, value in pairs)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request in its transaction."""

    sql: sqlite3.Connection
    now: datetime
    caller: Caller
    method: str
    path: str  # in the client's spelling
    slots: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]  # by lower-case name
    body: bytes
    base_url: str  # scheme and host that the client used; every `_links` href begins with it
    storage_url: str
    job_seconds: float
    upload: BinaryIO | None = None  # the body, if the route `streams`

    @property
    def wants_representation(self) -> bool:
        """Return whether `Prefer: return=representation` requests full entities. The platform's default is minimal."""
        preferences = self.headers.get("prefer", "").replace(" ", "").lower()
        return "return=representation" in preferences.replace(";", ",").split(",")

    @property
    def timestamp(self) -> str:
        """Return the current time as it is stored and printed."""
        return store.format_timestamp(self.now)

    def make_link(self, path: str) -> Json:
        """Return a link to a path of the sandbox, on the host that the client used."""
        return {"href": f"{self.base_url}{path}"}

    def schedule(self, kind: str, subject: str, *, jobs: float = 1.0) -> None:
        """Schedule a job for `jobs` times `job_seconds` from now."""
        store.schedule_job(self.sql, kind, subject, self.now + timedelta(seconds=self.job_seconds * jobs))

    def fetch_one(self, statement: str, *parameters: object) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        row: sqlite3.Row | None = self.sql.execute(statement, parameters).fetchone()
        return row

    def require_one(self, error_code: str, statement: str, *parameters: object) -> sqlite3.Row:
        """Return the first row of a query.

        Raises:
            ApiError: With this code, if the query has no rows.
        """
        row = self.fetch_one(statement, *parameters)
        if row is None:
            raise ApiError(error_code)
        return row

    def read_fields(self, problems: Problems) -> Fields:
        """Return the JSON object in the body.

        Raises:
            ApiError: If the body is not a JSON object. The error also has the earlier problems.
        """
        if not self.body.strip():
            problems.fail("MissingRequestBody", "Request body was not provided.")
        values = parse_json(self.body)
        if not isinstance(values, dict):
            problems.fail("InvalidRequestBody", "Failed to parse request body. Make sure it is a valid JSON.")
        return Fields(values, problems)


class Fields:
    """The properties of a JSON object. A getter adds an invalid value to `problems` and returns None.

    `within` is the name of the outermost property that contains the object, or None for the body itself.
    """

    def __init__(self, values: Mapping[str, Any], problems: Problems, within: str | None = None) -> None:
        self.values = values
        self.problems = problems
        self._within = within

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def has_any(self, names: Iterable[str]) -> bool:
        """Return whether at least one of the names is present."""
        return any(name in self.values for name in names)

    def get_text(self, name: str, *, required: bool = False, limit: int = 255, blank: bool = True) -> str | None:
        """Return a string of at most `limit` characters, or None if it is null or absent.

        A required string must be present and not blank. `blank=False` rejects a blank string that is not required.
        """
        value = self._get(name, required)
        if value is None:
            return None
        if not isinstance(value, str):
            self._add_invalid(name, "The value must be a string.")
        elif len(value) > limit:
            self._add_invalid(name, f"The value exceeds allowed {limit} characters.")
        elif (required or not blank) and not value.strip():
            self._add_invalid(name, "The value must not be empty.")
        else:
            return value
        return None

    def get_choice(self, name: str, allowed: Sequence[str], *, required: bool = False) -> str | None:
        """Return one of the allowed words in the platform's spelling. The comparison ignores case."""
        value = self.get_text(name, required=required, blank=False)
        if value is None:
            return None
        for word in allowed:
            if word.lower() == value.lower():
                return word
        self._add_invalid(name, f"Valid values are {', '.join(allowed)}.")
        return None

    def get_number(self, name: str, low: float, high: float) -> float | None:
        """Return a number within bounds, or None if it is null or absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._add_invalid(name, "The value must be a number.")
        elif not low <= value <= high:
            self._add_invalid(name, f"Valid '{name}' value range is {low:g} to {high:g}.")
        else:
            return float(value)
        return None

    def get_integer(self, name: str, low: int, high: int, *, required: bool = False) -> int | None:
        """Return a whole number within bounds, or None if it is null or absent."""
        value = self._get(name, required)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self._add_invalid(name, "The value must be an integer.")
        elif not low <= value <= high:
            self._add_invalid(name, f"Valid '{name}' value range is {low} to {high}.")
        else:
            return value
        return None

    def get_flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._add_invalid(name, "The value must be a boolean.")
            return default
        return value

    def get_object(self, name: str, *, required: bool = False) -> Fields | None:
        """Return a nested object. Findings about its properties name this property as their target."""
        value = self._get(name, required)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._add_invalid(name, "The value must be an object.")
            return None
        return Fields(value, self.problems, within=self._within or name)

    def get_objects(self, name: str) -> list[Fields]:
        """Return the objects in a required list that must not be empty. Findings name this property as their target."""
        values = self._get(name, required=True)
        if isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
            return [Fields(value, self.problems, within=self._within or name) for value in values]
        if values is not None:
            self._add_invalid(name, "The value must be a non-empty array of objects.")
        return []

    def _get(self, name: str, required: bool) -> Any:
        """Return a value. A required one that is null or absent is added to the problems."""
        value = self.values.get(name)
        if value is None and required:
            self.problems.add_missing(f"{self._within}.{name}" if self._within else name)
        return value

    def _add_invalid(self, name: str, why: str) -> None:
        # The platform names the outermost property: "Provided 'extent' value is not valid. Valid 'latitude' …".
        self.problems.add_invalid(self._within or name, why)


@dataclass(frozen=True, slots=True)
class Stream:
    """A body that is too large for memory. `read(sql, offset, size)` returns part of it, in its own transaction."""

    length: int
    read: Callable[[sqlite3.Connection, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a handler. The body is a JSON object, bytes, a stream or nothing."""

    status: int
    body: Json | bytes | Stream | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


Handler = Callable[[Call], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """An operation and its handler.

    `slug` is the name of the documentation page. It is empty for operations that are not in `operations.py`. `missing`
    describes what a partly emulated operation lacks. `signed_in=False` serves callers without a token. `writes` says
    whether the transaction may write; by default, every method except GET may. With `streams`, the handler gets the
    body as a file, `call.upload`.
    """

    method: str
    path: str
    handler: Handler
    slug: str = ""
    missing: str = ""
    signed_in: bool = True
    writes: bool | None = None
    streams: bool = False


def ok(body: Json, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with status 200 and a JSON body."""
    return Answer(200, body, headers or {})


def created(body: Json) -> Answer:
    """Return an answer with status 201 and a JSON body."""
    return Answer(201, body)


def accepted(headers: Mapping[str, str]) -> Answer:
    """Return an answer with status 202 and no body. Its headers have the addresses of the result."""
    return Answer(202, None, headers)


def no_content() -> Answer:
    """Return an answer with status 204. Bentley's clients require that it has no body and no content type."""
    return Answer(204)


def parse_digits(text: str) -> int | None:
    """Return the number in a text of at most ten ASCII digits, or None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def parse_json(body: bytes) -> Any:
    """Return the JSON value in the bytes, or None if they are not JSON.

    Unlike `json`, reject numbers that JSON does not allow and text that SQLite cannot store.
    """
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_finite)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be stored
    except (ValueError, RecursionError):
        return None
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value
