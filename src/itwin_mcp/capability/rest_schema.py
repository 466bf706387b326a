"""Schema of `exposes` entries of type `rest`: resources, operations, where each input arrives, and the responses."""

# ruff: noqa: N815  (fields carry the format's own names)
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.flow_schema import ActionSpec
from itwin_mcp.capability.inbound_schema import InboundAuthentication
from itwin_mcp.capability.schema_types import CallName, Extended, JsonSchema, Kebab, Node

MediaType = Annotated[
    str,
    StringConstraints(pattern=r'^[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;\s*[\w!#$&^.+-]+=([\w!#$&^.+-]+|"[^"\r\n]*"))*$'),
]
StatusText = Annotated[str, StringConstraints(pattern=r"^[1-5][0-9X]{2}$")]
Status = Annotated[int, Field(ge=200, le=599)]
Port = Annotated[int, Field(ge=1, le=65535)]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
InputPlace = Literal["query", "header", "path", "cookie", "body"]


class RestInput(Node):
    """One input of an operation. With `value` it is a constant that no request can change."""

    in_: InputPlace = Field(alias="in")
    type: Literal["string", "number", "integer", "boolean", "array", "object"]
    description: str
    pattern: str | None = None
    value: str | None = None


class ResponseContent(Node):
    binary: bool = False
    schema_: JsonSchema | None = Field(default=None, alias="schema")


class ResponseSpec(Node):
    """The meaning of a status code, for the OpenAPI document."""

    description: str | None = None
    content: dict[MediaType, ResponseContent] = Field(default={})


class BinaryResponse(Node):
    """The short form for an operation that returns bytes."""

    status: Status = 200
    mediaType: MediaType
    description: str | None = None


class RestOperationSpec(ActionSpec):
    """An operation that callers send requests to."""

    display: str | None = None
    description: str | None = None
    tags: list[str] = Field(default=[])
    method: Method = "GET"
    inputParameters: dict[Extended, RestInput] = Field(default={})
    ref: CallName | None = None
    responses: dict[StatusText, ResponseSpec] = Field(default={})
    responseBinary: BinaryResponse | None = None

    @model_validator(mode="after")
    def _check_responses(self) -> RestOperationSpec:
        if self.responses and self.responseBinary is not None:
            raise PydanticCustomError("responses", "has both `responses` and `responseBinary`: keep one", {})
        return self


class Forward(Node):
    """Passes requests on to the operations of a consumed API, with the listed headers only."""

    targetNamespace: Kebab
    trustedHeaders: list[str] = Field(default=[])


class RestResource(Node):
    """A path and its operations. Its inputs belong to each of them."""

    path: str
    display: str | None = None
    description: str | None = None
    tags: list[str] = Field(default=[])
    inputParameters: dict[Extended, RestInput] = Field(default={})
    operations: dict[Kebab, RestOperationSpec] = Field(default={})
    forward: Forward | None = None

    @model_validator(mode="after")
    def _check_content(self) -> RestResource:
        if not self.operations and self.forward is None:
            raise PydanticCustomError("required-key", "needs `operations` or `forward`", {})
        return self


class ExposesRest(Node):
    """A REST API over what the file consumes. `serve` ignores address and port without `--ports-of-file`."""

    type: Literal["rest"]
    address: str | None = None
    port: Port
    namespace: Kebab
    authentication: InboundAuthentication | None = None
    maxBinarySize: Any = None
    resources: dict[Kebab, RestResource] = Field(default={})
