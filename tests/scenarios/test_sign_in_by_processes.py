"""Sign in, call and sign out with real processes against a sandbox. The test acts as the browser."""

import json
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sandbox_process import Platform, post, running_platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with running_platform(tmp_path) as running:
        yield running


def output_of(process: subprocess.CompletedProcess[str]) -> str:
    return process.stdout + process.stderr


@pytest.mark.slow
def test_login_status_doctor_call_and_logout_show_no_secret(platform: Platform) -> None:
    before = platform.run("auth", "status")
    assert before.returncode == 1
    assert "Sign in with `itwin-mcp auth login`" in before.stdout

    signed_in = platform.sign_in()
    assert signed_in["name"] == "Anna de Vries"
    assert signed_in["inUse"] == "login"
    refresh_token = platform.saved_refresh_token()
    assert refresh_token is not None

    status = platform.run("auth", "status", "--json")
    assert status.returncode == 0, output_of(status)
    assert json.loads(status.stdout)["told"] == "the login kept for application native-newcomer, profile default"

    doctor = platform.run("doctor", "--json")
    assert doctor.returncode == 0, output_of(doctor)
    checks = {check["name"]: check["status"] for check in json.loads(doctor.stdout)["checks"]}
    for name in ("Python", "configuration", "platform", "sign-in server", "clock", "sign-in", "token", "read"):
        assert checks[name] == "ok", name

    call = platform.run("call", "list-recent-itwins", "--log-level", "debug")
    assert call.returncode == 0, output_of(call)
    assert json.loads(call.stdout)["iTwins"]
    who = platform.run("call", "who-am-i")
    assert json.loads(who.stdout)["session"]["account"]["displayName"] == "Meridian Infrastructure Group"

    stored = platform.saved_refresh_token()
    assert stored is not None
    assert stored != refresh_token, "the refresh token rotates"
    out = platform.run("auth", "logout", "--json")
    assert json.loads(out.stdout) == {"wasSignedIn": True, "revoked": True, "because": None}
    assert platform.saved_refresh_token() is None
    answer = post(
        f"{platform.url}/connect/token", grant_type="refresh_token", client_id="native-newcomer", refresh_token=stored
    )
    assert (answer[0], answer[1]["error"]) == (400, "invalid_grant"), "it is revoked at the server too"

    after = platform.run("call", "list-recent-itwins")
    assert after.returncode == 1
    assert json.loads(after.stdout)["error"]["hint"] == "Sign in with `itwin-mcp auth login`, then call again."
    assert platform.run("auth", "logout").stdout == "Nobody was signed in.\n"
    for done in (before, status, doctor, call, who, out, after):
        for secret in (refresh_token, stored, "Bearer ", "eyJ"):
            assert secret not in output_of(done)


@pytest.mark.slow
def test_concurrent_processes_share_a_login(platform: Platform) -> None:
    """The sandbox revokes the whole login when a refresh token is used twice, as the standard advises."""
    platform.sign_in()
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            calls = list(pool.map(lambda _: platform.run("call", "list-recent-itwins"), range(4)))
        assert [call.returncode for call in calls] == [0] * 4, [output_of(call) for call in calls]
    assert platform.run("auth", "status").returncode == 0


@pytest.mark.slow
def test_profiles_have_separate_logins(platform: Platform) -> None:
    platform.sign_in()
    platform.sign_in(ITWIN_PROFILE="second")
    assert platform.run("auth", "logout", "--profile", "second").returncode == 0
    assert platform.run("auth", "status", "--profile", "second").returncode == 1
    assert platform.run("auth", "status").returncode == 0


def test_saved_login_is_readable_by_its_owner_only(platform: Platform) -> None:
    import os

    platform.sign_in()
    folder = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "logins"
    (file,) = folder.glob("*.json")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    refused = platform.run("auth", "status")
    assert refused.returncode == 1
    assert "chmod 600" in output_of(refused)
