"""Edits of JSON text: the member is right, and no other byte changes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.cli.clients.json_text import NotJson, get_member, parse, remove_member, set_member

PATH = ("mcpServers", "itwin")
ENTRY = {"command": "/x/itwin-mcp", "args": ["serve", "--sandbox"]}

numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=4,
)
newlines = st.sampled_from(["\n", "\r\n"])
units = st.sampled_from(["  ", "    ", "\t"])
other_members = st.dictionaries(st.text(min_size=1).filter(lambda name: name not in PATH), values, max_size=3)


@st.composite
def blanks(draw: st.DrawFn, newline: str) -> str:
    """Generate whitespace and comments, which may be between any two tokens."""
    comments = [f' // a {{ comment, "{newline}', "/* one, */", f"/*{newline} }} */"]
    pieces = st.sampled_from(["", " ", "\t", newline, *comments])
    return "".join(draw(st.lists(pieces, max_size=2)))


@st.composite
def texts(draw: st.DrawFn, value: Any, newline: str) -> str:
    """Generate one of the many ways to write a value."""
    gap = blanks(newline)
    if isinstance(value, dict):
        items = [
            f"{draw(gap)}{json.dumps(name)}{draw(gap)}:{draw(gap)}{draw(texts(item, newline))}{draw(gap)}"
            for name, item in value.items()
        ]
        return "{" + ",".join(items) + ("," if items and draw(st.booleans()) else "") + draw(gap) + "}"
    if isinstance(value, list):
        items = [f"{draw(gap)}{draw(texts(item, newline))}{draw(gap)}" for item in value]
        return "[" + ",".join(items) + ("," if items and draw(st.booleans()) else "") + draw(gap) + "]"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    newline = draw(newlines)
    content = draw(other_members)
    if draw(st.booleans()):
        content["mcpServers"] = draw(other_members)
    mark = draw(st.sampled_from(["", "\ufeff"]))
    return mark + draw(blanks(newline)) + draw(texts(content, newline)) + draw(blanks(newline)), content


def is_subsequence(small: str, large: str) -> bool:
    """Return whether `large` contains all characters of `small` in order."""
    characters = iter(large)
    return all(character in characters for character in small)


@settings(max_examples=40)
@given(documents())
def test_set_member_changes_nothing_else(document: tuple[str, dict[str, Any]]) -> None:
    text, content = document
    assert parse(text) == content
    edited = set_member(text, PATH, ENTRY)
    assert parse(edited) == content | {"mcpServers": content.get("mcpServers", {}) | {"itwin": ENTRY}}
    assert is_subsequence(text, edited)
    assert set_member(edited, PATH, ENTRY) == edited


@settings(max_examples=40)
@given(documents())
def test_remove_member_undoes_set_member(document: tuple[str, dict[str, Any]]) -> None:
    text, content = document
    removed = remove_member(set_member(text, PATH, ENTRY), PATH)
    assert parse(removed) == {"mcpServers": {}} | content
    if content.get("mcpServers"):
        assert removed == text


@settings(max_examples=40)
@given(documents(), st.integers(0, 3))
def test_remove_member_removes_its_comma_but_no_comment(document: tuple[str, dict[str, Any]], index: int) -> None:
    text, content = document
    if index >= len(content):
        return
    name = list(content)[index]
    removed = remove_member(text, (name,))
    assert parse(removed) == {key: value for key, value in content.items() if key != name}
    assert is_subsequence(removed, text)


FILE = """{
    // what I use daily
    "mcpServers": {
        "files": {"command": "npx", "args": ["-y", "files"]}, // not "itwin": {}
        /* off for now
        "old": {}, */
    },
    "theme": "dark"
}
"""


def test_set_member_follows_the_style_of_the_file() -> None:
    assert set_member(FILE, PATH, {"command": "x", "args": ["serve"]}) == FILE.replace(
        '"old": {}, */\n',
        '"old": {}, */\n        "itwin": {\n            "command": "x",\n'
        '            "args": [\n                "serve"\n            ]\n        },\n',
    )


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("", '{\n  "a": {\n    "b": 1\n  }\n}\n'),
        ("// mine", '// mine\n{\n  "a": {\n    "b": 1\n  }\n}\n'),
        ("{}", '{\n  "a": {\n    "b": 1\n  }\n}'),
        ('{"a": {"c": 2}}', '{"a": {"c": 2, "b": 1}}'),
        ('{\r\n\t"a": {}\r\n}', '{\r\n\t"a": {\r\n\t\t"b": 1\r\n\t}\r\n}'),
        ('{"a": {"b": 0 /* old */}}', '{"a": {"b": 1 /* old */}}'),
    ],
)
def test_set_member_adds_or_replaces_in_small_texts(text: str, edited: str) -> None:
    assert set_member(text, ("a", "b"), 1) == edited


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1', "',' or '}' is missing, in line 1"),
        ('{\n"a": 1\n"b": 2}', "',' or '}' is missing, in line 3"),
        ("{a: 1}", "a string in double quotes is missing"),
        ("{'a': 1}", "a string in double quotes is missing"),
        ('{"a" 1}', "':' is missing"),
        ('{"a": }', "a value is missing"),
        ('{"a": [1 2]}', "',' or ']' is missing"),
        ('{"a": 1} x', "there is text after the value"),
        ('{"a": 01}', "',' or '}' is missing"),
        ('{"a": "\\x"}', "an invalid escape"),
        ("{ /* never closed }", "a string in double quotes is missing"),
        ("[" * 200, "nested more than 100 levels deep"),
        ("[]", "the file is not an object"),
        ('{"mcpServers": []}', "mcpServers is not an object"),
        ('{"mcpServers": {}, "mcpServers": {}}', "'mcpServers' appears twice"),
    ],
)
def test_invalid_json_is_rejected_with_its_line(text: str, words: str) -> None:
    with pytest.raises(NotJson) as refused:
        set_member(text, PATH, ENTRY)
    assert words in str(refused.value)


def test_missing_member_is_none_and_removing_it_changes_nothing() -> None:
    assert get_member(FILE, PATH) is None
    assert remove_member(FILE, PATH) == FILE
