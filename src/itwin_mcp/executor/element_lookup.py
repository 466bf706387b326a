"""Elements of the lists that steps read: distinct, matched, dated, counted; pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from itwin_mcp.capability.expressions import ABSENT, Argument, StepValue, evaluate
from itwin_mcp.capability.tool_actions import FieldPlan, LookupStep
from itwin_mcp.errors import DetailCode, InvalidArguments
from itwin_mcp.executor.answers import Warnings


def elements_of(result: Any, *, per_element: bool) -> list[Any]:
    """Return the elements of a lookup: the first list of an answer; with `per_element` those of several answers.

    An answer without a list is itself the only element.
    """
    if per_element:
        return [element for answer in result or () for element in elements_of(answer, per_element=False)]
    if isinstance(result, dict):
        return next((value for value in result.values() if isinstance(value, list)), [result])
    return result if isinstance(result, list) else []


def distinct(values: Iterable[Any], members: Sequence[str] = ()) -> list[Any]:
    """Return each element once, in order. An element is identified by its id, if it has one; nulls are dropped.

    Elements that differ in one of the `members` are not the same: a briefcase has its number in one iModel only.
    """
    found: dict[tuple[str, ...], Any] = {}
    for value in values:
        if value is not None:
            around = [_mark(value.get(name)) for name in members] if isinstance(value, dict) else ()
            found.setdefault((_mark(value), *around), value)
    return list(found.values())


def label(result: Any, names: Mapping[str, Any]) -> Any:
    """Return an answer with these members in each item of its first list, or in itself if it has no list."""
    if not isinstance(result, dict):
        return [label(item, names) for item in result] if isinstance(result, list) else result
    where = next((name for name, value in result.items() if isinstance(value, list)), None)
    if where is None:
        return {**result, **names}
    return {**result, where: [{**item, **names} if isinstance(item, dict) else item for item in result[where]]}


def counted(values: Any, name: str) -> list[dict[str, Any]]:
    """Return each distinct object once, with its number in the field `name`, the most frequent first."""
    known = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    times = Counter(_mark(value) for value in known)
    found = [{**value, name: times[_mark(value)]} for value in distinct(known)]
    return sorted(found, key=lambda one: -int(one[name]))


def look_up(step: LookupStep, elements: Iterable[Any], wanted: Any, warnings: Warnings) -> list[dict[str, Any]]:
    """Return the fields of the elements that a lookup step picks. Raises InvalidArguments for an invalid date.

    If the step counts, a value without an element becomes an element with nothing else. An element with an unreadable
    date is treated as one without a date.
    """
    known = [element for element in elements if isinstance(element, dict)]
    if step.compare is not None:
        limit = _limit(step, wanted)
        if limit is None:
            return []
        before = step.compare == "before"
        picked = [one for one in known if _lies_before(step, one.get(step.match), limit, warnings) is before]
        return [_fields(step, one) for one in picked]
    sought = [one for one in _sought(step, wanted) if isinstance(one[step.match], str | int | float)]

    def key(element: Mapping[str, Any]) -> tuple[str, str]:
        return _mark(element.get(step.match)), _mark(element.get(step.within)) if step.within is not None else ""

    # Counted once: both lists may have thousands of elements.
    times = Counter(map(key, sought))
    picked = [one for one in known if key(one) in times]
    if step.count is None:
        return [_fields(step, one) for one in picked]
    unknown = sought if step.match in step.fields else []
    # A user of several iModels is in the list of each: the count is theirs, and is there once.
    first = {key(one): one for one in reversed((*picked, *unknown))}
    ordered = sorted(dict.fromkeys(map(key, (*picked, *unknown))), key=lambda one: -times[one])
    return [{**_fields(step, first[one]), step.count: times[one]} for one in ordered]


def _sought(step: LookupStep, wanted: Any) -> list[dict[str, Any]]:
    """Return what a lookup looks for, as elements that have nothing but the fields by which they are compared.

    With `within` what is wanted are the objects that have the value as a member.
    """
    values = wanted if isinstance(wanted, list) else [wanted]
    if step.within is None:
        return [{step.match: value} for value in values]
    assert isinstance(step.value, StepValue)
    member = step.value.path.parts[-1]
    return [
        {step.match: value.get(member), step.within: value.get(step.within)}
        for value in values
        if isinstance(value, dict)
    ]


def add_fields(
    step: LookupStep, elements: Iterable[Any], arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> list[Any]:
    """Return the elements of a lookup with the fields that `x-add` adds; null in a field that is not known."""
    tables = {one.name: _table(one, arguments, results) for one in step.added if one.list is not None}
    return [
        {**element, **{one.name: _added(one, element, tables.get(one.name)) for one in step.added}}
        if isinstance(element, dict)
        else element
        for element in elements
    ]


def _table(field: FieldPlan, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the field `of` by the `match` field, in the list that a field is looked up in."""
    assert field.list is not None
    listed = evaluate(field.list, arguments, results)
    known = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {one[field.match]: one.get(field.of) for one in known if isinstance(one.get(field.match), str)}


def _added(field: FieldPlan, element: Mapping[str, Any], table: Mapping[str, Any] | None) -> Any:
    found = field.value if field.path is None else field.path.find(element)
    if table is not None:
        keys = found if isinstance(found, list) else [found]
        values = [table.get(key) if isinstance(key, str) else None for key in keys]
        # A part that is not known makes the whole unknown: what a person may do decides what they lose.
        if None in values or found is ABSENT:
            return None
        found = [one for value in values for one in (value if isinstance(value, list) else [value])]
        if not all(isinstance(one, str) for one in found):
            return None
        found = list(dict.fromkeys(found))
    if field.only is not None and isinstance(found, list):
        if not all(isinstance(one, str) for one in found):
            return None
        found = [one for one in found if one in field.only]
    return None if found is ABSENT else found


def check_date(step: LookupStep, arguments: Mapping[str, Any]) -> None:
    """Raises InvalidArguments if the caller's date, which a lookup step compares with, is not a date."""
    if step.compare is not None and isinstance(step.value, Argument):
        _limit(step, arguments.get(step.value.name, ABSENT))


def _fields(step: LookupStep, element: dict[str, Any]) -> dict[str, Any]:
    return {name: element.get(name) for name in (*step.fields, *(one.name for one in step.added))}


def _limit(step: LookupStep, wanted: Any) -> datetime | None:
    """Return the date of a lookup's value; None if there is no value."""
    if wanted is ABSENT or wanted is None:
        return None
    limit = _moment(wanted)
    if limit is None:
        name = step.value.name if isinstance(step.value, Argument) else step.name
        why = f"{name} is not a date that exists"
        raise InvalidArguments(
            f"{why}; nothing was sent." if isinstance(step.value, Argument) else f"{why}.",
            hint="Write it as 2026-01-31, or as 2026-01-31T08:00:00Z.",
            details=[{"code": DetailCode.INVALID_ARGUMENT, "target": name, "message": why}],
        )
    return limit


def _lies_before(step: LookupStep, value: Any, limit: datetime, warnings: Warnings) -> bool:
    """Return whether a field's date is before the limit; a missing date is before every limit."""
    if value is None:
        return True
    moment = _moment(value)
    if moment is None:
        warnings.add(f"{step.index}[*].{step.match}", "date", value)
        return True
    return moment < limit


def _moment(value: Any) -> datetime | None:
    """Return a date, or a date and time, as a moment; without a zone it is in UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _mark(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        return str(value["id"])
    return json.dumps(value, sort_keys=True)
