"""Schema of a capability file as frozen models: Naftiko (Ikanos 1.0.0-beta4 to beta7) with our `x-` words.

The format: https://ikanos.io/schemas/v1.0.0-beta5/ikanos.json. Words of the format that this server does not serve
(control ports, scripts, tunnels …) are read here; `not_served` warns of them by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, Tag, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.entity_declarations import EntityDeclaration
from itwin_mcp.capability.extensions import (
    EmptyNote,
    FileBody,
    MemberCode,
    NameList,
    Paging,
    Refusal,
    Transfer,
    Waiting,
)
from itwin_mcp.capability.flow_schema import ActionSpec, Aggregate, Confirm, ToolInput
from itwin_mcp.capability.inbound_schema import InboundAuthentication
from itwin_mcp.capability.rest_schema import ExposesRest
from itwin_mcp.capability.schema_types import (
    BaseUri,
    BindVariable,
    CallName,
    Date,
    Extended,
    HttpPath,
    JsonSchema,
    Kebab,
    Labelled,
    Node,
    ToolName,
    discriminate_by,
    require_type,
)
from itwin_mcp.capability.skill_schema import ExposesSkill

NOT_SERVED = frozenset(
    {
        "address",
        "dependencies",
        "digest",
        "file",
        "language",
        "location",
        "multipartForm",
        "oauth2",
    }
)
"""Keys and types of the format that this server does not serve in some places. They are refused by name."""

VERSIONS = ("1.0.0-beta4", "1.0.0-beta5", "1.0.0-beta6", "1.0.0-beta7")
"""The versions of the format that are read."""
CONSUMES_MCP_SINCE = "1.0.0-beta6"
"""The version after which a file may consume an MCP server. The schema of beta7 has it, that of beta5 does not."""


class Stakeholder(Node):
    """A person responsible for the capability."""

    role: str
    fullName: str
    email: str | None = None


class Info(Node):
    """Facts about the file."""

    display: str
    description: str
    version: str | None = None
    tags: list[str] = Field(default=[])
    created: Date | None = None
    modified: Date | None = None
    stakeholders: list[Stakeholder] = Field(default=[])


class Bind(Node):
    """Values from outside. `keys` maps their names in the file to those in the environment, or in the `location`."""

    namespace: Kebab
    description: str | None = None
    location: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9+.-]*://")] | None = None
    keys: dict[BindVariable, Extended]


class Import(Node):
    """An import of a namespace from another file. `from` is a path relative to the importing file."""

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
    discriminate_by("type"),
]


class ConsumedParameter(Node):
    """One input of a consumed operation. `x-wire` is its name in the request, if the format forbids that name."""

    in_: Literal["query", "header", "path"] = Field(alias="in")
    value: str | None = None
    wire: str | None = Field(default=None, alias="x-wire")


class ConsumedOutput(Node):
    """A named value of an operation's answer, for the steps of a flow."""

    type: Literal["string", "number", "boolean", "object", "array"]
    value: str


class JsonRequestBody(Node):
    type: Literal["json"]
    data: Annotated[str | dict[str, Any] | list[Any], require_type(dict, list, str)]


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
    discriminate_by("type"),
    BeforeValidator(lambda value: {"type": "json", "data": value} if isinstance(value, str) else value),
]
"""A body. Text alone is JSON with slots."""


class ConsumedOperation(Labelled):
    """One operation of an HTTP API."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    inputParameters: dict[Extended, ConsumedParameter] = Field(default={})
    body: RequestBody | None = None
    outputRawFormat: Literal["json", "binary", "xml", "csv", "tsv", "psv", "yaml"] = "json"
    outputMediaType: str | None = None
    outputSchema: str | None = None
    outputParameters: dict[Extended, ConsumedOutput] = Field(default={})
    file: FileBody | None = Field(default=None, alias="x-body")
    page: Paging | None = Field(default=None, alias="x-page")
    wait: Waiting | None = Field(default=None, alias="x-wait")
    doc: str | None = Field(default=None, alias="x-doc")
    permission: str | None = Field(default=None, alias="x-permission")
    codes: dict[str, MemberCode] = Field(default={}, alias="x-codes")
    refused: dict[str, Refusal] = Field(default={}, alias="x-refused")
    names: NameList | None = Field(default=None, alias="x-names")


class ConsumedResource(Labelled):
    """A path of an HTTP API and its operations."""

    path: HttpPath
    operations: Annotated[dict[Kebab, ConsumedOperation], Field(min_length=1)]


class Consumes(Node):
    """An HTTP API that the file calls."""

    type: Literal["http"]
    namespace: Kebab
    baseUri: BaseUri
    description: str | None = None
    inputParameters: dict[Extended, ConsumedParameter] = Field(default={})
    authentication: Authentication | None = None
    codes: dict[str, MemberCode] = Field(default={}, alias="x-codes")
    resources: Annotated[dict[Kebab, ConsumedResource], Field(min_length=1)]
    tunnel: dict[str, Any] | None = None


class ConsumesMcp(Node):
    """An MCP server that the file calls. It is not served, so its keys are not checked."""

    model_config = ConfigDict(extra="allow")

    type: Literal["mcp"]
    namespace: Kebab


class Hints(Node):
    readOnly: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    openWorld: bool | None = None


class ToolSpec(ActionSpec, Labelled):
    """An MCP tool."""

    inputParameters: dict[Extended, ToolInput] = Field(default={})
    hints: Hints = Hints()
    ref: CallName | None = None
    x_schema: JsonSchema | None = Field(default=None, alias="x-schema")
    toolset: Kebab | None = Field(default=None, alias="x-toolset")
    transfer: Transfer | None = Field(default=None, alias="x-transfer")
    confirm: Confirm | None = Field(default=None, alias="x-confirm")
    empty: EmptyNote | None = Field(default=None, alias="x-empty")


class ResourceSpec(ActionSpec):
    """An MCP resource: a template if its URI has slots, the text files of a folder if it has a `location`."""

    display: str
    uri: str
    description: str
    mimeType: str = "application/json"
    binary: bool = False
    location: str | None = None
    entities: dict[str, str] = Field(default={}, alias="x-entity")


class Choices(Node):
    """`x-schema` of a prompt's argument: the accepted values."""

    enum: Annotated[list[str], Field(min_length=1)]


class PromptArgument(Node):
    display: str | None = None
    description: str
    required: bool = True
    x_schema: Choices | None = Field(default=None, alias="x-schema")


class PromptMessage(Node):
    role: Literal["user", "assistant"]
    content: str


class PromptSpec(Node):
    """An MCP prompt."""

    display: str
    description: str
    arguments: dict[Extended, PromptArgument] = Field(default={})
    template: Annotated[list[PromptMessage], Field(min_length=1)]


class Exposes(Node):
    """An MCP server: its tools, resources and prompts. The command `serve` chooses transport, address and port."""

    type: Literal["mcp"]
    transport: Literal["http", "stdio"] = "http"
    address: str | None = None
    port: int | None = None
    namespace: Kebab
    description: str | None = None
    authentication: InboundAuthentication | None = None
    ttlMs: int | None = None
    cacheScope: Literal["public", "private"] | None = None
    tools: Annotated[dict[ToolName, ToolSpec], Field(min_length=1)]
    resources: dict[Kebab, ResourceSpec] = Field(default={})
    prompts: dict[Kebab, PromptSpec] = Field(default={})
    toolset: Kebab | None = Field(default=None, alias="x-toolset")


class UnservedExposes(Node):
    """An entry of a type that is not served. Its keys are not checked."""

    model_config = ConfigDict(extra="allow")

    type: Literal["rest", "skill", "control"]
    namespace: Kebab | None = None


ConsumesOrImport = Annotated[
    Annotated[Consumes, Tag("<http>")] | Annotated[ConsumesMcp, Tag("<mcp>")] | Annotated[Import, Tag("<import>")],
    discriminate_by("type", imports=True),
]
AggregateOrImport = Annotated[
    Annotated[Aggregate, Tag("<aggregate>")] | Annotated[Import, Tag("<import>")],
    discriminate_by("", "aggregate", imports=True),
]
BindOrImport = Annotated[
    Annotated[Bind, Tag("<bind>")] | Annotated[Import, Tag("<import>")], discriminate_by("", "bind", imports=True)
]
ExposesOrImport = Annotated[
    Annotated[Exposes, Tag("<mcp>")]
    | Annotated[ExposesRest, Tag("<rest>")]
    | Annotated[ExposesSkill, Tag("<skill>")]
    | Annotated[UnservedExposes, Tag("<control>")]
    | Annotated[Import, Tag("<import>")],
    discriminate_by("type", imports=True),
]


class Capability(Node):
    """The APIs that a capability consumes, and the tools that it exposes."""

    binds: list[BindOrImport] = Field(default=[])
    consumes: list[ConsumesOrImport] = Field(default=[])
    aggregates: list[AggregateOrImport] = Field(default=[])
    exposes: list[ExposesOrImport] = Field(default=[])


class CapabilityFile(Node):
    """A whole file: a capability, or one section for other files to import."""

    ikanos: Literal["1.0.0-beta4", "1.0.0-beta5", "1.0.0-beta6", "1.0.0-beta7"]
    info: Info | None = None
    binds: list[BindOrImport] = Field(default=[])
    capability: Capability | None = None
    consumes: list[ConsumesOrImport] = Field(default=[])
    aggregates: list[AggregateOrImport] = Field(default=[])
    exposes: list[ExposesOrImport] = Field(default=[])
    entities: dict[Kebab, EntityDeclaration] = Field(default={}, alias="x-entities")

    @model_validator(mode="after")
    def _check_sections(self) -> CapabilityFile:
        sections = [name for name in ("consumes", "aggregates", "exposes") if name in self.model_fields_set]
        if self.capability is not None and sections:
            raise PydanticCustomError(
                "sections",
                "{names} at the top of a file with a `capability`: move it under `capability`",
                {"names": " and ".join(f"`{name}`" for name in sections)},
            )
        return self
