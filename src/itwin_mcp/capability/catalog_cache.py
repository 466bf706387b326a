"""Cache of the linked catalog in a folder, because even linking files whose parses are cached takes long.

An entry belongs to a list of capability files and to this version of the package. It contains the digest of every file
that was read for it, so it is not used after one of them has changed. A damaged entry is replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from itwin_mcp.capability.cache import digest_input, write_content
from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.encoding import DecodingError, decode, encode

logger = logging.getLogger(__name__)

_FIELDS = tuple(field.name for field in fields(Catalog) if field.name not in ("skills", "vocabulary"))
"""The fields of a catalog that are stored. The others are functions, which `runtime` sets."""


def load_catalog(files: Iterable[Path], *, cache: Path | None = None) -> Catalog:
    """Return the catalog of capability files, from the `cache` folder if it is there and no file has changed.

    Raises:
        CapabilityError: A file breaks rules. The error lists every problem.
    """
    files = tuple(files)
    entry = None if cache is None else _find_entry(files, cache)
    catalog = None if entry is None else _read_entry(entry)
    if catalog is not None:
        return catalog
    # Imported here: a start with a filled cache needs no linker, compilers and schema, which are slow to import.
    from itwin_mcp.capability.linker import link_with_inputs

    catalog, inputs = link_with_inputs(files, cache=cache)
    # Routes, credentials and skills are only in users' own files, which are few and quick to link again.
    if entry is not None and not (catalog.routes or catalog.inbound or catalog.declared_skills):
        _write_entry(entry, catalog, inputs)
    return catalog


def _find_entry(files: Iterable[Path], folder: Path) -> Path:
    """Return the path of the entry for a list of capability files."""
    from itwin_mcp import __version__

    # In a source tree the compilers change without the version.
    compilers = sorted(
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in Path(__file__).parent.iterdir()
        if file.suffix in (".py", ".toml")
    )
    facts = [__version__, compilers, [str(file.absolute()) for file in files]]
    return folder / f"catalog-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.json"


def _read_entry(entry: Path) -> Catalog | None:
    """Return the catalog of an entry; None if the entry is missing or damaged, or if a file has changed.

    The first line is the digest of the rest, the second line the inputs with their digests, the third the catalog.
    """
    try:
        with entry.open("rb") as stream:
            if _can_others_write(stream.fileno()):
                raise DecodingError("other users can write it")
            content = stream.read()
        digest, _, body = content.partition(b"\n")
        if hashlib.sha256(entry.name.encode() + body).hexdigest().encode() != digest:
            raise DecodingError("its digest is wrong")
        inputs, _, encoded = body.partition(b"\n")
        if any(_has_changed(Path(path), digest) for path, digest in json.loads(inputs).items()):
            return None
        return Catalog(**dict(zip(_FIELDS, decode(encoded), strict=True)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logger.warning("The linked catalog in %s cannot be used (%s); the files are linked again.", entry, error)
        return None


def _can_others_write(descriptor: int) -> bool:
    """Return whether an open file belongs to another user, or other users can write it. Windows has no such modes."""
    if os.name == "nt":
        return False
    facts = os.fstat(descriptor)
    return facts.st_uid != os.geteuid() or bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _has_changed(path: Path, digest: str) -> bool:
    try:
        return digest_input(path) != digest
    except OSError:
        return True


def _write_entry(entry: Path, catalog: Catalog, inputs: Mapping[Path, str]) -> None:
    names: dict[str, Any] = {str(path): digest for path, digest in inputs.items()}
    body = f"{json.dumps(names)}\n{encode(tuple(getattr(catalog, name) for name in _FIELDS))}".encode()
    digest = hashlib.sha256(entry.name.encode() + body).hexdigest()
    write_content("The linked catalog", entry, f"{digest}\n".encode() + body)
