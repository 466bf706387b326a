"""Schema of the actions of tools, flows and resources: inputs, one call or steps, outputs, and `x-confirm`."""

# ruff: noqa: N815  (fields carry the format's own names)
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.extensions import EntityForm, HeaderPart
from itwin_mcp.capability.schema_types import (
    TEXT_OR_LIST,
    TEXT_OR_MAP,
    CallName,
    Extended,
    JsonSchema,
    Kebab,
    Node,
    ToolName,
    discriminate_by,
    require_type,
    tag_by_shape,
)

With = dict[str, Annotated[str | int | float, require_type(str, float, int)]]
"""Values for the inputs of an operation: `namespace.input`, a text with slots, or a constant."""


# --- inputs and outputs -----------------------------------------------------------------------------------------


class ToolInput(Node):
    """One argument of a tool or flow."""

    type: Literal["string", "number", "integer", "boolean", "array", "object"]
    description: str
    required: bool = True
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    entity: Annotated[Annotated[str, Tag("<text>")] | Annotated[EntityForm, Tag("<map>")], TEXT_OR_MAP] | None = Field(
        default=None, alias="x-entity"
    )


class NameOf(Node):
    """`x-take` in its long form: the name of the thing whose id is the output `of` in the same object.

    `name` is a consumed operation with `x-names`, or a step of the flow whose elements have the id, and the name as
    `displayName` or `name`.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)?$")]
    of: Extended


Take = Annotated[Annotated[Literal["last-segment"], Tag("<text>")] | Annotated[NameOf, Tag("<map>")], TEXT_OR_MAP]


class CallSpec(Node):
    """One request: an operation, and values for its inputs."""

    call: CallName
    with_: With = Field(default={}, alias="with")


class FurtherReadSpec(CallSpec):
    """`x-read`: one more GET, whose answer the `mapping` reads. `{{each}}` is the object that gets the value.

    `when` is the path of the argument that asks for the value. It is required in a list.
    """

    when: str | None = None


class MappedNode(Node):
    """An output of a call: the value at the path `mapping` of the answer. `const` is a note for linters."""

    mapping: str | None = None
    const: Any = None
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


class MappedScalar(MappedNode):
    type: Literal["string", "number", "boolean"]
    value: str | None = None
    header: HeaderPart | None = Field(default=None, alias="x-header")
    take: Take | None = Field(default=None, alias="x-take")
    read: FurtherReadSpec | None = Field(default=None, alias="x-read")


class MappedObject(MappedNode):
    """An object of the answer. If `properties` is empty, the object is passed on unchanged."""

    type: Literal["object"]
    properties: dict[str, Mapped]
    read: FurtherReadSpec | None = Field(default=None, alias="x-read")


class MappedArray(MappedNode):
    type: Literal["array"]
    items: Mapped


Mapped = Annotated[
    Annotated[MappedScalar, Tag("<string>")]
    | Annotated[MappedScalar, Tag("<number>")]
    | Annotated[MappedScalar, Tag("<boolean>")]
    | Annotated[MappedObject, Tag("<object>")]
    | Annotated[MappedArray, Tag("<array>")],
    discriminate_by("type"),
]


class OrchestratedNode(Node):
    """An output of a flow, which a mapping of the flow fills."""

    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


class OrchestratedScalar(OrchestratedNode):
    """A value that a mapping fills. In an action that calls nothing, it is the text `value` with slots for inputs."""

    type: Literal["string", "number", "boolean"]
    value: str | None = None
    take: Take | None = Field(default=None, alias="x-take")


class OrchestratedObject(OrchestratedNode):
    type: Literal["object"]
    properties: dict[str, Orchestrated] = Field(default={})


class OrchestratedArray(OrchestratedNode):
    """A list. `items` maps the names of the fields of each element."""

    type: Literal["array"]
    items: dict[str, Orchestrated] = Field(default={})


Orchestrated = Annotated[
    Annotated[OrchestratedScalar, Tag("<string>")]
    | Annotated[OrchestratedScalar, Tag("<number>")]
    | Annotated[OrchestratedScalar, Tag("<boolean>")]
    | Annotated[OrchestratedObject, Tag("<object>")]
    | Annotated[OrchestratedArray, Tag("<array>")],
    discriminate_by("type"),
]


# --- steps ------------------------------------------------------------------------------------------------------

Unless = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<list>")], TEXT_OR_LIST] | None
"""`x-unless`: a path or several. The step is skipped if one of them has a value."""


class Require(Node):
    """`x-require`: the error of a step whose result has nothing, or false, at `path`."""

    path: str
    message: str
    hint: str
    code: str = "NotFound"


class Each(Node):
    """`x-each` in its long form: run the step for at most `most` distinct elements of several lists, in order.

    `as_` names the list of the elements that were processed, for later steps and mappings. `label` adds members of the
    element to each item of its answer. The answer reports the elements that were left out; `again` is the argument that
    takes their ids in the next call.
    """

    in_: Annotated[list[str], Field(min_length=1)] = Field(alias="in")
    most: Annotated[int, Field(ge=1, le=100)]
    as_: Kebab | None = Field(default=None, alias="as")
    label: dict[Extended, str] = Field(default={})
    again: Extended | None = None


class DefaultValue(Node):
    """One value of `x-defaults`: the value at the path `value`, translated by `words` if given."""

    value: str
    words: dict[str, str] | None = None


class Defaults(Node):
    """`x-defaults`: values for inputs that `with` leaves empty. `as_` names the values that were used, for mappings."""

    values: Annotated[dict[str, DefaultValue], Field(min_length=1)]
    as_: Kebab = Field(alias="as")


class Repeat(Node):
    """`x-repeat`: repeat the request, at most `most` times, until the value at `until` is true."""

    until: str
    most: Annotated[int, Field(ge=2, le=100)]


class ConditionalStep(Node):
    """The words that every step accepts."""

    require: Require | None = Field(default=None, alias="x-require")
    when: str | None = Field(default=None, alias="x-when")
    unless: Unless = Field(default=None, alias="x-unless")


class CallStepSpec(ConditionalStep, CallSpec):
    """One request of a flow, or all pages of a list, up to `x-most` items.

    `x-partial` names the part that the step reads if it does not read everything. The answer is then reported as
    incomplete.
    """

    type: Literal["call"]
    each: Annotated[Annotated[str, Tag("<text>")] | Annotated[Each, Tag("<map>")], TEXT_OR_MAP] | None = Field(
        default=None, alias="x-each"
    )
    most: Annotated[int, Field(ge=1)] | None = Field(default=None, alias="x-most")
    repeat: Repeat | None = Field(default=None, alias="x-repeat")
    tolerate: Annotated[list[Annotated[int, Field(ge=402, le=599)]], Field(min_length=1)] | None = Field(
        default=None, alias="x-tolerate"
    )
    partial: Annotated[str, StringConstraints(min_length=1)] | None = Field(default=None, alias="x-partial")
    defaults: Defaults | None = Field(default=None, alias="x-defaults")


class AddedField(Node):
    """One field of `x-add`: a `value`, or the value at the path `take` of the element.

    With `in`, it is the distinct values of the field `of` in the elements of that list whose field `match` is among the
    values at `take`. `only` lists the values to keep.
    """

    value: Any = None
    take: str | None = None
    in_: str | None = Field(default=None, alias="in")
    match: str | None = None
    of: str | None = None
    only: list[str] | None = None

    @model_validator(mode="after")
    def _is_one_form(self) -> AddedField:
        if (self.value is None) == (self.take is None):
            raise PydanticCustomError("x-add", "needs exactly one of `value` and `take`")
        if len({self.in_ is None, self.match is None, self.of is None}) > 1 or (self.in_ and self.take is None):
            raise PydanticCustomError("x-add", "`in`, `match` and `of` go together, and with `take`")
        return self


class First(Node):
    """The entries that `x-changes` writes first: those with `keys`. `has` is the path of what they have now."""

    keys: str
    has: str | None = None


class Changes(Node):
    """`x-changes`: how to change the existing entries into the wanted ones, in a safe order.

    `field` is the list in an entry. `otherwise` are the lists that apply while there is no entry. `called` are the
    fields by which wanted entries may name an existing one. `keep` is the input that decides whether all other entries
    stay unchanged.
    """

    field: str
    otherwise: Annotated[list[Kebab], Field(min_length=1)]
    called: list[str] = Field(default=[])
    first: First | None = None
    keep: Extended


class LookupStepSpec(ConditionalStep):
    """Picks elements of an earlier step's answer by a field: equal to a value, or with `x-compare` by date."""

    type: Literal["lookup"]
    index: Kebab
    match: Kebab
    lookupValue: str
    outputParameters: Annotated[list[str], Field(min_length=1)]
    compare: Literal["before", "after"] | None = Field(default=None, alias="x-compare")
    count: Kebab | None = Field(default=None, alias="x-count")
    add: dict[Kebab, AddedField] = Field(default={}, alias="x-add")
    changes: Changes | None = Field(default=None, alias="x-changes")
    within: Extended | None = Field(default=None, alias="x-within")


class ScriptStepSpec(Node):
    """A step that runs a script. It is not served, so its keys are not checked."""

    model_config = ConfigDict(extra="allow")

    type: Literal["script"]


StepSpec = Annotated[
    Annotated[CallStepSpec, Tag("<call>")]
    | Annotated[LookupStepSpec, Tag("<lookup>")]
    | Annotated[ScriptStepSpec, Tag("<script>")],
    discriminate_by("type"),
]


class StepMappingSpec(Node):
    """The member of the answer that gets a step's value.

    With `x-count`, the value is a list of distinct objects, each with the number of its occurrences in this field.
    """

    target: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-_.]+$")]
    value: str
    count: Kebab | None = Field(default=None, alias="x-count")


class Without(Node):
    """The elements that are not lost, because their field `match` has one of the values at these paths."""

    match: str
    values: Annotated[list[str], Field(min_length=1)]


class LossSpec(Node):
    """A value or list, at a path of what `x-confirm` read, that would be lost.

    The user sees the number of elements of a list, and the fields in `outputParameters` of the first `most` elements.
    `match` and `lookupValue` select the elements with this value in this field; `without` leaves elements out. With
    `replacedBy`, the value is lost only if the call has this input. With `whileEmpty`, there is a loss only while that
    list is empty.
    """

    value: str
    match: str | None = None
    lookupValue: str | None = None
    outputParameters: list[str] = Field(default=[])
    replacedBy: str | None = None
    without: Without | None = None
    whileEmpty: str | None = None
    most: Annotated[int, Field(ge=1, le=100)] | None = None


class Confirm(Node):
    """`x-confirm`: before the tool does anything, the user sees what would be lost, and types a name.

    `target` reads the thing itself; if that fails, the call fails. `reads` are further requests, which may use values
    of the target. `lookups` pick elements of what was read. `about` describes the thing by paths into what was read.

    `question` and `name` are texts with slots for inputs and values that were read. If `name` is empty, an id is typed.
    The user is not asked if `when` finds nothing, if `unless` finds something, or if everything in `loses` has
    `replacedBy` and the call has none of these inputs.

    With `gravity: person`, only a person may confirm. A policy that denies this tool by name also denies the tools in
    `alike`, and vice versa.
    """

    target: CallSpec | None = None
    reads: dict[Kebab, CallSpec] = Field(default={})
    lookups: dict[Kebab, LookupStepSpec] = Field(default={})
    about: dict[Extended, str] = Field(default={})
    question: str
    name: str
    loses: dict[Extended, LossSpec] = Field(default={})
    when: str | None = None
    unless: LossSpec | None = None
    alike: list[ToolName] = Field(default=[])
    gravity: Literal["usual", "person"] = "usual"


class Semantics(Node):
    safe: bool | None = None
    idempotent: bool | None = None
    cacheable: bool | None = None


Outputs = Annotated[
    Annotated[list[Mapped], Tag("<list>")] | Annotated[dict[Extended, Orchestrated], Tag("<map>")],
    Discriminator(
        tag_by_shape,
        custom_error_type="kind",
        custom_error_message="must be a list of one output (with `call`) or a map of names (with `steps`)",
    ),
]
"""A list of one output with `call`, a map of names with `steps`."""


class Across(Node):
    """`x-across`: page through the lists of several places, one after the other, with one cursor.

    `fills` is the input of the operation that takes the id of a place. `in_` are the lists of places, which `steps` may
    read first. `label` adds members of the place to each item.
    """

    fills: Kebab
    in_: Annotated[list[str], Field(min_length=1)] = Field(alias="in")
    steps: dict[Kebab, Annotated[Annotated[CallStepSpec, Tag("<call>")], discriminate_by("type")]] = Field(default={})
    label: dict[Extended, str] = Field(default={})


class ActionSpec(Node):
    """The action of a tool, flow or resource: one call, or steps."""

    call: CallName | None = None
    with_: With = Field(default={}, alias="with")
    across: Across | None = Field(default=None, alias="x-across")
    containing: dict[Extended, Annotated[list[str], Field(min_length=1)]] = Field(default={}, alias="x-containing")
    steps: dict[Kebab, StepSpec] = Field(default={})
    mappings: list[StepMappingSpec] = Field(default=[])
    outputParameters: Outputs | None = None


class Flow(ActionSpec):
    """A flow that tools use by `ref`."""

    description: str
    tags: list[str] = Field(default=[])
    semantics: Semantics = Semantics()
    outputMediaType: str | None = None
    inputParameters: dict[Extended, ToolInput] = Field(default={})


class Aggregate(Node):
    display: str
    namespace: Kebab
    flows: Annotated[dict[Kebab, Flow], Field(min_length=1)]
