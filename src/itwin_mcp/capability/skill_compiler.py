"""Compiler of `exposes` entries of type `skill`: reads the files of each skill, and finds the tools that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.documents import Place, read_text
from itwin_mcp.capability.routes import Route
from itwin_mcp.capability.skill_schema import ExposesSkill, SkillSpec
from itwin_mcp.capability.static_resources import MAX_BYTES, MAX_FILES, find_static_folder
from itwin_mcp.errors import CapabilityError
from itwin_mcp.text import suggest

MANIFEST = "SKILL.md"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MARKDOWN_PATH = re.compile(r"([A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+\.md")

Source = Tool | Route


@dataclass(frozen=True, slots=True)
class SkillTool:
    """A tool of a skill, with what it runs, or the path of its instruction in the skill."""

    name: str
    description: str
    source: Source | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class DeclaredSkill:
    """A skill of a capability file: front matter, tools, and the texts of its folder by path."""

    name: str
    front: Mapping[str, Any]
    tools: tuple[SkillTool, ...]
    file: str
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)


def compile_skills(
    exposes: ExposesSkill, sources: Mapping[str, Mapping[str, Source]], place: Place
) -> Iterator[DeclaredSkill]:
    """Yield the skills of an entry; `sources` are the tools and operations of the file, by namespace and name."""
    for name, spec in exposes.skills.items():
        here = place.at("skills", name)
        if not _NAME.fullmatch(name) or len(name) > 64:
            here.report("skill", f"the name {name!r} of a skill must be lower-case letters and digits, with single -")
        texts = _read_folder(spec, here)
        tools = tuple(_compile_tools(spec, sources, texts, here))
        front = spec.model_dump(by_alias=True, exclude_none=True, exclude={"location", "tools"})
        if not front["metadata"]:
            del front["metadata"]
        yield DeclaredSkill(name, {"name": name, **front}, tools, str(place.document.file), texts)


def _compile_tools(
    spec: SkillSpec, sources: Mapping[str, Mapping[str, Source]], texts: Mapping[str, str], place: Place
) -> Iterator[SkillTool]:
    for name, tool in spec.tools.items():
        here = place.at("tools", name)
        if tool.from_ is None:
            path = (tool.instruction or "").removeprefix("./")
            if path not in texts:
                message = f"there is no file {tool.instruction!r} in the skill's `location`"
                here.at("instruction").report("skill", f"{message}: {suggest(texts, path)}")
            yield SkillTool(name, tool.description, instruction=path)
            continue
        namespace, action = tool.from_.sourceNamespace, tool.from_.action
        if namespace not in sources:
            message = f"no entry of type mcp or rest has the namespace {namespace!r}: {suggest(sources, namespace)}"
            here.at("from", "sourceNamespace").report("skill", message)
        elif action not in sources[namespace]:
            message = f"{namespace!r} has no tool or operation {action!r}: {suggest(sources[namespace], action)}"
            here.at("from", "action").report("skill", message)
        else:
            yield SkillTool(name, tool.description, sources[namespace][action])


def _read_folder(spec: SkillSpec, place: Place) -> dict[str, str]:
    """Return the Markdown files of the skill's folder, by path in it."""
    if spec.location is None:
        return {}
    folder = find_static_folder(spec.location, place.document.file)
    files = [] if folder is None else sorted(folder.rglob("*.md"))
    if folder is None or not files or len(files) > MAX_FILES:
        message = f"must be file:///./FOLDER next to this file, with 1 to {MAX_FILES} files that end in .md"
        place.at("location").report("skill", message)
        return {}
    texts: dict[str, str] = {}
    for file in files:
        path = file.relative_to(folder).as_posix()
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            place.at("location").report("skill", f"{path!r} leads out of the folder: copy the file into it")
        elif not _MARKDOWN_PATH.fullmatch(path):
            place.at("location").report("skill", f"{path!r}: use letters, digits, - and _ in the names of files")
        else:
            texts |= _read_file(file, path, place)
    return texts


def _read_file(file: Path, path: str, place: Place) -> dict[str, str]:
    try:
        return {path: read_text(file, MAX_BYTES).replace("\r\n", "\n")}
    except CapabilityError as error:
        place.at("location").report("skill", f"{path} {error.problems[0].message}")
        return {}
