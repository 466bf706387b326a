"""Loads a file that breaks the schema as far as possible, so that its other problems are found in the same run.

A misspelled key is read as the key that it resembles. A value that cannot be used is replaced, or removed together with
the tool, operation or step that it belongs to. Problems that only follow from a removal are not reported.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from itwin_mcp.capability.documents import Document, YamlPath, list_problems, parse_text, read_text
from itwin_mcp.capability.schema import CapabilityFile
from itwin_mcp.capability.schema_errors import suggest_key
from itwin_mcp.errors import CapabilityError, Problem
from itwin_mcp.text import find_similar

MAX_ROUNDS = 50
_NAMED = frozenset(
    "tools resources prompts operations flows steps inputParameters arguments properties outputParameters".split()  # noqa: SIM905
)
_SECTIONS = frozenset({"consumes", "exposes", "aggregates", "binds", "mappings", "template"})
_TEXTS = frozenset({"description", "display"})


class RepairingLoader:
    """Loads files. `problems` are those of the schema, `removed` the names of what was removed to read on."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.removed: set[str] = set()

    def load(self, file: Path, *, cache: Path | None = None) -> Document:
        """Return a file without the parts that break the schema. The cache is not used.

        Raises:
            CapabilityError: The file cannot be read, or nothing remains of it.
        """
        text = read_text(file)
        data = copy.deepcopy(parse_text(file, text))
        renamed: set[YamlPath] = set()
        for _ in range(MAX_ROUNDS):
            try:
                model = CapabilityFile.model_validate(data)
            except ValidationError as error:
                new = list_problems(error, file, text)
                self.problems += [problem for problem in new if problem not in self.problems]
                if not self._repair(data, error, renamed):
                    break
            else:
                return Document(file, text, model, data, None, is_fresh=True)
        raise CapabilityError([problem for problem in self.problems if problem.file == str(file)])

    def is_consequence(self, problem: Problem) -> bool:
        """Return whether a problem may only follow from what was removed."""
        if not self.removed:
            return False
        names = "|".join(re.escape(name) for name in sorted(self.removed))
        return problem.rule == "unused-flow" or re.search(rf"['.{{]({names})['.}}]", problem.message) is not None

    def _repair(self, data: Any, error: ValidationError, renamed: set[YamlPath]) -> bool:
        """Change the data where it breaks the schema; return whether anything was changed."""
        changed = False
        for item in error.errors(include_url=False):
            is_key = "[key]" in item["loc"]
            path = tuple(part for part in item["loc"] if not _is_tag(part))
            changed |= self._repair_one(data, path, item, renamed, is_key=is_key)
        return changed

    def _repair_one(self, data: Any, path: YamlPath, item: Any, renamed: set[YamlPath], *, is_key: bool) -> bool:
        kind, context = item["type"], item.get("ctx", {})
        parent = _find(data, path[:-1])
        if kind == "extra_forbidden" and isinstance(parent, dict) and path[-1] in parent:
            key = str(path[-1])
            meant = suggest_key(key)
            value = parent.pop(key)
            if meant is not None and meant not in parent and (*path[:-1], meant) not in renamed:
                renamed.add((*path[:-1], meant))
                parent[meant] = value
            return True
        if kind == "missing" and path and path[-1] in _TEXTS and isinstance(parent, dict):
            parent[path[-1]] = "A description that is missing."
            return True
        if kind == "literal_error" and isinstance(parent, (dict, list)) and not is_key:
            return self._replace(parent, path[-1], str(context.get("expected", "")))
        if kind == "union_tag_invalid":
            node = _find(data, path)
            if isinstance(node, dict) and isinstance(node.get("type"), str):
                expected = str(context.get("expected_tags", "")).replace("<", "").replace(">", "")
                close = find_similar(node["type"], re.findall(r"'([^']*)'", expected))
                if close and close[0] != node["type"]:
                    node["type"] = close[0]
                    return True
        if path and path[-1] == "outputParameters" and isinstance(parent, dict) and "call" in parent:
            anything: list[Any] = [{"type": "object", "properties": {}}]
            if parent["outputParameters"] != anything:
                parent["outputParameters"] = anything
                return True
        return self._remove_entry(data, path)

    def _replace(self, parent: Any, key: Any, expected: str) -> bool:
        """Put the word that is most likely meant in the place of an unknown word."""
        words = re.findall(r"'([^']*)'", expected)
        value = parent[key] if isinstance(parent, list) or key in parent else None
        if not words or value in words:
            return False
        close = find_similar(value, words) if isinstance(value, str) else []
        parent[key] = (close or words)[0]
        return True

    def _remove_entry(self, data: Any, path: YamlPath) -> bool:
        """Remove the innermost tool, operation, step or other entry around a path."""
        for end in range(len(path), 1, -1):
            holder, name = path[end - 2], path[end - 1]
            if holder in _NAMED or (holder in _SECTIONS and isinstance(name, int)):
                parent = _find(data, path[: end - 1])
                if isinstance(parent, dict) and name in parent:
                    del parent[name]
                    self.removed.add(str(name))
                    return True
                if isinstance(parent, list) and isinstance(name, int) and name < len(parent):
                    removed = parent.pop(name)
                    if isinstance(removed, dict) and isinstance(removed.get("namespace"), str):
                        self.removed.add(removed["namespace"])
                    return True
        parent = _find(data, path[:-1])
        if isinstance(parent, dict) and path and path[-1] in parent and path[-1] not in ("ikanos", "capability"):
            del parent[path[-1]]
            return True
        return False


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and (part == "[key]" or (part.startswith("<") and part.endswith(">")))


def _find(data: Any, path: YamlPath) -> Any:
    """Return the value at a path of plain data; None if the path leads nowhere."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
