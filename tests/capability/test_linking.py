"""Across files and entries: everything that is named exists, is unique and is used; else nothing is served."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)
from pathlib import Path

import pytest

from itwin_mcp.capability.consumed import PLATFORM_ORIGIN
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CapabilityError
from itwin_mcp.upstream.client import DECLARED_PLATFORM
from tests.capability.files import GOOD, SECTION, TOOL, Folder, bent, line_of, said

GET = "call: parts-api.get-part\n        with: {id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n      find"  # fmt: skip
NAME = 'name: {type: string, mapping: "$.name"}}}\n      find'
KIND = 'kind: {type: string, required: false, description: "Kind.", x-schema: {enum: [bolt, nut], default: bolt}}'

# (what is wrong, the change, a text on the line that is named, the rule)
CASES = [
    # calls, refs, steps
    ("a call into an unknown namespace", ("all: {type: call, call: parts-api", "all: {type: call, call: partz-api"), "partz-api", "unresolved-call"),
    ("a call of an unknown operation", (GET, GET.replace("get-part\n", "get-port\n")), "get-port", "unresolved-call"),
    ("a ref to an unknown flow", ("ref: flows.find-part", "ref: flows.find-port"), "find-port", "unresolved-ref"),
    ("a lookup in an unknown step", ("index: all", "index: every"), "index: every", "unresolved-step"),
    ("a lookup in a later step", ("index: all", "index: whole"), "index: whole", "unresolved-step"),
    ("a lookup of an unknown value", ('lookupValue: "$.kind"', 'lookupValue: "$.sort"'), "$.sort", "unresolved-step"),
    ("x-each over nothing known", ('x-each: "$.one"', 'x-each: "$.ones"'), "$.ones", "unresolved-step"),
    ("a look into an input", ('lookupValue: "$.kind"', 'lookupValue: "$.kind.x"'), "$.kind.x", "expression"),
    ("a step value that is a rich path", ('value: "$.whole"', 'value: "$.whole[?@.id]"'), "$.whole[?", "expression"),
    ("a step value of every step", ('value: "$.whole"', 'value: "$[*].id"'), "$[*].id", "expression"),
    ("x-unless of nothing known", ('x-each: "$.one"', 'x-unless: "$.ones", x-each: "$.one"'), "$.ones", "unresolved-step"),
    ("a long x-each over nothing known", ('x-each: "$.one"', 'x-each: {in: ["$.one", "$.ones"], most: 5}'), "$.ones", "unresolved-step"),
    ("elements that are called like an input", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, as: kind}'), "as: kind", "unique-name"),
    ("elements that are called like their step", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, as: whole}'), "as: whole", "unique-name"),
    ("elements that are called like an earlier step", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, as: all}'), "as: all", "unique-name"),
    ("a repetition once per element", ('x-each: "$.one"', 'x-each: "$.one", x-repeat: {until: "$.last", most: 5}'), "x-repeat", "x-repeat"),
    ("a repetition of what pages", ("all: {type: call,", 'all: {x-repeat: {until: "$.last", most: 5}, type: call,'), "x-repeat", "x-repeat"),
    ("a repetition until what is no path", ('x-each: "$.one", with: {id: "{{each.id}}"}', 'x-repeat: {until: last, most: 5}, with: {id: "{{one[0].id}}"}'), "until: last", "expression"),
    ("a bound on what does not page", ('x-each: "$.one"', 'x-most: 5, x-each: "$.one"'), "x-most", "x-most"),
    ("a comparison with many dates", ('match: kind, lookupValue: "$.kind"', 'match: kind, x-compare: before, lookupValue: "$.all.parts[*].made"'), "x-compare", "x-compare"),
    ("a comparison that counts", ("match: kind,", "match: kind, x-compare: before, x-count: times,"), "x-count", "x-count"),
    ("a count in a field that is there", ("match: kind,", "match: kind, x-count: name,"), "x-count", "x-count"),
    ("a count that its output has no place for", ('{target: found.parts, value: "$.whole"}', '{target: found.parts, value: "$.whole", x-count: times}'), "x-count", "x-count"),
    ("a step value that is no path", ('value: "$.whole"', 'value: "whole"'), '"whole"', "expression"),
    ("a step that is called like an input", ("one: {type: lookup", "kind: {type: lookup"), "kind: {type: lookup", "unique-name"),
    ("a step that is called each", ("one: {type: lookup, index: all", "each: {type: lookup, index: all"), "each: {type", "unique-name"),
    ("each outside of x-each", (', x-each: "$.one"', ""), "{{each.id}}", "expression"),
    ("a mapping to an unknown output", ("target: found.parts", "target: found.bits"), "found.bits", "unresolved-target"),
    ("a mapping below an array", ("target: found.parts", "target: found.parts.id"), "found.parts.id", "unresolved-target"),
    ("an output that no mapping fills", ("          found:\n", "          more: {type: string}\n          found:\n"), "more:", "output"),
    ("an output that two mappings fill", ('{target: found.parts, value: "$.whole"}', '{target: found.parts, value: "$.whole"}\n        - {target: found, value: "$.one"}'), "target: found,", "unresolved-target"),
    ("a flow that no tool refers to", ('find-part: {display: "Find part", ref: flows.find-part}', "get: {description: d, " + "call: parts-api.get-part, with: {id: x}, outputParameters: [{type: object, properties: {}}]}"), "      find-part:\n", "unused-flow"),
    # inputs and slots
    ("an unused input", ("partId: {type: string, description: \"Part.\"}", 'partId: {type: string, description: "Part."}\n          colour: {type: string, description: "Not used."}'), "colour", "unused-input"),
    ("an input that does not exist", ("kind: parts.kind}", 'kind: "{{kind}}{{sort}}"}'), "{{sort}}", "slot-without-value"),
    ("an unknown key in with", ("kind: parts.kind}", "kind: parts.kind, colour: red}"), "colour", "unknown-input"),
    ("an input of another namespace, which would be sent as text", (GET, GET.replace("id: parts.partId", "id: part.partId")), "id: part.partId", "unresolved-input"),
    ("the $this of the format's documents", (GET, GET.replace("id: parts.partId", "id: \"$this.parts.x-{{partId}}\"")), "$this", "unresolved-input"),
    ("a path slot that gets nothing", (GET, GET.replace("\n        with: {id: parts.partId}", "")), "get-part:\n        description", "slot-without-value"),
    ("a path slot whose input may be left out", ('partId: {type: string, description', 'partId: {type: string, required: false, description'), "id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n      find", "slot-without-value"),
    ("a path slot without a parameter", ("get-part: {method: GET, inputParameters: {id: {in: path}}}", "get-part: {method: GET, description: x}"), "description: x", "slot-without-value"),
    ("a path parameter without a slot", ("change-part: {method: PATCH, inputParameters: {", "change-part: {method: PATCH, inputParameters: {no: {in: path}, "), "no: {in: path}", "unused-input"),
    ("braces that are no slot", ('path: "/parts"', 'path: "/parts/{{a"'), "{{a", "expression"),
    ("braces around a slot", ('label: "Part {{label}}"', 'label: "{{{label}}}"'), "{{{label}}}", "expression"),
    ("a section of Mustache", ('label: "Part {{label}}"', 'label: "{{#label}}x"'), "{{#label}}", "expression"),
    ("a path that climbs", ('path: "/parts"', 'path: "/a/../parts"'), "/a/../parts", "path"),
    ("a base that climbs", ("parts.example.org/v1", "parts.example.org/v1/.."), "v1/..", "base-uri"),
    ("a port that is none", ("parts.example.org/v1", "parts.example.org:99999/v1"), ":99999", "base-uri"),
    ("a value with a slot of its own name", ("kind: {in: query}", 'kind: {in: query, value: "k-{{kind}}"}'), "k-{{kind}}", "expression"),
    ("a consumed output that is no path", ("change-part: {method: PATCH,", "change-part: {outputParameters: {a: {type: string, value: a}}, method: PATCH,"), "value: a", "expression"),
    # the wire
    ("a header twice", ('Accept: {in: header, value: "application/json"}', 'Accept: {in: header, value: "application/json"}\n      accept: {in: header, value: "text/plain"}'), "text/plain", "unique-wire"),
    ("a query parameter twice", ("kind: {in: query}", 'kind: {in: query, x-wire: "$top"}'), 'top: {in: query, x-wire: "$top"}\n            x-page', "unique-wire"),
    ("a header that is the client's own", ("kind: {in: query}", "kind: {in: header, x-wire: Authorization}"), "Authorization", "header"),
    ("a header with a line end", ("kind: {in: query}", 'kind: {in: header, x-wire: "a\\nb"}'), "a\\nb", "header"),
    ("a wire name in a path", ("get-part: {method: GET, inputParameters: {id: {in: path}}}", "get-part: {method: GET, inputParameters: {id: {in: path, x-wire: x}}}"), "x-wire: x", "x-wire"),
    # credentials
    ("a variable that is not bound", ('token: "{{PARTS_TOKEN}}"', 'token: "{{OTHER}}"'), "{{OTHER}}", "slot-without-value"),
    ("the platform's token for another origin", ("keys: {PARTS_TOKEN: PARTS_TOKEN}", "keys: {PARTS_TOKEN: ITWIN_ACCESS_TOKEN}"), 'token: "{{PARTS_TOKEN}}"', "platform-token"),
    # paging and waiting
    ("paging by a parameter that is not there", ("size: top", "size: tops"), "size: tops", "x-page"),
    ("paging through many lists", ('items: "$.parts"', 'items: "$.parts[*]"'), "$.parts[*]", "x-page"),
    ("paging by a path that is none", ('next: "$._links.next.href"', "next: link"), "next: link", "expression"),
    ("a write that pages", ("            method: GET\n", "            method: POST\n"), "x-page", "x-page"),
    ("a paging parameter that the file sets", ("kind: parts.kind}", "kind: parts.kind, top: 5}"), "top: 5", "reserved-input"),
    ("paging and waiting", ("            method: POST\n", "            method: POST\n            x-page: {style: link, items: $.a, next: $.b}\n"), "            x-wait:", "x-wait"),
    ("polling an unknown operation", ("poll: parts-api.get-part", "poll: parts-api.get-parts"), "get-parts", "unresolved-call"),
    ("polling another namespace", ("poll: parts-api.get-part", "poll: other-api.get-part"), "other-api", "unresolved-call"),
    ("polling with a write", ("poll: parts-api.get-part", "poll: parts-api.delete-part"), "poll: parts-api.delete-part", "x-wait"),
    ("polling where no slot takes the handle", ("poll: parts-api.get-part", "poll: parts-api.list-parts"), "poll: parts-api.list", "x-wait"),
    ("a handle slot that is not there", ("as: partId}", "as: partId, in: part}"), "poll: parts-api", "x-wait"),
    ("a handle from an input that is not there", ("handle: {header: Location", "handle: {input: id"), "input: id", "x-wait"),
    ("a state that is both pending and failed", ("done: [ready]", "done: [ready]\n              failed: [RUNNING]"), "failed: [RUNNING]", "x-wait"),
    ("a state that is both pending and done", ("done: [ready]", "done: [running]"), "done: [running]", "x-wait"),
    ("a state that is no path", ('state: "$.state"', "state: state"), "state: state", "expression"),
    # inputs' schemas
    ("a default that does not fit", ("default: bolt", "default: screw"), "default: screw", "json-schema"),
    ("an enum of another type", ("enum: [bolt, nut]", "enum: [bolt, 10]"), "enum: [bolt, 10]", "json-schema"),
    ("a schema that is none", ("x-schema: {enum: [bolt, nut], default: bolt}", "x-schema: {minLength: many}"), "minLength", "json-schema"),
    ("a pattern that is none", ("x-schema: {enum: [bolt, nut], default: bolt}", 'x-schema: {pattern: "["}'), "pattern", "json-schema"),
    ("a reference out of a schema", ("x-schema: {enum: [bolt, nut], default: bolt}", 'x-schema: {allOf: [{$ref: "https://example.org/x"}]}'), "$ref", "json-schema"),
    ("a schema of an output that is none", (NAME, NAME.replace('mapping: "$.name"', 'mapping: "$.name", x-schema: {type: text}')), "type: text", "json-schema"),
    ("an entity that is no text", ("partId: {type: string,", "partId: {type: array, x-entity: imodel,"), "x-entity", "x-entity"),
    ("a tool's rule that changes its inputs", ('find-part: {display', "find-part: {x-schema: {properties: {}}, display"), "x-schema: {properties", "json-schema"),
    ("a name that clients refuse", ("partId: {type: string,", "part*: {type: string,"), "part*", "name"),
    ("a name inside an object that clients refuse", ("partId: {type: string,", f"partId: {{type: object, x-schema: {{properties: {{{'n' * 61}: {{type: string}}}}}},"), "x-schema: {properties", "name"),
    # names that the engine gives
    ("an input called limit", ("          " + KIND + "\n        call", "          limit: {type: integer, description: x}\n        call"), "limit:", "reserved-input"),
    ("an output called error", (NAME, NAME.replace("name: {type", "error: {type")), "error:", "reserved-output"),
    # outputs
    ("an output that is no path", ('mapping: "$.size"', "mapping: size"), "mapping: size", "expression"),
    ("an output from nowhere", (NAME, NAME.replace(', mapping: "$.name"', "")), "name: {type: string}}}\n      find", "output"),
    ("an output from two places", (NAME, NAME.replace('mapping: "$.name"', 'mapping: "$.name", value: x')), "value: x", "output"),
    ("a static number that is none", (NAME, NAME.replace('string, mapping: "$.name"', "number, value: many")), "many", "output"),
    ("a static boolean that is none", (NAME, NAME.replace('string, mapping: "$.name"', 'boolean, value: "yes"')), '"yes"', "output"),
    ("a call whose output is a map", (GET, GET.replace('- {type: object, properties: {name: {type: string, mapping: "$.name"}}}', "  name: {type: string}")), "get-part\n        with: {id: parts.partId}\n¶        outputParameters:\n          name", "output"),
    ("a call without outputs", (GET, GET.partition("\n        outputP")[0] + "\n      find"), "get-part:\n        description", "output"),
    # one thing to do
    ("nothing to do", ("find-part: {display: \"Find part\", ref: flows.find-part}", 'other: {description: "Does nothing."}\n      find-part: {ref: flows.find-part}'), "other:", "required-key"),
    ("a ref and a call", ("ref: flows.find-part}", "ref: flows.find-part, call: parts-api.get-part}"), "call: parts-api.get-part}", "one-action"),
    ("a ref and outputs", ("ref: flows.find-part}", "ref: flows.find-part, outputParameters: [{type: object, properties: {}}]}"), "properties: {}}]}", "one-action"),
    ("a call and mappings", (GET, "mappings: [{target: a, value: $.b}]\n        " + GET), "mappings: [", "one-action"),
    ("steps and with", ("        semantics: {safe: true}\n", "        with: {a: b}\n"), "with: {a: b}", "one-action"),
    ("no description", ('        description: "Read a part."\n', ""), "      get-part:\n        inputP", "required-key"),
    # what hints say
    ("a write that is said to be read-only", (GET, "hints: {readOnly: true}\n        " + GET.replace("get-part\n", "delete-part\n")), "readOnly: true", "hints"),
    ("read-only and destructive", (GET, "hints: {readOnly: true, destructive: true}\n        " + GET), "destructive", "hints"),
    # resources and prompts
    ("a variable that is not used", ("parts://parts/{partId}", "parts://{amount}/{partId}"), "{amount}", "unused-input"),
    ("an entity of no variable", ('        uri: "parts:', '        x-entity: {part: imodel}\n        uri: "parts:'), "x-entity", "x-entity"),
    ("a URI without a scheme", ("parts://parts/{partId}", "parts/{partId}"), "parts/{partId}", "uri"),
    ("a URI with an operator", ("parts://parts/{partId}", "parts://parts/{partId}{?a}"), "{?a}", "uri"),
    ("a URI with a variable twice", ("parts://parts/{partId}", "parts://{partId}/{partId}"), "parts://{partId}", "uri"),
    ("a resource that writes", ("        description: \"A part.\"\n        call: parts-api.get-part", "        description: \"A part.\"\n        call: parts-api.delete-part"), "      part:\n        display", "resource-reads"),
    ("a resource that pages", ("        description: \"A part.\"\n        call: parts-api.get-part\n        with: {id:", "        description: \"A part.\"\n        call: parts-api.list-parts\n        with: {kind:"), "      part:\n        display", "resource-reads"),
    ("a binary resource of no binary operation", ('        uri: "parts:', '        binary: true\n        uri: "parts:'), "      part:\n        display", "resource-reads"),
    ("an argument that a prompt does not have", ("Describe {{part}}.", "Describe {{part}} {{tone}}."), "{{tone}}", "slot-without-value"),
    ("an argument that a prompt does not use", ("Describe {{part}}.", "Describe it."), "arguments: {part", "unused-input"),
    ("a prompt with stray braces", ("Describe {{part}}.", "Describe {{part}} }}."), "Describe {{", "expression"),
    # namespaces
    ("an exposes namespace twice", ("    namespace: parts\n", "    namespace: parts-api\n"), "    namespace: parts-api\n    tools", "unique-namespace"),
    ("an aggregate namespace twice", ("  aggregates:\n", "  aggregates:\n  - {display: d, namespace: flows, flows: {f: {description: d}}}\n"), "    namespace: flows\n", "unique-namespace"),
    ("a variable bound twice", ("keys: {PARTS_TOKEN: PARTS_TOKEN}}", "keys: {PARTS_TOKEN: PARTS_TOKEN}}\n- {namespace: b, keys: {PARTS_TOKEN: B}}"), "namespace: b", "unique-namespace"),
    ("an operation twice", ("change-part: {method: PATCH", "list-parts: {method: PATCH"), "list-parts: {method: PATCH", "unique-operation"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_rule_of_linking_names_its_line(folder: Folder, change: tuple[str, str], part: str, rule: str) -> None:
    text = bent(change)
    problems = folder.broken(text)
    assert (line_of(text, part), rule) in said(problems), [str(problem) for problem in problems]


def test_an_unresolved_name_suggests_the_one_that_was_meant(folder: Folder) -> None:
    (problem,) = folder.broken(bent(("ref: flows.find-part", "ref: flows.find-port")))
    assert "there is no flow 'flows.find-port': did you mean 'flows.find-part'?" in problem.message


def test_one_mistake_is_told_once(folder: Folder) -> None:
    for change in (
        (GET, GET.replace("get-part\n", "get-port\n")),
        ("kind: parts.kind}", "kind: parts.kind, colour: red}"),
        ('mapping: "$.size"', "mapping: size"),
        ("index: all", "index: every"),
        ("default: bolt", "default: screw"),
    ):  # fmt: skip
        assert len(folder.broken(bent(change))) == 1, change


def test_a_consumed_namespace_stands_once_in_a_file(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    again = '  - {from: "./bolts.yaml", import: bolts-api, as: parts-api}\n  aggregates:\n'
    text = bent(("  aggregates:\n", again))
    assert (line_of(text, "as: parts-api"), "unique-namespace") in said(folder.broken(text))


def test_the_element_of_x_each_is_known_in_its_own_step_alone(folder: Folder) -> None:
    later = (
        '          after: {type: call, call: parts-api.get-part, with: {id: "{{each.id}} again"}}\n        mappings:\n'
    )
    text = bent(("        mappings:\n", later))
    assert said(folder.broken(text)) == [(line_of(text, "again"), "expression")]


def test_a_flow_of_two_tools_reports_its_mistake_once(folder: Folder) -> None:
    two = ("find-part: {display", "seek-part: {ref: flows.find-part}\n      find-part: {display")
    assert len(folder.broken(bent(two, ("index: all", "index: every")))) == 1


def test_a_path_whose_input_is_guarded_by_x_when_may_lack_it(folder: Folder) -> None:
    optional = (
        'kind: {type: string, description: "Kind."}',
        'kind: {type: string, required: false, description: "Kind."}',
    )
    plain = bent(optional, ('x-each: "$.one", with: {id: "{{each.id}}"}', "with: {id: flows.kind}"))
    assert [problem.rule for problem in folder.broken(plain)] == ["slot-without-value"]
    guarded = bent(optional, ('x-each: "$.one", with: {id: "{{each.id}}"}', 'x-when: "$.kind", with: {id: flows.kind}'))
    assert folder.link(guarded).tools


def test_a_slot_in_a_parameter_s_value_is_an_input(folder: Folder) -> None:
    text = bent(("kind: {in: query}", "filter: {in: query, value: \"kind eq '{{kind}}'\"}"))
    assert "kind" in folder.link(text).operations["parts-api.list-parts"].inputs


# --- more than one file -----------------------------------------------------------------------------------------


def test_an_imported_section_is_linked_under_its_name_or_an_alias(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    assert list(folder.link(TOOL).tools) == ["list-bolts"]
    aliased = bent(
        ("import: bolts-api}", "import: bolts-api, as: fasteners}"), ("call: bolts-api", "call: fasteners"), text=TOOL
    )
    assert folder.link(aliased).tools["list-bolts"].operations[0].key == "bolts-api.list-bolts"


@pytest.mark.parametrize(
    ("change", "part", "says"),
    [
        (("./bolts.yaml", "./nuts.yaml"), "nuts.yaml", "relative to the importing file"),
        (("./bolts.yaml", "./bolts\\0.yaml"), "bolts\\0", "there is no file"),
        (("import: bolts-api", "import: bolt-api, as: bolts-api"), "import: bolt-api", "did you mean 'bolts-api'?"),
        (("./bolts.yaml", "./file0.yaml"), "file0.yaml", "is a whole capability"),
        (("import: bolts-api}", 'import: bolts-api}\n  aggregates:\n  - {from: "./x.yaml", import: x}'), "./x.yaml", "flows are written"),
        (("  - type: mcp\n", '  - {from: "./x.yaml", import: x}\n  - type: mcp\n'), "./x.yaml", "is written in its own file"),
        (("capability:", 'binds:\n- {from: "./x.yaml", import: x}\ncapability:'), "./x.yaml", "binds are written"),
    ],
)  # fmt: skip
def test_an_import_that_cannot_be_names_its_line(folder: Folder, change: tuple[str, str], part: str, says: str) -> None:
    folder.write(SECTION, "bolts.yaml")
    text = bent(change, text=TOOL)
    (problem,) = folder.broken(text)  # and no unresolved call follows from it
    assert (problem.line, problem.rule) == (line_of(text, part), "import")
    assert says in problem.message


def test_a_section_that_imports_is_refused_even_when_it_imports_itself(folder: Folder) -> None:
    nested = SECTION + '- {from: "./bolts.yaml", import: bolts-api, as: again}\n'
    folder.write(nested, "bolts.yaml")
    (problem,) = folder.broken(TOOL)
    assert (Path(problem.file).name, problem.line, problem.rule) == ("bolts.yaml", line_of(nested, "again"), "import")


def test_a_mistake_in_an_imported_file_names_that_file_once(folder: Folder) -> None:
    folder.write(bent(("list-bolts: {}", "list-bolts: {metod: GET}"), text=SECTION), "bolts.yaml")
    other = bent(("      list-bolts:\n", "      other:\n"), text=TOOL)
    (problem,) = folder.broken(TOOL, other)
    assert (Path(problem.file).name, problem.rule) == ("bolts.yaml", "known-key")


def test_a_section_alone_is_not_served(folder: Folder) -> None:
    assert said(folder.broken(SECTION)) == [(1, "capability")]


def test_variables_of_an_imported_section_may_be_bound_by_the_file_that_imports_it(folder: Folder) -> None:
    login = '  authentication: {type: bearer, token: "{{BOLTS}}"}\n  resources:'
    secured = bent(("  resources:", login), text=SECTION)
    folder.write(secured, "bolts.yaml")
    (problem,) = folder.broken(TOOL)
    assert (problem.rule, "BOLTS" in problem.message) == ("slot-without-value", True)
    bound = bent(("capability:", "binds:\n- {namespace: env, keys: {BOLTS: MY_BOLTS}}\ncapability:"), text=TOOL)
    credential = folder.link(bound).operations["bolts-api.list-bolts"].credential
    assert credential is not None
    assert credential.variables == {"BOLTS": "MY_BOLTS"}


def test_a_tool_name_that_another_file_has_is_refused(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    problems = folder.broken(TOOL, TOOL)
    assert [(Path(problem.file).name, problem.rule) for problem in problems] == [("file1.yaml", "unique-tool")]
    assert f"stands already in {folder.path.resolve() / 'file0.yaml'}" in problems[0].message


def test_a_resource_or_prompt_that_another_file_has_is_refused_whatever_its_variables_are_called(
    folder: Folder,
) -> None:
    other = bent(
        ("parts://parts/{partId}", "parts://parts/{id}"),
        ("        with: {id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n    prompts", "        with: {id: parts.id}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n    prompts"),
    ).replace("parts-api", "others-api")  # fmt: skip
    rules = {problem.rule for problem in folder.broken(GOOD, other)}
    assert rules == {"unique-tool", "unique-resource", "unique-prompt"}


def test_two_files_cannot_consume_under_one_namespace(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    problems = folder.broken(TOOL, GOOD.replace("parts-api", "bolts-api"))
    assert [(Path(problem.file).name, problem.rule) for problem in problems] == [("file1.yaml", "unique-namespace")]


def test_a_user_s_file_cannot_take_the_name_of_a_shipped_tool(folder: Folder) -> None:
    from itwin_mcp.capability.catalog import shipped

    folder.write(SECTION, "bolts.yaml")
    mine = folder.write(bent(("      list-bolts:\n", "      list-itwins:\n"), text=TOOL), "mine.yaml")
    with pytest.raises(CapabilityError) as caught:
        link_files([*shipped(), mine])
    (problem,) = caught.value.problems
    assert (problem.file, problem.rule) == (str(mine.resolve()), "unique-tool")


def test_the_same_file_given_twice_is_read_once(folder: Folder) -> None:
    file = folder.write(GOOD)
    assert len(link_files([file, file.parent / "." / file.name]).tools) == 3


def test_a_job_is_looked_at_with_a_tool_that_exists(folder: Folder) -> None:
    created = '\n      make-part:\n        description: "Make."\n        call: parts-api.create-part\n        with: {label: x}\n        outputParameters: [{type: object, properties: {name: {type: string, mapping: "$.name"}}}]\n      find-part: {display'
    text = bent(
        ("      find-part: {display", created.lstrip("\n")),
        ("done: [ready]\n", "done: [ready]\n              check: get-parts\n"),
    )
    (problem,) = folder.broken(text)
    assert (problem.line, problem.rule) == (line_of(text, "      make-part:"), "x-wait")
    assert "did you mean 'get-part'?" in problem.message
    assert folder.link(text.replace("check: get-parts", "check: get-part")).tools


def test_the_platform_s_origin_is_the_same_for_capability_and_upstream() -> None:
    assert PLATFORM_ORIGIN == DECLARED_PLATFORM


def test_a_default_port_is_not_another_origin(folder: Folder) -> None:
    text = bent(("https://parts.example.org/v1", "https://Parts.Example.org:443/v1"))
    assert folder.link(text).operations["parts-api.list-parts"].origin == "https://parts.example.org"
