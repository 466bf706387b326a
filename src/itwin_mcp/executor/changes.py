"""Entries of an access list as they are and as they are wanted, and the safe order of the changes between them; pure.

An iModel without entries takes the rights of its iTwin's roles. Its first entry switches those off for everybody, also
for the caller, who then could write no second one. So the caller's own entry comes first, then those that give, then
those that take away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.tool_actions import ChangesPlan, LookupStep
from itwin_mcp.errors import CallError, DetailCode, ErrorCode, InvalidArguments

Entry = dict[str, Any]


def find_changes(
    step: LookupStep,
    plan: ChangesPlan,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    elements: list[Any],
    *,
    whole: bool,
) -> dict[str, list[Entry]]:
    """Return the changes that `x-changes` describes.

    `order` are all entries to write, in order; `asked` are the wanted ones, with what is there `now` and what it
    `becomes`; `kept` are the others that get an entry with what they have; `unkept` those that get none. Raises
    InvalidArguments for a wanted entry of nobody, and CallError where the others cannot be kept because what they have
    is not known. `whole` says whether the lists were read to their ends.
    """
    known = _merge(step.match, plan.field, (one for name in plan.otherwise for one in results.get(name, ())))
    entries = _merge(step.match, plan.field, elements)
    wanted = _wanted(step, plan, arguments, {**known, **entries})
    inherits = not entries
    first = _first(plan, arguments, results)
    have = {key: _words(one[plan.field]) for key, one in (known if inherits else entries).items()}
    if inherits:
        have |= {key: words for key, words in first.items() if words is not None and key in known}
    others = [key for key in known if inherits and key not in wanted and have[key] != []]
    keeps = [key for key in others if arguments.get(plan.keep) or key in first]
    if any(have[key] is None for key in keeps) or (inherits and arguments.get(plan.keep) and not whole):
        raise CallError(
            ErrorCode.RIGHTS_UNKNOWN,
            "What everybody else may do now cannot be read, so they cannot be kept as they are; nothing was changed.",
            hint=f"The roles of the iTwin must be readable: ask somebody who manages them. With {plan.keep} false, "
            "everybody else loses what those roles give.",
        )

    def describe(key: str) -> Entry:
        source = {**known.get(key, {}), **entries.get(key, {})}
        return {step.match: key, **{name: source.get(name) for name in step.fields if name != step.match}}

    def write(key: str, words: list[str]) -> Entry:
        return {**describe(key), plan.field: words}

    same = {key for key, words in wanted.items() if key in entries and set(words) == set(have.get(key) or ())}
    asked = {key: words for key, words in wanted.items() if key not in same}
    gains = [key for key, words in asked.items() if _holds(words, have.get(key, []))]
    # Whoever writes first keeps what they have until the end, also where they are to lose it.
    own = [key for key in asked if key in first and inherits and key not in gains and have.get(key)]
    order = [
        *(write(key, have[key] or []) for key in (*own, *(key for key in keeps if key in first))),
        *(write(key, asked[key]) for key in gains if key in first),
        *(write(key, have[key] or []) for key in keeps if key not in first),
        *(write(key, asked[key]) for key in gains if key not in first),
        *(write(key, words) for key, words in asked.items() if key not in gains and key not in first),
        *(write(key, words) for key, words in asked.items() if key not in gains and key in first),
    ]
    return {
        "order": order,
        "asked": [{**describe(key), "now": have.get(key, []), "becomes": words} for key, words in asked.items()],
        "kept": [{**describe(key), plan.field: have[key]} for key in keeps],
        "unkept": [describe(key) for key in others if key not in keeps],
    }


def _merge(key: str, field: str, elements: Iterable[Any]) -> dict[str, Entry]:
    """Return the elements by their key in small letters; of one that comes twice what either holds."""
    found: dict[str, Entry] = {}
    for one in elements:
        if not isinstance(one, dict) or not isinstance(one.get(key), str):
            raise CallError(
                ErrorCode.RIGHTS_UNKNOWN,
                f"The platform's lists cannot be read (an entry has no {key}), so what everybody may do is not known; "
                "nothing was changed.",
                hint="Report it with this message.",
            )
        name, before = one[key].lower(), found.get(one[key].lower())
        words, more = _words(one.get(field)), _words(before[field]) if before is not None else []
        union = None if words is None or more is None else list(dict.fromkeys([*more, *words]))
        found[name] = {**(before or {}), **one, key: name, field: union}
    return found


def _wanted(
    step: LookupStep, plan: ChangesPlan, arguments: Mapping[str, Any], known: Mapping[str, Entry]
) -> dict[str, list[str]]:
    """Return what is wanted by key. Raises InvalidArguments for nobody, for several and for one who comes twice."""
    named: dict[str, set[str]] = {key: {key} for key in known}
    for key, one in known.items():
        for name in plan.called:
            if isinstance(one.get(name), str):
                named.setdefault(one[name].lower(), set()).add(key)
    argument = getattr(step.value, "name", step.name)
    wanted: dict[str, list[str]] = {}
    details: list[dict[str, Any]] = []
    for index, entry in enumerate(evaluate(step.value, arguments, {})):
        keys = named.get(str(entry[step.match]).strip().lower(), set())
        why = "names nobody of the iTwin" if not keys else "names several" if len(keys) > 1 else None
        if why is None and wanted.keys() & keys:
            why = "comes twice"
        if why is not None:
            target = f"{argument}.{index}.{step.match}"
            details.append({"code": DetailCode.INVALID_ARGUMENT, "target": target, "message": f"{target} {why}"})
        wanted |= {key: list(entry[plan.field]) for key in keys}
    if details:
        called = " or ".join((step.match, *plan.called))
        raise InvalidArguments(
            f"{'; '.join(str(one['message']) for one in details)}; nothing was changed.",
            hint=f"Give each one's {called}, once, as the lists of the iTwin show it.",
            details=details,
        )
    return wanted


def _first(plan: ChangesPlan, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """Return the keys of the entries to write first, each with its current values, or None if those are unknown."""
    keys = ABSENT if plan.first is None else evaluate(plan.first, arguments, results)
    has = ABSENT if plan.first_has is None else evaluate(plan.first_has, arguments, results)
    listed = keys if isinstance(keys, list) else [keys]
    return {key.lower(): _words(has) for key in listed if isinstance(key, str)}


def _words(value: Any) -> list[str] | None:
    """Return a list of words; None for anything else, of which nobody knows what it means."""
    words = value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None
    return None if words is None else list(dict.fromkeys(words))


def _holds(words: list[str], before: list[str] | None) -> bool:
    return before is not None and set(words) >= set(before)
