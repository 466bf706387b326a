"""Static resources: the texts of a folder beside the capability file, read once at start and served as they are.

The format's `location` is a `file:///` URI of a folder. Here it is `file:///./FOLDER`, the form that the format has for
a relative one, and relative to the capability file: what lies elsewhere on a machine is nobody's to serve.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as FilePath

from itwin_mcp.capability import model
from itwin_mcp.capability.catalog import StaticResource
from itwin_mcp.capability.place import Place

MOST_FILES = 50
MOST_BYTES = 64 * 1024
_LOCATION = re.compile(r"file:///\./((?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+)/?")
_ENDINGS = {"text/markdown": ".md", "text/plain": ".txt"}
_HEADED = re.compile(r"# (?P<title>\S[^\n]{0,119})\n\n(?P<first>[^\n#][^\n]{9,299})\n(?:\n|\Z)")


def static_resources(resource: model.Resource, place: Place) -> Iterator[StaticResource]:
    """The files of a resource's `location`, each under the resource's URI and its own name without its ending.

    A file opens with `# Title` and a paragraph of one line, which become its title and description. What is wrong is
    reported at its place.
    """
    ending = _ENDINGS.get(resource.mimeType)
    if ending is None:
        place.at("mimeType").report("static", f"a static resource is one of {', '.join(_ENDINGS)}")
        return
    files = static_files(resource.location or "", place.document.file, ending)
    if not files or len(files) > MOST_FILES:
        message = f"must be file:///./FOLDER beside this file, with up to {MOST_FILES} files that end in {ending}"
        place.at("location").report("static", message)
        return
    for file in files:
        problem, text = _read(file)
        headed = _HEADED.match(text)
        if problem is None and headed is None:
            problem = "must open with `# Title`, an empty line and a paragraph of one line"
        if problem is not None or headed is None:
            place.at("location").report("static", f"{file.name} {problem}")
            continue
        yield StaticResource(
            name=file.stem,
            title=headed["title"].strip(),
            uri=f"{resource.uri.rstrip('/')}/{file.stem}",
            description=headed["first"].strip(),
            mime_type=resource.mimeType,
            text=text,
        )


def static_files(location: str, capability: FilePath, ending: str = "") -> tuple[FilePath, ...]:
    """The files of a location that end so, by name; none where it leads out of the capability file's folder."""
    found = _LOCATION.fullmatch(location)
    if found is None:
        return ()
    folder = capability.parent / found[1]
    inside = folder.resolve()
    if not inside.is_relative_to(capability.parent.resolve()) or not inside.is_dir():
        return ()
    files = sorted(folder.glob(f"*{ending}"))
    return tuple(file for file in files if file.is_file() and file.resolve().parent == inside)


def _read(file: FilePath) -> tuple[str | None, str]:
    """What is wrong with a file, and its text."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            return f"is larger than {MOST_BYTES // 1024} KiB", ""
        return None, content.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        return f"cannot be read: {error.strerror}", ""
    except UnicodeDecodeError:
        return "is not UTF-8 text", ""
