"""Schema of `authentication` of an `exposes` entry: what callers over HTTP must present."""

# ruff: noqa: N815  (fields carry the format's own names)
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from itwin_mcp.capability.schema_types import Node, discriminate_by


class InboundPassword(Node):
    type: Literal["basic", "digest"]
    username: str
    password: str


class InboundKey(Node):
    type: Literal["apikey"]
    key: str
    value: str
    placement: Literal["header", "query"] = "header"


class InboundBearer(Node):
    type: Literal["bearer"]
    token: str


class InboundOAuth(Node):
    """Callers sign in at a server. It is enforced by the settings of a hosted server, which must name it."""

    type: Literal["oauth2"]
    authorizationServerUri: str
    resource: str
    scopes: list[str] = Field(default=[])
    audience: str | None = None
    tokenEndpoint: str | None = None
    tokenValidation: Literal["jwks", "introspection"] = "jwks"


InboundAuthentication = Annotated[
    Annotated[InboundPassword, Tag("<basic>")]
    | Annotated[InboundPassword, Tag("<digest>")]
    | Annotated[InboundKey, Tag("<apikey>")]
    | Annotated[InboundBearer, Tag("<bearer>")]
    | Annotated[InboundOAuth, Tag("<oauth2>")],
    discriminate_by("type"),
]
