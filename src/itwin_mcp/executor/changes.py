"""Compares the entries of an access list with the wanted ones and puts the changes into a safe order; pure.

An iModel without entries uses the rights of its iTwin's roles. Its first entry switches those off for everybody,
including the caller, who then could not write a second one. So the caller's own entry is written first, then the
entries that add rights, then those that remove rights.
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
    """Return the changes that `x-changes` describes, in four lists.

    `order` has all entries to write, in order. `asked` has the wanted entries that change, with the rights `now` and
    what they `becomes`. `kept` has the other members, who get an entry with their current rights, and `unkept` those
    who get none. `whole` says whether the lists were read completely.

    Raises: InvalidArguments for a wanted entry of an unknown member; CallError if members keep their rights, but these
    are unknown.
    """
    members = _merge_entries(
        step.match, plan.field, (member for name in plan.otherwise for member in results.get(name, ()))
    )
    entries = _merge_entries(step.match, plan.field, elements)
    wanted = _read_wanted(step, plan, arguments, {**members, **entries})
    inherits = not entries
    first = _read_first(plan, arguments, results)
    current = {key: entry[plan.field] for key, entry in (members if inherits else entries).items()}
    if inherits:
        current |= {key: rights for key, rights in first.items() if rights is not None and key in members}
    others = [key for key in members if inherits and key not in wanted and current[key] != []]
    kept = [key for key in others if arguments.get(plan.keep) or key in first]
    if any(current[key] is None for key in kept) or (inherits and arguments.get(plan.keep) and not whole):
        raise CallError(
            ErrorCode.RIGHTS_UNKNOWN,
            "What everybody else may do now cannot be read, so they cannot be kept as they are; nothing was changed.",
            hint=f"The roles of the iTwin must be readable: ask somebody who manages them. With {plan.keep} false, "
            "everybody else loses what those roles give.",
        )

    def describe(key: str) -> Entry:
        source = {**members.get(key, {}), **entries.get(key, {})}
        return {step.match: key, **{name: source.get(name) for name in step.fields if name != step.match}}

    def write(key: str, rights: list[str] | None) -> Entry:
        return {**describe(key), plan.field: rights or []}

    changed = {
        key: rights
        for key, rights in wanted.items()
        if key not in entries or set(rights) != set(current.get(key) or ())
    }
    unknown = {key for key, rights in current.items() if rights is None}
    gains = [key for key in changed if key not in unknown and set(changed[key]) >= set(current.get(key) or ())]
    losses = [key for key in changed if key not in gains]
    # The caller may lose rights too, but only in the last change: first they get an entry with their current rights.
    own = [key for key in losses if key in first and inherits and current.get(key)]
    order = [
        *(write(key, current[key]) for key in (*own, *(key for key in kept if key in first))),
        *(write(key, changed[key]) for key in gains if key in first),
        *(write(key, current[key]) for key in kept if key not in first),
        *(write(key, changed[key]) for key in gains if key not in first),
        *(write(key, changed[key]) for key in losses if key not in first),
        *(write(key, changed[key]) for key in losses if key in first),
    ]
    return {
        "order": order,
        "asked": [{**describe(key), "now": current.get(key, []), "becomes": changed[key]} for key in changed],
        "kept": [write(key, current[key]) for key in kept],
        "unkept": [describe(key) for key in others if key not in kept],
    }


def _merge_entries(key: str, field: str, entries: Iterable[Any]) -> dict[str, Entry]:
    """Return the entries by their key in lower case. Duplicates are merged, and have the rights of both."""
    merged: dict[str, Entry] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
            raise CallError(
                ErrorCode.RIGHTS_UNKNOWN,
                f"The platform's lists cannot be read (an entry has no {key}), so what everybody may do is not known; "
                "nothing was changed.",
                hint="Report it with this message.",
            )
        name = entry[key].lower()
        earlier = merged.get(name, {field: []})
        rights = _read_rights(entry.get(field))
        union = None if rights is None or earlier[field] is None else list(dict.fromkeys([*earlier[field], *rights]))
        merged[name] = {**earlier, **entry, key: name, field: union}
    return merged


def _read_wanted(
    step: LookupStep, plan: ChangesPlan, arguments: Mapping[str, Any], members: Mapping[str, Entry]
) -> dict[str, list[str]]:
    """Return the wanted rights by key. Raises InvalidArguments for an unknown, ambiguous or repeated member."""
    keys_by_name: dict[str, set[str]] = {key: {key} for key in members}
    for key, member in members.items():
        for field in plan.called:
            if isinstance(member.get(field), str):
                keys_by_name.setdefault(member[field].lower(), set()).add(key)
    argument = getattr(step.value, "name", step.name)
    wanted: dict[str, list[str]] = {}
    details: list[dict[str, Any]] = []
    for index, entry in enumerate(evaluate(step.value, arguments, {})):
        keys = keys_by_name.get(str(entry[step.match]).strip().lower(), set())
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
            f"{'; '.join(str(detail['message']) for detail in details)}; nothing was changed.",
            hint=f"Give each one's {called}, once, as the lists of the iTwin show it.",
            details=details,
        )
    return wanted


def _read_first(
    plan: ChangesPlan, arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, list[str] | None]:
    """Return the keys of the entries to write first, each with its current rights, or None if they are unknown."""
    keys = ABSENT if plan.first is None else evaluate(plan.first, arguments, results)
    rights = ABSENT if plan.first_has is None else evaluate(plan.first_has, arguments, results)
    keys = keys if isinstance(keys, list) else [keys]
    return {key.lower(): _read_rights(rights) for key in keys if isinstance(key, str)}


def _read_rights(value: Any) -> list[str] | None:
    """Return a list of words without duplicates; None for anything else."""
    is_list_of_words = isinstance(value, list) and all(isinstance(word, str) for word in value)
    return list(dict.fromkeys(value)) if is_list_of_words else None
