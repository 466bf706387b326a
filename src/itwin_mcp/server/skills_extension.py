"""`skills/list` and `skills/get`: the MCP extension with which hosts find agent skills.

The files of a skill are read like any resource. Source: https://modelcontextprotocol.io/seps/2640-skills-extension
"""

from __future__ import annotations

import hashlib
from typing import Any

import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from itwin_mcp.capability.catalog import Catalog, Skill

EXTENSION = "io.modelcontextprotocol/skills"
_CACHE = {"ttlMs": 300_000, "cacheScope": "public"}


class SkillParams(t.RequestParams):
    """Parameters of `skills/get`: the URI of a skill's SKILL.md."""

    uri: str


class SkillsExtension:
    """The skills of one server."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add_to(self, server: Server[Any]) -> None:
        """Declare the extension on a server, and handle its methods."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("skills/list", t.PaginatedRequestParams, self.list)
        server.add_request_handler("skills/get", SkillParams, self.get)

    async def list(self, _: ServerRequestContext[Any], params: t.PaginatedRequestParams) -> dict[str, Any]:
        """Return every skill on one page."""
        if params.cursor is not None:
            raise MCPError(t.INVALID_PARAMS, "There is only one page of skills: omit the cursor.")
        return {"skills": [_describe(skill) for skill in self._catalog.skills()], **_CACHE}

    async def get(self, _: ServerRequestContext[Any], params: SkillParams) -> dict[str, Any]:
        """Return a skill by the URI of its SKILL.md."""
        for skill in self._catalog.skills():
            if skill.files[0].uri == params.uri:
                return {"skill": _describe(skill), **_CACHE}
        raise MCPError(t.INVALID_PARAMS, "Unknown skill: skills/list lists them.", {"uri": params.uri[:2048]})


def _describe(skill: Skill) -> dict[str, Any]:
    """Return the entry that a host shows for approval: the front matter, and each file's digest and size."""
    contents = [(file.uri, file.text.encode()) for file in skill.files]
    return {
        "uri": skill.files[0].uri,
        "frontmatter": dict(skill.front),
        "resources": [
            {"uri": uri, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
            for uri, content in contents
        ],
    }
