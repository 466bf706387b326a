"""From a file on disk to a checked model: strict YAML, and every error with its file, line and rule."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from itwin_mcp.capability.model import CapabilityFile
from itwin_mcp.errors import CapabilityError, Problem

MOST_BYTES = 512 * 1024
MOST_NODES = 50_000
MOST_DEPTH = 50

logger = logging.getLogger(__name__)

YamlPath = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""


@dataclass(frozen=True, slots=True)
class Document:
    """One loaded file; the text is kept so that an error found later can still name its line.

    `fresh` says that it was parsed now, so that no earlier start has checked it.
    """

    file: Path
    text: str = field(repr=False)
    model: CapabilityFile = field(repr=False)
    data: Any = field(repr=False)
    kept: Path | None
    fresh: bool

    def problem(self, path: YamlPath, rule: str, message: str) -> Problem:
        """A broken rule at a place of this file."""
        return Problem(str(self.file), _line_of(self.text, path), rule, message)

    def keep(self) -> None:
        """Put a fresh parse into the cache, whole or not at all; without it the next start only takes longer."""
        if not self.fresh or self.kept is None:
            return
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.kept.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(self.data, stream, ensure_ascii=False, separators=(",", ":"))
            os.replace(name, self.kept)
        except OSError as error:
            logger.warning("The parse of %s cannot be cached in %s: %s", self.file, self.kept.parent, error)


def load(file: Path, *, cache: Path | None = None) -> Document:
    """Read one capability file.

    `cache` is a folder in which parsed files are kept as JSON, by content and by the version of this package; any
    trouble with it means that the file is parsed again. Raises CapabilityError.
    """
    text = _read(file)
    kept = _cache_file(text, cache)
    data = _cached(file, kept)
    fresh = data is None
    if fresh:
        data = _parsed(file, text)
    try:
        model = CapabilityFile.model_validate(data)
    except ValidationError as error:
        raise CapabilityError(_problems_of(error, file, text)) from None
    return Document(file, text, model, data, kept, fresh)


def read_data(file: Path) -> Any:
    """The bare data of a file, read as strictly as `load` does. Raises CapabilityError."""
    return _parsed(file, _read(file))


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise CapabilityError([Problem(str(file), 1, "readable", f"cannot be read: {error.strerror}")]) from None
    if len(content) > MOST_BYTES:
        message = f"is larger than {MOST_BYTES // 1024} KiB"
        raise CapabilityError([Problem(str(file), 1, "bounded", message)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CapabilityError([Problem(str(file), line, "utf-8", "is not UTF-8 text")]) from None


def _parsed(file: Path, text: str) -> Any:
    from itwin_mcp.capability import strict_yaml  # not on a second start: YAML is slow to import and to parse

    try:
        return strict_yaml.parse(text, most_nodes=MOST_NODES, most_depth=MOST_DEPTH)
    except strict_yaml.YamlRefused as error:
        raise CapabilityError([Problem(str(file), error.line, error.rule, error.message)]) from None


def _cached(file: Path, kept: Path | None) -> Any:
    if kept is None:
        return None
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("The cached parse of %s cannot be used (%s); it is parsed again.", file, error)
        return None


def _cache_file(text: str, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    from itwin_mcp import __version__

    digest = hashlib.sha256(f"{__version__}\0{text}".encode()).hexdigest()
    return cache / f"capability-{digest}.json"


# --- errors of the model, as file and line ----------------------------------------------------------------------

_RULES = {
    "extra_forbidden": ("known-key", "unknown key {key!r}"),
    "missing": ("required-key", "the key {key!r} is missing"),
    "string_pattern_mismatch": ("name", "{input!r} does not fit {pattern}"),
    "literal_error": ("known-word", "{input!r} is not one of {expected}"),
    "union_tag_invalid": ("known-word", "the type {tag!r} is not one of {expected_tags}"),
    "union_tag_not_found": ("required-key", "the key 'type' is missing or not one that is served"),
}


def _problems_of(error: ValidationError, file: Path, text: str) -> Sequence[Problem]:
    problems = []
    for item in error.errors(include_url=False):
        rule, template = _RULES.get(item["type"], ("type", "{msg}"))
        location = item["loc"]
        context = {
            "key": location[-1] if location else "",
            "input": item.get("input"),
            "msg": item["msg"],
            **item.get("ctx", {}),
        }
        message = template.format_map({**context, "input": _short(context["input"])})
        where = ".".join(str(part) for part in location)
        problems.append(Problem(str(file), _line_of(text, location), rule, f"{message} (at {where})"))
    return problems


def _short(value: Any) -> Any:
    return value[:80] + "…" if isinstance(value, str) and len(value) > 80 else value


def _line_of(text: str, path: YamlPath) -> int:
    """The line of a place, or of the nearest place above it that the file has."""
    from itwin_mcp.capability import strict_yaml

    try:
        lines = strict_yaml.lines(text)
    except strict_yaml.YamlRefused as error:
        return error.line
    here: YamlPath = ()
    for part in path:
        # pydantic puts the tag of a union between a list's index and the element's keys; the file has no such key.
        candidate = (*here, part)
        if candidate in lines:
            here = candidate
        elif isinstance(part, str) and re.fullmatch(r"(x-)?[\w-]+", part) is None:
            break
    return lines[here]
