"""Checks capability files for their authors: every problem at once, warnings, and which host receives which key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.capability.documents import Document, find_shipped_files, load_document
from itwin_mcp.capability.linker import examine_files
from itwin_mcp.capability.lint import lint_document
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.schema_repair import RepairingLoader
from itwin_mcp.errors import Problem
from itwin_mcp.settings import PLATFORM_ORIGIN

PLATFORM_KEY = "the platform's token"


@dataclass(frozen=True, slots=True)
class SentKeys:
    """A host, and the keys that it receives: environment variables, or keys of a file."""

    host: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The problems and warnings of some files. Without problems, also their tools and keys."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    tools: tuple[str, ...]
    credentials: tuple[SentKeys, ...]


def check_capabilities(files: Sequence[Path]) -> CheckResult:
    """Check files together with our own, so that a name that we already use is reported."""
    own = {file.resolve() for file in files}
    shipped = [file for file in find_shipped_files() if file.resolve() not in own]
    loader = RepairingLoader()

    def load(file: Path, *, cache: Path | None = None) -> Document:
        return load_document(file, cache=cache) if file in ours else loader.load(file, cache=cache)

    ours = {file.resolve() for file in shipped}
    examination = examine_files((*shipped, *files), load)
    folder = find_shipped_files()[0].parent.resolve()
    documents = [
        document for file, document in examination.documents.items() if file in own or folder not in file.parents
    ]
    findings = [finding for document in documents for finding in lint_document(document)]
    linked = [problem for problem in examination.problems if not loader.is_consequence(problem)]
    problems = {*loader.problems, *linked, *(finding.problem for finding in findings if finding.is_error)}
    checked = {str(document.file) for document in documents}
    warnings = {
        *(warning for warning in examination.warnings if warning.file in checked),
        *(finding.problem for finding in findings if not finding.is_error),
    }
    catalog = examination.catalog if not problems else None
    return CheckResult(
        tuple(sorted(problems)),
        tuple(sorted(warnings)),
        () if catalog is None else tuple(tool.name for tool in _list_tools(catalog, own)),
        () if catalog is None else list_sent_keys(_list_operations(catalog, own)),
    )


def _list_tools(catalog: Catalog, own: set[Path]) -> Iterable[Tool]:
    return [tool for tool in catalog.tools.values() if Path(tool.file).resolve() in own]


def _list_operations(catalog: Catalog, own: set[Path]) -> Iterable[Operation]:
    for tool in catalog.tools.values():
        if Path(tool.file).resolve() in own:
            yield from tool.operations


def list_sent_keys(operations: Iterable[Operation]) -> tuple[SentKeys, ...]:
    """Return the variables, and the keys in files, that each host receives, by host."""
    keys: dict[str, dict[str, None]] = {}
    for operation in operations:
        host = keys.setdefault(operation.origin, {})
        if operation.origin == PLATFORM_ORIGIN:
            host[PLATFORM_KEY] = None
        else:
            host |= dict.fromkeys(sorted(name.rpartition("#")[2] for name in operation.list_references()))
    return tuple(SentKeys(host, tuple(names)) for host, names in sorted(keys.items()) if names)
