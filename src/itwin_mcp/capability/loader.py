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
from itwin_mcp.capability.wording import explain, shorten
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
        return Problem(str(self.file), line_of(self.text, path), rule, shorten(message, 400))

    def keep(self) -> None:
        """Put a fresh parse into the cache, whole or not at all; without it the next start only takes longer."""
        if self.fresh and self.kept is not None:
            _keep(self.file, self.kept, self.data)


def load(file: Path, *, cache: Path | None = None) -> Document:
    """Read one capability file.

    `cache` is a folder in which parsed files are kept as JSON, by content and by the version of this package; any
    trouble with it means that the file is parsed again. Raises CapabilityError.
    """
    text = read_text(file)
    kept = _cache_file(text, cache)
    if kept is not None:
        cached = _cached(file, kept)
        if cached is not None:
            data, model = cached
            return Document(file, text, model, data, kept, fresh=False)
    data = parse_text(file, text)
    try:
        model = CapabilityFile.model_validate(data)
    except ValidationError as error:
        raise CapabilityError(_problems_of(error, file, text)) from None
    return Document(file, text, model, data, kept, fresh=True)


def read_data(file: Path) -> Any:
    """The bare data of a file, read as strictly as `load` does. Raises CapabilityError."""
    return parse_text(file, read_text(file))


def read_cached_data(file: Path, cache: Path | None) -> Any:
    """The bare data of one of our own files, from the cache of parses if it is there. Raises CapabilityError."""
    text = read_text(file)
    kept = _cache_file(text, cache)
    if kept is not None:
        try:
            return json.loads(kept.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError):
            _warn_damaged(file, kept)
    data = parse_text(file, text)
    if kept is not None:
        _keep(file, kept, data)
    return data


def read_text(file: Path) -> str:
    """The text of a file, bounded. Raises CapabilityError."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CapabilityError([Problem(str(file), 1, "readable", f"cannot be read: {why}")]) from None
    if len(content) > MOST_BYTES:
        message = f"is larger than {MOST_BYTES // 1024} KiB: split it"
        raise CapabilityError([Problem(str(file), 1, "bounded", message)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n?|\n", content[: error.start])) + 1
        raise CapabilityError([Problem(str(file), line, "utf-8", "is not UTF-8 text: save it as UTF-8")]) from None


def parse_text(file: Path, text: str) -> Any:
    """The data of a file's text, read strictly. Raises CapabilityError."""
    from itwin_mcp.capability import strict_yaml  # not on a second start: YAML is slow to import and to parse

    try:
        return strict_yaml.parse(text, most_nodes=MOST_NODES, most_depth=MOST_DEPTH)
    except strict_yaml.YamlRefused as error:
        raise CapabilityError([Problem(str(file), error.line, error.rule, error.message)]) from None


def _cached(file: Path, kept: Path) -> tuple[Any, CapabilityFile] | None:
    try:
        data = json.loads(kept.read_text(encoding="utf-8"))
        return data, CapabilityFile.model_validate(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):  # a ValidationError is a ValueError
        _warn_damaged(file, kept)
        return None


def _warn_damaged(file: Path, kept: Path) -> None:
    logger.warning("The cached parse of %s in %s is damaged; the file is parsed again.", file, kept)


def _keep(file: Path, kept: Path, data: Any) -> None:
    name: str | None = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=kept.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(data, stream, ensure_ascii=False, separators=(",", ":"))
        Path(name).replace(kept)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        logger.warning("The parse of %s cannot be cached in %s: %s", file, kept.parent, error)


def _cache_file(text: str, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    from itwin_mcp import __version__

    digest = hashlib.sha256(f"{__version__}\0{text}".encode()).hexdigest()
    return cache / f"capability-{digest}.json"


# --- errors of the model, as file and line ----------------------------------------------------------------------


def _problems_of(error: ValidationError, file: Path, text: str) -> Sequence[Problem]:
    problems = []
    for item in error.errors(include_url=False):
        location = tuple(part for part in item["loc"] if part != "[key]")
        path = tuple(part for part in location if not _is_tag(part))
        rule, message = explain(item, path)
        where = shorten(".".join(str(part) for part in path), 200)
        at = f" (at {where})" if where else ""
        problems.append(Problem(str(file), line_of(text, path), rule, shorten(message, 400) + at))
    return problems


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def line_of(text: str, path: YamlPath) -> int:
    """The line of a place, or of the nearest place above it that the file has."""
    from itwin_mcp.capability import strict_yaml

    try:
        lines = strict_yaml.lines(text)
    except strict_yaml.YamlRefused as error:
        return error.line
    while path and path not in lines:
        path = path[:-1]
    return lines[path]
