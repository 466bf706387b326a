"""Static resources: the text files of a folder next to the capability file, which are read once and served unchanged.

The `location` of the format is a `file:///` URI of a folder. We only accept the form `file:///./FOLDER`, relative to
the capability file, so that a file cannot serve anything else on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from itwin_mcp.capability import schema
from itwin_mcp.capability.catalog import StaticResource
from itwin_mcp.capability.documents import Place, read_text
from itwin_mcp.errors import CapabilityError

MAX_FILES = 50
MAX_BYTES = 64 * 1024
_LOCATION = re.compile(r"file:///\./((?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+)/?")
_ENDINGS = {"text/markdown": ".md", "text/plain": ".txt"}
_HEADED = re.compile(r"# (?P<title>\S[^\n]{0,119})\n\n(?P<first>[^\n#][^\n]{9,299})\n(?:\n|\Z)")


def read_static_resources(resource: schema.ResourceSpec, place: Place) -> Iterator[StaticResource]:
    """Yield the files of a resource's `location`. The URI of each is that of the resource and the name of the file.

    A file must begin with `# Title` and a paragraph of one line, which become its title and description. Problems are
    reported.
    """
    ending = _ENDINGS.get(resource.mimeType)
    if ending is None:
        place.at("mimeType").report("static", f"must be one of {', '.join(_ENDINGS)} for a static resource")
        return
    files = find_static_files(resource.location or "", place.document.file, ending)
    if not files or len(files) > MAX_FILES:
        message = f"must be file:///./FOLDER next to this file, with at most {MAX_FILES} files that end in {ending}"
        place.at("location").report("static", message)
        return
    for file in files:
        try:
            text = read_text(file, MAX_BYTES).replace("\r\n", "\n")
        except CapabilityError as error:
            place.at("location").report("static", f"{file.name} {error.problems[0].message}")
            continue
        headed = _HEADED.match(text)
        if headed is None:
            message = f"{file.name} must begin with `# Title`, an empty line and a paragraph of one line"
            place.at("location").report("static", message)
            continue
        yield StaticResource(
            name=file.stem,
            title=headed["title"].strip(),
            uri=f"{resource.uri.rstrip('/')}/{file.stem}",
            description=headed["first"].strip(),
            mime_type=resource.mimeType,
            text=text,
        )


def find_static_files(location: str, capability: Path, ending: str = "") -> tuple[Path, ...]:
    """Return the files of a location with this ending, by name; none if the folder is elsewhere."""
    folder = find_static_folder(location, capability)
    if folder is None:
        return ()
    inside = folder.resolve()
    files = sorted(folder.glob(f"*{ending}"))
    return tuple(file for file in files if file.is_file() and file.resolve().parent == inside)


def find_static_folder(location: str, capability: Path) -> Path | None:
    """Return the folder of a location, or None if it is not below the folder of the capability file."""
    match = _LOCATION.fullmatch(location)
    if match is None:
        return None
    folder = capability.parent / match[1]
    inside = folder.resolve()
    return folder if inside.is_relative_to(capability.parent.resolve()) and inside.is_dir() else None
