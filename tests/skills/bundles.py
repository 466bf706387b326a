"""The contents of skills, parsed: commands, links, tables and words."""

import os
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from itwin_mcp.capability.catalog import Catalog, Skill
from itwin_mcp.runtime import read_catalog
from itwin_mcp.settings import read_settings

COMMAND = "itwin-mcp call "
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_ERROR_ROW = re.compile(r"^\| (`[^|]+) \|[^|]+\|[^|]+\|$", re.MULTILINE)


@dataclass(frozen=True)
class Bundle:
    """One skill and its contents."""

    skill: Skill

    @property
    def files(self) -> dict[str, str]:
        """The text of each file, by path in the skill's folder."""
        return {file.uri.removeprefix(f"skill://{self.skill.name}/"): file.text for file in self.skill.files}

    @property
    def guide(self) -> str:
        return self.files["SKILL.md"]

    @property
    def prose(self) -> str:
        """Return the guide without its fenced blocks."""
        return _FENCED.sub("", self.guide)

    @property
    def commands(self) -> list[list[str]]:
        """Return the words after `itwin-mcp call` in shell blocks, split as a shell does."""
        lines = [
            line.strip()
            for _, kind, block in _FENCED.findall(self.guide)
            if kind == "sh"
            for line in block.splitlines()
        ]
        assert [line for line in lines if not line.startswith(COMMAND)] == []
        return [shlex.split(line.removeprefix(COMMAND)) for line in lines]

    @property
    def quoted(self) -> set[str]:
        """Return the words in backticks in the prose, without shell lines and phrases."""
        return {word for word in re.findall(r"`([^`\n]+)`", self.prose) if re.fullmatch(r"[\w-]+", word)}

    @property
    def links(self) -> set[str]:
        return set(re.findall(r"\]\(([^)\s]+)\)", self.guide))

    @property
    def codes(self) -> set[str]:
        """Return the error codes of its table."""
        rows = _ERROR_ROW.findall(self.guide.split("## Errors")[1].split("\n## ")[0])
        return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


@cache
def catalog() -> Catalog:
    """Return every tool, including those about signing in."""
    return read_catalog(
        read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets="all", files_root=[Path.cwd()])
    )


def bundles() -> list[Bundle]:
    return [Bundle(skill) for skill in catalog().skills()]
