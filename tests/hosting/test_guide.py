"""The hosting guide's example runs unchanged, and warnings explain missing tools and refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.hosting.issuer import AUDIENCE, ISSUER
from tests.house.documents import blocks
from tests.sandbox_process import free_port
from tests.server.processes import serve_http

AUTH = {"ITWIN_MCP_AUTH_ISSUER": ISSUER, "ITWIN_MCP_AUTH_AUDIENCE": AUDIENCE}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="the block is for a POSIX shell")
@pytest.mark.skipif(shutil.which("curl") is None, reason="the block calls curl")
def test_hosting_guide_block_runs_unchanged(tmp_path: Path) -> None:
    (script,) = [block.text for block in blocks("docs/hosting.md") if "http.server" in block.text]
    for port in ("8000", "9000"):
        script = script.replace(port, str(free_port()))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(
        ["bash", "-c", f"set -e\n{script}\necho\nkill $(jobs -p)\nwait"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=90)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    answer = json.loads(re.sub(r"(?m)^(event|id):.*$|^data: ", "", out))
    assert answer["result"]["structuredContent"]["iTwins"], (tmp_path / "server.log").read_text()


@pytest.mark.slow
def test_hosted_server_without_policy_warns_that_callers_see_no_tools() -> None:
    with serve_http("--sandbox", environment=AUTH) as served:
        pass
    assert "There is no policy (ITWIN_MCP_POLICY), so callers see no tools" in "".join(served.log)


@pytest.mark.slow
def test_origin_check_logs_each_refusal_once_with_its_setting() -> None:
    with serve_http("--sandbox", environment=AUTH | {"ITWIN_MCP_ALLOWED_ORIGINS": "none"}) as served:
        for number in range(3):
            host = {"host": f"evil{number}.example"}
            assert httpx2.get(served.url, headers=host, trust_env=False).status_code == 421
            origin = {"origin": f"https://evil{number}.example"}
            assert httpx2.get(served.url, headers=origin, trust_env=False).status_code == 403
    lines = [line for line in "".join(served.log).splitlines() if "Refused the" in line]
    assert len(lines) == 2
    assert "'evil0.example'" in lines[0] and "ITWIN_MCP_ALLOWED_HOSTS" in lines[0]
    assert "'https://evil0.example'" in lines[1] and "ITWIN_MCP_ALLOWED_ORIGINS" in lines[1]
