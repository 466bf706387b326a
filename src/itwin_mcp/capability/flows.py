"""What a tool, flow or resource takes, does and gives, as models: inputs, one call or steps, outputs."""

# ruff: noqa: N815  (fields carry the format's own names)
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from itwin_mcp.capability.extensions import Entity, EntityForm, HeaderPart
from itwin_mcp.capability.node import (
    TEXT_OR_MAP,
    CallName,
    Extended,
    JsonSchema,
    Kebab,
    Node,
    ToolName,
    one_of,
    tagged_by,
    tagged_by_shape,
)

With = dict[str, Annotated[str | int | float, one_of(str, float, int)]]
"""What fills the inputs of an operation: `namespace.input`, text with slots, or a value as it is."""


# --- inputs and outputs -----------------------------------------------------------------------------------------


class ToolInput(Node):
    """One argument of a tool or flow."""

    type: Literal["string", "number", "integer", "boolean", "array", "object"]
    description: str
    required: bool = True
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    entity: Annotated[Annotated[Entity, Tag("<text>")] | Annotated[EntityForm, Tag("<map>")], TEXT_OR_MAP] | None = (
        Field(default=None, alias="x-entity")
    )


class MappedScalar(Node):
    type: Literal["string", "number", "boolean"]
    mapping: str | None = None
    value: str | None = None
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    header: HeaderPart | None = Field(default=None, alias="x-header")
    take: Literal["last-segment"] | None = Field(default=None, alias="x-take")


class MappedObject(Node):
    """An object of the answer; with no properties it is passed on as it came."""

    type: Literal["object"]
    mapping: str | None = None
    properties: dict[str, Mapped]
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


class MappedArray(Node):
    type: Literal["array"]
    mapping: str | None = None
    items: Mapped
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


Mapped = Annotated[
    Annotated[MappedScalar, Tag("<string>")]
    | Annotated[MappedScalar, Tag("<number>")]
    | Annotated[MappedScalar, Tag("<boolean>")]
    | Annotated[MappedObject, Tag("<object>")]
    | Annotated[MappedArray, Tag("<array>")],
    tagged_by("type"),
]


class OrchestratedScalar(Node):
    type: Literal["string", "number", "boolean"]
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    take: Literal["last-segment"] | None = Field(default=None, alias="x-take")


class OrchestratedObject(Node):
    type: Literal["object"]
    properties: dict[str, Orchestrated] = Field(default={})
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


class OrchestratedArray(Node):
    """`items` is a map of the fields of each element."""

    type: Literal["array"]
    items: dict[str, Orchestrated] = Field(default={})
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


Orchestrated = Annotated[
    Annotated[OrchestratedScalar, Tag("<string>")]
    | Annotated[OrchestratedScalar, Tag("<number>")]
    | Annotated[OrchestratedScalar, Tag("<boolean>")]
    | Annotated[OrchestratedObject, Tag("<object>")]
    | Annotated[OrchestratedArray, Tag("<array>")],
    tagged_by("type"),
]


# --- steps ------------------------------------------------------------------------------------------------------


class Require(Node):
    """`x-require`: fail with this error if the path finds nothing, or false."""

    path: str
    message: str
    hint: str
    code: str = "NotFound"


class Each(Node):
    """`x-each` in its long form: the distinct elements of several lists in order, and at most so many of them.

    What was left out makes the answer incomplete, in words. `as_` is what later steps and mappings call the list of
    the elements that were taken and answered.
    """

    in_: Annotated[list[str], Field(min_length=1)] = Field(alias="in")
    most: Annotated[int, Field(ge=1, le=100)]
    as_: Kebab | None = Field(default=None, alias="as")


class DefaultValue(Node):
    """One value of `x-defaults`: what the path leads to, or the word for it."""

    value: str
    words: dict[str, str] | None = None


class Defaults(Node):
    """`x-defaults`: values of inputs for which `with` has none; `as_` is what mappings call those that were taken."""

    values: Annotated[dict[str, DefaultValue], Field(min_length=1)]
    as_: Kebab = Field(alias="as")


class Repeat(Node):
    """`x-repeat`: send again until the answer has true at this path, and at most so often."""

    until: str
    most: Annotated[int, Field(ge=2, le=100)]


class CallStep(Node):
    """One request of a flow; of an operation that pages, all pages or at most `x-most` items.

    `x-partial` says what part of the whole it is that the step reads; an answer with it is not complete.
    """

    type: Literal["call"]
    call: CallName
    with_: With = Field(default={}, alias="with")
    require: Require | None = Field(default=None, alias="x-require")
    when: str | None = Field(default=None, alias="x-when")
    unless: str | None = Field(default=None, alias="x-unless")
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


class LookupStep(Node):
    """Elements of an earlier step's answer whose field matches, or with `x-compare` lies before or after a date."""

    type: Literal["lookup"]
    index: Kebab
    match: Kebab
    lookupValue: str
    outputParameters: Annotated[list[str], Field(min_length=1)]
    require: Require | None = Field(default=None, alias="x-require")
    when: str | None = Field(default=None, alias="x-when")
    unless: str | None = Field(default=None, alias="x-unless")
    compare: Literal["before", "after"] | None = Field(default=None, alias="x-compare")
    count: Kebab | None = Field(default=None, alias="x-count")


Step = Annotated[Annotated[CallStep, Tag("<call>")] | Annotated[LookupStep, Tag("<lookup>")], tagged_by("type")]


class StepMapping(Node):
    """Where in the answer a step's value goes; with `x-count` each distinct object of a list once, and how often."""

    target: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-_.]+$")]
    value: str
    count: Kebab | None = Field(default=None, alias="x-count")


class PreviewRead(Node):
    """One request of `x-confirm`: it only reads."""

    call: CallName
    with_: With = Field(default={}, alias="with")


class Without(Node):
    """Elements that are no loss: those whose `match` field is one of the values at these paths."""

    match: str
    values: Annotated[list[str], Field(min_length=1)]


class Loss(Node):
    """Something of `x-confirm` that would be lost: a path into what was read, to a value or a list.

    Of a list it is told how many, and of the first few the fields in `outputParameters`; `match` keeps the elements
    whose field of this name is the `lookupValue`. With `replacedBy` the value is lost only if this input is given.
    `without` leaves elements out, and with `whileEmpty` there is a loss only while the list at this path is empty.
    """

    value: str
    match: str | None = None
    lookupValue: str | None = None
    outputParameters: list[str] = Field(default=[])
    replacedBy: str | None = None
    without: Without | None = None
    whileEmpty: str | None = None


class Confirm(Node):
    """`x-confirm`: before the tool does anything the person sees what would be lost, and types a name.

    `target` reads the thing itself: where that fails, so does the call. `reads` look at the rest, with what it gave.
    `question` and `name` are texts with slots over the inputs and what was read; where `name` is empty, an id is typed.
    Nothing is asked if `when` leads to nothing, if `unless` leads to something, or if everything in `loses` has
    `replacedBy` and none of these inputs is given. With `gravity: person` no lesser guard than a person will do. A
    policy that denies this tool by name also denies those in `alike`, and the other way round.
    """

    target: PreviewRead | None = None
    reads: dict[Kebab, PreviewRead] = Field(default={})
    question: str
    name: str
    loses: dict[Extended, Loss] = Field(default={})
    when: str | None = None
    unless: Loss | None = None
    alike: list[ToolName] = Field(default=[])
    gravity: Literal["usual", "person"] = "usual"


class Semantics(Node):
    safe: bool | None = None
    idempotent: bool | None = None
    cacheable: bool | None = None


Outputs = Annotated[
    Annotated[list[Mapped], Tag("<list>")] | Annotated[dict[Extended, Orchestrated], Tag("<map>")],
    Discriminator(tagged_by_shape),
]
"""With `call` a list of one output, with `steps` a map of names."""


class Action(Node):
    """What a tool, flow or resource does: one call, or steps."""

    call: CallName | None = None
    with_: With = Field(default={}, alias="with")
    steps: dict[Kebab, Step] = Field(default={})
    mappings: list[StepMapping] = Field(default=[])
    outputParameters: Outputs | None = None


class Flow(Action):
    """A reusable flow, reached by `ref`."""

    description: str
    tags: list[str] = Field(default=[])
    semantics: Semantics = Semantics()
    outputMediaType: str | None = None
    inputParameters: dict[Extended, ToolInput] = Field(default={})


class Aggregate(Node):
    display: str
    namespace: Kebab
    flows: Annotated[dict[Kebab, Flow], Field(min_length=1)]
