"""`itwin-mcp doctor`: each check reports its finding and a fix."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.network import UNUSABLE, unusable_value
from tests.sandbox_process import Platform, free_port, running_platform
from tests.upstream.sign_in.identity import jwt


def run_doctor(code: int, **environment: str) -> dict[str, dict[str, str]]:
    """Run doctor and return its checks by name."""
    command = [sys.executable, "-m", "itwin_mcp", "doctor", "--json"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)
    assert process.returncode == code, process.stdout + process.stderr
    report = json.loads(process.stdout)
    assert report["ok"] == (code == 0)
    assert "canary" not in process.stdout + process.stderr
    for check in report["checks"]:
        assert bool(check["fix"]) == (check["status"] in ("failed", "noted")), check
    return {check["name"]: check for check in report["checks"]}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_doctor_passes_with_the_sandbox_and_sends_nothing(tmp_path: Path) -> None:
    checks = run_doctor(0, ITWIN_MCP_SANDBOX="1", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    assert checks["network"]["status"] == "skipped"
    assert checks["read"]["status"] == "ok"
    assert "sandbox = True (ITWIN_MCP_SANDBOX)" in checks["configuration"]["said"]


def test_doctor_reports_an_invalid_setting() -> None:
    checks = run_doctor(1, ITWIN_API_URL="http://api.bentley.com")
    assert "must be https" in checks["configuration"]["said"]
    assert list(checks)[-1] not in ("configuration", "network")


@pytest.mark.slow
def test_doctor_runs_all_checks_with_an_unusable_state_folder(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    nowhere = f"http://127.0.0.1:{free_port()}"
    checks = run_doctor(
        1, ITWIN_MCP_STATE_DIR=str(tmp_path / "state"), ITWIN_CLIENT_ID="native-x", ITWIN_API_URL=nowhere
    )
    assert checks["sign-in"]["status"] == "failed"
    assert "ITWIN_MCP_STATE_DIR" in checks["sign-in"]["fix"]
    assert list(checks)[-1] != "sign-in"


def test_doctor_runs_all_checks_with_a_broken_policy_file(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("itwin-mcp-policy: 2\n")
    checks = run_doctor(1, ITWIN_MCP_SANDBOX="1", ITWIN_MCP_POLICY=str(tmp_path / "policy.yaml"))
    assert "policy.yaml:1: " in checks["sign-in"]["said"]
    assert list(checks)[-1] != "sign-in"


@pytest.mark.slow
def test_doctor_reports_unreachable_servers_with_their_variables() -> None:
    checks = run_doctor(1, ITWIN_API_URL=f"http://127.0.0.1:{free_port()}", ITWIN_ACCESS_TOKEN="canary-token")
    assert "ITWIN_API_URL" in checks["platform"]["fix"]
    assert "ITWIN_ISSUER_URL" in checks["sign-in server"]["fix"]
    assert checks["clock"]["status"] == "skipped"
    assert checks["read"]["status"] == "failed"
    assert "access token = set (ITWIN_ACCESS_TOKEN)" in checks["configuration"]["said"]


def test_doctor_shows_the_proxy_without_its_password() -> None:
    checks = run_doctor(0, ITWIN_MCP_SANDBOX="1", HTTPS_PROXY="http://user:canary-pw@proxy.example:8080")
    assert "proxy.example:8080" in checks["proxy"]["said"]


def test_doctor_reports_a_missing_certificate_file() -> None:
    checks = run_doctor(1, SSL_CERT_FILE="/no/such/ca.pem", ITWIN_MCP_SANDBOX="1")
    assert "SSL_CERT_FILE cannot be used: /no/such/ca.pem does not exist" in checks["certificates"]["said"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [UNUSABLE[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in UNUSABLE[1:5])],
)
def test_doctor_runs_all_checks_with_unusable_network_settings(
    variable: str, value: str, words: str, tmp_path: Path
) -> None:
    value = unusable_value(value, tmp_path)
    checks = run_doctor(1, **{variable: value}, ITWIN_ACCESS_TOKEN="canary-token")
    check = checks["proxy" if "PROXY" in variable.upper() else "certificates"]
    assert check["status"] == "failed"
    assert variable in check["said"]
    assert words in check["said"]
    assert checks["network"]["status"] == "skipped"
    assert variable in checks["read"]["said"]
    assert "desktop clients" in checks or "Cursor" in checks


@pytest.mark.parametrize(
    ("claims", "check", "words"),
    [
        ({"exp": 1_000_000_000}, "token", "it has expired"),
        pytest.param({"exp": 4_000_000_000, "scope": ["other"]}, "token", "scopes other", marks=pytest.mark.slow),
        ({"exp": 4_000_000_000, "scope": ["itwin-platform"]}, "read", "list-recent-itwins"),
    ],
)
def test_doctor_explains_why_a_token_is_not_accepted(
    platform: Platform, claims: dict[str, Any], check: str, words: str
) -> None:
    token = jwt(iss=platform.url, canary="canary", **claims)
    checks = run_doctor(1, **platform.environment, ITWIN_ACCESS_TOKEN=token)
    assert checks[check]["status"] == "failed"
    assert words in checks[check]["said"]


@pytest.mark.slow
def test_doctor_reports_a_token_of_another_environment() -> None:
    token = jwt(iss="https://qa-ims.bentley.com", exp=time.time() + 600, scope=["itwin-platform"])
    # The proxy refuses, so that nothing leaves this machine.
    nowhere = f"http://127.0.0.1:{free_port()}"
    checks = run_doctor(1, ITWIN_ACCESS_TOKEN=token, HTTPS_PROXY=nowhere, NO_PROXY="")
    assert "that is another environment" in checks["token"]["said"]


def test_doctor_checks_access_to_the_default_itwin(platform: Platform) -> None:
    service = {"ITWIN_CLIENT_ID": "service-doctor", "ITWIN_CLIENT_SECRET": "canary-secret"}
    absent = "1c4b1d5e-0000-4000-8000-000000000000"
    checks = run_doctor(1, **platform.environment | service, ITWIN_ID=absent)
    assert checks["sign-in"]["status"] == "ok"
    assert checks["default iTwin"]["status"] == "failed"
    assert "service-doctor@apps.imsoidc.bentley.com" in checks["default iTwin"]["fix"]


def test_doctor_reports_a_service_application_without_itwins(platform: Platform) -> None:
    service = {"ITWIN_CLIENT_ID": "service-doctor", "ITWIN_CLIENT_SECRET": "canary-secret"}
    checks = run_doctor(0, **platform.environment | service)
    assert checks["membership"]["status"] == "noted"
    assert "member of no iTwin" in checks["membership"]["said"]
    assert "service-doctor@apps.imsoidc.bentley.com" in checks["membership"]["fix"]


def test_doctor_notes_misspelled_settings_with_suggestions() -> None:
    misspelt = {"ITWIN_ACESS_TOKEN": "canary", "ITWIN_MCP_TOOLSET": "all", "ITWIN_VIEWER_HOME": "/x"}
    finding = run_doctor(0, ITWIN_MCP_SANDBOX="1", **misspelt)["settings"]["said"]
    assert "ITWIN_ACESS_TOKEN is not a setting: did you mean ITWIN_ACCESS_TOKEN?" in finding
    assert "ITWIN_MCP_TOOLSET is not a setting: did you mean ITWIN_MCP_TOOLSETS?" in finding
    assert "ITWIN_VIEWER_HOME" not in finding, "a variable of another program"


def write_cursor_entry(home: Path, *args: str, **env: str) -> dict[str, str]:
    """Write Cursor's configuration with our entry; return the environment that leads to it."""
    entry = {"command": sys.executable, "args": ["-m", "itwin_mcp", "serve", *args], "env": env}
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").write_text(json.dumps({"mcpServers": {"itwin": entry}}))
    return {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}


@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
def test_doctor_starts_a_clients_entry_and_counts_its_tools(tmp_path: Path) -> None:
    checks = run_doctor(0, **write_cursor_entry(tmp_path, "--sandbox"))
    assert checks["Cursor"]["status"] == "ok"
    assert re.search(r"serves \d\d tools of embedded sandbox", checks["Cursor"]["said"])
    assert checks["sign-in"]["status"] == checks["network"]["status"] == "skipped"


@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        pytest.param((), {}, "No sign-in", id="not signed in", marks=pytest.mark.slow),
        pytest.param(("--no-such-flag",), {}, "does not start", id="does not start"),
        pytest.param(
            (),
            {"ITWIN_ACESS_TOKEN": "canary"},
            "did you mean ITWIN_ACCESS_TOKEN?",
            id="misspelt",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_doctor_reports_a_clients_entry_that_does_not_work(
    tmp_path: Path, args: tuple[str, ...], env: dict[str, str], words: str
) -> None:
    checks = run_doctor(1, ITWIN_MCP_SANDBOX="1", **write_cursor_entry(tmp_path, *args, **env))
    assert checks["Cursor"]["status"] == "failed"
    assert words in checks["Cursor"]["said"], checks["Cursor"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
def test_doctor_reads_the_configuration_of_every_client(tmp_path: Path) -> None:
    files = {
        ".config/Claude/claude_desktop_config.json": {
            "mcpServers": {"itwin": {"command": sys.executable, "args": ["-m", "itwin_mcp", "serve", "--sandbox"]}}
        },
        ".cursor/mcp.json": {"mcpServers": {"itwin": {"command": "/no/such/itwin-mcp", "env": {"A": "canary"}}}},
        ".config/Code/User/mcp.json": {"servers": {}},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / ".claude.json").write_text('{"mcpServers": ')
    environment = {"ITWIN_MCP_SANDBOX": "1", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    checks = run_doctor(1, **environment)
    assert checks["Claude Desktop"]["status"] == "ok"
    assert "/no/such/itwin-mcp" in checks["Cursor"]["said"]
    assert checks["VS Code"]["status"] == "noted"
    assert "not JSON" in checks["Claude Code"]["said"]


@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\ufeff{"mcpServers": {}}', "byte order mark: Claude Desktop cannot read it"),
        ('{\n  // mine\n  "mcpServers": {}\n}', "comments or trailing commas (line 2)"),
    ],
)
def test_doctor_reports_a_file_that_its_client_cannot_read(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / ".config/Claude/claude_desktop_config.json"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    environment = {"ITWIN_MCP_SANDBOX": "1", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    check = run_doctor(1, **environment)["Claude Desktop"]
    assert (check["status"], str(file) in check["fix"]) == ("failed", True)
    assert words in check["said"]
