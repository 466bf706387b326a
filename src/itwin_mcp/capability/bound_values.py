"""Values of `binds` with a `location`: a file next to the capability file, or else the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from itwin_mcp.capability.documents import Place, read_data
from itwin_mcp.capability.operations import Operation
from itwin_mcp.errors import CapabilityError

_FILE = "file://"
_IN_FILE = "file:"
"""The beginning of a reference to a key in a file: `file:PATH#KEY`. Any other reference is an environment variable."""
MAX_VALUE = 8192
"""Characters of a value."""


def locate_values(location: str, place: Place) -> str | None:
    """Return what precedes a key in the references of a bind: empty for the environment. None if it is refused.

    A file must be in the folder of the capability file, also after every symbolic link is followed.
    """
    if not location.startswith(_FILE):
        scheme = location.partition("://")[0]
        message = f"{scheme}:// is not read: the values come from environment variables with the names of the keys"
        place.warn("not-served", message)
        return ""
    folder = place.document.file.parent
    written = unquote(location.removeprefix(_FILE))
    try:
        file = (folder / (written[1:] if written.startswith("/./") else written)).resolve()
    except (OSError, ValueError, RuntimeError):
        file = Path("/")
    if not file.is_relative_to(folder) or "#" in str(file):
        message = f"{location[:80]!r} is not in the folder of this file: write file:///./ and a path below it"
        place.report("bind-location", message)
        return None
    return f"{_IN_FILE}{file}#"


def read_values(references: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the values of references that have one."""
    values = {reference: _read_value(reference, environment) for reference in references}
    return {reference: value for reference, value in values.items() if value}


def describe_reference(reference: str) -> str:
    """Return where a person sets a value."""
    if not reference.startswith(_IN_FILE):
        return f"{reference} in the environment that starts itwin-mcp"
    file, _, key = reference.removeprefix(_IN_FILE).rpartition("#")
    return f"{key} in {file}"


def list_receivers(operations: Iterable[Operation]) -> list[tuple[str, str]]:
    """Return each origin with each key that it receives, without repetitions."""
    pairs = {
        (operation.origin, reference.rpartition("#")[2])
        for operation in operations
        for reference in operation.list_references()
    }
    return sorted(pairs)


def _read_value(reference: str, environment: Mapping[str, str]) -> str | None:
    if not reference.startswith(_IN_FILE):
        return environment.get(reference)
    name, _, key = reference.removeprefix(_IN_FILE).rpartition("#")
    file = Path(name)
    try:
        # The file was judged when it was linked. It may have become a symbolic link since.
        data = read_data(file) if file.resolve() == file else None
    except (CapabilityError, OSError, RuntimeError):
        return None
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    return text if len(text) <= MAX_VALUE and text.isprintable() else None
