"""`itwin-mcp` without the timer that ends a cancelled server: it ends in order or not at all."""

from itwin_mcp.cli import main
from itwin_mcp.server.transports import stdio

stdio.END_SECONDS = 3_600.0
raise SystemExit(main())
