"""Our closed `x-` vocabulary, and how to strip it by position for a plain Naftiko file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

JsonSchema = dict[str, Any]
"""A JSON Schema fragment, draft 2020-12, kept as it is written."""

CallName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]+\.[a-zA-Z0-9-]+$")]
"""`namespace.operation`."""

Entity = Literal[
    "itwin",
    "account",
    "imodel",
    "changeset",
    "named-version",
    "briefcase",
    "checkpoint",
    "repository",
    "resource",
    "user",
    "export",
    "share",
    "changeset-group",
    "role",
]
"""What an argument with `x-entity` may name."""


class Node(BaseModel):
    """A mapping of a capability file: closed, frozen, and without coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HeaderPart(Node):
    """`x-header`: the value comes from this response header; `last-segment` is the last part of a link's path."""

    name: str
    take: Literal["value", "last-segment"] = "value"


class Paging(Node):
    """`x-page`: how an operation pages.

    `items` is where a page's items are, `next` where the link or token of the next page is, `size` the input
    parameter that sets the page size, `most` the largest page the platform gives, `skip` the parameter of the
    `skip` style and `token` that of the `token` style. `cap` names the header that bounds a whole listing
    (iTwins: `X-Max-Return`), `within` its value.
    """

    style: Literal["link", "token", "skip"]
    items: str
    next: str | None = None
    size: str | None = None
    most: Annotated[int, Field(ge=1)] = 1000
    skip: str | None = None
    token: str | None = None
    count: str | None = None
    within: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _style_has_what_it_needs(self) -> Paging:
        missing = {
            "link": self.next is None and "next",
            "token": (self.next is None and "next") or (self.token is None and "token"),
            "skip": self.skip is None and "skip",
        }[self.style]
        if missing:
            raise ValueError(f"x-page of style {self.style!r} needs {missing!r}")
        return self


class JobHandle(Node):
    """Where the handle of a job is: a response `header` (the last segment of its link), a path in the `body`, or an
    `input` parameter; `as_` names it in the answer's `job`, `in_` the slot of the polled path that takes it."""

    header: str | None = None
    body: str | None = None
    input: str | None = None
    as_: str = Field(alias="as")
    in_: str | None = Field(default=None, alias="in")

    @model_validator(mode="after")
    def _one_place(self) -> JobHandle:
        if sum(place is not None for place in (self.header, self.body, self.input)) != 1:
            raise ValueError("a handle is in exactly one of header, body, input")
        return self


class Waiting(Node):
    """`x-wait`: the operation starts a job. A state that is neither pending nor done has failed.

    `default` is how many seconds the added `wait` argument stands at; `reason` is where a failure's reason is;
    `check` names the tool that looks at the job later.
    """

    handle: JobHandle
    poll: CallName
    state: str
    pending: list[str]
    done: list[str]
    result: CallName | None = None
    reason: str | None = None
    subject: str = "The job"
    check: str | None = None
    default: Annotated[int, Field(ge=0, le=55)] = 30


_NAME_MAPS = frozenset(
    {
        "inputParameters",
        "resources",
        "operations",
        "flows",
        "tools",
        "prompts",
        "arguments",
        "steps",
        "with",
        "keys",
        "properties",
    }
)
"""Mappings whose keys are names: a key in them that begins with `x-` is somebody's name and stays."""


def strip(document: Any) -> Any:
    """The document without our words, so that what remains is plain Naftiko.

    Position decides: in a mapping whose keys are names, and anywhere in `body.data`, `x-…` is a name.
    """
    return _strip(document, names=False, parent="")


def _strip(value: Any, *, names: bool, parent: str) -> Any:
    if isinstance(value, list):
        return [_strip(item, names=False, parent="") for item in value]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for key, child in value.items():
        if not names and key.startswith("x-"):
            continue
        if parent == "body" and not names and key == "data":
            kept[key] = child
            continue
        holds_names = not names and (
            key in _NAME_MAPS or (key == "outputParameters" and isinstance(child, dict))
        )
        kept[key] = _strip(child, names=holds_names, parent="" if names else key)
    return kept
