"""Cache of parsed capability files as JSON in a folder, because parsing YAML at every start is slow.

The name of an entry is a digest of the file's text and of the version of this package, so entries never become stale.
If an entry cannot be used, the file is parsed again.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from itwin_mcp.atomic_files import write_file

logger = logging.getLogger(__name__)

T = TypeVar("T")


def find_entry(text: str, folder: Path | None) -> Path | None:
    """Return the path of the cache entry for a file's text; None without a cache folder."""
    if folder is None:
        return None
    from itwin_mcp import __version__

    digest = hashlib.sha256(f"{__version__}\0{text}".encode()).hexdigest()
    return folder / f"capability-{digest}.json"


def read_entry(file: Path, entry: Path | None, convert: Callable[[Any], T]) -> T | None:
    """Return the converted data of an entry, or None if the entry is missing or damaged.

    `convert` raises ValueError for damaged data. `file` is the capability file, which the warning names.
    """
    if entry is None:
        return None
    try:
        return convert(json.loads(entry.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        logger.warning("The cached parse of %s in %s is damaged; the file is parsed again.", file, entry)
        return None


def write_entry(file: Path, entry: Path, data: Any) -> None:
    """Write the parse of a capability file as an entry."""
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    write_content(f"The parse of {file}", entry, content)


def write_content(subject: str, entry: Path, content: bytes) -> None:
    """Write an entry atomically. If the folder cannot be written, log a warning that begins with `subject`."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(entry, content)
    except OSError as error:
        logger.warning("%s cannot be cached in %s: %s", subject, entry.parent, error)


def digest_input(path: Path) -> str:
    """Return the digest of a file's text, or of the names in a folder. Raises OSError if the path is missing."""
    if path.is_dir():
        return digest_text("\0".join(sorted(child.name for child in path.iterdir())))
    return hashlib.sha256(path.read_bytes().removeprefix(codecs.BOM_UTF8)).hexdigest()


def digest_text(text: str) -> str:
    """Return the digest of a text, which is the same as that of a UTF-8 file with this text."""
    return hashlib.sha256(text.encode()).hexdigest()
