"""`python -m tests.interop.conformance.server`: our server with the conformance suite's fixtures beside our tools.

This is the test flag: nothing of it is in the package. The fixtures' capability file goes the way of a user's own
file, through the same reading, linking, listing, checking, sending and results.
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
from itwin_mcp.executor.seals import Seals
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server import transports
from itwin_mcp.server.app import build_server
from itwin_mcp.server.guard import loopback_guard
from itwin_mcp.settings import read_settings
from itwin_mcp.sign_in import Started
from tests.interop.conformance import upstream
from tests.interop.conformance.fixtures import Fixtures

CAPABILITY = Path(__file__).with_name("capability.yaml")


async def main() -> None:
    with upstream.running() as origin, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "conformance.yaml"
        file.write_text(CAPABILITY.read_text().replace("http://127.0.0.1:1", origin))
        settings = read_settings(os.environ, sandbox=True, toolsets="all", capabilities=[file])
        async with open_runtime(settings, {}, Started.HTTP) as runtime:
            catalog = as_the_suite_spells_them(runtime.catalog)
            server = build_server(catalog, runtime.executor, runtime.session)
            fixtures = Fixtures(catalog, Seals(lambda: (secrets.token_bytes(32),)))
            server.middleware.insert(len(server.middleware) - 1, fixtures.answer)  # ours answers calls by itself
            guard = partial(loopback_guard, token=None)
            await transports.serve_http(server, "127.0.0.1", 0, guard=guard, ready=tell)


def as_the_suite_spells_them(catalog: Catalog) -> Catalog:
    """`test-simple-text` becomes `test_simple_text`: the format has no underscores in names."""
    tools = {_spelled(name): replace(tool, name=_spelled(name)) for name, tool in catalog.tools.items()}
    prompts = {_spelled(name): replace(prompt, name=_spelled(name)) for name, prompt in catalog.prompts.items()}
    return replace(catalog, tools=tools, prompts=prompts)


def _spelled(name: str) -> str:
    return name.replace("-", "_") if name.startswith("test-") else name


def tell(url: str) -> None:
    print(f"Serving MCP at {url} with fixtures.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    anyio.run(main)
