"""A harbour office on loopback, and a server in memory that exposes it over REST."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2

from itwin_mcp.runtime import Runtime, build_rest, open_runtime, surround_own
from itwin_mcp.server.app import build_server
from itwin_mcp.server.transports.http import build_http_app
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.hosting.served import run_lifespan
from tests.upstream.loopback import Asked, Loopback, loopback

PORT = 8000
HERE = f"http://127.0.0.1:{PORT}"
FILE = Path(__file__).parent / "files" / "harbour.yaml"
PICTURE = b"\x89PNG\r\n\x1a\n of a berth"


async def answer_as_office(asked: Asked) -> None:
    """Answer as the harbour office: `lost` does not exist, `stuck` never answers, the quay `X` is full."""
    last = asked.path.rpartition("/")[2]
    if asked.method == "POST":
        full = b'"X"' in asked.body
        await asked.json(409 if full else 201, {"message": "full"} if full else {"id": "b9"})
    elif last == "lost":
        await asked.json(404, {"error": {"code": "BerthNotFound", "message": "No such berth."}})
    elif last == "closed":
        await asked.json(401, {"error": {"code": "Unauthorized", "message": "Who are you?"}})
    elif last == "stuck":
        await asked.until_closed()
    elif last == "plan":
        await asked.answer(200, PICTURE, {"Content-Type": "text/html"})
    elif asked.method == "DELETE":
        await asked.json(200, {"gone": True})
    elif last == "berths":
        await asked.json(200, {"berths": [{"id": "b1"}, {"id": "b2"}]})
    else:
        await asked.json(200, {"id": last})


@dataclass
class Harbour:
    """The served app, and what the office was asked."""

    http: httpx2.AsyncClient
    runtime: Runtime
    office: Loopback
    app: Any = field(repr=False)

    @property
    def asked(self) -> list[str]:
        return [f"{asked.method} {asked.target}" for asked in self.office.requests]


def write_file(folder: Path, origin: str, *edits: tuple[str, str]) -> Path:
    """Write the harbour's file for an office, with edits."""
    text = FILE.read_text().replace("ORIGIN", origin)
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    file = folder / "harbour.yaml"
    file.write_text(text)
    return file


@asynccontextmanager
async def serve_harbour(
    folder: Path, *edits: tuple[str, str], token: str | None = None, **flags: Any
) -> AsyncIterator[Harbour]:
    """Serve the harbour's file, and with `rest=True` our own tools over the sandbox, as `serve --http` does."""
    async with loopback(answer_as_office) as office:
        file = write_file(folder, office.origin, *edits)
        settings = read_settings(os.environ, **{"sandbox": True, "job_seconds": 0.0, "capabilities": [file]} | flags)
        environment = {"HARBOUR_BERTH_KEY": "key-of-the-office", "HARBOUR_CALLER_TOKEN": "token-of-callers"}
        async with open_runtime(settings, environment, Launcher.HTTP) as runtime:
            server = build_server(runtime.catalog, runtime.executor)
            rest = build_rest(runtime, settings)
            inner = build_http_app(server, anyio.Event(), rest=rest)
            app = surround_own(runtime, environment, token)(inner, PORT)
            transport = httpx2.ASGITransport(app)
            async with run_lifespan(inner):
                async with httpx2.AsyncClient(transport=transport, base_url=HERE, timeout=30) as http:
                    yield Harbour(http, runtime, office, app)
