"""What the models of a capability file are made of: closed nodes, kinds of names, and unions told apart by a key."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, StringConstraints
from pydantic_core import PydanticCustomError

Kebab = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+$")]
Extended = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-_*]+$")]
BindVariable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
BaseUri = Annotated[str, StringConstraints(pattern=r"^https?://[^/{}\s?#@\\]+(/[^{}\s?#\\]*)?$")]
HttpPath = Annotated[str, StringConstraints(pattern=r"^/[^?#\s\\]*$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]{1,60}$")]
"""Some clients cut or refuse longer names, to which they add the name of the server."""
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
CallName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+\.[a-zA-Z0-9-]+$")]
"""`namespace.operation`."""
JsonSchema = dict[str, Any]
"""A JSON Schema fragment, draft 2020-12, kept as it is written."""


class Node(BaseModel):
    """A mapping of a capability file: closed, frozen, and without coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def tagged_by(key: str, default: str | None = None, *, imports: bool = False) -> Discriminator:
    """Choose a model by the value of a key, `default` without one; with `imports`, a `from` makes it an import.

    Tags stand in `<>`, so that no key of a file is taken for one.
    """

    def tag(value: Any) -> str | None:
        if not isinstance(value, dict):
            return None
        chosen = "import" if imports and "from" in value else value.get(key, default)
        return f"<{chosen}>" if isinstance(chosen, str) else None

    return Discriminator(tag)


def tagged_by_shape(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else "<map>" if isinstance(value, dict) else None


def _tag_of_text_or_map(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<map>" if isinstance(value, dict) else None


TEXT_OR_MAP = Discriminator(
    _tag_of_text_or_map, custom_error_type="kind", custom_error_message="must be text or a mapping"
)
"""A word with a short form, which is text, and a long one; their tags are `<text>` and `<map>`."""


def one_of(*kinds: type) -> BeforeValidator:
    """A value of one of these JSON types; one problem, where a plain union would report one for each type."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise PydanticCustomError("kind", "must be {kinds}", {"kinds": " or ".join(KINDS[kind] for kind in kinds)})
        return value

    return BeforeValidator(check)


KINDS = {str: "text", int: "a whole number", float: "a number", dict: "a mapping", list: "a list"}
