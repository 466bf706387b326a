"""What follows from a file: schemas, annotations, the engine's arguments, compiled calls and steps."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

from typing import Any

import jsonschema
import pytest

from itwin_mcp.capability.catalog import Annotations, Tool, shipped
from itwin_mcp.capability.expressions import ABSENT, Argument, Literal, StepValue, Text
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.plans import Call, CallStep, Condition, LookupStep, Slot, Steps
from tests.capability.files import GOOD, Folder, bent

TOOL_OF = """\
      probe:
        description: "Probe."
{more}        inputParameters: {{partId: {{type: string, description: "Part."}}}}
        call: parts-api.{operation}
        with: {{id: parts.partId}}
        outputParameters: [{{type: object, properties: {{name: {{type: string, mapping: "$.name"}}}}}}]
    resources:
"""


def probe(folder: Folder, operation: str, more: str = "") -> Tool:
    more = f"        {more}\n" if more else ""
    return folder.link(bent(("    resources:\n      part:\n", TOOL_OF.format(operation=operation, more=more) + "      part:\n"))).tools["probe"]  # fmt: skip


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
def test_annotations_follow_the_hints_and_else_the_methods(
    folder: Folder, operation: str, hints: str, expected: Annotations
) -> None:
    assert probe(folder, operation, f"hints: {hints}" if hints else "").annotations == expected


def test_a_post_is_neither_idempotent_nor_destructive_unless_the_file_says_so(folder: Folder) -> None:
    operation = ("list-parts:\n            method: GET", "list-parts:\n            method: POST")
    paging = (
        '            x-page: {style: link, items: "$.parts", next: "$._links.next.href", size: top, most: 100}\n',
        "",
    )
    catalog = folder.link(bent(operation, paging, ("semantics: {safe: true}", "tags: []")))
    assert catalog.tools["list-parts"].annotations == Annotations(False, False, False, True)
    searching = bent(operation, paging)  # a flow that says it is safe
    assert folder.link(searching).tools["find-part"].annotations == Annotations(True, False, True, True)


def test_a_flow_s_semantics_stand_in_for_hints_and_hints_win(folder: Folder) -> None:
    unsafe = bent(("semantics: {safe: true}", "semantics: {safe: false, idempotent: false}"))
    assert folder.link(unsafe).tools["find-part"].annotations == Annotations(False, False, False, True)
    hinted = unsafe.replace("ref: flows.find-part}", "ref: flows.find-part, hints: {readOnly: true}}")
    assert folder.link(hinted).tools["find-part"].annotations.read_only


def test_an_input_schema_has_type_properties_and_required_alone(folder: Folder) -> None:
    tool = folder.link(GOOD).tools["get-part"]
    assert tool.input_schema == {
        "type": "object",
        "properties": {"partId": {"type": "string", "description": "Part."}},
        "required": ["partId"],
    }


def test_an_input_with_a_default_is_never_required(folder: Folder) -> None:
    tool = folder.link(bent(('required: false, description: "Kind."', 'description: "Kind."'))).tools["list-parts"]
    kind = tool.arguments[0]
    assert (kind.required, kind.default) == (False, "bolt")
    assert "required" not in tool.input_schema
    assert folder.link(GOOD).tools["get-part"].arguments[0].default is ABSENT


def test_an_argument_that_names_an_entity_is_bounded_text(folder: Folder) -> None:
    tool = folder.link(bent(("partId: {type: string,", "partId: {type: string, x-entity: imodel,"))).tools["get-part"]
    assert tool.arguments[0].entity == "imodel"
    assert tool.input_schema["properties"]["partId"] == {
        "type": "string", "minLength": 1, "maxLength": 2048, "description": "Part."
    }  # fmt: skip
    assert "resolved" in tool.output_schema["properties"]


def test_a_tool_s_own_rule_is_not_published(folder: Folder) -> None:
    text = bent(("find-part: {display", "find-part: {x-schema: {minProperties: 1}, display"))
    tool = folder.link(text).tools["find-part"]
    assert tool.rule == {"minProperties": 1}
    assert "minProperties" not in tool.input_schema


def test_a_tool_that_reaches_a_paged_operation_takes_limit_and_cursor(folder: Folder) -> None:
    catalog = folder.link(GOOD)
    assert [one.name for one in catalog.tools["list-parts"].arguments][:3] == ["kind", "limit", "cursor"]
    assert "page" in catalog.tools["list-parts"].output_schema["properties"]
    # Inside steps all pages are taken; what was cut all the same is said.
    assert [one.name for one in catalog.tools["find-part"].arguments] == ["kind"]
    assert "page" in catalog.tools["find-part"].output_schema["properties"]
    assert "page" not in catalog.tools["get-part"].output_schema["properties"]


def test_a_tool_that_starts_a_job_takes_wait_and_may_answer_with_the_job(folder: Folder) -> None:
    catalog = folder.link(bent(("call: parts-api.get-part, x-each", "call: parts-api.create-part, x-each"), ("with: {id: \"{{each.id}}\"}", 'with: {label: "{{each.id}}"}')))  # fmt: skip
    tool = catalog.tools["find-part"]
    assert [one.name for one in tool.arguments] == ["kind", "wait"]
    assert tool.arguments[1].default == 30
    assert {"required": ["job"]} in tool.output_schema["anyOf"]
    assert [operation.name for operation in tool.operations] == ["list-parts", "create-part", "get-part", "get-part"]


def test_an_output_schema_is_one_typed_object_whose_values_may_be_null(folder: Folder) -> None:
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


def test_an_output_schema_carries_no_choices_format_or_bounds(folder: Folder) -> None:
    more = "x-schema: {type: [string, 'null'], enum: [a, null], format: date, maxLength: 3, description: Name.}"
    old = 'name: {type: string, mapping: "$.name"}}}\n      find'
    text = bent((old, old.replace('"$.name"', f'"$.name", {more}')))
    schema = folder.link(text).tools["get-part"].output_schema
    assert schema["properties"]["name"] == {"type": ["string", "null"], "description": "Name."}


def test_clear_lists_the_arguments_of_a_users_file_that_are_nullable(folder: Folder) -> None:
    nullable = 'partId: {type: string, description: "Part.", x-schema: {type: [string, "null"]}}'
    tool = folder.link(bent(('partId: {type: string, description: "Part."}', nullable))).tools["get-part"]
    assert [one.name for one in tool.arguments] == ["partId", "clear"]
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
def test_a_published_argument_has_one_type_and_only_keywords_that_all_clients_take(
    folder: Folder, fragment: str, published: dict[str, Any]
) -> None:
    new = f'partId: {{type: string, description: "Part.", x-schema: {fragment}}}'
    tool = folder.link(bent(('partId: {type: string, description: "Part."}', new))).tools["get-part"]
    assert tool.input_schema["properties"]["partId"] == {**published, "description": "Part."}


def test_a_flow_s_output_schema_follows_its_map(folder: Folder) -> None:
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


def test_an_object_in_an_answer_may_be_null_and_one_in_a_list_may_not(folder: Folder) -> None:
    old = 'name: {type: string, mapping: "$.name"}}}\n      find'
    inner = "{type: object, properties: {id: {type: string, mapping: $.id}}}"
    new = f"one: {inner}, all: {{type: array, mapping: $.all, items: {inner}}}}}}}\n      find"
    properties = folder.link(bent((old, new))).tools["get-part"].output_schema["properties"]
    assert properties["one"] == {"type": ["object", "null"], "properties": {"id": {"type": ["string", "null"]}}}
    assert properties["all"]["items"] == {"type": "object", "properties": {"id": {"type": ["string", "null"]}}}


def test_static_outputs_are_of_their_type(folder: Folder) -> None:
    text = bent((
        'name: {type: string, mapping: "$.name"}}}\n      find',
        'a: {type: number, value: "5"}, b: {type: boolean, value: "false"}, c: {type: string, value: ""}, d: {type: string, x-header: {name: Location, take: last-segment}}}}\n      find',
    ))  # fmt: skip
    action = folder.link(text).tools["get-part"].action
    outputs: dict[str, Any] = dict(action.output.properties)
    assert [outputs[name].literal for name in "abc"] == [5, False, ""]
    assert (outputs["d"].header, outputs["d"].last_segment) == ("location", True)


def test_a_call_is_compiled_to_a_path_of_segments_and_to_values(folder: Folder) -> None:
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


def test_an_awaited_operation_says_what_is_polled_with_what(folder: Folder) -> None:
    wait = folder.link(GOOD).operations["parts-api.create-part"].wait
    assert wait is not None
    assert (wait.handle_place, wait.handle_name, wait.poll.name, wait.poll_slot) == (
        "header",
        "location",
        "get-part",
        "id",
    )
    assert (wait.done, wait.failed, wait.result_slot) == (frozenset({"ready"}), frozenset(), "id")


def test_steps_are_compiled_with_lookups_each_when_and_require(folder: Folder) -> None:
    text = bent(
        ("outputParameters: [id, name]}", 'outputParameters: [id, name], x-require: {path: "$[0]", message: "None.", hint: "Look."}}'),
        ('x-each: "$.one"', 'x-each: "$.one", x-when: "$.kind"'),
    )  # fmt: skip
    action = folder.link(text).tools["find-part"].action
    assert isinstance(action, Steps)
    every, one, whole = action.steps
    assert isinstance(every, CallStep)
    assert every.bindings == {"kind": Argument("kind")}
    assert isinstance(one, LookupStep)
    assert (one.index, one.match, one.value, one.fields) == ("all", "kind", Argument("kind"), ("id", "name"))
    assert one.require is not None
    assert (one.require.path.parts, one.require.code) == ((0,), "NotFound")
    assert isinstance(whole, CallStep)
    assert whole.each is not None
    (elements,) = whole.each.lists
    assert isinstance(elements, StepValue)
    assert elements.step == "one"
    assert whole.condition == Condition(when=Argument("kind"))
    assert isinstance(whole.bindings["id"], StepValue)
    assert (whole.bindings["id"].step, whole.bindings["id"].path.parts) == ("each", ("id",))
    (mapping,) = action.mappings
    assert mapping.target == ("found", "parts")
    assert isinstance(mapping.value, StepValue)


def test_the_title_and_toolset_are_the_tool_s_or_what_stands_around_it(folder: Folder) -> None:
    tools = folder.link(GOOD).tools
    assert (tools["find-part"].title, tools["get-part"].title, tools["get-part"].toolset) == (
        "Find part",
        "get-part",
        "parts",
    )
    text = bent(("    transport: stdio\n", "    x-toolset: machine\n"), ("find-part: {display", "find-part: {x-toolset: search, display"))  # fmt: skip
    tools = folder.link(text).tools
    assert (tools["get-part"].toolset, tools["find-part"].toolset) == ("machine", "search")


def test_a_flow_gives_its_description_unless_the_tool_has_one(folder: Folder) -> None:
    assert folder.link(GOOD).tools["find-part"].description == "Find the parts of a kind."
    own = bent(("find-part: {display", 'find-part: {description: "Seek.", display'))
    assert folder.link(own).tools["find-part"].description == "Seek."


def test_every_shipped_schema_is_json_schema_that_every_client_takes() -> None:
    for name, tool in link_files(shipped()).tools.items():
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert set(tool.input_schema) <= {"type", "properties", "required"}, name
