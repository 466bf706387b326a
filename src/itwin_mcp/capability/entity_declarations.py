"""Schema of `x-entities`, with which a capability file declares the entities of its API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Tag

from itwin_mcp.capability.schema_types import TEXT_OR_MAP, CallName, Extended, Node, ToolName


class _Part(Node):
    """A part of a declaration. Its validator is built only as part of a file's, to keep every start fast."""

    model_config = ConfigDict(defer_build=True)


class IdForm(_Part):
    """`id` in its long form: a regular expression. With `or: uuid`, UUIDs are ids too; `lower` is for lower case."""

    pattern: str
    or_: Literal["uuid"] | None = Field(default=None, alias="or")
    lower: bool = False


class LinkForm(_Part):
    """`link`: the path segment before the id in a link.

    `portal` is the number of segments from `my-itwins` to the id in a link of the developer portal.
    """

    segment: str
    portal: Annotated[int, Field(ge=1)] | None = None


class Parent(_Part):
    """`in` in its long form: the entity that contains this one.

    With `assumed`, names are looked up in the preset or most recently used container if the call names none. If the
    call writes, a container that it names is the destination, and names are not looked up there.
    """

    kind: str
    assumed: bool = False


class ListingCall(_Part):
    """A call that lists things: `items` is the list in the answer, `with` has constant inputs."""

    call: CallName
    items: str
    with_: dict[Extended, str | int | bool] = Field(default={}, alias="with")


class ListSearch(ListingCall):
    """`find`: a listing in which a name is looked up. An item matches if its member `match` equals the name.

    `by` is the input that takes the name; without it, the whole listing is read. `within` is the input that takes the
    id of the container. `note` is the member that `resolved` shows as the name of the match. With `form: e-mail`, only
    names with an @ are looked up, regardless of case.
    """

    match: str
    by: Extended | None = None
    within: Extended | None = None
    where: str | None = None
    note: str | None = None
    form: Literal["e-mail"] | None = None


class ParentRead(_Part):
    """`read`: the operation that reads the thing by its id. `parent` is the path of its container's id."""

    call: CallName
    input: Extended
    parent: str


class RecentRead(ListingCall):
    """`recent`: a listing of the things that the caller used, the most recent first."""


class ListingTool(_Part):
    """`complete`: a tool that lists candidates for completion.

    `within` are the arguments that it needs, `search` is its argument for the text to complete.
    """

    tool: ToolName
    items: str
    within: list[Extended] = Field(default=[])
    search: Extended | None = None


class MemberRead(_Part):
    """A read of one thing.

    `within` is the input for the id of its container, `input` the input for its id or index. `item` is the member of
    the answer that contains the thing.
    """

    call: CallName
    within: Extended
    input: Extended
    item: str


class MarkedRead(MemberRead):
    """A read of a thing that marks one of a sequence, such as a named version."""

    kind: str


class NewestRead(ListingCall):
    """The listing of a sequence, newest first. `size` is the input for the page size, `below` for the highest index."""

    within: Extended
    size: Extended
    below: Extended


class SequenceReads(_Part):
    """`sequence`: the things in a container are numbered by an index.

    `newest` lists them and `one` reads one by its index. `marked` reads a thing of another kind that marks one of them.
    """

    newest: NewestRead
    one: MemberRead
    marked: MarkedRead


class PeopleForm(_Part):
    """`people`: the entity stands for people.

    `items` is the member of answers that lists them. `labels` are the members of a person that may contain a name, in
    order of preference.
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
