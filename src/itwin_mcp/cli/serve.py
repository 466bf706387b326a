"""`itwin-mcp serve`: serve MCP clients."""

from __future__ import annotations

import gc
import os
from typing import Any

import click

from itwin_mcp.cli.options import make_settings, settings_options


@click.command("serve")
@settings_options
def command(**flags: Any) -> None:
    """Serve one MCP client over standard input and output.

    \b
    Examples:
      itwin-mcp serve --sandbox
      ITWIN_ACCESS_TOKEN=… itwin-mcp serve --toolsets itwins,imodels --read-only
    """
    settings = make_settings(**flags)
    # Importing makes many objects and no garbage: collecting meanwhile is a fifth of the start.
    gc.disable()
    import anyio

    from itwin_mcp.runtime import serve_stdio

    gc.enable()
    gc.freeze()
    try:
        anyio.run(serve_stdio, settings, dict(os.environ))
    except KeyboardInterrupt:
        # Ctrl-C is how a person ends a server; nothing is lost.
        raise SystemExit(0) from None
