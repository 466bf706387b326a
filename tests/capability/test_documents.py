"""Reading of capability files: every problem is reported with its file, line and rule."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.capability.documents import MAX_BYTES, load_document, read_data
from itwin_mcp.capability.linker import check_files, link_files
from itwin_mcp.errors import CapabilityError
from tests.capability.files import GOOD, SECTION, TOOL, Folder, edit, find_line, list_rules


def test_link_files_accepts_a_valid_file(folder: Folder) -> None:
    assert list(folder.link(GOOD).tools) == ["list-parts", "get-part", "find-part"]


def test_problem_shows_file_line_message_and_rule(folder: Folder) -> None:
    text = edit(("    namespace: parts\n", '    namespace: parts\n    descripton: "x"\n'))
    (problem,) = folder.find_problems(text)
    where = f"{folder.path.resolve() / 'file0.yaml'}:{find_line(text, 'descripton')}:"
    assert str(problem) == (
        f"{where} unknown key 'descripton': did you mean 'description'? (at capability.exposes.0.descripton) [known-key]"
    )


def test_load_accepts_byte_order_mark_and_windows_line_ends(folder: Folder) -> None:
    windows = edit(('display: "Parts"', 'displai: "Parts"')).replace("\n", "\r\n")
    assert folder.link("\ufeff" + GOOD.replace("\n", "\r\n")).tools
    assert {problem.line for problem in folder.find_problems("\ufeff" + windows)} == {2}


def test_load_rejects_text_that_is_not_utf_8(folder: Folder) -> None:
    assert list_rules(folder.find_problems(b'ikanos: "1.0.0-beta5"\r\ninfo: caf\xe9')) == [(2, "utf-8")]
    assert list_rules(folder.find_problems("ikanos: x".encode("utf-16"))) == [(1, "utf-8")]


def test_load_rejects_a_file_that_is_too_large(folder: Folder) -> None:
    assert folder.link(GOOD + "#" * (MAX_BYTES - len(GOOD))).tools
    assert list_rules(folder.find_problems(GOOD + "#" * (MAX_BYTES - len(GOOD) + 1))) == [(1, "bounded")]


def test_load_reports_a_missing_file_or_a_folder(folder: Folder) -> None:
    folder.write("", "some.yaml")
    for name in ("missing.yaml", ".", "a\0b.yaml", "x" * 300):
        with pytest.raises(CapabilityError) as caught:
            link_files([folder.path / name])
        assert list_rules(list(caught.value.problems)) == [(1, "readable")], name


@pytest.mark.parametrize("text", ["5", "[]", "text", "null"])
def test_load_rejects_a_document_that_is_not_a_mapping(folder: Folder, text: str) -> None:
    assert list_rules(folder.find_problems(text)) == [(1, "type")]


# (what is wrong, the change, a text that occurs once and on the line of the problem, the rule)
CASES = [
    ("unknown key", ('  - type: http\n', '  - type: http\n    timeOut: 5\n'), "timeOut", "known-key"),
    ("unknown key in an operation", ("list-parts:\n            method", "list-parts:\n            retry: 3\n            method"), "retry", "known-key"),
    ("missing key", ('    namespace: parts-api\n', ""), "  - type: http", "required-key"),
    ("missing type", ("  - type: http\n    namespace", "  - namespace"), "namespace: parts-api", "required-key"),
    ("a number for text", ('display: "Flows"', "display: 5"), "display: 5", "type"),
    ("a YAML 1.1 word for a boolean", ("required: false", "required: no"), "required: no", "type"),
    ("text for a mapping", ('arguments: {part: {description: "Part."}}', "arguments: {part: none}"), "part: none", "type"),
    ("a list for a mapping", ("with: {kind: parts.kind}", "with: [kind]"), "with: [kind]", "type"),
    ("a boolean in with", ("with: {kind: parts.kind}", "with: {kind: true}"), "kind: true", "type"),
    ("a method that is not supported", ("method: DELETE", "method: HEAD"), "HEAD", "known-word"),
    ("another version of the format", ('"1.0.0-beta5"', '"1.0.0-beta3"'), "ikanos", "known-word"),
    ("another format name", ('ikanos: "1.0.0-beta5"', 'naftiko: "1.0.0-beta5"'), "naftiko", "known-key"),
    ("a name with an underscore", ("    tools:\n      list-parts:", "    tools:\n      list_parts:"), "list_parts", "name"),
    ("a name that is too long", ("find-part: {display", "f" * 65 + ": {display"), "f" * 65, "name"),
    ("a path with a query", ('path: "/parts"', 'path: "/parts?a=b"'), "a=b", "name"),
    ("credentials in the base", ("https://parts.example.org/v1", "https://me:pw@parts.example.org"), "me:pw", "name"),
    ("a base without a scheme", ("https://parts.example.org/v1", "parts.example.org"), '"parts.example.org"', "name"),
    ("a slot in the base", ("https://parts.example.org/v1", "https://{{host}}/v1"), "{{host}}", "name"),
    ("an unknown style of paging", ("style: link", "style: seek"), "style: seek", "known-word"),
    ("paging by link without a link", (', next: "$._links.next.href"', ""), "x-page", "x-page"),
    ("a handle with two sources", ("handle: {header: Location,", 'handle: {header: Location, body: "$.id",'), "handle", "x-wait"),
    ("x-wait without a done state", ("done: [ready]", "done: []"), "done", "type"),
    ("a default wait that is too long", ("done: [ready]\n", "done: [ready]\n              default: 56\n"), "default: 56", "type"),
    ("an unknown entity", ('partId: {type: string,', 'partId: {type: string, x-entity: part,'), "x-entity", "known-word"),
    ("an unknown type of input", ('partId: {type: string,', 'partId: {type: uuid,'), "type: uuid", "known-word"),
    ("an integer output", ("size: {type: number", "size: {type: integer"), "type: integer", "known-word"),
    ("an object output without properties", ("items:\n                type: object\n                properties:\n                  id: {type: string, mapping: \"$.id\"}\n                  size: {type: number, mapping: \"$.size\"}", "items:\n                type: object"), "              items:\n", "required-key"),
    ("a static output that is not text", ('name: {type: string, mapping: "$.name"}}}\n      find', 'name: {type: string, value: 5}}}\n      find'), "value: 5", "type"),
    ("a date that is invalid", ('description: "Parts of a machine."', 'description: "Parts.", created: 1.5.2026'), "created", "name"),
    ("x-each without lists", ('x-each: "$.one"', "x-each: {most: 5}"), "x-each: {most: 5}", "required-key"),
    ("x-each without a limit", ('x-each: "$.one"', 'x-each: {in: ["$.one"]}'), "in: [", "required-key"),
    ("x-each that is neither text nor a mapping", ('x-each: "$.one"', 'x-each: ["$.one"]'), "x-each: [", "type"),
    ("x-tolerate of a status that may not be tolerated", ('x-each: "$.one"', "x-tolerate: [401]"), "x-tolerate", "type"),
    ("x-repeat without a limit", ('x-each: "$.one"', 'x-repeat: {until: "$.last"}'), "x-repeat", "required-key"),
    ("an unknown x-compare", ("match: kind,", "match: kind, x-compare: since,"), "x-compare: since", "known-word"),
    ("x-add with both value and take", ("match: kind,", 'match: kind, x-add: {more: {value: 1, take: "$.id"}},'), "x-add", "type"),
    ("x-add without match and of", ("match: kind,", 'match: kind, x-add: {more: {take: "$.id", in: "$.all.parts"}},'), "x-add", "type"),
    ("x-most in a lookup", ("match: kind,", "match: kind, x-most: 3,"), "x-most: 3", "known-key"),
    ("an unknown key of a tool", ("ref: flows.find-part", "reff: flows.find-part"), "reff", "known-key"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_load_reports_a_schema_error_with_its_line(
    folder: Folder, change: tuple[str, str], part: str, rule: str
) -> None:
    text = edit(change)
    problems = folder.find_problems(text)
    # If a key is missing, the key in its place may be unknown, too.
    assert (find_line(text, part), rule) in list_rules(problems)
    assert len(problems) <= 2


@pytest.mark.parametrize(
    "change",
    [
        ("authentication: {type: bearer", "authentication: {type: digest"),
        ("authentication: {type: bearer", "authentication: {type: oauth2"),
        ("type: json\n", "type: multipartForm\n"),
        ('        description: "Describe a part."\n', '        description: "Describe a part."\n        location: "file:///x"\n'),
    ],
)  # fmt: skip
def test_load_names_a_format_word_that_is_not_served(folder: Folder, change: tuple[str, str]) -> None:
    (problem,) = folder.find_problems(edit(change))
    assert problem.rule == "not-served"


@pytest.mark.parametrize(
    ("change", "part", "message_part"),
    [
        (("    transport: stdio\n", "    x-tool-set: a\n"), "x-tool-set", "did you mean 'x-toolset'?"),
        (("    transport: stdio\n", "    x-qqq: 3\n"), "x-qqq", "our words are x-across"),
        (("    transport: stdio\n", "    x-page: {}\n"), "    x-page: {}", "it belongs to a consumed operation"),
        (("get-part: {method: GET,", "get-part: {x-wire: a, method: GET,"), "x-wire: a", "a consumed input parameter"),
        (("name: {type: string, mapping: \"$.name\"}}}\n      find", "name: {type: string, x-entity: imodel}}}\n      find"), "x-entity", "a tool or flow input"),
        (("delete-part: {", "delete-part: {x-confirm: {}, "), "x-confirm", "it belongs to a tool"),
        (("find-part: {display", "find-part: {x-body: {}, display"), "x-body", "it belongs to a consumed operation"),
    ],
)  # fmt: skip
def test_load_rejects_unknown_and_misplaced_x_words(
    folder: Folder, change: tuple[str, str], part: str, message_part: str
) -> None:
    text = edit(change)
    (problem,) = folder.find_problems(text)
    assert (problem.line, problem.rule) == (find_line(text, part), "known-key")
    assert message_part in problem.message


def test_line_of_a_problem_ignores_keys_named_like_union_tags(folder: Folder) -> None:
    step = "{type: call, call: parts-api.list-parts, with: {kind: flows.kind}}"
    text = edit(
        (
            step,
            "\n            type: call\n            call: parts-api.list-parts\n            with:\n              kind: [1]",
        )
    )
    assert list_rules(folder.find_problems(text)) == [(find_line(text, "kind: [1]"), "type")]
    text = edit(('{from: "./bolts.yaml", import: bolts-api}', "import: bolts-api\n    from: 5"), text=TOOL)
    assert list_rules(folder.find_problems(text)) == [(find_line(text, "from: 5"), "type")]


def test_load_asks_to_quote_text_that_yaml_reads_as_a_boolean(folder: Folder) -> None:
    (problem,) = folder.find_problems(edit(('display: "Flows"', "display: true")))
    assert problem.message.startswith("must be text, not true: put it in quotes")


def test_load_rejects_sections_next_to_a_capability(folder: Folder) -> None:
    (problem,) = folder.find_problems(GOOD + SECTION.partition("\n")[2])
    assert (problem.rule, "`consumes` at the top" in problem.message) == ("sections", True)


@pytest.mark.parametrize("key", ["value", "steps", "method", "x-wait"])
def test_misplaced_key_is_not_suggested_for_itself(folder: Folder, key: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        folder.link(edit(("  - type: http\n", f"  - type: http\n    {key}: 5\n")))
    (problem,) = [problem for problem in caught.value.problems if problem.rule == "known-key"]
    assert repr(key) in problem.message
    assert "did you mean" not in problem.message


def test_problem_messages_shorten_long_values(folder: Folder) -> None:
    long_name = "g" * 20_000
    quoted = f'"{long_name}"'
    for change in (
        ('display: "Flows"', f"{long_name[:900]}: 1"),
        ("method: DELETE", f"method: {long_name}"),
        ("- type: mcp", f"- type: {long_name}"),
        ('path: "/parts"', f'path: "/{long_name}?"'),
        ("call: parts-api.get-part\n        with: {id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n      find", f"call: parts-api.{long_name}\n      find"),
        ("ref: flows.find-part", f"ref: flows.{long_name}"),
        ("{{part}}", "{{" + long_name + "}}"),
        ('mapping: "$.size"', f"mapping: {quoted}"),
        ('mapping: "$.size"', f'mapping: "$[?{long_name}"'),
        ("enum: [bolt, nut]", f"enum: {long_name}"),
        ("parts://parts/{partId}", "parts://" + long_name + "{"),
    ):  # fmt: skip
        for problem in folder.find_problems(edit(change)):
            assert len(problem.message) < 1000, change[1][:40]


def test_link_files_reports_all_problems_of_all_files_in_order(folder: Folder) -> None:
    first = edit(("method: DELETE", "method: HEAD"), ('display: "Flows"', "display: 5"))
    second = edit(("call: bolts-api.list-bolts", "call: bolts-api.list-nuts"), text=TOOL)
    folder.write(SECTION, "bolts.yaml")
    problems = folder.find_problems(first, second, "a: 1\na: 2")
    assert problems == sorted(problems)
    assert [problem.rule for problem in problems] == ["known-word", "type", "unresolved-call", "no-duplicates"]


def test_read_data_equals_the_data_of_load(folder: Folder) -> None:
    file = folder.write(GOOD)
    assert read_data(file) == load_document(file).data


def test_check_files_lists_imported_files_and_accepts_sections(folder: Folder) -> None:
    section, tool = folder.write(SECTION, "bolts.yaml"), folder.write(TOOL, "tool.yaml")
    assert check_files([tool]) == (tool.resolve(), section.resolve())
    assert check_files([section]) == (section.resolve(),)
    folder.write(edit(("list-bolts: {}", 'list-bolts: {body: {type: text, data: "{{"}}'), text=SECTION), "bolts.yaml")
    with pytest.raises(CapabilityError):
        check_files([section])


CAPABILITY_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["http", "mcp", "call", "$.a", "{{a}}"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "consumes", "exposes", "aggregates", "tools", "resources", "namespace", "from", "import", "steps", "with", "call", "x-page"])
        | st.text(max_size=5),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.one_of(
        st.text(max_size=200), st.dictionaries(st.sampled_from(["capability", "consumes", "binds"]), CAPABILITY_LIKE)
    )
)
def test_link_files_raises_only_capability_error_for_any_content(folder: Folder, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps({"ikanos": "1.0.0-beta5", **content})  # type: ignore[dict-item]
    file = folder.write(text.encode("utf-8", "surrogatepass"))
    try:
        link_files([file])
    except CapabilityError as error:
        assert error.problems  # noqa: PT017
