"""A server with a policy over the sandbox, and the requests that reached the sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from itwin_mcp.errors import CallError
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.runtime import Runtime, open_runtime
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.executor.bench import Listener, answer_of

ISSUER = "https://login.example.com"


@dataclass(frozen=True)
class Places:
    """Ids in the sandbox: an iTwin with an iModel, and another iTwin with an iModel."""

    itwin: str
    imodel: str
    foreign: str
    foreign_imodel: str


@dataclass
class Fenced:
    runtime: Runtime
    reached: list[str] = field(default_factory=list)
    """Each request that the sandbox received: method, path, query and body as text."""

    async def call(self, tool: str, caller: Caller = LOCAL, **arguments: Any) -> dict[str, Any]:
        """Return the answer of a tool, without a user to ask."""
        described = self.runtime.gatekeeper.tools[tool]
        return answer_of(await self.runtime.executor.call(described, arguments, caller=caller))

    async def agreed(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer of a tool, with a user who agrees to every question."""
        return answer_of(await self.runtime.executor.call(self.runtime.gatekeeper.tools[tool], arguments, Listener()))

    async def refused(self, tool: str, caller: Caller = LOCAL, **arguments: Any) -> dict[str, Any]:
        """Return the error of a refused call."""
        try:
            answer = await self.call(tool, caller, **arguments)
        except CallError as error:
            return error.to_json(tool)
        raise AssertionError(f"{tool} answered {answer}")

    def naming(self, *ids: str) -> list[str]:
        """Return the requests that contain one of these ids, in upper or lower case."""
        return [request for request in self.reached if any(text in request.lower() for text in ids)]


@asynccontextmanager
async def fenced(policy: str | None, started: Launcher = Launcher.SHELL, **flags: Any) -> AsyncIterator[Fenced]:
    """Serve with this text as the policy file. Jobs of the sandbox end at once."""
    with pytest.MonkeyPatch.context() as patch:
        if policy is not None:
            flags["policy"] = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "policy.yaml"
            flags["policy"].write_text(policy, encoding="utf-8")
        flags.setdefault("files_root", [Path(os.environ["ITWIN_MCP_STATE_DIR"])])
        settings = read_settings(os.environ, **{"sandbox": True, "job_seconds": 0.0, "toolsets": "all"} | flags)
        async with open_runtime(settings, os.environ, started) as runtime:
            it = Fenced(runtime)
            answer = Sandbox.answer

            def recorded(self: Sandbox, request: Any, body: bytes, upload: Any = None) -> Any:
                url = request.url
                it.reached.append(f"{request.method} {unquote(url.path)}?{unquote(url.query)} {body.decode('latin-1')}")
                return answer(self, request, body, upload)

            patch.setattr(Sandbox, "answer", recorded)
            yield it


_KNOWN: list[Places] = []


async def places() -> Places:
    """Look up the ids once, without a policy: the sandbox has the same ids in every run."""
    if not _KNOWN:
        async with fenced(None) as free:
            found = []
            for number in ("NL-A12-0042", "NL-MAAS-0017"):
                itwin = (await free.call("list-itwins", number=number))["iTwins"][0]["id"]
                imodels = (await free.call("list-imodels", iTwinId=itwin))["iModels"]
                found += [itwin, imodels[0]["id"]]
        _KNOWN.append(Places(*found))
    return _KNOWN[0]


def audited() -> list[dict[str, Any]]:
    """Return the entries of the audit log."""
    file = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "audit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
