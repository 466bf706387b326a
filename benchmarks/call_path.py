"""Trace one warm tool call through our files: `python -m benchmarks.call_path`.

A server over the embedded sandbox and a client of the official SDK run in this process. The first calls fill caches,
and the next call is traced. A function counts when it starts, and not when a coroutine is resumed. The trace omits the
sandbox, which stands for the platform, and the modules in TYPES, which only define errors and values.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
from mcp import Client

import itwin_mcp
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher

PACKAGE = Path(itwin_mcp.__file__).parent
TYPES = frozenset({"errors.py", "executor/outcome.py", "executor/context.py"})


class Trace:
    """Records the functions of itwin-mcp in the order in which they start."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self._frames: set[FrameType] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(f"{PACKAGE}{os.sep}") or frame in self._frames:
            return
        # Keep the frame alive. Otherwise a later frame could get the same place in memory and compare equal.
        self._frames.add(frame)
        file = Path(name).relative_to(PACKAGE).as_posix()
        if not file.startswith("sandbox/") and file not in TYPES:
            self.started.append((file, frame.f_code.co_qualname))

    @property
    def path(self) -> list[str]:
        """Return the files in the order of the call. A file appears each time the call changes to it."""
        return [file for file, _ in groupby(self.started, key=lambda start: start[0])]


async def trace_call() -> Trace:
    """Trace one warm `get-imodel` call."""
    with tempfile.TemporaryDirectory() as state:
        environment = {"ITWIN_MCP_STATE_DIR": state}
        settings = read_settings(environment, sandbox=True, job_seconds=0.0)
        async with open_runtime(settings, environment, Launcher.STDIO) as runtime:
            server = build_server(runtime.catalog, runtime.executor)
            async with Client(server) as client:
                itwins = (await client.call_tool("list-itwins", {})).structured_content["iTwins"]
                for itwin in itwins:
                    listed = await client.call_tool("list-imodels", {"iTwinId": itwin["id"]})
                    imodels = listed.structured_content["iModels"]
                    if imodels:
                        break
                arguments = {"iModelId": imodels[0]["id"]}
                for _ in range(2):
                    await client.call_tool("get-imodel", arguments)
                trace = Trace()
                sys.setprofile(trace)
                try:
                    answer = await client.call_tool("get-imodel", arguments)
                finally:
                    sys.setprofile(None)
                assert not answer.is_error, answer
    return trace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--functions", action="store_true", help="print every function that starts")
    options = parser.parse_args()
    trace = anyio.run(trace_call)
    if options.functions:
        for file, function in trace.started:
            print(f"{file:32}{function}")
    else:
        print("\n".join(trace.path))
    changes = len(trace.path) - 1
    print(f"{len(set(trace.path))} files, {changes} changes of file, {len(trace.started)} functions started")


if __name__ == "__main__":
    main()
