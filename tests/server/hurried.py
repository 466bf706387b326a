"""`itwin-mcp`, but headers must come within a second, and uvicorn's protocol is the one that is asked for."""

import os

from itwin_mcp.cli import main
from itwin_mcp.server import connections

if "HEADER_SECONDS" in os.environ:
    connections.HEADER_SECONDS = float(os.environ["HEADER_SECONDS"])
if os.environ.get("UVICORN_PROTOCOL") == "h11":
    from uvicorn.protocols.http import auto, h11_impl

    auto.AutoHTTPProtocol = h11_impl.H11Protocol
raise SystemExit(main())
