"""The documented OData subset of the iTwins API, as SQL: `$filter`, `$orderby` and `$select` over known properties.

The documentation writes `contains('abc',displayName)`, `contains(displayName,'abc')`, `in ['a','b']` and `+` for a
space: all accepted. Text is compared without regard to case (create-export, filter).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from itwin_mcp.sandbox.store import stamp

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*'|\"[^\"]*\")"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?![A-Za-z0-9_-]*-[A-Za-z0-9]))"
    r"|(?P<value>[-+]?[0-9A-Za-z][0-9A-Za-z.:+-]*)"
    r"|(?P<mark>[(),\[\]]))"
)
# A plus is a space (get-my-itwins, examples), except inside text and before the offset of a moment.
_SPACE: Final = re.compile(r"('(?:[^']|'')*')|\+(?!\d{2}:\d{2})")
_NUMBERS: Final = frozenset({"latitude", "longitude"})
_COMPARISONS: Final = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_MOST_DEPTH: Final = 40
_MOST_TOKENS: Final = 1000

Scalar = str | float | None


class ODataError(ValueError):
    """An expression that the platform would not understand; the message is what it answers."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A WHERE condition with its parameters, and the properties that it speaks about."""

    sql: str
    parameters: tuple[Scalar, ...]
    properties: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    end: int  # the platform counts the position of an error behind the token that it did not expect


def parse_filter(text: str, columns: Mapping[str, str]) -> Condition:
    """The condition that a `$filter` means; `columns` maps the platform's property names to SQL columns."""
    return _Parser(text, columns).parse()


def parse_order(text: str, columns: Mapping[str, str], *, only: frozenset[str] | None = None) -> str:
    """The ORDER BY list that `name desc,createdDateTime` means; text is ordered without regard to case.

    So Bentley's own integration suites find it: they compare neighbours by localeCompare.
    """
    by_name = _by_name(columns)
    order: list[str] = []
    for part in text.split(","):
        words = part.split()
        name = by_name.get(words[0].lower()) if words else None
        if name is None or len(words) > 2 or (only is not None and name not in only):
            raise ODataError(f"Cannot order by '{part.strip()}'.")
        direction = words[1].lower() if len(words) == 2 else "asc"
        if direction not in ("asc", "desc"):
            raise ODataError(f"Cannot order by '{part.strip()}'.")
        order.append(f"{columns[name]} COLLATE NOCASE {direction}")
    return ", ".join(order)


def parse_select(text: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The property names of a `$select`, as the platform spells them."""
    by_name = _by_name(columns)
    names: list[str] = []
    for part in text.split(","):
        name = by_name.get(part.strip().lower())
        if name is None:
            raise ODataError(f"The $select string contains an unknown property '{part.strip()}'.")
        names.append(name)
    return tuple(names)


def _by_name(columns: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): name for name in columns}


class _Parser:
    """Recursive descent: or > and > not > comparison."""

    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self._text = text
        self._columns = columns
        self._names = _by_name(columns)
        self._tokens = self._read()
        self._next = 0
        self._depth = 0
        self._parameters: list[Scalar] = []
        self._properties: set[str] = set()
        self._unknown: str | None = None

    def parse(self) -> Condition:
        sql = self._either()
        if self._peek().kind != "end":
            self._fail()
        # What the words mean is looked at after how they stand together: a syntax error comes first.
        if self._unknown is not None:
            raise ODataError(f"Could not find a property named '{self._unknown}' on type 'iTwin'.")
        return Condition(sql, tuple(self._parameters), frozenset(self._properties))

    def _read(self) -> list[_Token]:
        tokens: list[_Token] = []
        text = _SPACE.sub(lambda found: found[1] or " ", self._text)
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None or len(tokens) == _MOST_TOKENS:
                raise ODataError(f"Syntax error at position {at} in '{self._text}'.")
            tokens.append(_Token(found.lastgroup, found[found.lastgroup], found.end(found.lastgroup)))
            at = found.end()
        return [*tokens, _Token("end", "", end)]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _fail(self, token: _Token | None = None) -> None:
        raise ODataError(f"Syntax error at position {(token or self._peek()).end} in '{self._text}'.")

    def _word(self, *words: str) -> bool:
        token = self._peek()
        if token.kind == "word" and token.text.lower() in words:
            self._next += 1
            return True
        return False

    def _mark(self, *marks: str) -> None:
        if self._peek().kind != "mark" or self._peek().text not in marks:
            self._fail()
        self._take()

    def _either(self) -> str:
        terms = [self._both()]
        while self._word("or"):
            terms.append(self._both())
        return f"({' OR '.join(terms)})"

    def _both(self) -> str:
        terms = [self._term()]
        while self._word("and"):
            terms.append(self._term())
        return f"({' AND '.join(terms)})"

    def _term(self) -> str:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            self._fail()
        try:
            if self._word("not"):
                return f"NOT {self._term()}"
            if self._peek().kind == "mark":
                self._mark("(")
                inner = self._either()
                self._mark(")")
                return inner
            if self._word("contains", "startswith", "endswith"):
                return self._function(self._tokens[self._next - 1].text.lower())
            return self._comparison()
        finally:
            self._depth -= 1

    def _function(self, name: str) -> str:
        self._mark("(")
        first = self._take()
        self._mark(",")
        second = self._take()
        self._mark(")")
        if first.kind == "string":
            first, second = second, first
        column = self._column(first)
        if second.kind != "string":
            self._fail(second)
        text = str(_unquoted(second.text)).casefold()
        self._parameters.append(text)
        if name == "contains":
            return f"instr(fold({column}), ?) > 0"
        self._parameters.append(text)
        if name == "startswith":
            return f"substr(fold({column}), 1, length(?)) = ?"
        # substr with a negative start counts from the end; the empty text ends everything.
        self._parameters.append(text)
        return f"(length(?) = 0 OR substr(fold({column}), -length(?)) = ?)"

    def _comparison(self) -> str:
        token = self._take()
        column = self._column(token)
        name = self._names.get(token.text.lower(), "")
        if name not in _NUMBERS and not name.endswith("DateTime"):
            column = f"fold({column})"
        if self._word("in"):
            self._mark("[", "(")
            values = [self._literal(name)]
            while self._peek().text == ",":
                self._take()
                values.append(self._literal(name))
            self._mark("]", ")")
            self._parameters.extend(values)
            return f"{column} IN ({', '.join('?' * len(values))})"
        operator = self._take()
        sign = _COMPARISONS.get(operator.text.lower()) if operator.kind == "word" else None
        if sign is None:
            self._fail(operator)
        value = self._literal(name)
        if value is None and sign in ("=", "<>"):
            return f"{column} IS {'NOT ' if sign == '<>' else ''}NULL"
        self._parameters.append(value)
        return f"{column} {sign} ?"

    def _column(self, token: _Token) -> str:
        if token.kind != "word":
            self._fail(token)
        name = self._names.get(token.text.lower())
        if name is None:
            self._unknown = self._unknown or token.text
            return "NULL"
        self._properties.add(name)
        return self._columns[name]

    def _literal(self, name: str) -> Scalar:
        token = self._take()
        if token.kind not in ("string", "value", "word"):
            self._fail(token)
        value: Scalar = _unquoted(token.text)
        if token.kind == "word":
            if token.text.lower() != "null":
                self._fail(token)
            return None
        if name.endswith("DateTime"):
            return _moment(str(value)) or str(value)
        if name in _NUMBERS:
            # Only there is a bare number one; a `number` of digits is text.
            return float(token.text) if re.fullmatch(r"[-+]?\d{1,15}(\.\d{1,15})?", token.text) else value
        return str(value).casefold()


def _unquoted(text: str) -> str:
    if text[:1] == "'":
        return text[1:-1].replace("''", "'")
    return text[1:-1] if text[:1] == '"' else text


def _moment(text: str) -> str | None:
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
