"""Linking of files: unknown, duplicate and unused names and broken rules are reported with their lines."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)
from pathlib import Path

import pytest

from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CapabilityError
from tests.capability.files import GOOD, SECTION, TOOL, Folder, edit, find_line, list_rules

GET = "call: parts-api.get-part\n        with: {id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n      find"  # fmt: skip
NAME = 'name: {type: string, mapping: "$.name"}}}\n      find'
SIZE = 'size: {type: number, mapping: "$.size"}'
NAMED = "parts: {type: array, items: {id: {type: string}, name: {type: string}}}"
TAKEN = "parts: {type: array, items: {id: {type: string}, name: {type: string, x-take: {name: NAME, of: id}}}}"
GET_PART = "get-part: {method: GET, inputParameters: {id: {in: path}}}"
NAMES = 'get-part: {method: GET, inputParameters: {id: {in: path}}, x-names: {ids: id, most: 5, items: "$.parts", texts: ["{{name}}"]}}'
KIND = 'kind: {type: string, required: false, description: "Kind.", x-schema: {enum: [bolt, nut], default: bolt}}'

# (what is wrong, the change, a text on the line of the problem, the rule)
CASES = [
    # calls, refs, steps
    ("a call into an unknown namespace", ("all: {type: call, call: parts-api", "all: {type: call, call: partz-api"), "partz-api", "unresolved-call"),
    ("a call of an unknown operation", (GET, GET.replace("get-part\n", "get-port\n")), "get-port", "unresolved-call"),
    ("a ref to an unknown flow", ("ref: flows.find-part", "ref: flows.find-port"), "find-port", "unresolved-ref"),
    ("a lookup in an unknown step", ("index: all", "index: every"), "index: every", "unresolved-step"),
    ("a lookup in a later step", ("index: all", "index: whole"), "index: whole", "unresolved-step"),
    ("a lookup of an unknown value", ('lookupValue: "$.kind"', 'lookupValue: "$.sort"'), "$.sort", "unresolved-step"),
    ("x-each over an unknown step", ('x-each: "$.one"', 'x-each: "$.ones"'), "$.ones", "unresolved-step"),
    ("a path into an input", ('lookupValue: "$.kind"', 'lookupValue: "$.kind.x"'), "$.kind.x", "expression"),
    ("a step value that is a rich path", ('value: "$.whole"', 'value: "$.whole[?@.id]"'), "$.whole[?", "expression"),
    ("a step value without a step name", ('value: "$.whole"', 'value: "$[*].id"'), "$[*].id", "expression"),
    ("x-unless of an unknown step", ('x-each: "$.one"', 'x-unless: "$.ones", x-each: "$.one"'), "$.ones", "unresolved-step"),
    ("a long x-each over an unknown step", ('x-each: "$.one"', 'x-each: {in: ["$.one", "$.ones"], most: 5}'), "$.ones", "unresolved-step"),
    ("x-each named like an input", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, as: kind}'), "as: kind", "unique-name"),
    ("x-each named like its step", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, as: whole}'), "as: whole", "unique-name"),
    ("x-each named like an earlier step", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, as: all}'), "as: all", "unique-name"),
    ("x-repeat with x-each", ('x-each: "$.one"', 'x-each: "$.one", x-repeat: {until: "$.last", most: 5}'), "x-repeat", "x-repeat"),
    ("x-repeat of a paged operation", ("all: {type: call,", 'all: {x-repeat: {until: "$.last", most: 5}, type: call,'), "x-repeat", "x-repeat"),
    ("x-repeat until a text that is not a path", ('x-each: "$.one", with: {id: "{{each.id}}"}', 'x-repeat: {until: last, most: 5}, with: {id: "{{one[0].id}}"}'), "until: last", "expression"),
    ("x-most of an operation that does not page", ('x-each: "$.one"', 'x-most: 5, x-each: "$.one"'), "x-most", "x-most"),
    ("x-compare with many dates", ('match: kind, lookupValue: "$.kind"', 'match: kind, x-compare: before, lookupValue: "$.all.parts[*].made"'), "x-compare", "x-compare"),
    ("x-compare with x-count", ("match: kind,", "match: kind, x-compare: before, x-count: times,"), "x-count", "x-count"),
    ("x-count in an existing field", ("match: kind,", "match: kind, x-count: name,"), "x-count", "x-count"),
    ("x-count without a field in the output", ('{target: found.parts, value: "$.whole"}', '{target: found.parts, value: "$.whole", x-count: times}'), "x-count", "x-count"),
    ("x-add from an unknown step", ("match: kind,", 'match: kind, x-add: {more: {take: "$.ids", in: "$.roles.roles", match: id, of: name}},'), "x-add", "unresolved-step"),
    ("x-add from a text that is not a path", ("match: kind,", "match: kind, x-add: {more: {take: ids}},"), "x-add", "expression"),
    ("x-changes to a value that is not an input", ('match: kind, lookupValue: "$.kind"', 'match: kind, x-changes: {field: rights, otherwise: [all], keep: kind}, lookupValue: "$.all.parts"'), "x-changes", "x-changes"),
    ("x-changes with x-count", ("match: kind,", "match: kind, x-count: times, x-changes: {field: rights, otherwise: [all], keep: kind},"), "x-changes", "x-changes"),
    ("x-changes with an unknown step in otherwise", ("match: kind,", "match: kind, x-changes: {field: rights, otherwise: [others], keep: kind},"), "x-changes", "unresolved-step"),
    ("x-changes with an unknown input in keep", ("match: kind,", "match: kind, x-changes: {field: rights, otherwise: [all], keep: sort},"), "x-changes", "unresolved-input"),
    ("x-each with an unknown input in again", ('x-each: "$.one"', 'x-each: {in: ["$.one"], most: 5, again: kinds}'), "again: kinds", "unresolved-input"),
    ("x-unless of a known and an unknown step", ('x-each: "$.one"', 'x-unless: ["$.kind", "$.ones"], x-each: "$.one"'), "$.ones", "unresolved-step"),
    ("x-compare with a text that is not a date", ('match: kind, lookupValue: "$.kind"', 'match: kind, x-compare: before, lookupValue: "spring"'), "x-compare", "x-compare"),
    ("x-within with an input as the value", ("match: kind,", "match: kind, x-within: team,"), "x-within", "x-within"),
    ("x-across of an operation that does not page", (GET, GET.replace("outputParameters", 'x-across: {fills: id, in: ["$.partId"]}\n        outputParameters', 1)), "x-across", "x-across"),
    ("x-across that fills an unknown input", ("        with: {kind: parts.kind}", '        with: {kind: parts.kind}\n        x-across: {fills: team, in: ["$.kind"]}'), "fills: team", "unknown-input"),
    ("x-across over an unknown step", ("        with: {kind: parts.kind}", '        with: {kind: parts.kind}\n        x-across: {fills: kind, in: ["$.kinds"]}'), "$.kinds", "unresolved-step"),
    ("x-across whose step changes something", ("        with: {kind: parts.kind}", '        with: {kind: parts.kind}\n        x-across: {fills: kind, in: ["$.kind"], steps: {go: {type: call, call: parts-api.delete-part, with: {id: "1"}}}}'), "x-across", "x-across"),
    ("x-across next to steps", ('        semantics: {safe: true}', '        semantics: {safe: true}\n        x-across: {fills: kind, in: ["$.kind"]}'), "x-across", "one-action"),
    ("x-containing of an unknown input", ("        with: {kind: parts.kind}", "        with: {kind: parts.kind}\n        x-containing: {search: [name]}"), "x-containing", "unresolved-input"),
    ("x-containing of an operation that does not page", (GET, GET.replace("outputParameters", "x-containing: {partId: [name]}\n        outputParameters", 1)), "x-containing", "x-containing"),
    ("a step value that is not a path", ('value: "$.whole"', 'value: "whole"'), '"whole"', "expression"),
    ("a step named like an input", ("one: {type: lookup", "kind: {type: lookup"), "kind: {type: lookup", "unique-name"),
    ("a step named each", ("one: {type: lookup, index: all", "each: {type: lookup, index: all"), "each: {type", "unique-name"),
    ("each outside of x-each", (', x-each: "$.one"', ""), "{{each.id}}", "expression"),
    ("a mapping to an unknown output", ("target: found.parts", "target: found.bits"), "found.bits", "unresolved-target"),
    ("a mapping below an array", ("target: found.parts", "target: found.parts.id"), "found.parts.id", "unresolved-target"),
    ("an output that no mapping fills", ("          found:\n", "          more: {type: string}\n          found:\n"), "more:", "output"),
    ("an output that two mappings fill", ('{target: found.parts, value: "$.whole"}', '{target: found.parts, value: "$.whole"}\n        - {target: found, value: "$.one"}'), "target: found,", "unresolved-target"),
    # inputs and slots
    ("an input that does not exist", ("kind: parts.kind}", 'kind: "{{kind}}{{sort}}"}'), "{{sort}}", "slot-without-value"),
    ("an input of another namespace, which would be sent as text", (GET, GET.replace("id: parts.partId", "id: part.partId")), "id: part.partId", "unresolved-input"),
    ("the $this of the format's documents", (GET, GET.replace("id: parts.partId", "id: \"$this.parts.x-{{partId}}\"")), "$this", "unresolved-input"),
    ("a path slot without a value", (GET, GET.replace("\n        with: {id: parts.partId}", "")), "get-part:\n        description", "slot-without-value"),
    ("braces that are not a slot", ('path: "/parts"', 'path: "/parts/{{a"'), "{{a", "expression"),
    ("braces around a slot", ('label: "Part {{label}}"', 'label: "{{{label}}}"'), "{{{label}}}", "expression"),
    ("a section of Mustache", ('label: "Part {{label}}"', 'label: "{{#label}}x"'), "{{#label}}", "expression"),
    ("a path with ..", ('path: "/parts"', 'path: "/a/../parts"'), "/a/../parts", "path"),
    ("a base with ..", ("parts.example.org/v1", "parts.example.org/v1/.."), "v1/..", "base-uri"),
    ("a port that is invalid", ("parts.example.org/v1", "parts.example.org:99999/v1"), ":99999", "base-uri"),
    ("a value with a slot of its own name", ("kind: {in: query}", 'kind: {in: query, value: "k-{{kind}}"}'), "k-{{kind}}", "expression"),
    ("a consumed output that is not a path", ("change-part: {method: PATCH,", "change-part: {outputParameters: {a: {type: string, value: a}}, method: PATCH,"), "value: a", "expression"),
    # the wire
    ("a header twice", ('Accept: {in: header, value: "application/json"}', 'Accept: {in: header, value: "application/json"}\n      accept: {in: header, value: "text/plain"}'), "text/plain", "unique-wire"),
    ("a query parameter twice", ("kind: {in: query}", 'kind: {in: query, x-wire: "$top"}'), 'top: {in: query, x-wire: "$top"}\n            x-page', "unique-wire"),
    ("a header that only the client sets", ("kind: {in: query}", "kind: {in: header, x-wire: Authorization}"), "Authorization", "header"),
    ("a header with a line end", ("kind: {in: query}", 'kind: {in: header, x-wire: "a\\nb"}'), "a\\nb", "header"),
    ("a wire name in a path", ("get-part: {method: GET, inputParameters: {id: {in: path}}}", "get-part: {method: GET, inputParameters: {id: {in: path, x-wire: x}}}"), "x-wire: x", "x-wire"),
    # credentials
    ("a variable that is not bound", ('token: "{{PARTS_TOKEN}}"', 'token: "{{OTHER}}"'), "{{OTHER}}", "slot-without-value"),
    ("the platform's token for another origin", ("keys: {PARTS_TOKEN: PARTS_TOKEN}", "keys: {PARTS_TOKEN: ITWIN_ACCESS_TOKEN}"), 'token: "{{PARTS_TOKEN}}"', "platform-token"),
    # paging and waiting
    ("paging by an unknown parameter", ("size: top", "size: tops"), "size: tops", "x-page"),
    ("paging through many lists", ('items: "$.parts"', 'items: "$.parts[*]"'), "$.parts[*]", "x-page"),
    ("paging by a path that is invalid", ('next: "$._links.next.href"', "next: link"), "next: link", "expression"),
    ("a POST that pages", ("            method: GET\n", "            method: POST\n"), "x-page", "x-page"),
    ("a paging parameter that the file sets", ("kind: parts.kind}", "kind: parts.kind, top: 5}"), "top: 5", "reserved-input"),
    ("paging and waiting", ("            method: POST\n", "            method: POST\n            x-page: {style: link, items: $.a, next: $.b}\n"), "            x-wait:", "x-wait"),
    ("polling an unknown operation", ("poll: parts-api.get-part", "poll: parts-api.get-parts"), "get-parts", "unresolved-call"),
    ("polling another namespace", ("poll: parts-api.get-part", "poll: other-api.get-part"), "other-api", "unresolved-call"),
    ("polling with a write", ("poll: parts-api.get-part", "poll: parts-api.delete-part"), "poll: parts-api.delete-part", "x-wait"),
    ("polling where no slot takes the handle", ("poll: parts-api.get-part", "poll: parts-api.list-parts"), "poll: parts-api.list", "x-wait"),
    ("an unknown handle slot", ("as: partId}", "as: partId, in: part}"), "poll: parts-api", "x-wait"),
    ("a handle from an unknown input", ("handle: {header: Location", "handle: {input: id"), "input: id", "x-wait"),
    ("a state that is both pending and failed", ("done: [ready]", "done: [ready]\n              failed: [RUNNING]"), "failed: [RUNNING]", "x-wait"),
    ("a state that is both pending and done", ("done: [ready]", "done: [running]"), "done: [running]", "x-wait"),
    ("a state that is not a path", ('state: "$.state"', "state: state"), "state: state", "expression"),
    # inputs' schemas
    ("a default that does not fit", ("default: bolt", "default: screw"), "default: screw", "json-schema"),
    ("an enum of another type", ("enum: [bolt, nut]", "enum: [bolt, 10]"), "enum: [bolt, 10]", "json-schema"),
    ("a schema that is invalid", ("x-schema: {enum: [bolt, nut], default: bolt}", "x-schema: {minLength: many}"), "minLength", "json-schema"),
    ("a pattern that is invalid", ("x-schema: {enum: [bolt, nut], default: bolt}", 'x-schema: {pattern: "["}'), "pattern", "json-schema"),
    ("a reference out of a schema", ("x-schema: {enum: [bolt, nut], default: bolt}", 'x-schema: {allOf: [{$ref: "https://example.org/x"}]}'), "$ref", "json-schema"),
    ("a schema of an output that is invalid", (NAME, NAME.replace('mapping: "$.name"', 'mapping: "$.name", x-schema: {type: text}')), "type: text", "json-schema"),
    ("an entity argument of type integer", ("partId: {type: string,", "partId: {type: integer, x-entity: imodel,"), "x-entity", "x-entity"),
    ("a tool's rule that changes its inputs", ('find-part: {display', "find-part: {x-schema: {properties: {}}, display"), "x-schema: {properties", "json-schema"),
    ("a name that clients refuse", ("partId: {type: string,", "part*: {type: string,"), "part*", "name"),
    ("a name inside an object that clients refuse", ("partId: {type: string,", f"partId: {{type: object, x-schema: {{properties: {{{'n' * 61}: {{type: string}}}}}},"), "x-schema: {properties", "name"),
    # names that the engine uses
    ("an input named limit", ("          " + KIND + "\n        call", "          limit: {type: integer, description: x}\n        call"), "limit:", "reserved-input"),
    # outputs
    ("an output that is not a path", ('mapping: "$.size"', "mapping: size"), "mapping: size", "expression"),
    ("an output without a source", (NAME, NAME.replace(', mapping: "$.name"', "")), "name: {type: string}}}\n      find", "output"),
    ("an output with two sources", (NAME, NAME.replace('mapping: "$.name"', 'mapping: "$.name", value: x')), "value: x", "output"),
    ("a static number that is invalid", (NAME, NAME.replace('string, mapping: "$.name"', "number, value: many")), "many", "output"),
    ("a static boolean that is invalid", (NAME, NAME.replace('string, mapping: "$.name"', 'boolean, value: "yes"')), '"yes"', "output"),
    ("a call whose output is a map", (GET, GET.replace('- {type: object, properties: {name: {type: string, mapping: "$.name"}}}', "  name: {type: string}")), "get-part\n        with: {id: parts.partId}\n¶        outputParameters:\n          name", "output"),
    # names
    ("a name from an operation without x-names", (SIZE, 'size: {type: string, x-take: {name: parts-api.get-part, of: id}}'), "x-take", "x-take"),
    ("a name from an unknown operation", (SIZE, 'size: {type: string, x-take: {name: parts-api.get-parts, of: id}}'), "x-take", "unresolved-call"),
    ("a name from a step of a single call", (SIZE, 'size: {type: string, x-take: {name: all, of: id}}'), "x-take", "x-take"),
    ("a name from an unknown step", (NAMED, TAKEN.replace("NAME", "every")), "name: every", "x-take"),
    ("a name without its id next to it", (NAMED, TAKEN.replace("NAME, of: id", "all, of: number")), "of: number", "x-take"),
    ("a name of itself", (NAMED, TAKEN.replace("NAME, of: id", "all, of: name")), "of: name", "x-take"),
    ("a name that has a mapping", (SIZE, 'size: {type: string, mapping: "$.size", x-take: {name: parts-api.get-part, of: id}}'), "x-take", "x-take"),
    ("a name that is a number", (SIZE, 'size: {type: number, x-take: {name: parts-api.get-part, of: id}}'), "x-take", "x-take"),
    ("x-names with an unknown input", (GET_PART, NAMES.replace("ids: id", "ids: key")), "ids: key", "x-names"),
    ("x-names with an invalid pattern", (GET_PART, NAMES.replace("most: 5", 'most: 5, pattern: "["')), 'pattern: "["', "x-names"),
    ("x-names with an invalid path", (GET_PART, NAMES.replace('"$.parts"', '"parts"')), 'items: "parts"', "expression"),
    ("x-names with stray braces", (GET_PART, NAMES.replace("{{name}}", "{{names")), "{{names", "expression"),
    ("x-names of a PUT", (GET_PART, NAMES.replace("GET", "PUT")), "x-names", "x-names"),
    # exactly one action
    ("a tool without an action", ("find-part: {display: \"Find part\", ref: flows.find-part}", 'other: {description: "Does nothing."}\n      find-part: {ref: flows.find-part}'), "other:", "required-key"),
    ("a ref and a call", ("ref: flows.find-part}", "ref: flows.find-part, call: parts-api.get-part}"), "call: parts-api.get-part}", "one-action"),
    ("a ref and outputs", ("ref: flows.find-part}", "ref: flows.find-part, outputParameters: [{type: object, properties: {}}]}"), "properties: {}}]}", "one-action"),
    ("a call and mappings", (GET, "mappings: [{target: a, value: $.b}]\n        " + GET), "mappings: [", "one-action"),
    ("steps and with", ("        semantics: {safe: true}\n", "        with: {a: b}\n"), "with: {a: b}", "one-action"),
    ("no description", ('        description: "Read a part."\n', ""), "      get-part:\n        inputP", "required-key"),
    # hints
    ("a DELETE with the hint readOnly", (GET, "hints: {readOnly: true}\n        " + GET.replace("get-part\n", "delete-part\n")), "readOnly: true", "hints"),
    ("read-only and destructive", (GET, "hints: {readOnly: true, destructive: true}\n        " + GET), "destructive", "hints"),
    # resources and prompts
    ("an entity of an unknown variable", ('        uri: "parts:', '        x-entity: {part: imodel}\n        uri: "parts:'), "x-entity", "x-entity"),
    ("a URI without a scheme", ("parts://parts/{partId}", "parts/{partId}"), "parts/{partId}", "uri"),
    ("a URI with an operator", ("parts://parts/{partId}", "parts://parts/{partId}{?a}"), "{?a}", "uri"),
    ("a URI with a variable twice", ("parts://parts/{partId}", "parts://{partId}/{partId}"), "parts://{partId}", "uri"),
    ("a resource that writes", ("        description: \"A part.\"\n        call: parts-api.get-part", "        description: \"A part.\"\n        call: parts-api.delete-part"), "      part:\n        display", "resource-reads"),
    ("a resource that pages", ("        description: \"A part.\"\n        call: parts-api.get-part\n        with: {id:", "        description: \"A part.\"\n        call: parts-api.list-parts\n        with: {kind:"), "      part:\n        display", "resource-reads"),
    ("a binary resource of an operation that is not binary", ('        uri: "parts:', '        binary: true\n        uri: "parts:'), "      part:\n        display", "resource-reads"),
    ("an unknown argument in a prompt", ("Describe {{part}}.", "Describe {{part}} {{tone}}."), "{{tone}}", "slot-without-value"),
    ("a prompt with stray braces", ("Describe {{part}}.", "Describe {{part}} }}."), "Describe {{", "expression"),
    # x-read
    ("x-read of an unknown operation", (NAME, NAME.replace('"$.name"', '"$.name", x-read: {call: parts-api.get-port}')), "get-port", "unresolved-call"),
    ("x-read that writes", (NAME, NAME.replace('"$.name"', '"$.name", x-read: {call: parts-api.change-part, with: {id: "{{each.id}}"}}')), "change-part, with", "x-read"),
    ("x-read that pages", (NAME, NAME.replace('"$.name"', '"$.name", x-read: {call: parts-api.list-parts}')), "list-parts}", "x-read"),
    ("x-read without an id", (NAME, NAME.replace('"$.name"', '"$.name", x-read: {call: parts-api.get-part}')), "get-part}", "slot-without-value"),
    ("x-read in a list without when", ('mapping: "$.size"', 'mapping: "$.size", x-read: {call: parts-api.get-part, with: {id: "{{each.id}}"}}'), "x-read", "x-read"),
    ("x-read with an unknown argument in when", (NAME, NAME.replace('"$.name"', '"$.name", x-read: {call: parts-api.get-part, with: {id: "{{each.id}}"}, when: "$.more"}')), "$.more", "unresolved-step"),
    # namespaces
    ("an exposes namespace twice", ("    namespace: parts\n", "    namespace: parts-api\n"), "    namespace: parts-api\n    tools", "unique-namespace"),
    ("an aggregate namespace twice", ("  aggregates:\n", "  aggregates:\n  - {display: d, namespace: flows, flows: {f: {description: d}}}\n"), "    namespace: flows\n", "unique-namespace"),
    ("a variable bound twice", ("keys: {PARTS_TOKEN: PARTS_TOKEN}}", "keys: {PARTS_TOKEN: PARTS_TOKEN}}\n- {namespace: b, keys: {PARTS_TOKEN: B}}"), "namespace: b", "unique-namespace"),
    ("an operation twice", ("change-part: {method: PATCH", "list-parts: {method: PATCH"), "list-parts: {method: PATCH", "unique-operation"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_link_files_reports_a_broken_rule_with_its_line(
    folder: Folder, change: tuple[str, str], part: str, rule: str
) -> None:
    text = edit(change)
    problems = folder.find_problems(text)
    assert (find_line(text, part), rule) in list_rules(problems), [str(problem) for problem in problems]


# The format allows these, so the file is served; `check` warns of them.
WARNED = [
    ("an output named error", (NAME, NAME.replace("name: {type", "error: {type")), "error:", "reserved-output"),
    ("a flow that no tool refers to", ('find-part: {display: "Find part", ref: flows.find-part}', "get: {description: d, " + "call: parts-api.get-part, with: {id: x}, outputParameters: [{type: object, properties: {}}]}"), "      find-part:\n", "unused-flow"),
    ("an unused input", ("partId: {type: string, description: \"Part.\"}", 'partId: {type: string, description: "Part."}\n          colour: {type: string, description: "Not used."}'), "colour", "unused-input"),
    ("an unknown key in with", ("kind: parts.kind}", "kind: parts.kind, colour: red}"), "colour", "unknown-input"),
    ("a path slot whose input may be left out", ('partId: {type: string, description', 'partId: {type: string, required: false, description'), "id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n      find", "slot-without-value"),
    ("a path parameter without a slot", ("change-part: {method: PATCH, inputParameters: {", "change-part: {method: PATCH, inputParameters: {no: {in: path}, "), "no: {in: path}", "unused-input"),
    ("a variable that is not used", ("parts://parts/{partId}", "parts://{amount}/{partId}"), "{amount}", "unused-input"),
    ("an unused argument of a prompt", ("Describe {{part}}.", "Describe it."), "arguments: {part", "unused-input"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part", "rule"), [case[1:] for case in WARNED], ids=[case[0] for case in WARNED])
def test_link_files_warns_of_what_the_format_allows(
    folder: Folder, change: tuple[str, str], part: str, rule: str
) -> None:
    text = edit(change)
    warnings = list(folder.link(text).warnings)
    assert list_rules(warnings) == [(find_line(text, part), rule)], [str(warning) for warning in warnings]


def test_unresolved_ref_suggests_a_similar_flow(folder: Folder) -> None:
    (problem,) = folder.find_problems(edit(("ref: flows.find-part", "ref: flows.find-port")))
    assert "there is no flow 'flows.find-port': did you mean 'flows.find-part'?" in problem.message


def test_link_files_reports_a_mistake_once(folder: Folder) -> None:
    for change in (
        (GET, GET.replace("get-part\n", "get-port\n")),
        ('mapping: "$.size"', "mapping: size"),
        ("index: all", "index: every"),
        ("default: bolt", "default: screw"),
    ):  # fmt: skip
        assert len(folder.find_problems(edit(change))) == 1, change


def test_duplicate_consumed_namespace_is_a_problem(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    again = '  - {from: "./bolts.yaml", import: bolts-api, as: parts-api}\n  aggregates:\n'
    text = edit(("  aggregates:\n", again))
    assert (find_line(text, "as: parts-api"), "unique-namespace") in list_rules(folder.find_problems(text))


def test_each_is_unknown_outside_its_step(folder: Folder) -> None:
    later = (
        '          after: {type: call, call: parts-api.get-part, with: {id: "{{each.id}} again"}}\n        mappings:\n'
    )
    text = edit(("        mappings:\n", later))
    assert list_rules(folder.find_problems(text)) == [(find_line(text, "again"), "expression")]


def test_problem_in_a_flow_of_two_tools_is_reported_once(folder: Folder) -> None:
    second_tool = ("find-part: {display", "seek-part: {ref: flows.find-part}\n      find-part: {display")
    assert len(folder.find_problems(edit(second_tool, ("index: all", "index: every")))) == 1


def test_x_when_allows_an_optional_input_in_a_path(folder: Folder) -> None:
    optional = (
        'kind: {type: string, description: "Kind."}',
        'kind: {type: string, required: false, description: "Kind."}',
    )
    plain = edit(optional, ('x-each: "$.one", with: {id: "{{each.id}}"}', "with: {id: flows.kind}"))
    assert [warning.rule for warning in folder.link(plain).warnings] == ["slot-without-value"]
    guarded = edit(optional, ('x-each: "$.one", with: {id: "{{each.id}}"}', 'x-when: "$.kind", with: {id: flows.kind}'))
    assert not folder.link(guarded).warnings


def test_slot_in_a_parameter_value_is_an_input(folder: Folder) -> None:
    text = edit(("kind: {in: query}", "filter: {in: query, value: \"kind eq '{{kind}}'\"}"))
    assert "kind" in folder.link(text).operations["parts-api.list-parts"].inputs


# --- more than one file -----------------------------------------------------------------------------------------


def test_imported_section_is_linked_under_name_or_alias(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    assert list(folder.link(TOOL).tools) == ["list-bolts"]
    aliased = edit(
        ("import: bolts-api}", "import: bolts-api, as: fasteners}"), ("call: bolts-api", "call: fasteners"), text=TOOL
    )
    assert folder.link(aliased).tools["list-bolts"].operations[0].key == "bolts-api.list-bolts"


@pytest.mark.parametrize(
    ("change", "part", "message"),
    [
        (("./bolts.yaml", "./nuts.yaml"), "nuts.yaml", "relative to the importing file"),
        (("./bolts.yaml", "./bolts\\0.yaml"), "bolts\\0", "there is no file"),
        (("import: bolts-api", "import: bolt-api, as: bolts-api"), "import: bolt-api", "did you mean 'bolts-api'?"),
        (("./bolts.yaml", "./file0.yaml"), "file0.yaml", "is a whole capability"),
        (("import: bolts-api}", 'import: bolts-api}\n  aggregates:\n  - {from: "./x.yaml", import: x}'), "./x.yaml", "write flows in the file"),
        (("  - type: mcp\n", '  - {from: "./x.yaml", import: x}\n  - type: mcp\n'), "./x.yaml", "write `exposes` in this file"),
        (("capability:", 'binds:\n- {from: "./x.yaml", import: x}\ncapability:'), "./x.yaml", "write binds in this file"),
    ],
)  # fmt: skip
def test_broken_import_is_reported_with_its_line(
    folder: Folder, change: tuple[str, str], part: str, message: str
) -> None:
    folder.write(SECTION, "bolts.yaml")
    text = edit(change, text=TOOL)
    (problem,) = folder.find_problems(text)  # the calls of the import are not reported
    assert (problem.line, problem.rule) == (find_line(text, part), "import")
    assert message in problem.message


def test_imported_section_must_not_import(folder: Folder) -> None:
    nested = SECTION + '- {from: "./bolts.yaml", import: bolts-api, as: again}\n'
    folder.write(nested, "bolts.yaml")
    (problem,) = folder.find_problems(TOOL)
    assert (Path(problem.file).name, problem.line, problem.rule) == ("bolts.yaml", find_line(nested, "again"), "import")


def test_problem_in_an_imported_file_is_reported_once(folder: Folder) -> None:
    folder.write(edit(("list-bolts: {}", "list-bolts: {metod: GET}"), text=SECTION), "bolts.yaml")
    other = edit(("      list-bolts:\n", "      other:\n"), text=TOOL)
    (problem,) = folder.find_problems(TOOL, other)
    assert (Path(problem.file).name, problem.rule) == ("bolts.yaml", "known-key")


def test_link_files_rejects_a_section_on_its_own(folder: Folder) -> None:
    assert list_rules(folder.find_problems(SECTION)) == [(1, "capability")]


def test_importing_file_may_bind_variables_of_the_section(folder: Folder) -> None:
    login = '  authentication: {type: bearer, token: "{{BOLTS}}"}\n  resources:'
    secured = edit(("  resources:", login), text=SECTION)
    folder.write(secured, "bolts.yaml")
    (problem,) = folder.find_problems(TOOL)
    assert (problem.rule, "BOLTS" in problem.message) == ("slot-without-value", True)
    bound = edit(("capability:", "binds:\n- {namespace: env, keys: {BOLTS: MY_BOLTS}}\ncapability:"), text=TOOL)
    credential = folder.link(bound).operations["bolts-api.list-bolts"].credential
    assert credential is not None
    assert credential.variables == {"BOLTS": "MY_BOLTS"}


def test_duplicate_tool_name_in_another_file_is_a_problem(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    problems = folder.find_problems(TOOL, TOOL)
    assert [(Path(problem.file).name, problem.rule) for problem in problems] == [("file1.yaml", "unique-tool")]
    assert f"is already defined in {folder.path.resolve() / 'file0.yaml'}" in problems[0].message


def test_duplicate_resource_or_prompt_in_another_file_is_a_problem(
    folder: Folder,
) -> None:
    other = edit(
        ("parts://parts/{partId}", "parts://parts/{id}"),
        ("        with: {id: parts.partId}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n    prompts", "        with: {id: parts.id}\n        outputParameters:\n        - {type: object, properties: {name: {type: string, mapping: \"$.name\"}}}\n    prompts"),
    ).replace("parts-api", "others-api")  # fmt: skip
    rules = {problem.rule for problem in folder.find_problems(GOOD, other)}
    assert rules == {"unique-tool", "unique-resource", "unique-prompt"}


def test_namespace_consumed_by_two_files_is_a_problem(folder: Folder) -> None:
    folder.write(SECTION, "bolts.yaml")
    problems = folder.find_problems(TOOL, GOOD.replace("parts-api", "bolts-api"))
    assert [(Path(problem.file).name, problem.rule) for problem in problems] == [("file1.yaml", "unique-namespace")]


def test_user_file_cannot_redefine_a_shipped_tool(folder: Folder) -> None:
    from itwin_mcp.capability.documents import find_shipped_files

    folder.write(SECTION, "bolts.yaml")
    user_file = folder.write(edit(("      list-bolts:\n", "      list-itwins:\n"), text=TOOL), "mine.yaml")
    with pytest.raises(CapabilityError) as caught:
        link_files([*find_shipped_files(), user_file])
    (problem,) = caught.value.problems
    assert (problem.file, problem.rule) == (str(user_file.resolve()), "unique-tool")


def test_link_files_reads_a_repeated_file_once(folder: Folder) -> None:
    file = folder.write(GOOD)
    assert len(link_files([file, file.parent / "." / file.name]).tools) == 3


def test_check_of_x_wait_must_name_an_existing_tool(folder: Folder) -> None:
    created = '\n      make-part:\n        description: "Make."\n        call: parts-api.create-part\n        with: {label: x}\n        outputParameters: [{type: object, properties: {name: {type: string, mapping: "$.name"}}}]\n      find-part: {display'
    text = edit(
        ("      find-part: {display", created.lstrip("\n")),
        ("done: [ready]\n", "done: [ready]\n              check: get-parts\n"),
    )
    (problem,) = folder.find_problems(text)
    assert (problem.line, problem.rule) == (find_line(text, "      make-part:"), "x-wait")
    assert "did you mean 'get-part'?" in problem.message
    assert folder.link(text.replace("check: get-parts", "check: get-part")).tools


def test_origin_omits_the_default_port(folder: Folder) -> None:
    text = edit(("https://parts.example.org/v1", "https://Parts.Example.org:443/v1"))
    assert folder.link(text).operations["parts-api.list-parts"].origin == "https://parts.example.org"
