"""From a file to a checked model: each thing that is wrong is said with its file, line and rule."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.capability.linker import checked_files, link_files
from itwin_mcp.capability.loader import MOST_BYTES, load, read_data
from itwin_mcp.errors import CapabilityError
from tests.capability.files import GOOD, SECTION, TOOL, Folder, bent, line_of, said


def test_the_good_file_is_good(folder: Folder) -> None:
    assert list(folder.link(GOOD).tools) == ["list-parts", "get-part", "find-part"]


def test_a_problem_reads_as_file_line_message_and_rule(folder: Folder) -> None:
    text = bent(("    namespace: parts\n", '    namespace: parts\n    descripton: "x"\n'))
    (problem,) = folder.broken(text)
    where = f"{folder.path.resolve() / 'file0.yaml'}:{line_of(text, 'descripton')}:"
    assert str(problem) == (
        f"{where} unknown key 'descripton': did you mean 'description'? (at capability.exposes.0.descripton) [known-key]"
    )


def test_a_byte_order_mark_and_windows_line_ends_are_read_past(folder: Folder) -> None:
    windows = bent(('display: "Parts"', 'displai: "Parts"')).replace("\n", "\r\n")
    assert folder.link("\ufeff" + GOOD.replace("\n", "\r\n")).tools
    assert {problem.line for problem in folder.broken("\ufeff" + windows)} == {2}


def test_text_that_is_not_utf_8_is_refused_with_its_line(folder: Folder) -> None:
    assert said(folder.broken(b'ikanos: "1.0.0-beta5"\r\ninfo: caf\xe9')) == [(2, "utf-8")]
    assert said(folder.broken("ikanos: x".encode("utf-16"))) == [(1, "utf-8")]


def test_a_file_that_is_too_large_is_not_read_to_its_end(folder: Folder) -> None:
    assert folder.link(GOOD + "#" * (MOST_BYTES - len(GOOD))).tools
    assert said(folder.broken(GOOD + "#" * (MOST_BYTES - len(GOOD) + 1))) == [(1, "bounded")]


def test_a_file_that_is_not_there_or_a_folder_cannot_be_read(folder: Folder) -> None:
    folder.write("", "some.yaml")
    for name in ("missing.yaml", ".", "a\0b.yaml", "x" * 300):
        with pytest.raises(CapabilityError) as caught:
            link_files([folder.path / name])
        assert said(list(caught.value.problems)) == [(1, "readable")], name


@pytest.mark.parametrize("text", ["5", "[]", "text", "null"])
def test_a_document_that_is_no_mapping_is_refused(folder: Folder, text: str) -> None:
    assert said(folder.broken(text)) == [(1, "type")]


# Each with a text that stands once in what is changed into, on the line that is named.
MODEL = [
    ("unknown key", ('  - type: http\n', '  - type: http\n    timeOut: 5\n'), "timeOut", "known-key"),
    ("unknown key in an operation", ("list-parts:\n            method", "list-parts:\n            retry: 3\n            method"), "retry", "known-key"),
    ("missing key", ('    namespace: parts-api\n', ""), "  - type: http", "required-key"),
    ("missing type", ("  - type: http\n    namespace", "  - namespace"), "namespace: parts-api", "required-key"),
    ("a number for text", ('display: "Flows"', "display: 5"), "display: 5", "type"),
    ("a word of YAML 1.1 for a boolean", ("required: false", "required: no"), "required: no", "type"),
    ("text for a mapping", ('arguments: {part: {description: "Part."}}', "arguments: {part: none}"), "part: none", "type"),
    ("a list for a mapping", ("with: {kind: parts.kind}", "with: [kind]"), "with: [kind]", "type"),
    ("a boolean in with", ("with: {kind: parts.kind}", "with: {kind: true}"), "kind: true", "type"),
    ("a method of no format", ("method: DELETE", "method: HEAD"), "HEAD", "known-word"),
    ("another version of the format", ('"1.0.0-beta5"', '"1.0.0-beta4"'), "ikanos", "known-word"),
    ("another name of the format", ('ikanos: "1.0.0-beta5"', 'naftiko: "1.0.0-beta5"'), "naftiko", "known-key"),
    ("a name with an underscore", ("    tools:\n      list-parts:", "    tools:\n      list_parts:"), "list_parts", "name"),
    ("a name that is too long", ("find-part: {display", "f" * 65 + ": {display"), "f" * 65, "name"),
    ("a path with a query", ('path: "/parts"', 'path: "/parts?a=b"'), "a=b", "name"),
    ("a path that does not begin at the root", ('path: "/parts"', 'path: "parts"'), 'path: "parts"', "name"),
    ("credentials in the base", ("https://parts.example.org/v1", "https://me:pw@parts.example.org"), "me:pw", "name"),
    ("a base without a scheme", ("https://parts.example.org/v1", "parts.example.org"), '"parts.example.org"', "name"),
    ("a slot in the base", ("https://parts.example.org/v1", "https://{{host}}/v1"), "{{host}}", "name"),
    ("an unknown style of paging", ("style: link", "style: seek"), "style: seek", "known-word"),
    ("paging by link without a link", (', next: "$._links.next.href"', ""), "x-page", "x-page"),
    ("a handle in two places", ("handle: {header: Location,", 'handle: {header: Location, body: "$.id",'), "handle", "x-wait"),
    ("a job that is never done", ("done: [ready]", "done: []"), "done", "type"),
    ("a default wait beyond what clients bear", ("done: [ready]\n", "done: [ready]\n              default: 56\n"), "default: 56", "type"),
    ("an unknown entity", ('partId: {type: string,', 'partId: {type: string, x-entity: part,'), "x-entity", "known-word"),
    ("an unknown type of input", ('partId: {type: string,', 'partId: {type: uuid,'), "type: uuid", "known-word"),
    ("an integer output", ("size: {type: number", "size: {type: integer"), "type: integer", "known-word"),
    ("an object output without properties", ("items:\n                type: object\n                properties:\n                  id: {type: string, mapping: \"$.id\"}\n                  size: {type: number, mapping: \"$.size\"}", "items:\n                type: object"), "              items:\n", "required-key"),
    ("a static output that is no text", ('name: {type: string, mapping: "$.name"}}}\n      find', 'name: {type: string, value: 5}}}\n      find'), "value: 5", "type"),
    ("a date that is none", ('description: "Parts of a machine."', 'description: "Parts.", created: 1.5.2026'), "created", "name"),
    ("elements without lists", ('x-each: "$.one"', "x-each: {most: 5}"), "x-each: {most: 5}", "required-key"),
    ("elements without an end", ('x-each: "$.one"', 'x-each: {in: ["$.one"]}'), "in: [", "required-key"),
    ("elements that are neither text nor a mapping", ('x-each: "$.one"', 'x-each: ["$.one"]'), "x-each: [", "type"),
    ("a refusal that nobody may tolerate", ('x-each: "$.one"', "x-tolerate: [401]"), "x-tolerate", "type"),
    ("a repetition without an end", ('x-each: "$.one"', 'x-repeat: {until: "$.last"}'), "x-repeat", "required-key"),
    ("a comparison that is none", ("match: kind,", "match: kind, x-compare: since,"), "x-compare: since", "known-word"),
    ("a bound on a lookup", ("match: kind,", "match: kind, x-most: 3,"), "x-most: 3", "known-key"),
    ("no tools", ("ref: flows.find-part", "reff: flows.find-part"), "reff", "known-key"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part", "rule"), [case[1:] for case in MODEL], ids=[case[0] for case in MODEL])
def test_each_rule_of_the_model_names_its_line(folder: Folder, change: tuple[str, str], part: str, rule: str) -> None:
    text = bent(change)
    problems = folder.broken(text)
    # Where a key is missing, what stands there instead may be unknown too.
    assert (line_of(text, part), rule) in said(problems)
    assert len(problems) <= 2


@pytest.mark.parametrize("kind", ["rest", "skill", "control"])
def test_an_exposition_that_is_not_served_is_refused_by_name(folder: Folder, kind: str) -> None:
    text = bent(("  - type: mcp\n", f"  - type: {kind}\n"))
    (problem,) = folder.broken(text)
    assert (problem.line, problem.rule) == (line_of(text, f"type: {kind}"), "not-served")
    assert f"'{kind}' is a word of the format that this server does not serve" in problem.message


@pytest.mark.parametrize(
    "change",
    [
        ("{type: lookup, index: all, match: kind", "{type: script, index: all, match: kind"),
        ("authentication: {type: bearer", "authentication: {type: digest"),
        ("authentication: {type: bearer", "authentication: {type: oauth2"),
        ("type: json\n", "type: multipartForm\n"),
        ("    transport: stdio\n", "    transport: stdio\n    authentication: {}\n"),
        ("    transport: stdio\n", "    transport: stdio\n    ttlMs: 5\n"),
        ("delete-part: {", "delete-part: {outputSchema: x, "),
        ("  - type: http\n", "  - type: http\n    tunnel: {}\n"),
        ('        description: "Describe a part."\n', '        description: "Describe a part."\n        location: "file:///x"\n'),
    ],
)  # fmt: skip
def test_a_word_of_the_format_that_is_not_served_is_refused_by_name(folder: Folder, change: tuple[str, str]) -> None:
    (problem,) = folder.broken(bent(change))
    assert problem.rule == "not-served"


@pytest.mark.parametrize(
    ("change", "part", "says"),
    [
        (("    transport: stdio\n", "    x-tool-set: a\n"), "x-tool-set", "did you mean 'x-toolset'?"),
        (("    transport: stdio\n", "    x-qqq: 3\n"), "x-qqq", "our words are x-body"),
        (("    transport: stdio\n", "    x-page: {}\n"), "    x-page: {}", "it stands on a consumed operation"),
        (("get-part: {method: GET,", "get-part: {x-wire: a, method: GET,"), "x-wire: a", "a consumed input parameter"),
        (("name: {type: string, mapping: \"$.name\"}}}\n      find", "name: {type: string, x-entity: imodel}}}\n      find"), "x-entity", "a tool or flow input"),
        (("delete-part: {", "delete-part: {x-confirm: {}, "), "x-confirm", "it stands on a tool"),
        (("find-part: {display", "find-part: {x-body: {}, display"), "x-body", "it stands on a consumed operation"),
    ],
)  # fmt: skip
def test_our_words_stand_only_where_they_mean_something(
    folder: Folder, change: tuple[str, str], part: str, says: str
) -> None:
    text = bent(change)
    (problem,) = folder.broken(text)
    assert (problem.line, problem.rule) == (line_of(text, part), "known-key")
    assert says in problem.message


def test_a_key_called_like_the_kind_it_stands_in_does_not_lead_to_another_line(folder: Folder) -> None:
    step = "{type: call, call: parts-api.list-parts, with: {kind: flows.kind}}"
    text = bent(
        (
            step,
            "\n            type: call\n            call: parts-api.list-parts\n            with:\n              kind: [1]",
        )
    )
    assert said(folder.broken(text)) == [(line_of(text, "kind: [1]"), "type")]
    text = bent(('{from: "./bolts.yaml", import: bolts-api}', "import: bolts-api\n    from: 5"), text=TOOL)
    assert said(folder.broken(text)) == [(line_of(text, "from: 5"), "type")]


def test_text_that_yaml_reads_as_something_else_is_asked_to_be_quoted(folder: Folder) -> None:
    (problem,) = folder.broken(bent(('display: "Flows"', "display: true")))
    assert problem.message.startswith("must be text, not true: put it in quotes")


def test_a_whole_capability_has_no_sections_beside_it(folder: Folder) -> None:
    (problem,) = folder.broken(GOOD + SECTION.partition("\n")[2])
    assert (problem.rule, "`consumes` at the top" in problem.message) == ("sections", True)


@pytest.mark.parametrize("key", ["value", "steps", "method", "x-wait"])
def test_key_that_belongs_elsewhere_is_not_suggested_in_place_of_itself(folder: Folder, key: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        folder.link(bent(("  - type: http\n", f"  - type: http\n    {key}: 5\n")))
    (problem,) = [one for one in caught.value.problems if one.rule == "known-key"]
    assert repr(key) in problem.message
    assert "did you mean" not in problem.message


def test_no_error_echoes_a_giant_value(folder: Folder) -> None:
    giant = "g" * 20_000
    quoted = f'"{giant}"'
    for change in (
        ('display: "Flows"', f"{giant[:900]}: 1"),
        ("method: DELETE", f"method: {giant}"),
        ("- type: mcp", f"- type: {giant}"),
        ('path: "/parts"', f"path: {quoted}"),
        ("call: parts-api.get-part\n        with: {id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n      find", f"call: parts-api.{giant}\n      find"),
        ("ref: flows.find-part", f"ref: flows.{giant}"),
        ("{{part}}", "{{" + giant + "}}"),
        ('mapping: "$.size"', f"mapping: {quoted}"),
        ('mapping: "$.size"', f'mapping: "$[?{giant}"'),
        ("enum: [bolt, nut]", f"enum: {giant}"),
        ("parts://parts/{partId}", "parts://" + giant + "{"),
    ):  # fmt: skip
        for problem in folder.broken(bent(change)):
            assert len(problem.message) < 1000, change[1][:40]


def test_every_broken_rule_of_every_file_is_told_at_once_in_order(folder: Folder) -> None:
    first = bent(("method: DELETE", "method: HEAD"), ('display: "Flows"', "display: 5"))
    second = bent(("call: bolts-api.list-bolts", "call: bolts-api.list-nuts"), text=TOOL)
    folder.write(SECTION, "bolts.yaml")
    problems = folder.broken(first, second, "a: 1\na: 2")
    assert problems == sorted(problems)
    assert [problem.rule for problem in problems] == ["known-word", "type", "unresolved-call", "no-duplicates"]


def test_read_data_and_load_read_the_same(folder: Folder) -> None:
    file = folder.write(GOOD)
    assert read_data(file) == load(file).data


def test_checked_files_lists_the_imported_ones_and_takes_sections_alone(folder: Folder) -> None:
    section, tool = folder.write(SECTION, "bolts.yaml"), folder.write(TOOL, "tool.yaml")
    assert checked_files([tool]) == (tool.resolve(), section.resolve())
    assert checked_files([section]) == (section.resolve(),)
    folder.write(bent(("list-bolts: {}", 'list-bolts: {body: {type: text, data: "{{"}}'), text=SECTION), "bolts.yaml")
    with pytest.raises(CapabilityError):
        checked_files([section])


JSONISH = st.recursive(
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
@given(st.one_of(st.text(max_size=200), st.dictionaries(st.sampled_from(["capability", "consumes", "binds"]), JSONISH)))
def test_whatever_stands_in_a_file_the_only_error_is_a_capability_error(folder: Folder, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps({"ikanos": "1.0.0-beta5", **content})  # type: ignore[dict-item]
    file = folder.write(text.encode("utf-8", "surrogatepass"))
    try:
        link_files([file])
    except CapabilityError as error:
        assert error.problems  # noqa: PT017
