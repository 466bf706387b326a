"""Drive the client of another SDK in a process, by one JSON line per request."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.interop import makers

PATIENCE = 60  # seconds that a test waits for one answer
SERVE = ["--sandbox", "--toolsets", "all", "--job-seconds", "0.2"]
SERVE_STDIO = [sys.executable, "-m", "itwin_mcp", "serve", *SERVE]


@dataclass(frozen=True)
class Sdk:
    """An SDK configuration, and the protocol revision that it must negotiate."""

    name: str
    driver: str
    protocol: str
    mode: str = ""

    def command(self) -> list[str]:
        script = makers.DRIVERS / self.driver
        if self.driver == "python_v1.py":
            return [str(makers.python_v1()), str(script)]
        if script.suffix == ".py":
            return [sys.executable, str(script)]
        node, folder = makers.typescript()
        # Node resolves packages from the folder of the script.
        return [str(node), str(shutil.copy(script, folder))]


SDKS = [
    Sdk("Python SDK 1", "python_v1.py", "2025-11-25"),
    Sdk("Python SDK 2", "python_v2.py", "2026-07-28", "auto"),
    Sdk("Python SDK 2 as legacy", "python_v2.py", "2025-11-25", "legacy"),
    Sdk("TypeScript SDK 1", "typescript_v1.mjs", "2025-11-25"),
    Sdk("TypeScript SDK 2", "typescript_v2.mjs", "2025-11-25", "default"),
    Sdk("TypeScript SDK 2 negotiating", "typescript_v2.mjs", "2026-07-28", "auto"),
]


@dataclass
class Driver:
    """A running client of another SDK. Each answer is the SDK's result, or `raised` with its exception."""

    process: subprocess.Popen[str]
    errors: Path
    lines: "queue.Queue[str]" = field(default_factory=queue.Queue)

    def read(self) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = ""
        assert line, f"no answer; standard error says:\n{self.errors.read_text()}"
        return dict(json.loads(line))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": method} | parameters) + "\n")
        self.process.stdin.flush()
        return self.read()

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return self.ask("call", name=tool, arguments=arguments)

    def succeed(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the structured answer of a call that succeeds."""
        answer = self.call(tool, **arguments)
        assert "raised" not in answer, f"{tool}: {answer}"
        assert not answer.get("isError"), f"{tool}: {answer}"
        return dict(answer["structuredContent"])

    def fail(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the error in the structured content of a refused call."""
        answer = self.call(tool, **arguments)
        assert "raised" not in answer, f"{tool}: {answer}"
        assert answer["isError"] is True, f"{tool}: {answer}"
        return dict(answer["structuredContent"]["error"])


@contextmanager
def drive(sdk: Sdk, transport: dict[str, Any], environment: dict[str, str]) -> Iterator[tuple[dict[str, Any], Driver]]:
    """Connect an SDK over a transport; yield its greeting and the running client."""
    command = [*sdk.command(), json.dumps(transport), sdk.mode]
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,
            )
        driver = Driver(process, errors)
        reader = threading.Thread(target=_forward, args=(process, driver.lines), daemon=True)
        reader.start()
        try:
            yield driver.read(), driver
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE) == 0, errors.read_text()
        finally:
            if process.poll() is None:
                _kill(process)
            process.wait(PATIENCE)
            reader.join(PATIENCE)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def _forward(process: subprocess.Popen[str], lines: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a hanging client and the server that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
