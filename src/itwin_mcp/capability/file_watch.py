"""Watches capability files and what they import, and reports each change once, by looking every second."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import anyio

from itwin_mcp.errors import CapabilityError, ConfigurationError

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks. A change is served when the files have been the same in two looks."""

Stamp = tuple[int, int] | None
"""Time and size of a file; None if it is not there."""


class FileWatch:
    """Watches files from now on, and the files that they import or serve."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)
        self._served = _read_stamps(self._files)

    async def run(self, reload: Callable[[], Awaitable[None]]) -> None:
        """Call `reload` after each change, until cancelled.

        If `reload` raises ConfigurationError, log the first problem once. The caller keeps what it serves.
        """
        watched = await anyio.to_thread.run_sync(list_inputs, self._files)
        served: Mapping[Path, Stamp] = {**_read_stamps(watched), **self._served}
        previous = served
        while True:
            await anyio.sleep(INTERVAL)
            stamps = _read_stamps(watched)
            is_settled, previous = stamps == previous, stamps  # editors write a file in several steps
            if stamps == served or not is_settled:
                continue
            served = stamps
            try:
                await reload()
            except ConfigurationError as error:
                logger.error("The changed capability files are not served, the previous ones are: %s", _describe(error))
                continue
            logger.info("The changed capability files are served.")
            watched = await anyio.to_thread.run_sync(list_inputs, self._files)
            served = {**_read_stamps(watched), **{file: stamp for file, stamp in stamps.items() if file in watched}}


def list_inputs(files: Iterable[Path]) -> frozenset[Path]:
    """Return the files, and those that they import or serve as resources."""
    from itwin_mcp.capability.linker import link_with_inputs

    files = frozenset(files)
    try:
        _, inputs = link_with_inputs(files)
    except CapabilityError:
        return files
    return files | frozenset(file for file in inputs if file.is_file())


def _read_stamps(files: Iterable[Path]) -> Mapping[Path, Stamp]:
    return {file: _read_stamp(file) for file in files}


def _read_stamp(file: Path) -> Stamp:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _describe(error: ConfigurationError) -> str:
    """Return the first problem in one line, and how many others there are."""
    if not isinstance(error, CapabilityError) or not error.problems:
        return " ".join(str(error).split())
    more = len(error.problems) - 1
    return f"{error.problems[0]}" + (f" (and {more} more: `itwin-mcp capability check` lists them)" if more else "")
