"""Run `itwin-mcp` so that questions expire early between one SIGUSR1 and the next."""

import os
import signal
from itertools import cycle
from pathlib import Path
from typing import Any

from itwin_mcp.cli import main
from itwin_mcp.executor.confirmation import confirm
from itwin_mcp.executor.confirmation.seals import Seals

open_seal = Seals.open


def open_expired(seals: Seals, *arguments: Any, seconds: int) -> dict[str, Any]:
    """Open a seal as if it had expired."""
    return open_seal(seals, *arguments, seconds=-1)


SETTINGS: Any = cycle([(0.05, open_expired), (confirm.HELD_SECONDS, open_seal)])
"""The patience of questions within a request (2025-11-25), and what opens the seals of later ones (2026-07-28)."""


def toggle_patience(*_: object) -> None:
    confirm.HELD_SECONDS, Seals.open = next(SETTINGS)  # type: ignore[misc, method-assign]


signal.signal(signal.SIGUSR1, toggle_patience)
Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
raise SystemExit(main())
