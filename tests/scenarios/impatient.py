"""`itwin-mcp`, but SIGUSR1 shortens how long an answer is waited for and is good, and the next one restores it."""

import os
import signal
from itertools import cycle
from pathlib import Path

from itwin_mcp.cli import main
from itwin_mcp.executor import confirm

SECONDS = cycle([float(os.environ["SHORT_SECONDS"]), confirm.SECONDS])


def turn(*_: object) -> None:
    confirm.SECONDS = next(SECONDS)  # type: ignore[assignment]


signal.signal(signal.SIGUSR1, turn)
Path(os.environ["PROCESS_FILE"]).write_text(str(os.getpid()))
raise SystemExit(main())
