"""Schema of `exposes` entries of type `skill`: guides for agents about the tools of the same file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.inbound_schema import InboundAuthentication
from itwin_mcp.capability.rest_schema import Port
from itwin_mcp.capability.schema_types import Kebab, Node


class SkillSource(Node):
    """A tool of an entry of type `mcp`, or an operation of one of type `rest`, in the same file."""

    sourceNamespace: Kebab  # noqa: N815  (the format's own name)
    action: str


class SkillToolSpec(Node):
    """A tool of a skill: one that is served, or an instruction in a file."""

    description: str
    from_: SkillSource | None = Field(default=None, alias="from")
    instruction: str | None = None

    @model_validator(mode="after")
    def _check_source(self) -> SkillToolSpec:
        if (self.from_ is None) == (self.instruction is None):
            raise PydanticCustomError("one-source", "needs one of `from` and `instruction`", {})
        return self


class SkillSpec(Node):
    """A skill: the front matter of its SKILL.md, and its tools."""

    description: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    license: str | None = None
    compatibility: Annotated[str, StringConstraints(max_length=500)] | None = None
    metadata: dict[str, str] = Field(default={})
    allowed_tools: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, alias="allowed-tools"
    )
    argument_hint: str | None = Field(default=None, alias="argument-hint")
    user_invocable: bool | None = Field(default=None, alias="user-invocable")
    disable_model_invocation: bool | None = Field(default=None, alias="disable-model-invocation")
    location: str | None = None
    tools: dict[Kebab, SkillToolSpec] = Field(default={})


class ExposesSkill(Node):
    """Skills that are exported, and served as resources."""

    type: Literal["skill"]
    address: str | None = None
    port: Port
    namespace: Kebab
    description: str | None = None
    authentication: InboundAuthentication | None = None
    skills: Annotated[dict[Kebab, SkillSpec], Field(min_length=1)]
