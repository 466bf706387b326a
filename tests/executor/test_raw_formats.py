"""Answers in XML, CSV, TSV, PSV and YAML."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

from typing import Any

import pytest

from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.executor.raw_formats import read_format
from itwin_mcp.upstream.messages import Response

CASES: list[tuple[str, str, Any]] = [
    ("xml", "<v><vessel><name>A</name></vessel><vessel><name>B</name></vessel></v>", {"vessel": [{"name": "A"}, {"name": "B"}]}),
    ("xml", "<v><vessel>A</vessel></v>", {"vessel": "A"}),
    ("xml", '<n:v xmlns:n="urn:x" n:id="1"><n:a unit="m">5</n:a><b/></n:v>', {"id": "1", "a": {"unit": "m", "": "5"}, "b": ""}),
    ("xml", "<v> a &amp; <![CDATA[<b>]]> </v>", "a & <b>"),
    ("csv", 'id,name\n007,"A, ""B"""\n\n8,C\n', [{"id": "007", "name": 'A, "B"'}, {"id": "8", "name": "C"}]),
    ("tsv", "id\tname\n7\tA\n", [{"id": "7", "name": "A"}]),
    ("psv", "id|name\n7|A\n", [{"id": "7", "name": "A"}]),
    ("csv", "", []),
    ("yaml", "ships:\n- {name: A, flag: NO}\n", {"ships": [{"name": "A", "flag": "NO"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "value"), CASES)
def test_format_is_read_as_a_json_value(kind: str, text: str, value: Any) -> None:
    assert read_format(Response(200, {}, text.encode()), kind) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("xml", '<!DOCTYPE v [<!ENTITY a "b">]><v>&a;</v>'),
        ("xml", '<!DOCTYPE v SYSTEM "file:///etc/passwd"><v/>'),
        ("xml", "<v><a></v>"),
        ("xml", "<v>" * 100 + "</v>" * 100),
        ("csv", "id,id\n1,2\n"),
        ("csv", 'id\n"1'),
        ("yaml", "a: 1\na: 2"),
    ],
)
def test_unreadable_answer_is_an_error(kind: str, text: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"not readable as {kind.upper()}"):
        read_format(Response(200, {}, text.encode()), kind)
