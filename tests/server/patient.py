"""`itwin-mcp` without the timer that kills a cancelled server, so that a shutdown that hangs fails its test."""

from itwin_mcp.cli import main
from itwin_mcp.server.transports import stdio

stdio.END_SECONDS = 3_600.0
raise SystemExit(main())
