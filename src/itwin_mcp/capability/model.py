"""The YAML tree of a capability file as frozen models: Naftiko (Ikanos 1.0.0-beta5) with our words beside it.

The format: https://ikanos.io/schemas/v1.0.0-beta5/ikanos.json. What the format knows and this server does not
serve (REST and skill expositions, scripts, tunnels …) is refused by name instead of being read past.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.extensions import EmptyNote, Entity, FileBody, MemberCode, Paging, Refusal, Transfer, Waiting
from itwin_mcp.capability.flows import Action, Aggregate, Confirm, ToolInput
from itwin_mcp.capability.node import (
    BaseUri,
    BindVariable,
    CallName,
    Date,
    Extended,
    HttpPath,
    JsonSchema,
    Kebab,
    Node,
    ToolName,
    one_of,
    tagged_by,
)

FORMAT = "1.0.0-beta5"
"""The version of the format that these models read."""

NOT_SERVED = frozenset(
    {
        "address",
        "authentication",
        "cacheScope",
        "const",
        "control",
        "dependencies",
        "digest",
        "file",
        "forward",
        "language",
        "location",
        "maxBinarySize",
        "multipartForm",
        "oauth2",
        "outputSchema",
        "rest",
        "script",
        "skill",
        "ttlMs",
        "tunnel",
    }
)
"""Words of the format, keys and types, that this server does not serve; they are refused by name."""


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
    tagged_by("type"),
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
    data: Annotated[str | dict[str, Any] | list[Any], one_of(dict, list, str)]


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
    tagged_by("type"),
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
    file: FileBody | None = Field(default=None, alias="x-body")
    page: Paging | None = Field(default=None, alias="x-page")
    wait: Waiting | None = Field(default=None, alias="x-wait")
    doc: str | None = Field(default=None, alias="x-doc")
    permission: str | None = Field(default=None, alias="x-permission")
    codes: dict[str, MemberCode] = Field(default={}, alias="x-codes")
    refused: dict[str, Refusal] = Field(default={}, alias="x-refused")


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
    codes: dict[str, MemberCode] = Field(default={}, alias="x-codes")
    resources: Annotated[dict[Kebab, ConsumedResource], Field(min_length=1)]


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
    transfer: Transfer | None = Field(default=None, alias="x-transfer")
    confirm: Confirm | None = Field(default=None, alias="x-confirm")
    empty: EmptyNote | None = Field(default=None, alias="x-empty")


class Resource(Action):
    """An MCP resource, or a resource template when its URI has slots; with `location`, the texts of a folder."""

    display: str
    uri: str
    description: str
    mimeType: str = "application/json"
    binary: bool = False
    location: str | None = None
    entities: dict[str, Entity] = Field(default={}, alias="x-entity")


class Choices(Node):
    """`x-schema` of a prompt's argument, which is always text: what may stand there."""

    enum: Annotated[list[str], Field(min_length=1)]


class PromptArgument(Node):
    display: str | None = None
    description: str
    required: bool = True
    x_schema: Choices | None = Field(default=None, alias="x-schema")


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
    Annotated[Consumes, Tag("<http>")] | Annotated[Import, Tag("<import>")], tagged_by("type", imports=True)
]
AggregateOrImport = Annotated[
    Annotated[Aggregate, Tag("<aggregate>")] | Annotated[Import, Tag("<import>")],
    tagged_by("", "aggregate", imports=True),
]
BindOrImport = Annotated[
    Annotated[Bind, Tag("<bind>")] | Annotated[Import, Tag("<import>")], tagged_by("", "bind", imports=True)
]
ExposesOrImport = Annotated[
    Annotated[Exposes, Tag("<mcp>")] | Annotated[Import, Tag("<import>")], tagged_by("type", imports=True)
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
