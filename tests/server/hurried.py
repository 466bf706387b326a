"""Run `itwin-mcp` with a short header time limit and a choice of uvicorn's protocol, by environment variables."""

import os

from itwin_mcp.cli import main
from itwin_mcp.server.transports import connection_limits

if "HEADER_SECONDS" in os.environ:
    connection_limits.HEADER_SECONDS = float(os.environ["HEADER_SECONDS"])
if os.environ.get("UVICORN_PROTOCOL") == "h11":
    from uvicorn.protocols.http import auto, h11_impl

    auto.AutoHTTPProtocol = h11_impl.H11Protocol
raise SystemExit(main())
