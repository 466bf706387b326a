"""Messages that explain schema errors to the author of a capability file, with the rule that is broken."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from itwin_mcp.capability.extensions import WORDS
from itwin_mcp.capability.schema import NOT_SERVED
from itwin_mcp.capability.schema_types import KINDS, Node
from itwin_mcp.text import find_similar, shorten

_RULES = {
    "missing": ("required-key", "the key {key!r} is missing"),
    "string_pattern_mismatch": ("name", "{input} does not have the form {pattern}"),
    "literal_error": ("known-word", "{input} is not one of {expected}"),
    "union_tag_invalid": ("known-word", "{tag} is not one of {expected_tags}"),
    "string_type": ("type", "must be text, not {kind}"),
    "bool_type": ("type", "must be true or false, not {kind}"),
    "int_type": ("type", "must be a whole number, not {kind}"),
    "list_type": ("type", "must be a list, not {kind}"),
    "dict_type": ("type", "must be a mapping, not {kind}"),
    "model_type": ("type", "must be a mapping, not {kind}"),
    "kind": ("type", "{msg}, not {kind}"),
    "too_short": ("type", "must have at least {min_length} element"),
    "x-page": ("x-page", "{msg}"),
    "x-wait": ("x-wait", "{msg}"),
    "x-body": ("x-body", "{msg}"),
    "x-codes": ("x-codes", "{msg}"),
    "x-refused": ("x-refused", "{msg}"),
    "x-transfer": ("x-transfer", "{msg}"),
    "sections": ("sections", "{msg}"),
}
MISPLACED_KEY = "the key {!r} does not belong here: move it to where it belongs, or leave it out"
"""The message for a key that exists elsewhere in the format, so that its spelling is not the mistake."""
_QUOTABLE = frozenset({"a number", "true", "false", "null"})
"""Types of values that become text if they are quoted."""


def explain_error(item: Any, path: Sequence[str | int]) -> tuple[str, str]:
    """Return the broken rule and the message for an error of pydantic at a path."""
    kind, value, context = item["type"], item.get("input"), item.get("ctx", {})
    key = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return _explain_unknown_key(key)
    if kind == "union_tag_invalid":
        tag = context["tag"].strip("<>")
        if tag in NOT_SERVED:
            return "not-served", f"{tag!r} is a word of the format that this server does not serve: leave it out"
    if kind == "union_tag_not_found":
        if isinstance(value, dict):
            return "required-key", "the key 'type' is missing" if "type" not in value else "the type must be text"
        return "type", f"must be a mapping, not {_describe_type(value)}"
    rule, template = _RULES.get(kind, ("type", "{msg}"))
    message = template.format_map(
        {
            **context,
            "key": shorten(key),
            "input": repr(shorten(value)) if isinstance(value, str) else _describe_type(value),
            "kind": _describe_type(value),
            "msg": item["msg"],
            "tag": repr(shorten(str(context.get("tag", "")).strip("<>"))),
            "expected_tags": str(context.get("expected_tags", "")).replace("<", "").replace(">", ""),
        }
    )
    if kind == "string_type" and _describe_type(value) in _QUOTABLE:
        message += ": put it in quotes"
    return rule, message


def _explain_unknown_key(key: str) -> tuple[str, str]:
    short_key = shorten(key)
    if key in WORDS:
        return "known-key", f"{key!r} does not belong here, or is not served yet: it belongs to {WORDS[key]}"
    if key.startswith("x-"):
        # The prefix is left out of the comparison, because it makes all words similar.
        close = find_similar(key[2:], [word[2:] for word in WORDS])
        suggestion = f"did you mean {'x-' + close[0]!r}?" if close else f"our words are {', '.join(WORDS)}"
        return "known-key", f"{short_key!r} is not one of our words: {suggestion}"
    if key in NOT_SERVED:
        return "not-served", f"{key!r} is a word of the format that this server does not serve here: leave it out"
    if key in _list_known_keys():
        return "known-key", MISPLACED_KEY.format(short_key)
    close = find_similar(key, _list_known_keys())
    suggestion = f": did you mean {close[0]!r}?" if close else ": leave it out"
    return "known-key", f"unknown key {short_key!r}{suggestion}"


def suggest_key(key: str) -> str | None:
    """Return the key that an unknown key resembles; None if there is none, or if it exists elsewhere in the format."""
    if key in WORDS or key in NOT_SERVED or key in _list_known_keys():
        return None
    if key.startswith("x-"):
        return next((f"x-{word}" for word in find_similar(key[2:], [word[2:] for word in WORDS])), None)
    return next(iter(find_similar(key, _list_known_keys())), None)


@lru_cache(maxsize=1)
def _list_known_keys() -> frozenset[str]:
    keys: set[str] = set()
    models: list[type[Node]] = [Node]
    while models:
        model = models.pop()
        models.extend(model.__subclasses__())
        keys.update(field.alias or name for name, field in model.model_fields.items())
    return frozenset(keys)


def _describe_type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    return "a number" if isinstance(value, int | float) else KINDS[type(value)]
