"""Wire names in the plain export: the format has no `x-wire`, and cannot spell names such as `$top`.

A parameter whose wire name the format can spell gets it as its key. Another one is left out, because engines would send
it under a name that the API does not know; the export reports it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from itwin_mcp.capability.extensions import WORDS

_SPELLABLE = re.compile(r"[a-zA-Z0-9-_*]+")


@dataclass(slots=True)
class WireNames:
    """The new key of each parameter with `x-wire`, by `namespace.operation` and old key; None if it is left out."""

    keys: dict[str, dict[str, str | None]] = field(default_factory=dict)
    losses: list[tuple[str, str]] = field(default_factory=list)
    """The parts that the format cannot express: pairs of an operation or tool, and a sentence."""

    def add(self, data: Any) -> None:
        """Read the consumed operations of a file."""
        for entry in _list_entries(data, "consumes"):
            shared = _map(entry.get("inputParameters"))
            for resource in _map(entry.get("resources")).values():
                for name, operation in _map(_map(resource).get("operations")).items():
                    parameters = {**shared, **_map(_map(operation).get("inputParameters"))}
                    self._add_operation(f"{entry.get('namespace')}.{name}", parameters)

    def _add_operation(self, operation: str, parameters: Mapping[str, Any]) -> None:
        taken = set(parameters)
        for key, parameter in parameters.items():
            wire = _map(parameter).get("x-wire")
            if not isinstance(wire, str) or wire == key:
                continue
            spelled = wire if _SPELLABLE.fullmatch(wire) and wire not in taken else None
            self.keys.setdefault(operation, {})[key] = spelled
            if spelled is None:
                place = parameter.get("in", "query")
                self.losses.append((operation, f"the {place} parameter {wire} is left out: the format cannot spell it"))

    def rewrite(self, data: Any) -> Any:
        """Return the data of a file with the new keys, in operations and in every `with` of a call."""
        aliases = {
            str(entry.get("as") or entry.get("import")): str(entry.get("import"))
            for entry in _list_entries(data, "consumes")
            if "from" in entry
        }
        data = self._rewrite_calls(data, aliases)
        for entry in _list_entries(data, "consumes"):
            operations = {
                name: operation
                for resource in _map(entry.get("resources")).values()
                for name, operation in _map(_map(resource).get("operations")).items()
            }
            for name, operation in operations.items():
                keys = self.keys.get(f"{entry.get('namespace')}.{name}", {})
                if keys and operation.get("inputParameters"):
                    operation["inputParameters"] = _rename(operation["inputParameters"], keys)
            shared = [self.keys.get(f"{entry.get('namespace')}.{name}", {}) for name in operations]
            if entry.get("inputParameters") and shared:
                entry["inputParameters"] = _rename(entry["inputParameters"], shared[0])
        return data

    def _rewrite_calls(self, node: Any, aliases: Mapping[str, str]) -> Any:
        if isinstance(node, list):
            return [self._rewrite_calls(child, aliases) for child in node]
        if not isinstance(node, dict):
            return node
        node = {key: self._rewrite_calls(child, aliases) for key, child in node.items()}
        call, bound = node.get("call"), node.get("with")
        if isinstance(call, str) and isinstance(bound, dict):
            namespace, _, name = call.partition(".")
            keys = self.keys.get(f"{aliases.get(namespace, namespace)}.{name}", {})
            node["with"] = _rename(bound, keys)
            if not node["with"]:
                del node["with"]
        return node

    def drop_unused_inputs(self, before: Any, after: Any) -> None:
        """Remove the arguments of tools and flows that only filled parameters which are left out, and report them."""
        for (name, old), (_, new) in zip(_list_tools(before), _list_tools(after), strict=True):
            inputs = new.get("inputParameters") or {}
            for key in list(inputs):
                if _uses(old, key) and not _uses(new, key):
                    del inputs[key]
                    self.losses.append(
                        (name, f"the argument {key} is left out: it filled a parameter that is left out")
                    )
            if not inputs:
                new.pop("inputParameters", None)


def count_words(files: Iterable[Any]) -> dict[str, int]:
    """Return our words in the data of files, except `x-wire`, and how often each is used."""
    words = Counter(key for data in files for key in _list_keys(data) if key in WORDS and key != "x-wire")
    return dict(sorted(words.items()))


def _uses(tool: Mapping[str, Any], argument: str) -> bool:
    """Return whether a tool or flow refers to its argument."""
    text = json.dumps(
        {key: value for key, value in tool.items() if key != "inputParameters" and not key.startswith("x-")}
    )
    return re.search(rf"(?:[.{{]|each\.){re.escape(argument)}(?![\w-])", text) is not None


def _rename(parameters: Mapping[str, Any], keys: Mapping[str, str | None]) -> dict[str, Any]:
    renamed = {keys.get(key, key): value for key, value in parameters.items()}
    return {key: value for key, value in renamed.items() if key is not None}


def _list_entries(data: Any, section: str) -> Iterator[dict[str, Any]]:
    for holder in (_map(data), _map(_map(data).get("capability"))):
        entries = holder.get(section)
        yield from (entry for entry in (entries if isinstance(entries, list) else ()) if isinstance(entry, dict))


def _list_tools(data: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in _list_entries(data, "exposes"):
        yield from _map(entry.get("tools")).items()
    for entry in _list_entries(data, "aggregates"):
        yield from _map(entry.get("flows")).items()


def _list_keys(node: Any) -> Iterator[str]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict):
        yield from (key for key in node if isinstance(key, str))
    for child in children:
        yield from _list_keys(child)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
