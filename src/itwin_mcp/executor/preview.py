"""What a call would destroy, read from the platform, in words that quote what other people wrote."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
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
    PathPart,
    StepValue,
    Text,
    evaluate,
)
from itwin_mcp.capability.parameters import FILE_PATH, OVERWRITE
from itwin_mcp.capability.plans import ConfirmPlan, Loss, PreviewRead
from itwin_mcp.errors import CallError, InvalidArguments, UnexpectedAnswer
from itwin_mcp.executor.fit import clean
from itwin_mcp.executor.homes import elements
from itwin_mcp.executor.paging import list_all
from itwin_mcp.executor.request import bind
from itwin_mcp.executor.sending import Run
from itwin_mcp.upstream.hints import GATEWAY_NOT_FOUND

MOST_READ, MOST_PAGES = 1_000, 3
"""Elements of one list that are looked at, in so many requests."""
MOST_SHOWN = 5
MOST_TEXT = 80
"""Characters of a text of other people; a longer name cannot be typed, its id is."""

_QUOTES = re.compile("[\"'`\u00b4\u2018-\u201f\u2039\u203a\u00ab\u00bb\u2032\u2033\u300c-\u300f\uff02\uff07]")
_NOT_SEEN = (403, 404)
_PEOPLE = ("users", "members", "roles")
"""The lists of the platform's answers in which people and roles stand by their ids."""

Measure: TypeAlias = int | str | None
"""How much would be lost: a number, the fingerprint of what has none, or None where nobody may know."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What the person is shown.

    `question` names the resolved ids; `name` is what they type; `loses` is what would be lost, and null in it what
    nobody was allowed to see; `measures` tells later whether it has become more.
    """

    question: str
    name: str
    loses: Mapping[str, Any]
    measures: Mapping[str, Measure]
    replaces: bool = False
    """Whether `loses` is what gets another value."""

    @property
    def message(self) -> str:
        """The whole of it as text for a person."""
        lines = [self.question]
        if self.loses:
            title = "This is replaced:" if self.replaces else "This is lost:"
            lines += ["", title, *(f"- {_label(key)}: {_told(value)}" for key, value in self.loses.items())]
        return "\n".join([*lines, "", f"To confirm, type: {self.name}"])


def grew(before: Mapping[str, Any], now: Mapping[str, Measure]) -> bool:
    """Whether more would be lost now than was shown before, or something else."""
    return any(_is_more(before.get(key, 0), now.get(key, 0)) for key in {*before, *now})


def _is_more(before: Any, now: Measure) -> bool:
    return now > before if isinstance(before, int) and isinstance(now, int) else before != now


async def look(run: Run, tool: Tool, arguments: Mapping[str, Any]) -> Preview | None:
    """What a call would destroy; None where it destroys nothing. Raises what reading the thing itself raises."""
    try:
        if tool.confirm is None:
            return _of_file(arguments)
        return await _of_plan(run, tool, tool.confirm, arguments)
    except CallError as error:
        error.hint = f"This was the look at what {tool.name} would destroy; nothing was changed. {error.hint}"
        raise


def as_typed(text: str) -> str:
    """A name in the form in which what was shown and what was typed are compared: one line, one kind of quote."""
    return _QUOTES.sub("'", " ".join(unicodedata.normalize("NFC", clean(text)).split()))


# --- a file here ------------------------------------------------------------------------------------------------


def _of_file(arguments: Mapping[str, Any]) -> Preview | None:
    """A download destroys the local file that it replaces."""
    path = Path(arguments[FILE_PATH])
    if not arguments.get(OVERWRITE) or not path.exists():
        return None
    found = path.stat()
    modified = datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="seconds")
    name, told = as_typed(path.name), {"path": str(path), "size": found.st_size, "modified": modified}
    question = f"Replace the local file {_quoted(name)} on this computer?"
    return Preview(question, name, {"file": told}, {"file": _fingerprint(told)})


# --- a thing of the platform ------------------------------------------------------------------------------------


async def _of_plan(run: Run, tool: Tool, plan: ConfirmPlan, arguments: Mapping[str, Any]) -> Preview | None:
    seen: dict[str, Any] = {}
    if plan.target is not None:
        seen[plan.target.name], _ = await _read(run, plan.target, bind(plan.target.bindings, arguments, {}))
    if plan.unless is not None and await _is_excepted(run, plan, plan.unless, arguments, seen):
        return None
    absent, cut = await _read_around(run, plan, arguments, seen)
    if plan.when is not None and (plan.when.read in absent or _is_empty(plan.when, seen, cut)):
        return None
    replaced = {key for key, loss in plan.loses.items() if _is_replaced(loss, seen, arguments)}
    if not replaced and plan.loses and all(loss.replaced_by is not None for loss in plan.loses.values()):
        return None
    people = _people(seen)
    loses: dict[str, Any] = {}
    measures: dict[str, Measure] = {}
    for key, loss in plan.loses.items():
        found = _lost(loss, seen, arguments)
        if found is ABSENT or (loss.replaced_by is not None and key not in replaced):
            continue
        told, measures[key] = _summary(found, loss, cut=loss.read in cut)
        loses[key] = _named(told, people)
        if loss.replaced_by is not None:
            loses[key] = _with_new(loses[key], found, arguments[loss.replaced_by])
    name = as_typed(_text(evaluate(plan.name, arguments, seen)))
    targets = [(one.name, str(arguments[one.name])) for one in tool.arguments if one.entity and arguments.get(one.name)]
    if not name or len(name) > MOST_TEXT:
        name = targets[-1][1] if targets else tool.name
    ids = ", ".join(f"{argument} {_plain(identifier)}" for argument, identifier in targets)
    question = _worded(plan.question, arguments, seen, people) + (f" ({ids})" if ids else "")
    return Preview(question, name, loses, measures, replaces=bool(replaced))


async def _read_around(
    run: Run, plan: ConfirmPlan, arguments: Mapping[str, Any], seen: dict[str, Any]
) -> tuple[set[str], set[str]]:
    """Add to `seen` what the plan reads with the thing itself.

    Returns the names of the reads that say that there is nothing, and of those that were cut.
    """
    absent: set[str] = set()
    cut: set[str] = set()
    failures: list[CallError] = []

    async def one(read: PreviewRead) -> None:
        try:
            body, whole = await _read(run, read, bind(read.bindings, arguments, known))
        except (UnexpectedAnswer, InvalidArguments):
            # An answer that cannot be read, or an id that the target's answer lacks, hides what would be lost. Then
            # the person is asked.
            return
        except CallError as error:
            if error.status not in _NOT_SEEN:
                failures.append(error)
            elif _says_absent(error):
                absent.add(read.name)
            return
        seen[read.name] = body
        if not whole:
            cut.add(read.name)

    known = dict(seen)
    async with anyio.create_task_group() as tasks:
        for read in plan.reads:
            if plan.unless is None or read.name != plan.unless.read:
                tasks.start_soon(one, read)
    if failures:
        raise failures[0]
    return absent, cut


async def _is_excepted(
    run: Run, plan: ConfirmPlan, unless: Loss, arguments: Mapping[str, Any], seen: dict[str, Any]
) -> bool:
    """Whether `unless` finds something; its read is added to `seen`. What cannot be read excepts nothing."""
    read = next((read for read in plan.reads if read.name == unless.read), None)
    if read is not None:
        try:
            seen[read.name], _ = await _read(run, read, bind(read.bindings, arguments, seen))
        except CallError:
            return False
    found = _lost(unless, seen, arguments)
    if unless.match is not None and not isinstance(found, list):
        return False
    return found is not ABSENT and bool(found)


async def _read(run: Run, read: PreviewRead, values: Mapping[str, Any]) -> tuple[Any, bool]:
    """What a read answers, and whether it is all of it."""
    if read.operation.page is not None:
        answer, page = await list_all(run, read.operation, values, most=MOST_READ, pages=MOST_PAGES, strict=True)
        # iTwins may be inside of those that are listed, and some are shown neither to everybody nor beyond a fence.
        return answer.body, page is None and "iTwins" not in answer.body
    body = (await run.perform(read.operation, values)).body
    return {"bytes": len(body)} if read.operation.binary else body, True


_NOT_OF_A_THING = frozenset({"NotFound", GATEWAY_NOT_FOUND})


def _says_absent(error: CallError) -> bool:
    """Whether the platform itself says that a thing does not exist, as in `ImageNotFound`.

    A 404 without such a code may come from a gateway, which knows nothing of the thing.
    """
    return error.status == 404 and error.code.endswith("NotFound") and error.code not in _NOT_OF_A_THING


def _is_empty(when: Loss, seen: Mapping[str, Any], cut: set[str]) -> bool:
    """Whether the answer says, beyond doubt, that there is nothing to lose: a whole list without elements.

    Only a path through `[*]` says that it leads to a list: an empty list in place of one value is an odd answer. Null,
    a missing member or a value of another type may mean anything, so they count as something to lose.
    """
    listed = when.path.many and when.path.query is None
    return listed and when.read not in cut and _is_whole(seen, when.path.parts) and when.path.find(seen) == []


def _is_whole(value: Any, parts: tuple[PathPart, ...]) -> bool:
    """Whether every member on a path is there, and whatever `[*]` goes through is a list."""
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


def _lost(loss: Loss, seen: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """What is there to lose: a value, ABSENT when there is nothing, None when it is unknown."""
    if loss.while_empty is not None and loss.while_empty.find(seen) != []:
        return ABSENT if isinstance(loss.while_empty.find(seen), list) else None
    if loss.read not in seen:
        return None
    found = loss.path.find(seen)
    if loss.path.many or loss.match is not None or loss.fields:
        # These are lists: of one that is not there, or only in part, nobody knows how much it holds.
        if not isinstance(found, list) or not _is_whole(seen, loss.path.parts):
            return None
    elif found is None:
        return ABSENT
    elif found is ABSENT and not isinstance(replace(loss.path, parts=loss.path.parts[:-1]).find(seen), dict):
        return None
    if loss.kept_field is not None:
        return _without_kept(found, loss.kept_field, [evaluate(value, arguments, seen) for value in loss.kept])
    if loss.match is None:
        return found
    wanted = None if loss.wanted is None else evaluate(loss.wanted, arguments, seen)
    if not all(isinstance(one, dict) and type(one.get(loss.match)) is type(wanted) for one in found):
        return None
    return [one for one in found if one[loss.match] == wanted]


def _without_kept(found: Any, name: str, kept: list[Any]) -> Any:
    """The elements that are not kept; None, for unknown, where an element or what is kept cannot be read."""
    values = [value for one in kept for value in (one if isinstance(one, list) else [one])]
    if ABSENT in kept or not isinstance(found, list):
        return None
    if not all(isinstance(one, dict) and isinstance(one.get(name), str) for one in found):
        return None
    lowered = {value.lower() for value in values if isinstance(value, str)}
    return [one for one in found if one[name].lower() not in lowered]


def _is_replaced(loss: Loss, seen: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether the call gives another value than the one there; one that nobody can see counts as another."""
    if loss.replaced_by is None or loss.replaced_by not in arguments:
        return False
    return not isinstance(new := arguments[loss.replaced_by], str) or _lost(loss, seen, arguments) != new


def _with_new(told: Any, found: Any, new: Any) -> Any:
    """What is replaced, next to its new value. Only text is shown: objects may hold a secret."""
    if not isinstance(new, str):
        return told
    shown = {"now": told, "becomes": _plain(new)}
    with suppress(TypeError, ValueError):  # neither is a moment, or one has no zone
        before, after = datetime.fromisoformat(found), datetime.fromisoformat(new)
        shown["change"] = "later" if after > before else "earlier"
    return shown


def _summary(found: Any, loss: Loss, *, cut: bool) -> tuple[Any, Measure]:
    """What is told of a value, and its measure: of lists how many and the first few."""
    if found is None:
        return None, None
    if not isinstance(found, list):
        told = _brief(found)
        return told, told if type(told) is int else _fingerprint(found)
    summary: dict[str, Any] = {"count": len(found)}
    if cut:
        summary["more"] = True
    if loss.fields:
        summary["first"] = [_fields(one, loss.fields) for one in found[:MOST_SHOWN]]
    return summary, len(found) if loss.match is None else _fingerprint(found)


def _fields(element: Any, fields: Iterable[str]) -> dict[str, Any]:
    if not isinstance(element, dict):
        return {}
    return {name: _brief(element[name]) for name in fields if element.get(name) is not None}


def _people(seen: Mapping[str, Any]) -> dict[str, str]:
    """What the users and roles that were read are called, by their ids: a person knows nobody by a UUID."""
    found = (one for body in seen.values() for key in _PEOPLE for one in elements(body, key))
    called = {str(one.get("id")).lower(): one.get("email") or one.get("displayName") for one in found}
    return {identifier: _plain(name) for identifier, name in called.items() if isinstance(name, str)}


def _named(told: Any, people: Mapping[str, str]) -> Any:
    """What is told, with who it is in place of the id: `ownerId` then becomes `owner`."""
    if isinstance(told, list):
        return [_named(one, people) for one in told]
    if not isinstance(told, dict):
        return people.get(told.lower(), told) if isinstance(told, str) else told
    named = {key: _named(value, people) for key, value in told.items()}
    return {key if one == told[key] else key.removesuffix("Id"): one for key, one in named.items()}


# --- words ------------------------------------------------------------------------------------------------------


def _worded(
    expression: Expression, arguments: Mapping[str, Any], seen: Mapping[str, Any], people: Mapping[str, str]
) -> str:
    """A text of the file with its slots filled: what other people wrote is short, on one line and in quotes."""
    parts = expression.parts if isinstance(expression, Text) else (expression,)
    return "".join(part if isinstance(part, str) else _slot(part, arguments, seen, people) for part in parts)


def _slot(part: Expression, arguments: Mapping[str, Any], seen: Mapping[str, Any], people: Mapping[str, str]) -> str:
    value = evaluate(part, arguments, seen)
    if isinstance(part, Argument | StepValue) and isinstance(value, str):
        return _quoted(_named(value, people))
    return _text(value) if value not in (ABSENT, None, "") else "—"


def _text(value: Any) -> str:
    if value is ABSENT or value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    """One short line; what is longer keeps both ends, by which the paths of files differ."""
    text, half = as_typed(text), MOST_TEXT // 2
    return text if len(text) <= MOST_TEXT else f"{text[:half]}…{text[1 - half :]}"


def _quoted(text: str) -> str:
    return f"“{_plain(text)}”"


def _brief(value: Any) -> Any:
    """A value for `loses`: scalars as they are, texts short and clean, anything larger as short JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [_plain(one) for one in value[:MOST_SHOWN]]
    return _plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _told(value: Any) -> str:
    """A value of `loses` for a person."""
    if value is None:
        return "unknown: you may not see it, or it cannot be read"
    if isinstance(value, dict) and "count" in value:
        count = f"at least {value['count']}" if value.get("more") else str(value["count"])
        first = "; ".join(_told_of_one(one) for one in value.get("first", ()))
        return f"{count} ({first}{'; …' if value['count'] > MOST_SHOWN else ''})" if first else count
    if isinstance(value, dict):
        return ", ".join(f"{_label(name)} {_told(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return _quoted(value) if isinstance(value, str) else _text(value)


def _told_of_one(fields: dict[str, Any]) -> str:
    """One of the first few; a single field needs no label."""
    return _told(next(iter(fields.values()))) if len(fields) == 1 else _told(fields)


def _label(key: str) -> str:
    """`namedVersions` -> `named versions`; iTwins and iModels stay as the platform spells them."""
    return re.sub(r"(?<=[a-z]{2})([A-Z])", lambda found: f" {found[1].lower()}", key)


def _fingerprint(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
