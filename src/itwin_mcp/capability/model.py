"""The YAML tree of a capability file as frozen models: Naftiko (Ikanos 1.0.0-beta5) with our words beside it.

The format: https://ikanos.io/schemas/v1.0.0-beta5/ikanos.json. What the format knows and this server does not
serve (REST and skill expositions, scripts, tunnels …) is refused by name instead of being read past.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.extensions import (
    CallName,
    Entity,
    HeaderPart,
    JsonSchema,
    Node,
    Paging,
    Waiting,
)

FORMAT = "1.0.0-beta5"
"""The version of the format that these models read."""

Kebab = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+$")]
Extended = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-_*]+$")]
BindVariable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
BaseUri = Annotated[str, StringConstraints(pattern=r"^https?://[^/{}\s?#@\\]+(/[^{}\s?#\\]*)?$")]
HttpPath = Annotated[str, StringConstraints(pattern=r"^/[^?#\s\\]*$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]{1,64}$")]
"""Some clients cut or refuse longer names of tools."""
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Stakeholder(Node):
    """Somebody who has a part in the capability."""

    role: str
    fullName: str
    email: str | None = None


class Info(Node):
    """What the file is about."""

    display: str
    description: str
    version: str | None = None
    tags: list[str] = Field(default=[])
    created: Date | None = None
    modified: Date | None = None
    stakeholders: list[Stakeholder] = Field(default=[])


class Bind(Node):
    """Variables that come from the process environment: our name for each, and the environment's."""

    namespace: Kebab
    description: str | None = None
    keys: dict[BindVariable, Extended]


class Import(Node):
    """Another file's namespace, taken in; `from` is relative to the importing file."""

    from_: str = Field(alias="from")
    import_: Kebab = Field(alias="import")
    as_: Kebab | None = Field(default=None, alias="as")
    description: str | None = None


def _tag_by(key: str, default: str | None = None) -> Discriminator:
    """Choose a model by the value of a key. Tags stand in `<>`, so that no key of a file is taken for one."""

    def tag(value: Any) -> str | None:
        if not isinstance(value, dict):
            return None
        chosen = "import" if "from" in value else value.get(key, default)
        return f"<{chosen}>" if isinstance(chosen, str) else None

    return Discriminator(tag)


def _tag_by_shape(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else "<map>" if isinstance(value, dict) else None


def _one_of(*kinds: type) -> BeforeValidator:
    """A value of one of these JSON types; one problem, where a plain union would report one for each type."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise PydanticCustomError("kind", "must be {kinds}", {"kinds": " or ".join(_KINDS[kind] for kind in kinds)})
        return value

    return BeforeValidator(check)


_KINDS = {str: "text", int: "a whole number", float: "a number", dict: "a mapping", list: "a list"}


With = dict[str, Annotated[str | int | float, _one_of(str, float, int)]]


# --- consumes ---------------------------------------------------------------------------------------------------


class BasicAuthentication(Node):
    type: Literal["basic"]
    username: str
    password: str


class ApiKeyAuthentication(Node):
    type: Literal["apikey"]
    key: str
    value: str
    placement: Literal["header", "query"] = "header"


class BearerAuthentication(Node):
    type: Literal["bearer"]
    token: str


Authentication = Annotated[
    Annotated[BasicAuthentication, Tag("<basic>")]
    | Annotated[ApiKeyAuthentication, Tag("<apikey>")]
    | Annotated[BearerAuthentication, Tag("<bearer>")],
    _tag_by("type"),
]


class ConsumedParameter(Node):
    """One input of a consumed operation; `x-wire` is its name on the wire where the format cannot spell it."""

    in_: Literal["query", "header", "path"] = Field(alias="in")
    value: str | None = None
    wire: str | None = Field(default=None, alias="x-wire")


class ConsumedOutput(Node):
    """A named value taken from an operation's answer, for the steps of a flow."""

    type: Literal["string", "number", "boolean", "object", "array"]
    value: str


class JsonRequestBody(Node):
    type: Literal["json"]
    data: Annotated[str | dict[str, Any] | list[Any], _one_of(dict, list, str)]


class TextRequestBody(Node):
    type: Literal["text", "xml", "sparql"]
    data: str


class FormRequestBody(Node):
    type: Literal["formUrlEncoded"]
    data: dict[str, str]


RequestBody = Annotated[
    Annotated[JsonRequestBody, Tag("<json>")]
    | Annotated[TextRequestBody, Tag("<text>")]
    | Annotated[TextRequestBody, Tag("<xml>")]
    | Annotated[TextRequestBody, Tag("<sparql>")]
    | Annotated[FormRequestBody, Tag("<formUrlEncoded>")],
    _tag_by("type"),
]


class ConsumedOperation(Node):
    """One operation of an HTTP API."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    display: str | None = None
    description: str | None = None
    tags: list[str] = Field(default=[])
    inputParameters: dict[Extended, ConsumedParameter] = Field(default={})
    body: RequestBody | None = None
    outputRawFormat: Literal["json", "binary"] = "json"
    outputMediaType: str | None = None
    outputParameters: dict[Extended, ConsumedOutput] = Field(default={})
    page: Paging | None = Field(default=None, alias="x-page")
    wait: Waiting | None = Field(default=None, alias="x-wait")
    doc: str | None = Field(default=None, alias="x-doc")
    permission: str | None = Field(default=None, alias="x-permission")


class ConsumedResource(Node):
    """A path of an HTTP API and its operations."""

    path: HttpPath
    display: str | None = None
    description: str | None = None
    tags: list[str] = Field(default=[])
    operations: Annotated[dict[Kebab, ConsumedOperation], Field(min_length=1)]


class Consumes(Node):
    """An HTTP API that is called."""

    type: Literal["http"]
    namespace: Kebab
    baseUri: BaseUri
    description: str | None = None
    inputParameters: dict[Extended, ConsumedParameter] = Field(default={})
    authentication: Authentication | None = None
    resources: Annotated[dict[Kebab, ConsumedResource], Field(min_length=1)]


# --- inputs and outputs -----------------------------------------------------------------------------------------


class ToolInput(Node):
    """One argument of a tool or flow."""

    type: Literal["string", "number", "integer", "boolean", "array", "object"]
    description: str
    required: bool = True
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    entity: Entity | None = Field(default=None, alias="x-entity")


class MappedScalar(Node):
    type: Literal["string", "number", "boolean"]
    mapping: str | None = None
    value: str | None = None
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    header: HeaderPart | None = Field(default=None, alias="x-header")


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
    _tag_by("type"),
]


class OrchestratedScalar(Node):
    type: Literal["string", "number", "boolean"]
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")


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
    _tag_by("type"),
]


# --- steps ------------------------------------------------------------------------------------------------------


class Require(Node):
    """`x-require`: fail with this error if the path finds nothing."""

    path: str
    message: str
    hint: str
    code: str = "NotFound"


class CallStep(Node):
    """One request of a flow."""

    type: Literal["call"]
    call: CallName
    with_: With = Field(default={}, alias="with")
    require: Require | None = Field(default=None, alias="x-require")
    when: str | None = Field(default=None, alias="x-when")
    each: str | None = Field(default=None, alias="x-each")


class LookupStep(Node):
    """Elements of an earlier step's answer whose field matches."""

    type: Literal["lookup"]
    index: Kebab
    match: Kebab
    lookupValue: str
    outputParameters: Annotated[list[str], Field(min_length=1)]
    require: Require | None = Field(default=None, alias="x-require")
    when: str | None = Field(default=None, alias="x-when")


Step = Annotated[
    Annotated[CallStep, Tag("<call>")] | Annotated[LookupStep, Tag("<lookup>")], _tag_by("type")
]


class StepMapping(Node):
    """Where in the answer a step's value goes."""

    target: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-_.]+$")]
    value: str


# --- aggregates and exposes -------------------------------------------------------------------------------------


class Semantics(Node):
    safe: bool | None = None
    idempotent: bool | None = None
    cacheable: bool | None = None


Outputs = Annotated[
    Annotated[list[Mapped], Tag("<list>")] | Annotated[dict[Extended, Orchestrated], Tag("<map>")],
    Discriminator(_tag_by_shape),
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


class Hints(Node):
    readOnly: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    openWorld: bool | None = None


class Tool(Action):
    """An MCP tool."""

    display: str | None = None
    description: str | None = None
    tags: list[str] = Field(default=[])
    inputParameters: dict[Extended, ToolInput] = Field(default={})
    hints: Hints = Hints()
    ref: CallName | None = None
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    toolset: Kebab | None = Field(default=None, alias="x-toolset")


class Resource(Action):
    """An MCP resource, or a resource template when its URI has slots."""

    display: str
    uri: str
    description: str
    mimeType: str = "application/json"
    binary: bool = False
    entities: dict[str, Entity] = Field(default={}, alias="x-entity")


class PromptArgument(Node):
    display: str | None = None
    description: str
    required: bool = True


class PromptMessage(Node):
    role: Literal["user", "assistant"]
    content: str


class Prompt(Node):
    """An MCP prompt."""

    display: str
    description: str
    arguments: dict[Extended, PromptArgument] = Field(default={})
    template: Annotated[list[PromptMessage], Field(min_length=1)]


class Exposes(Node):
    """An MCP surface. Transport, address and port are the file's; `serve` does not use them."""

    type: Literal["mcp"]
    transport: Literal["http", "stdio"] = "http"
    address: str | None = None
    port: int | None = None
    namespace: Kebab
    description: str | None = None
    tools: Annotated[dict[ToolName, Tool], Field(min_length=1)]
    resources: dict[Kebab, Resource] = Field(default={})
    prompts: dict[Kebab, Prompt] = Field(default={})
    toolset: Kebab | None = Field(default=None, alias="x-toolset")


ConsumesOrImport = Annotated[
    Annotated[Consumes, Tag("<http>")] | Annotated[Import, Tag("<import>")], _tag_by("type")
]
AggregateOrImport = Annotated[
    Annotated[Aggregate, Tag("<aggregate>")] | Annotated[Import, Tag("<import>")], _tag_by("", "aggregate")
]
BindOrImport = Annotated[
    Annotated[Bind, Tag("<bind>")] | Annotated[Import, Tag("<import>")], _tag_by("", "bind")
]
ExposesOrImport = Annotated[
    Annotated[Exposes, Tag("<mcp>")] | Annotated[Import, Tag("<import>")], _tag_by("type")
]


class Capability(Node):
    """What a capability consumes and exposes."""

    binds: list[BindOrImport] = Field(default=[])
    consumes: list[ConsumesOrImport] = Field(default=[])
    aggregates: list[AggregateOrImport] = Field(default=[])
    exposes: list[ExposesOrImport] = Field(default=[])


class CapabilityFile(Node):
    """A whole file: a capability, or one section that other files import."""

    ikanos: Literal["1.0.0-beta5"]
    info: Info | None = None
    binds: list[BindOrImport] = Field(default=[])
    capability: Capability | None = None
    consumes: list[ConsumesOrImport] = Field(default=[])
    aggregates: list[AggregateOrImport] = Field(default=[])
    exposes: list[ExposesOrImport] = Field(default=[])

    @model_validator(mode="after")
    def _sections_stand_once(self) -> CapabilityFile:
        given = [name for name in ("consumes", "aggregates", "exposes") if name in self.model_fields_set]
        if self.capability is not None and given:
            raise PydanticCustomError(
                "sections",
                "{names} at the top of a file that has a `capability`: move it under `capability`",
                {"names": " and ".join(f"`{name}`" for name in given)},
            )
        return self
