"""The compilers: schemas, annotations, arguments that the engine adds, calls and steps."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

from typing import Any

import jsonschema
import pytest

from itwin_mcp.capability.catalog import Annotations, Tool
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.expressions import ABSENT, Argument, Literal, StepValue, Text
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.operations import Slot
from itwin_mcp.capability.tool_actions import Call, CallStep, Condition, LookupStep, Steps
from tests.capability.files import GOOD, Folder, edit

PROBE_TOOL = """\
      probe:
        description: "Probe."
{extra_line}        inputParameters: {{partId: {{type: string, description: "Part."}}}}
        call: parts-api.{operation}
        with: {{id: parts.partId}}
        outputParameters: [{{type: object, properties: {{name: {{type: string, mapping: "$.name"}}}}}}]
    resources:
"""


def link_probe(folder: Folder, operation: str, line: str = "") -> Tool:
    """Link a tool that calls an operation, with one more line in its declaration."""
    extra_line = f"        {line}\n" if line else ""
    return folder.link(edit(("    resources:\n      part:\n", PROBE_TOOL.format(operation=operation, extra_line=extra_line) + "      part:\n"))).tools["probe"]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "hints", "expected"),
    [
        ("get-part", "", Annotations(True, False, True, True)),
        ("replace-part", "", Annotations(False, False, True, True)),
        ("change-part", "", Annotations(False, False, False, True)),
        ("delete-part", "", Annotations(False, True, True, True)),
        ("delete-part", "{destructive: false}", Annotations(False, False, True, True)),
        ("change-part", "{idempotent: true, destructive: true}", Annotations(False, True, True, True)),
        ("get-part", "{readOnly: false, openWorld: false}", Annotations(False, False, True, False)),
    ],
)
def test_annotations_follow_hints_before_methods(
    folder: Folder, operation: str, hints: str, expected: Annotations
) -> None:
    assert link_probe(folder, operation, f"hints: {hints}" if hints else "").annotations == expected


def test_post_is_read_only_only_in_a_safe_flow(folder: Folder) -> None:
    operation = ("list-parts:\n            method: GET", "list-parts:\n            method: POST")
    paging = (
        '            x-page: {style: link, items: "$.parts", next: "$._links.next.href", size: top, most: 100}\n',
        "",
    )
    catalog = folder.link(edit(operation, paging, ("semantics: {safe: true}", "tags: []")))
    assert catalog.tools["list-parts"].annotations == Annotations(False, False, False, True)
    safe_flow = edit(operation, paging)
    assert folder.link(safe_flow).tools["find-part"].annotations == Annotations(True, False, True, True)


def test_annotations_follow_hints_before_flow_semantics(folder: Folder) -> None:
    unsafe_flow = edit(("semantics: {safe: true}", "semantics: {safe: false, idempotent: false}"))
    assert folder.link(unsafe_flow).tools["find-part"].annotations == Annotations(False, False, False, True)
    hinted = unsafe_flow.replace("ref: flows.find-part}", "ref: flows.find-part, hints: {readOnly: true}}")
    assert folder.link(hinted).tools["find-part"].annotations.read_only


def test_input_schema_has_only_type_properties_and_required(folder: Folder) -> None:
    tool = folder.link(GOOD).tools["get-part"]
    assert tool.input_schema == {
        "type": "object",
        "properties": {"partId": {"type": "string", "description": "Part."}},
        "required": ["partId"],
    }


def test_argument_with_a_default_is_not_required(folder: Folder) -> None:
    tool = folder.link(edit(('required: false, description: "Kind."', 'description: "Kind."'))).tools["list-parts"]
    kind = tool.arguments[0]
    assert (kind.required, kind.default) == (False, "bolt")
    assert "required" not in tool.input_schema
    assert folder.link(GOOD).tools["get-part"].arguments[0].default is ABSENT


def test_entity_argument_has_length_bounds(folder: Folder) -> None:
    tool = folder.link(edit(("partId: {type: string,", "partId: {type: string, x-entity: imodel,"))).tools["get-part"]
    assert tool.arguments[0].entity is not None
    assert tool.arguments[0].entity.kind == "imodel"
    assert tool.input_schema["properties"]["partId"] == {
        "type": "string", "minLength": 1, "maxLength": 2048, "description": "Part."
    }  # fmt: skip
    assert "resolved" in tool.output_schema["properties"]


def test_rule_of_a_tool_is_not_in_its_input_schema(folder: Folder) -> None:
    text = edit(("find-part: {display", "find-part: {x-schema: {minProperties: 1}, display"))
    tool = folder.link(text).tools["find-part"]
    assert tool.rule == {"minProperties": 1}
    assert "minProperties" not in tool.input_schema


def test_tool_over_a_paged_operation_takes_limit_and_cursor(folder: Folder) -> None:
    catalog = folder.link(GOOD)
    assert [argument.name for argument in catalog.tools["list-parts"].arguments][:3] == ["kind", "limit", "cursor"]
    assert "page" in catalog.tools["list-parts"].output_schema["properties"]
    # Steps read all pages up to a limit; `page` reports if the limit was reached.
    assert [argument.name for argument in catalog.tools["find-part"].arguments] == ["kind"]
    assert "page" in catalog.tools["find-part"].output_schema["properties"]
    assert "page" not in catalog.tools["get-part"].output_schema["properties"]


def test_tool_that_starts_a_job_takes_wait_and_may_return_the_job(folder: Folder) -> None:
    catalog = folder.link(edit(("call: parts-api.get-part, x-each", "call: parts-api.create-part, x-each"), ("with: {id: \"{{each.id}}\"}", 'with: {label: "{{each.id}}"}')))  # fmt: skip
    tool = catalog.tools["find-part"]
    assert [argument.name for argument in tool.arguments] == ["kind", "wait"]
    assert tool.arguments[1].default == 30
    assert {"required": ["job"]} in tool.output_schema["anyOf"]
    assert [operation.name for operation in tool.operations] == ["list-parts", "create-part", "get-part", "get-part"]


def test_output_schema_has_nullable_values_and_allows_more_fields(folder: Folder) -> None:
    schema = folder.link(GOOD).tools["list-parts"].output_schema
    assert schema["type"] == "object"
    assert schema["anyOf"] == [{"required": ["parts"]}, {"required": ["error"]}]
    assert schema["properties"]["parts"] == {
        "type": ["array", "null"],
        "items": {
            "type": "object",
            "properties": {"id": {"type": ["string", "null"]}, "size": {"type": ["number", "null"]}},
        },
    }
    accepts = jsonschema.Draft202012Validator(schema).is_valid
    assert accepts({"parts": [{"id": "a", "size": None, "colour": "an unknown field"}], "page": {"returned": 1, "complete": True}})  # fmt: skip
    assert accepts({"parts": [{"id": None}]})
    assert not accepts({"parts": [None]})
    assert not accepts({"other": 1})


def test_output_schema_has_no_enum_format_or_bounds(folder: Folder) -> None:
    fragment = "x-schema: {type: [string, 'null'], enum: [a, null], format: date, maxLength: 3, description: Name.}"
    old = 'name: {type: string, mapping: "$.name"}}}\n      find'
    text = edit((old, old.replace('"$.name"', f'"$.name", {fragment}')))
    schema = folder.link(text).tools["get-part"].output_schema
    assert schema["properties"]["name"] == {"type": ["string", "null"], "description": "Name."}


def test_clear_argument_lists_nullable_arguments(folder: Folder) -> None:
    nullable = 'partId: {type: string, description: "Part.", x-schema: {type: [string, "null"]}}'
    tool = folder.link(edit(('partId: {type: string, description: "Part."}', nullable))).tools["get-part"]
    assert [argument.name for argument in tool.arguments] == ["partId", "clear"]
    assert tool.input_schema["properties"]["clear"]["items"] == {"type": "string", "enum": ["partId"]}
    assert tool.input_schema["properties"]["partId"] == {"type": "string", "description": "Part."}


@pytest.mark.parametrize(
    ("fragment", "published"),
    [
        ("{type: [integer, string]}", {"type": "integer"}),
        ("{type: integer, enum: [1, 2]}", {"type": "integer"}),
        ("{const: bolt}", {"type": "string", "enum": ["bolt"]}),
        ('{type: [string, "null"], enum: [bolt, null]}', {"type": "string", "enum": ["bolt"]}),
        ("{anyOf: [{minLength: 2}], not: {const: a}}", {"type": "string"}),
        ("{type: array}", {"type": "array", "items": {"type": "string"}}),
        ("{type: array, items: {enum: [a]}, uniqueItems: true}", {"type": "array", "items": {"type": "string", "enum": ["a"]}}),
        ("{type: object, additionalProperties: true}", {"type": "object"}),
        ("{type: object, properties: {a: true}, required: [a, b]}", {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
        (
            "{type: object, additionalProperties: {type: integer}}",
            {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "integer"}}, "required": ["name", "value"]}},
        ),
    ],
)  # fmt: skip
def test_publish_keeps_one_type_and_keywords_all_clients_accept(
    folder: Folder, fragment: str, published: dict[str, Any]
) -> None:
    new = f'partId: {{type: string, description: "Part.", x-schema: {fragment}}}'
    tool = folder.link(edit(('partId: {type: string, description: "Part."}', new))).tools["get-part"]
    assert tool.input_schema["properties"]["partId"] == {**published, "description": "Part."}


def test_output_schema_of_a_flow_follows_its_output_map(folder: Folder) -> None:
    schema = folder.link(GOOD).tools["find-part"].output_schema["properties"]["found"]
    assert schema == {
        "type": ["object", "null"],
        "properties": {
            "parts": {
                "type": ["array", "null"],
                "items": {"type": "object", "properties": {"id": {"type": ["string", "null"]}, "name": {"type": ["string", "null"]}}},
            }
        },
    }  # fmt: skip


def test_output_object_is_nullable_except_in_a_list(folder: Folder) -> None:
    old = 'name: {type: string, mapping: "$.name"}}}\n      find'
    inner = "{type: object, properties: {id: {type: string, mapping: $.id}}}"
    new = f"one: {inner}, all: {{type: array, mapping: $.all, items: {inner}}}}}}}\n      find"
    properties = folder.link(edit((old, new))).tools["get-part"].output_schema["properties"]
    assert properties["one"] == {"type": ["object", "null"], "properties": {"id": {"type": ["string", "null"]}}}
    assert properties["all"]["items"] == {"type": "object", "properties": {"id": {"type": ["string", "null"]}}}


def test_static_output_has_its_declared_type(folder: Folder) -> None:
    text = edit((
        'name: {type: string, mapping: "$.name"}}}\n      find',
        'a: {type: number, value: "5"}, b: {type: boolean, value: "false"}, c: {type: string, value: ""}, d: {type: string, x-header: {name: Location, take: last-segment}}}}\n      find',
    ))  # fmt: skip
    action = folder.link(text).tools["get-part"].action
    outputs: dict[str, Any] = dict(action.output.properties)
    assert [outputs[name].literal for name in "abc"] == [5, False, ""]
    assert (outputs["d"].header, outputs["d"].last_segment) == ("location", True)


def test_call_is_compiled_to_path_segments_and_expressions(folder: Folder) -> None:
    catalog = folder.link(GOOD)
    action = catalog.tools["get-part"].action
    assert isinstance(action, Call)
    operation = action.operation
    assert (operation.method, operation.origin) == ("GET", "https://parts.example.org")
    assert operation.path == (("v1",), ("parts",), (Slot("id"),))
    assert action.bindings == {"id": Argument("partId")}
    assert operation.required == {"id"}
    body = catalog.operations["parts-api.create-part"].body
    assert body is not None
    assert body.data == {
        "name": Argument("name"),
        "label": Text(("Part ", Argument("label"))),
        "sizes": [Argument("size")],
        "made": Literal(True),
    }
    assert catalog.operations["parts-api.create-part"].required == {"label"}


def test_wait_plan_has_poll_operation_and_slot(folder: Folder) -> None:
    wait = folder.link(GOOD).operations["parts-api.create-part"].wait
    assert wait is not None
    assert (wait.handle_place, wait.handle_name, wait.poll.name, wait.poll_slot) == (
        "header",
        "location",
        "get-part",
        "id",
    )
    assert (wait.done, wait.failed, wait.result_slot) == (frozenset({"ready"}), frozenset(), "id")


def test_steps_are_compiled_with_lookup_each_when_and_require(folder: Folder) -> None:
    text = edit(
        ("outputParameters: [id, name]}", 'outputParameters: [id, name], x-require: {path: "$[0]", message: "None.", hint: "Look."}}'),
        ('x-each: "$.one"', 'x-each: "$.one", x-when: "$.kind"'),
    )  # fmt: skip
    action = folder.link(text).tools["find-part"].action
    assert isinstance(action, Steps)
    listing, lookup, read = action.steps
    assert isinstance(listing, CallStep)
    assert listing.bindings == {"kind": Argument("kind")}
    assert isinstance(lookup, LookupStep)
    assert (lookup.index, lookup.match, lookup.value, lookup.fields) == (
        "all",
        "kind",
        Argument("kind"),
        ("id", "name"),
    )
    assert lookup.require is not None
    assert (lookup.require.path.parts, lookup.require.code) == ((0,), "NotFound")
    assert isinstance(read, CallStep)
    assert read.each is not None
    (elements,) = read.each.lists
    assert isinstance(elements, StepValue)
    assert elements.step == "one"
    assert read.condition == Condition(when=Argument("kind"))
    assert isinstance(read.bindings["id"], StepValue)
    assert (read.bindings["id"].step, read.bindings["id"].path.parts) == ("each", ("id",))
    (mapping,) = action.mappings
    assert mapping.target == ("found", "parts")
    assert isinstance(mapping.value, StepValue)


def test_title_and_toolset_default_to_name_and_exposes_entry(folder: Folder) -> None:
    tools = folder.link(GOOD).tools
    assert (tools["find-part"].title, tools["get-part"].title, tools["get-part"].toolset) == (
        "Find part",
        "get-part",
        "parts",
    )
    text = edit(("    transport: stdio\n", "    x-toolset: machine\n"), ("find-part: {display", "find-part: {x-toolset: search, display"))  # fmt: skip
    tools = folder.link(text).tools
    assert (tools["get-part"].toolset, tools["find-part"].toolset) == ("machine", "search")


def test_description_of_a_tool_defaults_to_its_flow(folder: Folder) -> None:
    assert folder.link(GOOD).tools["find-part"].description == "Find the parts of a kind."
    own = edit(("find-part: {display", 'find-part: {description: "Seek.", display'))
    assert folder.link(own).tools["find-part"].description == "Seek."


def test_shipped_schemas_are_valid_json_schema() -> None:
    for name, tool in link_files(find_shipped_files()).tools.items():
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert set(tool.input_schema) <= {"type", "properties", "required"}, name
