"""`x-entities`: how a capability file declares the entities of its API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Tag

from itwin_mcp.capability.schema_types import TEXT_OR_MAP, CallName, Extended, Node, ToolName


class _Part(Node):
    """A part of a declaration. Its validator is built with that of a file: building each one slows every start."""

    model_config = ConfigDict(defer_build=True)


class IdForm(_Part):
    """`id` in its long form: the regular expression of an id, and whether a UUID is one, too.

    With `lower` an id is written in lower case.
    """

    pattern: str
    or_: Literal["uuid"] | None = Field(default=None, alias="or")
    lower: bool = False


class LinkForm(_Part):
    """`link`: the path segment after which the id is in a link, and where it is in a link of the developer portal."""

    segment: str
    portal: Annotated[int, Field(ge=1)] | None = None


class Parent(_Part):
    """`in` in its long form: the entity that contains this one.

    With `assumed`, a name is looked up in the preset or the most recently used container if the call names none. In a
    call that writes, the container that it names is the destination instead.
    """

    kind: str
    assumed: bool = False


class ListSearch(_Part):
    """One listing in which a name is looked up: an item is the thing if its member `match` is the text.

    `by` is the input that takes the text; without it the whole listing is read. `within` is the input that takes the
    id of the entity around it, `note` the member that `resolved` shows as the name of what was found. With `form:
    e-mail` only texts with an @ are looked up, in any case.
    """

    call: CallName
    items: str
    match: str
    by: Extended | None = None
    within: Extended | None = None
    with_: dict[Extended, str | int | bool] = Field(default={}, alias="with")
    where: str | None = None
    note: str | None = None
    form: Literal["e-mail"] | None = None


class ParentRead(_Part):
    """`read`: the operation that reads the thing by its id, and the path of the id of what it is in."""

    call: CallName
    input: Extended
    parent: str


class RecentRead(_Part):
    """`recent`: the listing whose first item the caller used last."""

    call: CallName
    items: str
    with_: dict[Extended, str | int | bool] = Field(default={}, alias="with")


class ListingTool(_Part):
    """`complete`: a tool that lists what can be completed, the arguments that it needs, and the one that searches."""

    tool: ToolName
    items: str
    within: list[Extended] = Field(default=[])
    search: Extended | None = None


class MemberRead(_Part):
    """A read of one thing: `within` takes the id of its container, `input` its id or index; `item` is the answer."""

    call: CallName
    within: Extended
    input: Extended
    item: str


class MarkedRead(MemberRead):
    """A read of a thing that marks one of a sequence, such as a named version."""

    kind: str


class NewestRead(_Part):
    """The listing of a sequence, newest first; `size` and `below` are the inputs for how many, and up to which."""

    call: CallName
    within: Extended
    items: str
    size: Extended
    below: Extended
    with_: dict[Extended, str | int | bool] = Field(default={}, alias="with")


class SequenceReads(_Part):
    """`sequence`: the things have an index, and follow each other in what they are in.

    `newest` lists them, `one` reads one by its index, and `marked` reads a thing of the kind `kind` that marks one.
    """

    newest: NewestRead
    one: MemberRead
    marked: MarkedRead


class PeopleForm(_Part):
    """`people`: the entity stands for people.

    `items` is the list of an answer that shows them, `labels` the members that say who one is, the best first.
    """

    items: str
    labels: Annotated[list[str], Field(min_length=1)]


class EntityDeclaration(_Part):
    """One entity of `x-entities`."""

    display: str | None = None
    id: Annotated[Annotated[Literal["uuid", "word"], Tag("<text>")] | Annotated[IdForm, Tag("<map>")], TEXT_OR_MAP] = (
        "uuid"
    )
    link: Annotated[Annotated[str, Tag("<text>")] | Annotated[LinkForm, Tag("<map>")], TEXT_OR_MAP] | None = None
    in_: Annotated[Annotated[str, Tag("<text>")] | Annotated[Parent, Tag("<map>")], TEXT_OR_MAP] | None = Field(
        default=None, alias="in"
    )
    read: ParentRead | None = None
    recent: RecentRead | None = None
    find: list[ListSearch] = Field(default=[])
    sequence: SequenceReads | None = None
    complete: list[ListingTool] = Field(default=[])
    labels: list[str] = Field(default=["displayName", "name"])
    people: PeopleForm | None = None
    list_: ToolName | None = Field(default=None, alias="list")
    hint: str | None = None
    paths: list[Annotated[str, Field(pattern=r"^(/([a-z0-9._~-]+|\{\}))+$")]] = Field(default=[])
    codes: list[str] | None = None
    unique: str | None = None
    refusals: dict[str, str] = Field(default={})
    words: list[str] = Field(default=[])
