"""Reading of capability files: strict parsing, checks against the schema, and problems with their file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwin_mcp.capability import cache as parse_cache
from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    ExpressionError,
    JsonPath,
    Literal,
    StepValue,
    compile_path,
    compile_slots,
    resolve_argument,
)
from itwin_mcp.errors import CapabilityError, Problem, SettingsError
from itwin_mcp.text import shorten, suggest

if TYPE_CHECKING:
    from pydantic import ValidationError

    from itwin_mcp.capability.schema import CapabilityFile

MAX_BYTES = 512 * 1024

YamlPath = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""


def find_shipped_files() -> tuple[Path, ...]:
    """Return our own capability files, from the installed package or from the top of a source tree.

    Raises:
        SettingsError: The installation has none.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "capabilities", package.parent.parent / "capabilities"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.yaml")))
    raise SettingsError(f"The capability files are missing from the installation at {package}: install it again.")


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """One loaded file. It includes the text, because problems that linking finds need the lines of the text."""

    file: Path
    text: str = field(repr=False)
    model: CapabilityFile = field(repr=False)
    data: Any = field(repr=False)
    cache_entry: Path | None
    is_fresh: bool
    """Whether the file was parsed now. Data from the cache passed every check when it was cached."""

    def make_problem(self, path: YamlPath, rule: str, message: str) -> Problem:
        """Return a problem at a path of this file, with its line."""
        return Problem(str(self.file), find_line(self.text, path), rule, shorten(message, 400))

    def save_to_cache(self) -> None:
        """Write a fresh parse to the cache. Call it after every linked file passed all checks."""
        if self.is_fresh and self.cache_entry is not None:
            parse_cache.write_entry(self.file, self.cache_entry, self.data)


def load_document(file: Path, *, cache: Path | None = None) -> Document:
    """Read one capability file. Use its parse in the `cache` folder if there is one.

    Raises:
        CapabilityError: The file cannot be read, or breaks rules. The error lists every problem.
    """
    # Imported here: a start with the linked catalog in the cache needs no schema, whose models are slow to build.
    from pydantic import ValidationError

    from itwin_mcp.capability.schema import CapabilityFile

    text = read_text(file)
    entry = parse_cache.find_entry(text, cache)
    # A ValidationError is a ValueError: an entry that the schema refuses counts as damaged.
    cached = parse_cache.read_entry(file, entry, lambda data: (data, CapabilityFile.model_validate(data)))
    if cached is not None:
        data, model = cached
        return Document(file, text, model, data, entry, is_fresh=False)
    data = parse_text(file, text)
    try:
        model = CapabilityFile.model_validate(data)
    except ValidationError as error:
        raise CapabilityError(list_problems(error, file, text)) from None
    return Document(file, text, model, data, entry, is_fresh=True)


def read_data(file: Path) -> Any:
    """Return the data of a file without checking it against the schema.

    Raises:
        CapabilityError: The file cannot be read, or is not strict YAML.
    """
    return parse_text(file, read_text(file))


def read_cached_data(file: Path, cache: Path | None) -> Any:
    """Return the data of a file like `read_data`, through the `cache` folder.

    Raises:
        CapabilityError: The file cannot be read, or is not strict YAML.
    """
    text = read_text(file)
    entry = parse_cache.find_entry(text, cache)
    data = parse_cache.read_entry(file, entry, lambda data: data)
    if data is None:
        data = parse_text(file, text)
        if entry is not None:
            parse_cache.write_entry(file, entry, data)
    return data


def read_text(file: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a file of at most `max_bytes`.

    Raises:
        CapabilityError: The file cannot be read, is too large, or is not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CapabilityError([Problem(str(file), 1, "readable", f"cannot be read: {why}")]) from None
    if len(content) > max_bytes:
        message = f"is larger than {max_bytes // 1024} KiB: split it"
        raise CapabilityError([Problem(str(file), 1, "bounded", message)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n?|\n", content[: error.start])) + 1
        raise CapabilityError([Problem(str(file), line, "utf-8", "is not UTF-8 text: save it as UTF-8")]) from None


def parse_text(file: Path, text: str) -> Any:
    """Return the data of a file's text.

    Raises:
        CapabilityError: The text is not strict YAML.
    """
    # Imported here: a start with a filled cache needs no YAML, which is slow to import.
    from itwin_mcp.capability import strict_yaml

    try:
        return strict_yaml.parse(text)
    except strict_yaml.YamlRefused as error:
        raise CapabilityError([Problem(str(file), error.line, error.rule, error.message)]) from None


# --- problems with file and line --------------------------------------------------------------------------------


def find_line(text: str, path: YamlPath) -> int:
    """Return the line of a path in strict YAML. If the text lacks the path, return the line of its nearest parent."""
    from itwin_mcp.capability import strict_yaml

    lines = strict_yaml.find_lines(text)
    while path and path not in lines:
        path = path[:-1]
    return lines[path]


def list_problems(error: ValidationError, file: Path, text: str) -> Sequence[Problem]:
    """Convert the errors of pydantic to problems with lines."""
    from itwin_mcp.capability.schema_errors import explain_error

    problems = []
    for item in error.errors(include_url=False):
        # pydantic adds "[key]" and the tags of unions to the location; neither is in the file.
        path = tuple(part for part in item["loc"] if not re.fullmatch(r"\[key\]|<.*>", str(part)))
        rule, message = explain_error(item, path)
        where = shorten(".".join(str(part) for part in path), 200)
        at = f" (at {where})" if where else ""
        problems.append(Problem(str(file), find_line(text, path), rule, shorten(message, 400) + at))
    return problems


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a document, where problems and warnings are reported. All places of one linker share their lists."""

    document: Document = field(repr=False)
    path: YamlPath
    problems: list[Problem] = field(repr=False)
    warnings: list[Problem] = field(default_factory=list, repr=False)

    def at(self, *parts: str | int) -> Place:
        """Return the place at a path below this one."""
        return Place(self.document, (*self.path, *parts), self.problems, self.warnings)

    def report(self, rule: str, message: str) -> None:
        """Add a problem here. Linking continues, so that all problems are found at once."""
        self.problems.append(self.document.make_problem(self.path, rule, message))

    def warn(self, rule: str, message: str) -> None:
        """Add a warning here. It breaks no rule of the format, so the file is served."""
        self.warnings.append(self.document.make_problem(self.path, rule, message))

    def check_known(self, name: str, candidates: Collection[str], rule: str, missing: str) -> bool:
        """Return whether a name is one of the candidates. If not, report it, and suggest a candidate.

        `missing` begins the message, as in "there is no step".
        """
        if name in candidates:
            return True
        self.report(rule, f"{missing} {name!r}: {suggest(candidates, name)}")
        return False

    def compile_pattern(self, text: str, rule: str) -> re.Pattern[str] | None:
        """Compile a regular expression. If it is invalid, report it and return None."""
        try:
            return re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            self.report(rule, f"{text[:80]!r} is not a regular expression: {error}")
            return None

    def compile_path(self, text: str) -> JsonPath | None:
        """Compile a JSONPath. If it is invalid, report it and return None."""
        try:
            return compile_path(text)
        except ExpressionError as error:
            self.report("expression", str(error))
            return None

    def compile_slots(
        self, text: str, resolve: Callable[[str], Argument | StepValue | Literal] = resolve_argument
    ) -> Expression | None:
        """Compile a text with slots. If its braces are not slots, report it and return None."""
        try:
            return compile_slots(text, resolve)
        except ExpressionError as error:
            self.report("expression", str(error))
            return None
