"""Our `x-` words: their schema, and their removal for plain Naftiko files."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from itwin_mcp.capability.schema_types import CallName, Node

WORDS = {
    "x-across": "a tool or flow",
    "x-add": "a lookup step",
    "x-body": "a consumed operation",
    "x-changes": "a lookup step",
    "x-codes": "a consumes entry or a consumed operation",
    "x-compare": "a lookup step",
    "x-confirm": "a tool",
    "x-containing": "a tool or flow",
    "x-count": "a lookup step or a mapping",
    "x-defaults": "a call step",
    "x-doc": "a consumed operation",
    "x-each": "a call step",
    "x-empty": "a tool",
    "x-entities": "a capability file, at its top",
    "x-entity": "a tool or flow input, or a resource (a map of its variables)",
    "x-header": "a scalar output parameter",
    "x-most": "a call step",
    "x-names": "a consumed operation",
    "x-page": "a consumed operation",
    "x-partial": "a call step",
    "x-permission": "a consumed operation",
    "x-read": "a scalar or object output parameter of a tool with one call",
    "x-refused": "a consumed operation",
    "x-repeat": "a call step",
    "x-require": "a step",
    "x-schema": "a tool, a tool or flow input, an output parameter, or a prompt argument",
    "x-take": "a scalar output parameter",
    "x-tolerate": "a call step",
    "x-toolset": "an exposes entry or a tool",
    "x-transfer": "a tool",
    "x-unless": "a step",
    "x-wait": "a consumed operation",
    "x-when": "a step",
    "x-wire": "a consumed input parameter",
    "x-within": "a lookup step",
}
"""All of our words, each with the place where it belongs."""


class EntityForm(Node):
    """`x-entity` in its long form: the kind of entity, and the form in which the operation accepts a changeset.

    With `takes: id`, the engine converts an index to an id; otherwise the operation accepts both. `baseline` is how the
    operation identifies the state before the first changeset: by the `index` 0, an `empty` id, or an `absent` argument.
    Without `baseline`, a call with the baseline is refused.
    """

    kind: str
    takes: Literal["id"] | None = None
    baseline: Literal["index", "empty", "absent"] | None = None


class HeaderPart(Node):
    """`x-header`: the response header that has the value. `take: last-segment` reads the last segment of a link."""

    name: str
    take: Literal["value", "last-segment"] = "value"


class Paging(Node):
    """`x-page`: how an operation pages.

    Attributes:
        items: The path of the list of items.
        next: The path of the link to the next page, or of its token.
        size: The input for the page size.
        most: The maximum page size.
        skip: The input for the number of items to skip, with the style `skip`.
        token: The input for the token, with the style `token`.
        count: The path of the total number of items.
        within: The number of items that the platform returns of a whole listing.
        counts: The path, in an item, of the things that the page size counts, if these are not the items.
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
    counts: str | None = None

    @model_validator(mode="after")
    def _check_style(self) -> Paging:
        needed = {"link": ["next"], "token": ["next", "token"], "skip": ["skip"]}[self.style]
        missing = next((key for key in needed if getattr(self, key) is None), None)
        if missing is not None:
            message = "x-page of style '{style}' needs the key '{missing}'"
            raise PydanticCustomError("x-page", message, {"style": self.style, "missing": missing})
        return self


class JobHandle(Node):
    """The handle of a job, which the engine polls.

    It is in a response `header` (the last segment of the link), at a path of the `body`, or in an `input`. `as_` is its
    name in the answer's `job`, and `in_` the slot of the polled path that takes it.
    """

    header: str | None = None
    body: str | None = None
    input: str | None = None
    as_: str = Field(alias="as")
    in_: str | None = Field(default=None, alias="in")

    @model_validator(mode="after")
    def _check_place(self) -> JobHandle:
        if sum(place is not None for place in (self.header, self.body, self.input)) != 1:
            raise PydanticCustomError("x-wait", "a handle needs exactly one of `header`, `body` and `input`")
        return self


class Waiting(Node):
    """`x-wait`: the operation starts a job.

    Attributes:
        poll: The operation that returns the job.
        state: The path of the job's state. States are compared without case. A state in no list is awaited like a
            pending one.
        result: The operation that returns the result of a finished job.
        find: A paged operation that finds the thing by the inputs that both operations have, such as `name`. It is
            called if a lost response leaves open whether the write was carried out.
        reason: The path of the reason of a failure.
        causes: The meaning of each failed state.
        left: Advice about the thing that a failed job leaves behind.
        check: The tool that polls the job in a later call.
        default: The default of the added argument `wait`, in seconds.
    """

    handle: JobHandle
    poll: CallName
    state: str
    pending: list[str]
    done: Annotated[list[str], Field(min_length=1)]
    failed: list[str] = Field(default=[])
    result: CallName | None = None
    find: CallName | None = None
    reason: str | None = None
    causes: dict[str, str] = Field(default={})
    left: str | None = None
    subject: str = "The job"
    check: str | None = None
    default: Annotated[int, Field(ge=0, le=55)] = 30


class MemberCode(Node):
    """`x-codes`: the platform's encoding of one member, which is decoded for callers.

    Exactly one of these is set:
    - `bits`: a sum of numbers, each of which stands for a word;
    - `words`: the platform's spelling of each word;
    - `joined`: a list as text with this separator;
    - `json`: a JSON object as Base64 text. Text that contains no JSON object is moved to the member `other`.
    """

    bits: dict[str, Annotated[int, Field(ge=1)]] | None = None
    words: dict[str, str] | None = None
    joined: Annotated[str, Field(min_length=1)] | None = None
    json_: Literal["base64"] | None = Field(default=None, alias="json")
    other: str | None = None

    @model_validator(mode="after")
    def _check_encoding(self) -> MemberCode:
        if sum(code is not None for code in (self.bits, self.words, self.joined, self.json_)) != 1:
            raise PydanticCustomError("x-codes", "needs exactly one of `bits`, `words`, `joined` and `json`")
        if (self.other is None) != (self.json_ is None):
            raise PydanticCustomError("x-codes", "`json` and `other` go together")
        return self


class NameList(Node):
    """`x-names`: the operation returns the names of things for a list of their ids.

    `ids` is the input for the list. Only ids that match `pattern` are sent, at most `most` in one request. Of each of
    the answer's `items`, `id` is the field with the id. Slots of `texts` are fields of the item. The name is the first
    text whose slots all have a value.
    """

    ids: str
    pattern: str | None = None
    most: Annotated[int, Field(ge=1)]
    items: str
    id: str = "id"
    texts: Annotated[list[str], Field(min_length=1)]


class RefusalReadSpec(Node):
    """One read that shows the cause of a refusal; see `operations.RefusalRead`."""

    call: CallName
    by: list[str] = Field(default=[])
    with_: dict[str, str] = Field(default={}, alias="with")
    items: str
    match: str | None = None
    among: str | None = None
    fields: list[str] = Field(default=[], alias="outputParameters")

    @model_validator(mode="after")
    def _check_match(self) -> RefusalReadSpec:
        if (self.match is None) != (self.among is None):
            raise PydanticCustomError("x-refused", "`match` and `among` go together")
        return self


class Refusal(Node):
    """`x-refused`: the reads that explain a refusal with one error code, and the hint to show if all succeed."""

    reads: Annotated[dict[str, RefusalReadSpec], Field(min_length=1)]
    hint: str


class EmptyNote(Node):
    """`x-empty`: the `page.note` of an answer in which all lists at these paths are empty."""

    of: Annotated[list[str], Field(min_length=1)]
    note: str


class FileBody(Node):
    """`x-body`: the body is the bytes of a local file, which the added `filePath` argument names.

    `types` has the media type of each accepted file ending, and `most` is the maximum size in bytes.
    """

    types: Annotated[dict[str, str], Field(min_length=1)]
    most: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _check_types(self) -> FileBody:
        for ending, media_type in self.types.items():
            if not re.fullmatch(r"\.[a-z0-9]{1,10}", ending):
                message = "the ending {ending} must be a dot and small letters or digits, such as .png"
                raise PydanticCustomError("x-body", message, {"ending": repr(ending[:80])})
            if not re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", media_type):
                message = "{media_type} is not a media type such as image/png"
                raise PydanticCustomError("x-body", message, {"media_type": repr(media_type[:80])})
        return self


class Transfer(Node):
    """`x-transfer`: upload or download a local file between two steps, through a storage link of the first.

    Exactly one of `upload` and `download` is set, to the path of the link, `$.step.path…`. The transfer follows that
    step. The engine adds the argument `filePath`, and for downloads `overwrite`. Steps can refer to the file as `file`
    (`name`, `path`, `size`), in a download only after the transfer.

    Attributes:
        headers: Request headers that the storage requires of an upload.
        most: The maximum size of an upload in bytes.
        size: The path of the size of a download in bytes, in the answer of a step.
        left: A sentence that says what a failed transfer leaves on the platform, and what to do next.
    """

    upload: str | None = None
    download: str | None = None
    headers: dict[str, str] = Field(default={})
    most: Annotated[int, Field(ge=1)] | None = None
    size: str | None = None
    left: str | None = None

    @model_validator(mode="after")
    def _check_direction(self) -> Transfer:
        if (self.upload is None) == (self.download is None):
            raise PydanticCustomError("x-transfer", "needs exactly one of `upload` and `download`")
        foreign, other = (("size",), "download") if self.upload is not None else (("headers", "most"), "upload")
        for name in foreign:
            if name in self.model_fields_set:
                raise PydanticCustomError("x-transfer", "`{name}` goes with `{other}`", {"name": name, "other": other})
        return self


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
"""Mappings whose keys are names that the file chooses. A key in them stays even if it begins with `x-`."""


def strip(document: Any) -> Any:
    """Return the document without our `x-` words, as plain Naftiko.

    A key that begins with `x-` stays where the author chose it: as a name in a mapping of names, and in `body.data`.
    """
    return _strip(document, "", is_flow_output=False)


def _strip(node: Any, holder: str, *, is_flow_output: bool) -> Any:
    """Strip a node. `holder` is the key that holds it."""
    if isinstance(node, list):
        return [_strip(item, "", is_flow_output=False) for item in node]
    if not isinstance(node, dict):
        return node
    stripped: dict[str, Any] = {}
    for key, child in node.items():
        if key.startswith("x-"):
            continue
        if holder == "body" and key == "data":
            stripped[key] = child
            continue
        # The outputs of a flow are a map of names, and so are the items of its arrays; those of a call are not.
        is_output_map = key == "outputParameters" or (is_flow_output and key in ("items", "properties"))
        if isinstance(child, dict) and (key in _NAME_MAPS or is_output_map):
            stripped[key] = {
                name: _strip(value, "", is_flow_output=is_output_map)
                for name, value in child.items()
                if not ((is_output_map and _is_list_of_values(value)) or _is_from_another_answer(value))
            }
        else:
            stripped[key] = _strip(child, key, is_flow_output=False)
    return stripped


def _is_from_another_answer(output: Any) -> bool:
    """Return whether the value of an output comes from another request, which the format cannot express."""
    return isinstance(output, dict) and ("x-read" in output or isinstance(output.get("x-take"), dict))


def _is_list_of_values(output: Any) -> bool:
    """Return whether an output of a flow is a list of plain values, which the format cannot express."""
    return isinstance(output, dict) and output.get("type") == "array" and "items" not in output
