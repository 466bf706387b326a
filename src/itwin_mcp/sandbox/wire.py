"""One request and its answer, as an entity module sees them.

An entity module is plain functions `(call: Call) -> Answer`, listed in its `ROUTES`. The whole body has been read
before, so a handler is synchronous and one request is one whole transaction on `call.sql`; an `ApiError` rolls it back.
Query values are read with `call.query.get`, body properties with `call.fields(problems)`, pages with `paging`.
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
from itwin_mcp.sandbox.errors import Problems
from itwin_mcp.sandbox.identity import Principal

Json = dict[str, Any]


class Query:
    """The query string: names without regard to case, empty pairs ignored (Bentley's own clients send `?&$top=2`)."""

    def __init__(self, text: str) -> None:
        self.pairs: list[tuple[str, str]] = []
        for pair in text.split("&"):
            if pair:
                name, _, value = pair.partition("=")
                self.pairs.append((unquote_plus(name), unquote_plus(value)))

    def get(self, name: str) -> str | None:
        """The first value of that name; None when it is absent or empty."""
        return self.raw(name) or None

    def raw(self, name: str) -> str | None:
        """The first value of that name, which may be empty (`$continuationToken=` begins token paging)."""
        wanted = name.lower()
        return next((value for key, value in self.pairs if key.lower() == wanted), None)

    def with_changes(self, changes: Mapping[str, str | None]) -> str:
        """The query text with some pairs replaced, or removed where the value is None."""
        replaced = {name.lower() for name in changes}
        kept = [(name, value) for name, value in self.pairs if name.lower() not in replaced]
        kept += [(name, value) for name, value in changes.items() if value is not None]
        return "&".join(f"{quote(name, safe='$')}={quote(value, safe='$,:')}" for name, value in kept)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request inside its transaction."""

    sql: sqlite3.Connection
    now: datetime
    caller: Principal
    method: str
    path: str  # as the client spelled it
    slots: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    base_url: str  # scheme and host that the client used; every `_links` href begins with it
    storage_url: str
    job_seconds: float
    upload: BinaryIO | None = None  # the body of a route that `streams`, whose `body` is empty

    @property
    def wants_representation(self) -> bool:
        """Whether `Prefer: return=representation` asks for whole entities; minimal is the platform's default."""
        preferences = self.headers.get("prefer", "").replace(" ", "").lower()
        return "return=representation" in preferences.replace(";", ",").split(",")

    @property
    def stamp(self) -> str:
        """Now, as it is stored and printed."""
        return store.stamp(self.now)

    def link(self, path: str) -> Json:
        """A link to one of our own resources, by the address that the client used."""
        return {"href": f"{self.base_url}{path}"}

    def schedule(self, kind: str, subject: str, *, jobs: float = 1.0) -> None:
        """Have the job done after that many job lengths."""
        store.schedule(self.sql, kind, subject, self.now + timedelta(seconds=self.job_seconds * jobs))

    def one(self, statement: str, *parameters: object) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        row: sqlite3.Row | None = self.sql.execute(statement, parameters).fetchone()
        return row

    def fields(self, problems: Problems) -> Fields:
        """The JSON object in the body; what is no object is refused at once, with the findings made so far."""
        if not self.body.strip():
            problems.add("MissingRequestBody", "Request body was not provided.")
            problems.refuse()
        values = _parse_object(self.body)
        if values is None:
            problems.add("InvalidRequestBody", "Failed to parse request body. Make sure it is a valid JSON.")
            problems.refuse()
        return Fields(values or {}, problems)


class Fields:
    """The properties of a JSON object, read one by one; what is wrong with them is noted in `problems`."""

    def __init__(self, values: Mapping[str, Any], problems: Problems, within: str | None = None) -> None:
        self.values = values
        self.problems = problems
        self._within = within

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def any_of(self, names: Iterable[str]) -> bool:
        """Whether at least one of the names is given."""
        return any(name in self.values for name in names)

    def text(self, name: str, *, required: bool = False, limit: int = 255, blank: bool = True) -> str | None:
        """A string, or None when it is null or absent; a required one may be neither, nor blank."""
        value = self.values.get(name)
        if value is None:
            if required:
                self.problems.missing(self._target(name))
            return None
        if not isinstance(value, str):
            self._invalid(name, "The value must be a string.")
        elif len(value) > limit:
            self._invalid(name, f"The value exceeds allowed {limit} characters.")
        elif (required or not blank) and not value.strip():
            self._invalid(name, "The value must not be empty.")
        else:
            return value
        return None

    def choice(self, name: str, allowed: Sequence[str], *, required: bool = False) -> str | None:
        """One of a closed set of words, without regard to case, as the platform spells it."""
        value = self.text(name, required=required, blank=False)
        if value is None:
            return None
        for word in allowed:
            if word.lower() == value.lower():
                return word
        self._invalid(name, f"Valid values are {', '.join(allowed)}.")
        return None

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number within bounds, or None when it is null or absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._invalid(name, "The value must be a number.")
        elif not low <= value <= high:
            self._invalid(name, f"Valid '{name}' value range is {low:g} to {high:g}.")
        else:
            return float(value)
        return None

    def integer(self, name: str, low: int, high: int, *, required: bool = False) -> int | None:
        """A whole number within bounds, or None when it is null or absent."""
        value = self.values.get(name)
        if value is None:
            if required:
                self.problems.missing(self._target(name))
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self._invalid(name, "The value must be an integer.")
        elif not low <= value <= high:
            self._invalid(name, f"Valid '{name}' value range is {low} to {high}.")
        else:
            return value
        return None

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._invalid(name, "The value must be a boolean.")
            return default
        return value

    def object(self, name: str, *, required: bool = False) -> Fields | None:
        """A nested object, whose findings name it as their target."""
        value = self.values.get(name)
        if value is None:
            if required:
                self.problems.missing(self._target(name))
            return None
        if not isinstance(value, dict):
            self._invalid(name, "The value must be an object.")
            return None
        return Fields(value, self.problems, within=self._within or name)

    def objects(self, name: str) -> list[Fields]:
        """Return the objects of a required list that must not be empty; their findings name it as their target."""
        values = self.values.get(name)
        if values is None:
            self.problems.missing(self._target(name))
        elif not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
            self._invalid(name, "The value must be a non-empty array of objects.")
        else:
            return [Fields(value, self.problems, within=self._within or name) for value in values]
        return []

    def _target(self, name: str) -> str:
        return f"{self._within}.{name}" if self._within else name

    def _invalid(self, name: str, why: str) -> None:
        # The platform names the outermost property: "Provided 'extent' value is not valid. Valid 'latitude' …".
        self.problems.invalid(self._within or name, why)


@dataclass(frozen=True, slots=True)
class Stream:
    """A body too large for memory: `read(sql, offset, size)` gives part of it, each in a transaction of its own."""

    length: int
    read: Callable[[sqlite3.Connection, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back: a JSON object, bytes or a stream of some media type, or nothing at all."""

    status: int
    body: Json | bytes | Stream | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


Handler = Callable[[Call], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: where it is served and by whom.

    `slug` is that of its documentation page (`operations.py` holds all 90); ours alone, such as storage, have none.
    `missing` says what a partly emulated operation lacks. `signed_in=False` serves callers without a token.
    `writes` is for the rare GET that changes something. `streams` leaves the body in a file, `call.upload`.
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
    """200 with a JSON body."""
    return Answer(200, body, headers or {})


def created(body: Json) -> Answer:
    """201 with a JSON body."""
    return Answer(201, body)


def accepted(headers: Mapping[str, str]) -> Answer:
    """202 without a body; the headers say where to look."""
    return Answer(202, None, headers)


def no_content() -> Answer:
    """204: Bentley's clients insist on an empty body without a content type."""
    return Answer(204)


def _parse_object(body: bytes) -> Json | None:
    """The JSON object that the bytes hold, or None; stricter than `json` where SQLite or JSON itself would choke."""
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be stored
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value
