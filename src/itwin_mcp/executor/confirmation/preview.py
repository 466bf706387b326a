"""Reads from the platform what a call would destroy, and describes it to the user.

Names and texts of other people are short, on one line and in quotes, so that they cannot pass for words of ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import anyio

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import (
    ABSENT,
    Argument,
    Every,
    Expression,
    JsonPath,
    PathPart,
    StepValue,
    Text,
    evaluate,
)
from itwin_mcp.capability.parameters import FILE_PATH, OVERWRITE
from itwin_mcp.capability.tool_actions import ConfirmPlan, LookupStep, Loss, PreviewRead
from itwin_mcp.errors import CallError, InvalidArguments, UnexpectedAnswer
from itwin_mcp.executor.confirmation.typed_name import normalize_name
from itwin_mcp.executor.flow_steps import pick_elements
from itwin_mcp.executor.paging import list_all
from itwin_mcp.executor.policy.thing_locations import iterate_entities
from itwin_mcp.executor.requests import bind
from itwin_mcp.executor.sending import Run
from itwin_mcp.upstream.hints import GATEWAY_NOT_FOUND

MAX_READ, MAX_PAGES = 1_000, 3
"""The elements of one list that are read, and the requests for them."""
MAX_SHOWN = 5
MAX_ABOUT = 240
"""Characters of a text that says what the thing is, such as its description."""
MAX_TEXT = 80
"""Characters of a text that is shown. The user types the id of a thing whose name is longer."""

_NOT_SEEN = (403, 404)

Measure: TypeAlias = int | str | None
"""How much would be lost: a number, a fingerprint of what cannot be counted, or None if it is unknown."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What the user is shown before a call destroys something.

    `question` names the resolved ids; `name` is what they type; `loses` is what would be lost, with null for what
    cannot be read; `measures` are compared later, to find out whether it has grown. `about` describes the thing.
    """

    question: str
    name: str
    loses: Mapping[str, Any]
    measures: Mapping[str, Measure]
    replaces: bool = False
    """Whether `loses` gets other values instead of being deleted."""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The question, the thing and its losses as text for the user."""
        lines = [
            self.question,
            *(f"- {_format_label(key)}: {_format_value(value)}" for key, value in self.about.items()),
        ]
        if self.loses:
            title = "This is replaced:" if self.replaces else "This is lost:"
            lines += [
                "",
                title,
                *(f"- {_format_label(key)}: {_format_value(value)}" for key, value in self.loses.items()),
            ]
        return "\n".join([*lines, "", f"To confirm, type: {self.name}"])


def has_grown(before: Mapping[str, Any], now: Mapping[str, Measure]) -> bool:
    """Return whether more, or something else, would be lost now than was shown before."""
    return any(_is_more(before.get(key, 0), now.get(key, 0)) for key in {*before, *now})


def _is_more(before: Any, now: Measure) -> bool:
    return now > before if isinstance(before, int) and isinstance(now, int) else before != now


async def preview_losses(run: Run, tool: Tool, arguments: Mapping[str, Any]) -> Losses | None:
    """Return what a call would destroy; None if it destroys nothing. Raises CallError if the thing cannot be read."""
    try:
        if tool.confirm is None:
            return _preview_file(arguments)
        return await _preview_plan(run, tool, tool.confirm, arguments)
    except CallError as error:
        why = f"This was the read of what {tool.name} would destroy; nothing was changed."
        raise error.amended(before=why) from None


# --- a local file -----------------------------------------------------------------------------------------------


def _preview_file(arguments: Mapping[str, Any]) -> Losses | None:
    """Return the local file that a download replaces; None if there is none."""
    path = Path(arguments[FILE_PATH])
    if not arguments.get(OVERWRITE) or not path.exists():
        return None
    found = path.stat()
    modified = datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="seconds")
    name, told = normalize_name(path.name), {"path": str(path), "size": found.st_size, "modified": modified}
    question = f"Replace the local file {_quote(name)} on this computer?"
    return Losses(question, name, {"file": told}, {"file": _fingerprint(told)})


# --- a thing of the platform ------------------------------------------------------------------------------------


async def _preview_plan(run: Run, tool: Tool, plan: ConfirmPlan, arguments: Mapping[str, Any]) -> Losses | None:
    seen: dict[str, Any] = {}
    if plan.target is not None:
        seen[plan.target.name], _ = await _read(run, plan.target, bind(plan.target.bindings, arguments, {}))
    if plan.unless is not None and await _is_exempt(run, plan, plan.unless, arguments, seen):
        return None
    absent, cut = await _read_around(run, plan, arguments, seen)
    for lookup in plan.lookups:
        _add_lookup(run, lookup, arguments, seen, cut)
    if plan.when is not None and (plan.when.read in absent or _is_empty(plan.when, seen, cut)):
        return None
    replaced = {key for key, loss in plan.loses.items() if _is_replaced(loss, seen, arguments)}
    if not replaced and plan.loses and all(loss.replaced_by is not None for loss in plan.loses.values()):
        return None
    people = _collect_names(plan, seen)
    loses: dict[str, Any] = {}
    measures: dict[str, Measure] = {}
    for key, loss in plan.loses.items():
        found = _find_loss(loss, seen, arguments)
        if found is ABSENT or (loss.replaced_by is not None and key not in replaced):
            continue
        told, measures[key] = _summarize(found, loss, cut=loss.read in cut)
        loses[key] = _replace_ids(told, people)
        if loss.replaced_by is not None:
            loses[key] = _add_new_value(loses[key], found, arguments[loss.replaced_by])
    name = normalize_name(_to_text(evaluate(plan.name, arguments, seen)))
    targets = [(one.name, str(arguments[one.name])) for one in tool.arguments if one.entity and arguments.get(one.name)]
    if not name or len(name) > MAX_TEXT:
        name = targets[-1][1] if targets else tool.name
    ids = ", ".join(f"{argument} {_shorten_line(identifier)}" for argument, identifier in targets)
    question = _fill_text(plan.question, arguments, seen, people) + (f" ({ids})" if ids else "")
    about = {
        key: _replace_ids(_summarize_value(path.find(seen), MAX_ABOUT), people) for key, path in plan.about.items()
    }
    about = {key: value for key, value in about.items() if value is not None}
    return Losses(question, name, loses, measures, replaces=bool(replaced), about=about)


def _add_lookup(
    run: Run, lookup: LookupStep, arguments: Mapping[str, Any], seen: dict[str, Any], cut: set[str]
) -> None:
    """Add the elements that a lookup picks to `seen`, unless one of its lists could not be read."""
    others = lookup.changes.otherwise if lookup.changes is not None else ()
    if all(name in seen for name in (lookup.index, *others)):
        seen[lookup.name] = pick_elements(lookup, arguments, seen, run.warnings, cut)


async def _read_around(
    run: Run, plan: ConfirmPlan, arguments: Mapping[str, Any], seen: dict[str, Any]
) -> tuple[set[str], set[str]]:
    """Add the answers of the plan's other reads to `seen`.

    Return the names of the reads whose thing does not exist, and of those whose list is incomplete.
    """
    absent: set[str] = set()
    cut: set[str] = set()
    failures: list[CallError] = []

    async def read_one(read: PreviewRead) -> None:
        try:
            body, whole = await _read(run, read, bind(read.bindings, arguments, known))
        except (UnexpectedAnswer, InvalidArguments):
            # An answer that cannot be read, or an id that the target's answer lacks, hides what would be lost. Then
            # the person is asked.
            return
        except CallError as error:
            if error.status not in _NOT_SEEN:
                failures.append(error)
            elif _is_absent(error):
                absent.add(read.name)
            return
        seen[read.name] = body
        if not whole:
            cut.add(read.name)

    known = dict(seen)
    async with anyio.create_task_group() as tasks:
        for read in plan.reads:
            if plan.unless is None or read.name != plan.unless.read:
                tasks.start_soon(read_one, read)
    if failures:
        raise failures[0]
    return absent, cut


async def _is_exempt(
    run: Run, plan: ConfirmPlan, unless: Loss, arguments: Mapping[str, Any], seen: dict[str, Any]
) -> bool:
    """Return whether `unless` finds something; its read is added to `seen`. If it cannot be read, the user is asked."""
    read = next((read for read in plan.reads if read.name == unless.read), None)
    if read is not None:
        try:
            seen[read.name], _ = await _read(run, read, bind(read.bindings, arguments, seen))
        except CallError:
            return False
    found = _find_loss(unless, seen, arguments)
    if unless.match is not None and not isinstance(found, list):
        return False
    return found is not ABSENT and bool(found)


async def _read(run: Run, read: PreviewRead, values: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the answer of a read, and whether it is complete."""
    if read.operation.page is not None:
        answer, page = await list_all(run, read.operation, values, limit=MAX_READ, max_requests=MAX_PAGES, strict=True)
        # A list of iTwins is never complete: it lacks nested iTwins, and those that permissions or a policy hide.
        return answer.body, page is None and "iTwins" not in answer.body
    body = (await run.perform(read.operation, values)).body
    return {"bytes": len(body)} if read.operation.binary else body, True


_GENERAL_CODES = frozenset({"NotFound", GATEWAY_NOT_FOUND})


def _is_absent(error: CallError) -> bool:
    """Return whether the platform itself says that a thing does not exist, as in `ImageNotFound`.

    A 404 without such a code may come from a gateway, which does not know the thing.
    """
    return error.status == 404 and error.code.endswith("NotFound") and error.code not in _GENERAL_CODES


def _is_empty(when: Loss, seen: Mapping[str, Any], cut: set[str]) -> bool:
    """Return whether the answer says without doubt that nothing would be lost: a complete list without elements.

    Only a path through `[*]` is known to lead to a list: an empty list in place of one value is an odd answer. Null, a
    missing member or a value of another type may mean anything, so they count as something to lose.
    """
    listed = when.path.many and when.path.query is None
    return listed and when.read not in cut and _is_whole(seen, when.path.parts) and when.path.find(seen) == []


def _is_whole(value: Any, parts: tuple[PathPart, ...]) -> bool:
    """Return whether every member on a path exists, and every `[*]` goes through a list."""
    for index, part in enumerate(parts):
        if isinstance(part, Every):
            return isinstance(value, list) and all(_is_whole(one, parts[index + 1 :]) for one in value)
        if isinstance(part, str):
            if not isinstance(value, dict) or part not in value:
                return False
        elif not isinstance(value, list) or part >= len(value):
            return False
        value = value[part]
    return True


def _is_beyond_list(path: JsonPath, seen: Mapping[str, Any]) -> bool:
    """Return whether a path leads past the end of a list, such as to the newest of no changesets."""
    for at, part in enumerate(path.parts):
        if isinstance(part, int):
            held = replace(path, parts=path.parts[:at]).find(seen)
            return isinstance(held, list) and part >= len(held)
    return False


def _find_loss(loss: Loss, seen: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Return what would be lost: a value, ABSENT if nothing, None if it is unknown."""
    if loss.while_empty is not None and loss.while_empty.find(seen) != []:
        return ABSENT if isinstance(loss.while_empty.find(seen), list) else None
    if loss.read not in seen:
        return None
    found = loss.path.find(seen)
    if loss.path.many or loss.match is not None or loss.fields:
        # These are lists. If a list is missing or incomplete, the loss is unknown.
        if not isinstance(found, list) or not _is_whole(seen, loss.path.parts):
            return None
    elif found is None:
        return ABSENT
    elif found is ABSENT and not isinstance(replace(loss.path, parts=loss.path.parts[:-1]).find(seen), dict):
        return ABSENT if _is_beyond_list(loss.path, seen) else None
    if loss.kept_field is not None:
        return _remove_kept(found, loss.kept_field, [evaluate(value, arguments, seen) for value in loss.kept])
    if loss.match is None:
        return found
    wanted = None if loss.wanted is None else evaluate(loss.wanted, arguments, seen)
    if not all(isinstance(one, dict) and type(one.get(loss.match)) is type(wanted) for one in found):
        return None
    return [one for one in found if one[loss.match] == wanted]


def _remove_kept(found: Any, name: str, kept: list[Any]) -> Any:
    """Return the elements that are not kept; None (unknown) if an element, or what is kept, cannot be read."""
    values = [value for one in kept for value in (one if isinstance(one, list) else [one])]
    if ABSENT in kept or not isinstance(found, list):
        return None
    if not all(isinstance(one, dict) and isinstance(one.get(name), str) for one in found):
        return None
    lowered = {value.lower() for value in values if isinstance(value, str)}
    return [one for one in found if one[name].lower() not in lowered]


def _is_replaced(loss: Loss, seen: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Return whether the call sets another value than the present one; an unreadable one counts as another."""
    if loss.replaced_by is None or loss.replaced_by not in arguments:
        return False
    return not isinstance(new := arguments[loss.replaced_by], str) or _find_loss(loss, seen, arguments) != new


def _add_new_value(told: Any, found: Any, new: Any) -> Any:
    """Return what is replaced, with its new value. Only text is shown: objects may hold a secret."""
    if not isinstance(new, str):
        return told
    shown = {"now": told, "becomes": _shorten_line(new)}
    with suppress(TypeError, ValueError):  # neither is a moment, or one has no zone
        before, after = datetime.fromisoformat(found), datetime.fromisoformat(new)
        shown["change"] = "later" if after > before else "earlier"
    return shown


def _summarize(found: Any, loss: Loss, *, cut: bool) -> tuple[Any, Measure]:
    """Return what is shown of a value, and its measure: of a list the count and the first few elements."""
    if found is None:
        return None, None
    if not isinstance(found, list):
        told = _summarize_value(found)
        return told, told if type(told) is int else _fingerprint(found)
    summary: dict[str, Any] = {"count": len(found)}
    if cut:
        summary["more"] = True
    if loss.fields:
        summary["first"] = [_pick_fields(one, loss.fields) for one in found[: loss.most or MAX_SHOWN]]
    return summary, len(found) if loss.match is None else _fingerprint(found)


def _pick_fields(element: Any, fields: Iterable[str]) -> dict[str, Any]:
    if not isinstance(element, dict):
        return {}
    return {name: _summarize_value(element[name]) for name in fields if element.get(name) is not None}


def _collect_names(plan: ConfirmPlan, seen: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the users and roles that were read, by id: people do not recognise a UUID."""
    names: dict[str, str] = {}
    for body in seen.values():
        for form in plan.people:
            for item in iterate_entities(body, form.items):
                name = next((item[label] for label in form.labels if item.get(label)), None)
                if isinstance(name, str):
                    names[str(item.get("id")).lower()] = _shorten_line(name)
    return names


def _replace_ids(told: Any, people: Mapping[str, str]) -> Any:
    """Return what is shown with names in place of ids of people: `ownerId` becomes `owner`."""
    if isinstance(told, list):
        return [_replace_ids(one, people) for one in told]
    if not isinstance(told, dict):
        return people.get(told.lower(), told) if isinstance(told, str) else told
    named = {key: _replace_ids(value, people) for key, value in told.items()}
    return {key if one == told[key] else key.removesuffix("Id"): one for key, one in named.items()}


# --- words ------------------------------------------------------------------------------------------------------


def _fill_text(
    expression: Expression, arguments: Mapping[str, Any], seen: Mapping[str, Any], people: Mapping[str, str]
) -> str:
    """Return a text of the capability file with its slots filled, and texts of other people in quotes."""
    parts = expression.parts if isinstance(expression, Text) else (expression,)
    return "".join(part if isinstance(part, str) else _fill_slot(part, arguments, seen, people) for part in parts)


def _fill_slot(
    part: Expression, arguments: Mapping[str, Any], seen: Mapping[str, Any], people: Mapping[str, str]
) -> str:
    value = evaluate(part, arguments, seen)
    if isinstance(part, Argument | StepValue) and isinstance(value, str):
        return _quote(_replace_ids(value, people))
    return _to_text(value) if value not in (ABSENT, None, "") else "—"


def _to_text(value: Any) -> str:
    if value is ABSENT or value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shorten_line(text: str, most: int = MAX_TEXT) -> str:
    """Return one short line; a longer text keeps both ends, because paths differ at their ends."""
    text, half = normalize_name(text), most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[1 - half :]}"


def _quote(text: str, most: int = MAX_TEXT) -> str:
    return f"“{_shorten_line(text, most)}”"


def _summarize_value(value: Any, most: int = MAX_TEXT) -> Any:
    """Return a value to show: a scalar as it is, text short and clean, anything larger as short JSON."""
    if value is ABSENT:
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [_shorten_line(one) for one in value[:MAX_SHOWN]]
    return _shorten_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), most)


def _format_value(value: Any) -> str:
    """Return a value of `loses` as text."""
    if value is None:
        return "unknown: you may not see it, or it cannot be read"
    if isinstance(value, dict) and "count" in value:
        count = f"at least {value['count']}" if value.get("more") else str(value["count"])
        first = "; ".join(_format_fields(one) for one in value.get("first", ()))
        return f"{count} ({first}{'; …' if value['count'] > len(value['first']) else ''})" if first else count
    if isinstance(value, dict):
        return ", ".join(f"{_format_label(name)} {_format_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return _quote(value, MAX_ABOUT) if isinstance(value, str) else _to_text(value)


def _format_fields(fields: dict[str, Any]) -> str:
    """Return one of the first few elements as text; a single field needs no label."""
    return _format_value(next(iter(fields.values()))) if len(fields) == 1 else _format_value(fields)


def _format_label(key: str) -> str:
    """`namedVersions` -> `named versions`; iTwins and iModels stay as the platform spells them."""
    return re.sub(r"(?<=[a-z]{2})([A-Z])", lambda found: f" {found[1].lower()}", key)


def _fingerprint(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
