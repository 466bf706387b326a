"""Finds, compares and counts the elements of the lists that the steps of a flow read; pure."""

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


def find_elements(result: Any, *, per_element: bool) -> list[Any]:
    """Return the elements of a lookup: the first list of an answer; with `per_element` those of several answers.

    An answer without a list is itself the only element.
    """
    if per_element:
        return [element for answer in result or () for element in find_elements(answer, per_element=False)]
    if isinstance(result, dict):
        return next((value for value in result.values() if isinstance(value, list)), [result])
    return result if isinstance(result, list) else []


def drop_duplicates(elements: Iterable[Any], members: Sequence[str] = ()) -> list[Any]:
    """Return each element once, in order, without nulls. An element is identified by its id, if it has one.

    The `members` belong to the identity too: briefcases of two iModels may have the same number.
    """
    distinct: dict[tuple[str, ...], Any] = {}
    for element in elements:
        if element is not None:
            context = [_identify(element.get(name)) for name in members] if isinstance(element, dict) else ()
            distinct.setdefault((_identify(element), *context), element)
    return list(distinct.values())


def add_members(answer: Any, members: Mapping[str, Any]) -> Any:
    """Return an answer with these members in each item of its first list, or in itself if it has no list."""
    if not isinstance(answer, dict):
        return [add_members(item, members) for item in answer] if isinstance(answer, list) else answer
    list_name = next((name for name, value in answer.items() if isinstance(value, list)), None)
    if list_name is None:
        return {**answer, **members}
    items = [{**item, **members} if isinstance(item, dict) else item for item in answer[list_name]]
    return {**answer, list_name: items}


def count_duplicates(values: Any, name: str) -> list[dict[str, Any]]:
    """Return each distinct object once, with how often it occurs in the field `name`, the most frequent first."""
    objects = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    counts = Counter(map(_identify, objects))
    counted = [{**element, name: counts[_identify(element)]} for element in drop_duplicates(objects)]
    return sorted(counted, key=lambda element: -int(element[name]))


def look_up(step: LookupStep, elements: Iterable[Any], wanted: Any, warnings: Warnings) -> list[dict[str, Any]]:
    """Return the fields of the elements that a lookup step picks. Raises InvalidArguments for an invalid date.

    If the step counts, a value without an element becomes an element with only the compared fields. An element with an
    unreadable date is treated as one without a date.
    """
    candidates = [element for element in elements if isinstance(element, dict)]
    if step.compare is not None:
        limit = _read_limit(step, wanted)
        if limit is None:
            return []
        before = step.compare == "before"
        return [
            _pick_fields(step, element)
            for element in candidates
            if _lies_before(step, element.get(step.match), limit, warnings) is before
        ]
    patterns = [
        pattern for pattern in _build_patterns(step, wanted) if isinstance(pattern[step.match], str | int | float)
    ]

    def key(element: Mapping[str, Any]) -> tuple[str, str]:
        context = _identify(element.get(step.within)) if step.within is not None else ""
        return _identify(element.get(step.match)), context

    # A table, because both lists may have thousands of elements.
    counts = Counter(map(key, patterns))
    picked = [element for element in candidates if key(element) in counts]
    if step.count is None:
        return [_pick_fields(step, element) for element in picked]
    if step.match in step.fields:
        picked += patterns
    # A user of several iModels is in the list of each. The first of these elements is returned, with the whole count.
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for element in picked:
        first.setdefault(key(element), element)
    ordered = sorted(first, key=lambda identity: -counts[identity])
    return [{**_pick_fields(step, first[identity]), step.count: counts[identity]} for identity in ordered]


def _build_patterns(step: LookupStep, wanted: Any) -> list[dict[str, Any]]:
    """Return the wanted values as elements that have only the compared fields.

    With `within`, `wanted` are the objects that have the value as a member.
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
    """Return the elements of a lookup with the fields that `x-add` adds. A value that cannot be read is null."""
    tables = {field.name: _build_table(field, arguments, results) for field in step.added if field.list is not None}
    return [
        {**element, **{field.name: _compute_field(field, element, tables.get(field.name)) for field in step.added}}
        if isinstance(element, dict)
        else element
        for element in elements
    ]


def _build_table(field: FieldPlan, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the field `of` by the `match` field, in the list that a field is looked up in."""
    assert field.list is not None
    rows = evaluate(field.list, arguments, results)
    objects = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {row[field.match]: row.get(field.of) for row in objects if isinstance(row.get(field.match), str)}


def _compute_field(field: FieldPlan, element: Mapping[str, Any], table: Mapping[str, Any] | None) -> Any:
    value = field.value if field.path is None else field.path.find(element)
    if value is ABSENT:
        return None
    if table is not None:
        keys = value if isinstance(value, list) else [value]
        entries = [table.get(key) if isinstance(key, str) else None for key in keys]
        # One unknown entry makes the whole value unknown: a user who loses permissions must see all of them.
        if None in entries:
            return None
        texts = [text for entry in entries for text in (entry if isinstance(entry, list) else [entry])]
        if not all(isinstance(text, str) for text in texts):
            return None
        value = list(dict.fromkeys(texts))
    if field.only is not None and isinstance(value, list):
        if not all(isinstance(text, str) for text in value):
            return None
        return [text for text in value if text in field.only]
    return value


def check_date(step: LookupStep, arguments: Mapping[str, Any]) -> None:
    """Raises InvalidArguments if the caller's date, which a lookup step compares with, is not a date."""
    if step.compare is not None and isinstance(step.value, Argument):
        _read_limit(step, arguments.get(step.value.name, ABSENT))


def _pick_fields(step: LookupStep, element: dict[str, Any]) -> dict[str, Any]:
    return {name: element.get(name) for name in (*step.fields, *(field.name for field in step.added))}


def _read_limit(step: LookupStep, wanted: Any) -> datetime | None:
    """Return the date of a lookup's value; None if there is no value."""
    if wanted is ABSENT or wanted is None:
        return None
    limit = _parse_moment(wanted)
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
    moment = _parse_moment(value)
    if moment is None:
        warnings.add(f"{step.index}[*].{step.match}", "date", value)
        return True
    return moment < limit


def _parse_moment(value: Any) -> datetime | None:
    """Parse a date, or a date and time; without a zone it is in UTC. Return None for any other value."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _identify(value: Any) -> str:
    """Return the id of an object; any other value as JSON."""
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        return str(value["id"])
    return json.dumps(value, sort_keys=True)
