"""The OData subset that the iTwins API documents, `$filter`, `$orderby` and `$select`, translated to SQL.

The documentation has several spellings, and all are accepted: `contains('abc',displayName)`,
`contains(displayName,'abc')`, `in ['a','b']`, and `+` for a space. Text comparison ignores case (create-export,
property `filter`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from itwin_mcp.sandbox.store import format_timestamp

# A word that continues with a hyphen is the beginning of a UUID, which is a value.
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*'|\"[^\"]*\")"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?![A-Za-z0-9_-]*-[A-Za-z0-9]))"
    r"|(?P<value>[-+]?[0-9A-Za-z][0-9A-Za-z.:+-]*)"
    r"|(?P<mark>[(),\[\]]))"
)
# A plus is a space (get-my-itwins, examples), except inside text and before the UTC offset of a date.
_SPACE: Final = re.compile(r"('(?:[^']|'')*')|\+(?!\d{2}:\d{2})")
_NUMBERS: Final = frozenset({"latitude", "longitude"})
_COMPARISONS: Final = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_MAX_DEPTH: Final = 40
_MAX_TOKENS: Final = 1000
Scalar = str | float | None


class ODataError(ValueError):
    """An expression that cannot be parsed. The message is the one in the platform's answer."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A WHERE condition with its parameters, and the properties that it uses."""

    sql: str
    parameters: tuple[Scalar, ...]
    properties: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    end: int  # the platform reports an error at the end of the unexpected token


def parse_filter(text: str, columns: Mapping[str, str]) -> Condition:
    """Return the condition of a `$filter`. `columns` maps the platform's property names to SQL columns.

    Raises:
        ODataError: If the expression is malformed or names an unknown property.
    """
    return _Parser(text, columns).parse()


def parse_order(text: str, columns: Mapping[str, str]) -> str:
    """Return the ORDER BY list of an expression such as `name desc,createdDateTime`.

    The order ignores case, because Bentley's integration tests compare neighbours with `localeCompare`.

    Raises:
        ODataError: If the expression is malformed or names an unknown property.
    """
    by_name = _index_by_name(columns)
    order: list[str] = []
    for part in text.split(","):
        words = part.split()
        name = by_name.get(words[0].lower()) if words else None
        direction = words[1].lower() if len(words) > 1 else "asc"
        if name is None or len(words) > 2 or direction not in ("asc", "desc"):
            raise ODataError(f"Cannot order by '{part.strip()}'.")
        order.append(f"{columns[name]} COLLATE NOCASE {direction}")
    return ", ".join(order)


def parse_select(text: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the property names of a `$select`, as the platform spells them.

    Raises:
        ODataError: If a property is unknown.
    """
    by_name = _index_by_name(columns)
    names: list[str] = []
    for part in text.split(","):
        name = by_name.get(part.strip().lower())
        if name is None:
            raise ODataError(f"The $select string contains an unknown property '{part.strip()}'.")
        names.append(name)
    return tuple(names)


def _index_by_name(columns: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): name for name in columns}


class _Parser:
    """A recursive descent parser of filters. The operators bind in the order `not`, `and`, `or`."""

    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self._text = text
        self._columns = columns
        self._names = _index_by_name(columns)
        self._tokens = self._tokenize()
        self._next = 0
        self._depth = 0
        self._parameters: list[Scalar] = []
        self._properties: set[str] = set()
        self._unknown: str | None = None

    def parse(self) -> Condition:
        sql = self._parse_or()
        if self._peek().kind != "end":
            self._fail()
        # Report an unknown property only now, because syntax errors take precedence.
        if self._unknown is not None:
            raise ODataError(f"Could not find a property named '{self._unknown}' on type 'iTwin'.")
        return Condition(sql, tuple(self._parameters), frozenset(self._properties))

    def _tokenize(self) -> list[_Token]:
        tokens: list[_Token] = []
        text = _SPACE.sub(lambda match: match[1] or " ", self._text)
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None or len(tokens) == _MAX_TOKENS:
                raise ODataError(f"Syntax error at position {position} in '{self._text}'.")
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.end(match.lastgroup)))
            position = match.end()
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

    def _accept_word(self, *words: str) -> bool:
        token = self._peek()
        if token.kind == "word" and token.text.lower() in words:
            self._next += 1
            return True
        return False

    def _expect_mark(self, *marks: str) -> None:
        if self._peek().kind != "mark" or self._peek().text not in marks:
            self._fail()
        self._take()

    def _parse_or(self) -> str:
        terms = [self._parse_and()]
        while self._accept_word("or"):
            terms.append(self._parse_and())
        return f"({' OR '.join(terms)})"

    def _parse_and(self) -> str:
        terms = [self._parse_term()]
        while self._accept_word("and"):
            terms.append(self._parse_term())
        return f"({' AND '.join(terms)})"

    def _parse_term(self) -> str:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail()
        try:
            if self._accept_word("not"):
                return f"NOT {self._parse_term()}"
            if self._peek().kind == "mark":
                self._expect_mark("(")
                inner = self._parse_or()
                self._expect_mark(")")
                return inner
            if self._accept_word("contains", "startswith", "endswith"):
                return self._parse_function(self._tokens[self._next - 1].text.lower())
            return self._parse_comparison()
        finally:
            self._depth -= 1

    def _parse_function(self, name: str) -> str:
        self._expect_mark("(")
        first = self._take()
        self._expect_mark(",")
        second = self._take()
        self._expect_mark(")")
        if first.kind == "string":
            first, second = second, first
        column = self._resolve_column(first)
        if second.kind != "string":
            self._fail(second)
        text = str(_unquote(second.text)).casefold()
        self._parameters.append(text)
        if name == "contains":
            return f"instr(fold({column}), ?) > 0"
        self._parameters.append(text)
        if name == "startswith":
            return f"substr(fold({column}), 1, length(?)) = ?"
        # A negative start of substr counts from the end. Every text ends with the empty text.
        self._parameters.append(text)
        return f"(length(?) = 0 OR substr(fold({column}), -length(?)) = ?)"

    def _parse_comparison(self) -> str:
        token = self._take()
        column = self._resolve_column(token)
        name = self._names.get(token.text.lower(), "")
        if name not in _NUMBERS and not name.endswith("DateTime"):
            column = f"fold({column})"
        if self._accept_word("in"):
            self._expect_mark("[", "(")
            values = [self._parse_literal(name)]
            while self._peek().text == ",":
                self._take()
                values.append(self._parse_literal(name))
            self._expect_mark("]", ")")
            self._parameters.extend(values)
            return f"{column} IN ({', '.join('?' * len(values))})"
        operator = self._take()
        sign = _COMPARISONS.get(operator.text.lower()) if operator.kind == "word" else None
        if sign is None:
            self._fail(operator)
        value = self._parse_literal(name)
        if value is None and sign in ("=", "<>"):
            return f"{column} IS {'NOT ' if sign == '<>' else ''}NULL"
        self._parameters.append(value)
        return f"{column} {sign} ?"

    def _resolve_column(self, token: _Token) -> str:
        if token.kind != "word":
            self._fail(token)
        name = self._names.get(token.text.lower())
        if name is None:
            self._unknown = self._unknown or token.text
            return "NULL"
        self._properties.add(name)
        return self._columns[name]

    def _parse_literal(self, name: str) -> Scalar:
        token = self._take()
        if token.kind not in ("string", "value", "word"):
            self._fail(token)
        value: Scalar = _unquote(token.text)
        if token.kind == "word":
            if token.text.lower() != "null":
                self._fail(token)
            return None
        if name.endswith("DateTime"):
            return _parse_moment(str(value)) or str(value)
        if name in _NUMBERS:
            # Only these properties are numeric; the property `number` is text.
            return float(token.text) if re.fullmatch(r"[-+]?\d{1,15}(\.\d{1,15})?", token.text) else value
        return str(value).casefold()


def _unquote(text: str) -> str:
    if text[:1] == "'":
        return text[1:-1].replace("''", "'")
    return text[1:-1] if text[:1] == '"' else text


def _parse_moment(text: str) -> str | None:
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return format_timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
