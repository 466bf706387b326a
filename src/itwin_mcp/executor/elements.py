"""Elements of the lists that steps gave: distinct, matched, dated, counted; pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from itwin_mcp.capability.expressions import ABSENT, Argument
from itwin_mcp.capability.plans import LookupStep
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.shape import Warnings


def elements_of(result: Any, *, per_element: bool) -> list[Any]:
    """What a lookup goes through: the first list of an answer; with `per_element` those of several answers in turn.

    An answer without a list is an element itself.
    """
    if per_element:
        return [element for answer in result or () for element in elements_of(answer, per_element=False)]
    if isinstance(result, dict):
        return next((value for value in result.values() if isinstance(value, list)), [result])
    return result if isinstance(result, list) else []


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each element once, in the order of its first coming; an element with an id is known by it, null is none."""
    found: dict[str, Any] = {}
    for value in values:
        if value is not None:
            found.setdefault(_mark(value), value)
    return list(found.values())


def counted(values: Any, name: str) -> list[dict[str, Any]]:
    """Each distinct object once, with how often it came in the field `name`; the most frequent first."""
    known = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    times = Counter(_mark(value) for value in known)
    found = [{**value, name: times[_mark(value)]} for value in distinct(known)]
    return sorted(found, key=lambda one: -int(one[name]))


def look_up(step: LookupStep, elements: Iterable[Any], wanted: Any, warnings: Warnings) -> list[dict[str, Any]]:
    """The fields of the elements that a lookup step picks. Raises InvalidArguments for a value that is no date.

    Where it counts, a value without an element is an element of which nothing else is known. An element whose date
    cannot be read is taken as one without a date.
    """
    known = [element for element in elements if isinstance(element, dict)]
    if step.compare is not None:
        limit = _limit(step, wanted)
        if limit is None:
            return []
        before = step.compare == "before"
        picked = [one for one in known if _lies_before(step, one.get(step.match), limit, warnings) is before]
        return [_fields(step, one) for one in picked]
    values = [
        value for value in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(value, str | int | float)
    ]
    # Counted once: both lists may have thousands of elements.
    times = Counter(map(_mark, values))
    picked = [one for one in known if _mark(one.get(step.match)) in times]
    if step.count is None:
        return [_fields(step, one) for one in picked]
    known_values = {_mark(one.get(step.match)) for one in picked}
    unknown = [{step.match: value} for value in distinct(values) if _mark(value) not in known_values]
    return [
        {**_fields(step, one), step.count: times[_mark(one[step.match])]}
        for one in (*picked, *(unknown if step.match in step.fields else ()))
    ]


def check_date(step: LookupStep, arguments: Mapping[str, Any]) -> None:
    """Raises InvalidArguments where the caller's date, which a lookup step compares with, is none."""
    if step.compare is not None and isinstance(step.value, Argument):
        _limit(step, arguments.get(step.value.name, ABSENT))


def _fields(step: LookupStep, element: dict[str, Any]) -> dict[str, Any]:
    return {name: element.get(name) for name in step.fields}


def _limit(step: LookupStep, wanted: Any) -> datetime | None:
    """The date of a lookup's value; None where there is no value."""
    if wanted is ABSENT or wanted is None:
        return None
    limit = _moment(wanted)
    if limit is None:
        name = step.value.name if isinstance(step.value, Argument) else step.name
        why = f"{name} is not a date that exists"
        raise InvalidArguments(
            f"{why}; nothing was sent." if isinstance(step.value, Argument) else f"{why}.",
            hint="Write it as 2026-01-31, or as 2026-01-31T08:00:00Z.",
            details=[{"code": "InvalidArgument", "target": name, "message": why}],
        )
    return limit


def _lies_before(step: LookupStep, value: Any, limit: datetime, warnings: Warnings) -> bool:
    """Whether a field's date lies before the limit; what has no date lies before every one."""
    if value is None:
        return True
    moment = _moment(value)
    if moment is None:
        warnings.add(f"{step.index}[*].{step.match}", "date", value)
        return True
    return moment < limit


def _moment(value: Any) -> datetime | None:
    """A date, or a date and a time, as a moment; without a zone it is meant in UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _mark(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        return str(value["id"])
    return json.dumps(value, sort_keys=True)
