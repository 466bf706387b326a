"""`itwin-mcp` whose questions expire early between one SIGUSR1 and the next."""

import os
import signal
from itertools import cycle
from pathlib import Path

from itwin_mcp.cli import main
from itwin_mcp.executor.confirmation import confirm
from itwin_mcp.executor.confirmation.seals import Seals
from tests.scenarios.test_confirming import OPEN, expired

SHORT = float(os.environ["SHORT_SECONDS"])
SECONDS = cycle([SHORT, confirm.HELD_SECONDS])


def turn(*_: object) -> None:
    confirm.HELD_SECONDS = next(SECONDS)  # type: ignore[assignment]
    Seals.open = expired if confirm.HELD_SECONDS < 0 else OPEN  # type: ignore[method-assign]


signal.signal(signal.SIGUSR1, turn)
Path(os.environ["PROCESS_FILE"]).write_text(str(os.getpid()))
raise SystemExit(main())
