"""`python -m tests.interop.conformance.server`: our server with our tools and the conformance fixtures.

The capability file of the fixtures is read, linked, listed and executed like a
user's own file.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.server.transports import http
from itwin_mcp.server.transports.origin_check import check_loopback
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.interop.conformance import upstream
from tests.interop.conformance.fixtures import Fixtures

CAPABILITY = Path(__file__).with_name("capability.yaml")


async def main() -> None:
    with upstream.running() as origin, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "conformance.yaml"
        file.write_text(CAPABILITY.read_text().replace("http://127.0.0.1:1", origin))
        settings = read_settings(os.environ, sandbox=True, toolsets="all", capabilities=[file])
        async with open_runtime(settings, {}, Launcher.HTTP) as runtime:
            catalog = rename_fixtures(runtime.catalog)
            server = build_server(catalog, runtime.executor)
            fixtures = Fixtures(catalog, Seals(lambda: (secrets.token_bytes(32),)))
            server.middleware.insert(len(server.middleware) - 1, fixtures.answer)  # ours answers calls by itself
            guard = partial(check_loopback, token=None)
            await http.serve_http(server, "127.0.0.1", 0, surround=guard, ready=report_ready)


def rename_fixtures(catalog: Catalog) -> Catalog:
    """Spell the fixtures with underscores, as the suite does. Names in capability files have none."""
    tools = {_respell(name): replace(tool, name=_respell(name)) for name, tool in catalog.tools.items()}
    prompts = {_respell(name): replace(prompt, name=_respell(name)) for name, prompt in catalog.prompts.items()}
    return replace(catalog, tools=tools, prompts=prompts)


def _respell(name: str) -> str:
    return name.replace("-", "_") if name.startswith("test-") else name


def report_ready(url: str) -> None:
    print(f"Serving MCP at {url} with fixtures.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    anyio.run(main)
