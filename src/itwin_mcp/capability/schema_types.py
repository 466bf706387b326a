"""Building blocks of the schema of capability files: strict models, types of names, and discriminated unions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints
from pydantic_core import PydanticCustomError

Kebab = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+$")]
Extended = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-_*]+$")]
BindVariable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
BaseUri = Annotated[str, StringConstraints(pattern=r"^https?://[^/{}\s?#@\\]+(/[^{}\s?#\\]*)?$")]
HttpPath = Annotated[str, StringConstraints(pattern=r"^[^?#\s\\]*$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]{1,60}$")]
"""At most 60 characters, because some clients prefix the name of the server and then cut or refuse longer names."""
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
CallName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+\.[a-zA-Z0-9-]+$")]
"""`namespace.operation`."""
JsonSchema = dict[str, Any]
"""A JSON Schema fragment, draft 2020-12, as it is in the file."""


class Node(BaseModel):
    """A mapping of a capability file. It rejects unknown keys, does not convert values, and is frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Labelled(Node):
    """A node with texts for people."""

    display: str | None = None
    description: str | None = None
    tags: list[str] = Field(default=[])


def discriminate_by(key: str, default: str | None = None, *, imports: bool = False) -> Discriminator:
    """Choose a model by the value of a key, or by `default`. With `imports`, a mapping with `from` is an import.

    Tags are in `<>`, so that they differ from every key of a file in the locations of errors.
    """

    def tag(value: Any) -> str | None:
        if not isinstance(value, dict):
            return None
        chosen = "import" if imports and "from" in value else value.get(key, default)
        return f"<{chosen}>" if isinstance(chosen, str) else None

    return Discriminator(tag)


_SHAPES: dict[type, str] = {str: "<text>", list: "<list>", dict: "<map>"}


def tag_by_shape(value: Any) -> str | None:
    """Return the tag of a value: `<text>`, `<list>` or `<map>`."""
    return _SHAPES.get(type(value))


TEXT_OR_MAP = Discriminator(tag_by_shape, custom_error_type="kind", custom_error_message="must be text or a mapping")
"""For a word with a short form, which is text, and a long form. The tags are `<text>` and `<map>`."""
TEXT_OR_LIST = Discriminator(tag_by_shape, custom_error_type="kind", custom_error_message="must be text or a list")
"""For a word that takes one text or several. The tags are `<text>` and `<list>`."""


def require_type(*kinds: type) -> BeforeValidator:
    """Accept a value of one of these types. A plain union would report one problem for each type."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise PydanticCustomError("kind", "must be {kinds}", {"kinds": " or ".join(KINDS[kind] for kind in kinds)})
        return value

    return BeforeValidator(check)


KINDS = {str: "text", int: "a whole number", float: "a number", dict: "a mapping", list: "a list"}
