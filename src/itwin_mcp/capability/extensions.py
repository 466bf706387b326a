"""Our closed vocabulary of `x-` words, and how to strip them by position for a plain Naftiko file."""

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
"""All of our words, and where each belongs. The models decide which are served."""


class EntityForm(Node):
    """`x-entity` in its long form: the kind of entity, and in which form the operation takes a changeset.

    With `takes: id` an index is looked up; otherwise the operation takes either. `baseline` is what stands for the
    state before the first changeset: the `index` 0, an `empty` id, or an `absent` argument. Without it the baseline is
    refused.
    """

    kind: str
    takes: Literal["id"] | None = None
    baseline: Literal["index", "empty", "absent"] | None = None


class HeaderPart(Node):
    """`x-header`: the value is in this response header. `last-segment` takes the last part of a link's path."""

    name: str
    take: Literal["value", "last-segment"] = "value"


class Paging(Node):
    """`x-page`: how an operation pages.

    `items` is where a page's items are, `next` where the link or token of the next page is, `size` the input
    parameter that sets the page size, `most` the largest page the platform gives, `counts` leads from an item to what a
    page's size counts where that is not the items: each page is then as large as it may be; `skip` the parameter of the
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
    counts: str | None = None

    @model_validator(mode="after")
    def _style_has_what_it_needs(self) -> Paging:
        missing = {
            "link": self.next is None and "next",
            "token": (self.next is None and "next") or (self.token is None and "token"),
            "skip": self.skip is None and "skip",
        }[self.style]
        if missing:
            message = "x-page of style '{style}' needs the key '{missing}'"
            raise PydanticCustomError("x-page", message, {"style": self.style, "missing": missing})
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
            raise PydanticCustomError("x-wait", "a handle needs exactly one of `header`, `body` and `input`")
        return self


class Waiting(Node):
    """`x-wait`: the operation starts a job. States compare without case; one in no list is unknown, not failed.

    `default` is the default of the added `wait` argument, in seconds; `reason` is where a failure's reason is;
    `causes` says what a failed state means, and `left` what to do with the thing that a failed job leaves.
    `check` names the tool that looks at the job later. `find` names a paged operation in which the thing is looked
    for, by the inputs that both have (`iTwinId`, `name`), when nobody knows whether the write was carried out.
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
    """`x-codes`: how the platform writes the values of one member, and what callers read and give instead.

    Exactly one of: `bits`, a sum whose words have these numbers; `words`, other spellings of words; `joined`, a list
    as text with this separator; `json`, a JSON object as Base64 text. With `json`, text that holds no JSON object is
    moved to the member `other`.
    """

    bits: dict[str, Annotated[int, Field(ge=1)]] | None = None
    words: dict[str, str] | None = None
    joined: Annotated[str, Field(min_length=1)] | None = None
    json_: Literal["base64"] | None = Field(default=None, alias="json")
    other: str | None = None

    @model_validator(mode="after")
    def _is_one_code(self) -> MemberCode:
        if sum(code is not None for code in (self.bits, self.words, self.joined, self.json_)) != 1:
            raise PydanticCustomError("x-codes", "needs exactly one of `bits`, `words`, `joined` and `json`")
        if (self.other is None) != (self.json_ is None):
            raise PydanticCustomError("x-codes", "`json` and `other` go together")
        return self


class NameList(Node):
    """`x-names`: the operation answers what things are called, for a list of their ids.

    `ids` is the input that takes the list, `pattern` what each id must match to be sent, `most` how many ids one
    request takes. Of the answer's `items`, `id` is the field with the id. The name is the first of the `texts` whose
    slots, which are fields of the item, all have a value.
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
    def _match_has_values(self) -> RefusalReadSpec:
        if (self.match is None) != (self.among is None):
            raise PydanticCustomError("x-refused", "`match` and `among` go together")
        return self


class Refusal(Node):
    """`x-refused`: the reads after a refusal with one code, and the hint if everything was found."""

    reads: Annotated[dict[str, RefusalReadSpec], Field(min_length=1)]
    hint: str


class EmptyNote(Node):
    """`x-empty`: the `page.note` of an answer in which all lists at these paths are empty."""

    of: Annotated[list[str], Field(min_length=1)]
    note: str


class FileBody(Node):
    """`x-body`: the body is the bytes of a local file, which the added `filePath` argument names.

    `types` gives the media type for each ending of a file's name that is taken, `most` the largest size in bytes.
    """

    types: Annotated[dict[str, str], Field(min_length=1)]
    most: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _endings_are_endings(self) -> FileBody:
        for ending, media_type in self.types.items():
            if not re.fullmatch(r"\.[a-z0-9]{1,10}", ending):
                message = "the ending {ending} must be a dot and small letters or digits, such as .png"
                raise PydanticCustomError("x-body", message, {"ending": repr(ending[:80])})
            if not re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", media_type):
                message = "{media_type} is not a media type such as image/png"
                raise PydanticCustomError("x-body", message, {"media_type": repr(media_type[:80])})
        return self


class Transfer(Node):
    """`x-transfer`: between two steps a local file goes to, or comes from, a storage link of the step before.

    Exactly one of `upload` and `download` is the link, `$.step.path…`; the file moves right after that step. The
    engine adds the argument `filePath`, to downloads also `overwrite`, and gives `file` (`name`, `path`, `size`) to
    the steps: for an upload from the beginning, for a download once it is there. `headers` are what the storage asks
    for, `most` is the largest file in bytes, `size` is where the platform says how many bytes it has, `left` says
    what a failed transfer leaves on the platform and what to do next.
    """

    upload: str | None = None
    download: str | None = None
    headers: dict[str, str] = Field(default={})
    most: Annotated[int, Field(ge=1)] | None = None
    size: str | None = None
    left: str | None = None

    @model_validator(mode="after")
    def _one_direction(self) -> Transfer:
        if (self.upload is None) == (self.download is None):
            raise PydanticCustomError("x-transfer", "needs exactly one of `upload` and `download`")
        others = ("size",) if self.upload is not None else ("headers", "most")
        for name in others:
            if name in self.model_fields_set:
                other = "download" if self.upload is not None else "upload"
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
"""Mappings whose keys are names: a key in them that begins with `x-` is a name of the file and stays."""


def strip(document: Any) -> Any:
    """Return the document without our words, which is then plain Naftiko.

    The position decides: in a mapping whose keys are names, and anywhere in `body.data`, `x-…` is a name.
    """
    return _strip(document, "", orchestrated=False)


def _strip(node: Any, holder: str, *, orchestrated: bool) -> Any:
    """Strip a node. `holder` is its key; `orchestrated` marks an output of a flow."""
    if isinstance(node, list):
        return [_strip(item, "", orchestrated=False) for item in node]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for key, child in node.items():
        if key.startswith("x-"):
            continue
        if holder == "body" and key == "data":
            kept[key] = child
            continue
        # The outputs of a flow are a map of names, and so are the items of its arrays; those of a call are not.
        places = key == "outputParameters" and isinstance(child, dict)
        if isinstance(child, dict) and (key in _NAME_MAPS or places or (orchestrated and key == "items")):
            inside = places or (orchestrated and key in ("items", "properties"))
            kept[key] = {
                name: _strip(value, "", orchestrated=inside)
                for name, value in child.items()
                if not ((inside and _is_list_of_values(value)) or _is_from_another_answer(value))
            }
        else:
            kept[key] = _strip(child, key, orchestrated=False)
    return kept


def _is_from_another_answer(output: Any) -> bool:
    """Return whether an output does not come from the answer of its call, which the format cannot say."""
    return isinstance(output, dict) and ("x-read" in output or isinstance(output.get("x-take"), dict))


def _is_list_of_values(output: Any) -> bool:
    """Return whether an output of a flow is a list of plain values, which the format cannot declare."""
    return isinstance(output, dict) and output.get("type") == "array" and "items" not in output
