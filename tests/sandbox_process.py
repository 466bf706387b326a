"""Run `itwin-mcp sandbox` as a process, and sign in at its page like a user with a browser."""

import errno
import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPErrorProcessor, ProxyHandler, Request, build_opener


@dataclass(frozen=True)
class Platform:
    """A running sandbox, and the environment of an application that is registered with it."""

    url: str
    environment: dict[str, str]
    home: Path
    pid: int

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one of our commands against the sandbox to its end."""
        command = [sys.executable, "-m", "itwin_mcp", *arguments]
        environment = os.environ | self.environment | more
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start one of our commands against the sandbox, and return its process."""
        return subprocess.Popen(
            [sys.executable, "-m", "itwin_mcp", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment | more,
        )

    def sign_in(self, **more: str) -> dict[str, Any]:
        """Run `auth login`, follow its link, and return its JSON output."""
        process = self.start("auth", "login", "--no-browser", "--json", **more)
        assert process.stderr is not None
        link = next(match[0] for line in process.stderr if (match := re.search(r"http\S+/connect/authorize\S+", line)))
        assert follow(link) == 200
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        return dict(json.loads(out))

    def saved_refresh_token(self) -> str | None:
        """Return the saved refresh token, or None."""
        files = list(Path(os.environ["ITWIN_MCP_STATE_DIR"]).glob("logins/*.json"))
        return str(json.loads(files[0].read_text())["refresh_token"]) if files else None


@contextmanager
def running_platform(home: Path) -> Iterator[Platform]:
    """Run a sandbox process. `home` is the home folder of commands against it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "itwin_mcp", "sandbox", "--json", "--job-seconds", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        environment = {
            "ITWIN_API_URL": url,
            "ITWIN_CLIENT_ID": "native-newcomer",
            "ITWIN_REDIRECT_URI": f"http://localhost:{free_port()}/signin-callback",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "NO_PROXY": "localhost,127.0.0.1",
        }
        yield Platform(url, environment, home, process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def free_port() -> int:
    """Return a free port below those that outgoing connections use.

    A port chosen by the system could be taken by a connection of another test a moment later.
    """
    ports = random.sample(range(20_000, 32_000), 100)
    return next(port for port in ports if not (_is_taken("127.0.0.1", port) or _is_taken("::1", port)))


def _is_taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE  # anything else: this machine has no such address
    return False


class _Plain(HTTPErrorProcessor):
    """Returns every response unchanged: no redirects are followed, and no status raises."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response


_browser = build_opener(_Plain, ProxyHandler({}))


def follow(link: str, *, decision: str = "allow", person: str = "") -> int:
    """Follow a sign-in link like a browser, and allow or deny; return the status of the last page."""
    with _browser.open(link, timeout=20) as page:
        html = page.read().decode()
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', html))
    form = {name: unescape(value) for name, value in form.items()}
    people = re.findall(r'name="user" value="([^"]+)" required( checked)?><span>([^<]+)', html)
    form["user"] = next(
        identity for identity, chosen, name in people if (person and person in name) or (not person and chosen)
    )
    form["decision"] = decision
    where = urlsplit(link)
    request = Request(f"{where.scheme}://{where.netloc}/connect/authorize", urlencode(form).encode())
    with _browser.open(request, timeout=20) as answer:
        assert answer.status == 303, answer.read()
        back = answer.headers["Location"]
    with _browser.open(back, timeout=20) as last:
        last.read()
        return int(last.status)


def post(url: str, **form: str) -> tuple[int, dict[str, Any]]:
    with _browser.open(Request(url, urlencode(form).encode()), timeout=20) as answer:
        return int(answer.status), json.loads(answer.read() or b"{}")
