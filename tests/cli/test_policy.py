"""`policy check`, `policy test` and `--policy` from the shell."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from itwin_mcp.cli import group
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Request
from tests.cli.test_commands import run
from tests.executor.fenced import ISSUER, Places, audited, places


@pytest.fixture
def ids() -> Places:
    return anyio.run(places)


@pytest.fixture
def file(tmp_path: Path, ids: Places) -> Path:
    """Write a policy with one iTwin for the local caller, and a robot that may delete an iModel in it once an hour."""
    robot = {
        "issuer": ISSUER,
        "groups": ["robots"],
        "itwins": [ids.itwin],
        "tools": {"allow": ["delete-imodel"]},
        "pre-approved": [{"tools": ["delete-imodel"], "itwins": [ids.itwin], "per-hour": 1}],
    }
    local = {
        "itwins": [ids.itwin],
        "tools": {"allow": ["all"], "deny": ["delete-itwin"]},
        "writes-per-hour": 3,
    }
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps({"itwin-mcp-policy": 1, "default": local, "callers": [robot]}, indent=1))
    return path


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def judge(file: Path, *arguments: str, code: int) -> Any:
    result = invoke("policy", "test", file, "--sandbox", "--json", *arguments)
    assert result.exit_code == code, result.output
    return json.loads(result.output)


def test_policy_check_summarizes_a_valid_file(file: Path) -> None:
    result = invoke("policy", "check", file)
    assert result.exit_code == 0
    assert "No problems. Entries for callers: 1; other callers, and the user of a local server, have" in result.output
    figures = json.loads(invoke("policy", "check", file, "--json").output)
    assert figures["problems"] == []
    assert (figures["callers"], figures["default"]) == (1, True)


def test_policy_check_lists_problems_with_line_and_exits_with_two(file: Path) -> None:
    file.write_text("itwin-mcp-policy: 1\ndefault:\n  itwins: all\n  tools: {allow: [fly, al]}\n")
    result = invoke("policy", "check", file)
    assert result.exit_code == 2
    assert f"{file}:4: there is no tool 'fly'" in result.output
    assert "2 problems." in result.output
    problems = json.loads(invoke("policy", "check", file, "--json").stdout)["problems"]
    assert [(problem["line"], problem["rule"]) for problem in problems] == [(4, "tool"), (4, "tool")]
    for verb in (("call", "list-itwins"), ("tools",)):
        refused = run(*verb, "--sandbox", ITWIN_MCP_POLICY=str(file))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{file}:4: there is no tool 'fly'" in refused.stderr


def test_policy_check_reports_an_issuer_that_the_server_rejects(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_MCP_AUTH_AUDIENCE", "https://mcp.example/mcp")
    for issuer, code in ((ISSUER, 0), (f"{ISSUER}/", 2)):
        monkeypatch.setenv("ITWIN_MCP_AUTH_ISSUER", issuer)
        result = invoke("policy", "check", file)
        assert result.exit_code == code, result.output
    assert f"'{ISSUER}' names no caller: this server takes tokens of '{ISSUER}/' alone" in result.output


def test_policy_test_reports_the_deciding_line(file: Path, ids: Places) -> None:
    lines = file.read_text().splitlines()

    def line(text: str) -> str:
        return f"policy.yaml:{next(number for number, content in enumerate(lines, 1) if text in content)}"

    denied = judge(file, "--tool", "delete-itwin", "--arg", f"iTwinId={ids.itwin}", code=1)
    assert (denied["verdict"], denied["rule"]) == ("refused", line('"default"'))
    assert line('"delete-itwin"') in denied["because"]
    allowed = judge(file, "--tool", "update-itwin", "--arg", f"iTwinId={ids.itwin}", "--arg", "type=a", code=0)
    assert (allowed["verdict"], allowed["waived"]) == ("allowed", None)
    assert f"up to 3 writes an hour ({line('writes-per-hour')})" in allowed["because"]
    outside = judge(file, "--tool", "list-imodels", "--arg", f"iTwinId={ids.foreign}", code=1)
    assert line('"itwins"') in outside["because"]
    robot = ("--issuer", ISSUER, "--group", "robots", "--tool", "delete-imodel", "--arg", f"iModelId={ids.imodel}")
    pre_approved = judge(file, *robot, code=0)
    assert pre_approved["waived"] == "policy"
    assert "approved beforehand, up to 1 times an hour" in pre_approved["because"]
    text_result = invoke("policy", "test", file, "--sandbox", *robot)
    assert text_result.output.startswith("Allowed: delete-imodel is allowed")
    assert "It needs no confirmation." in text_result.output


def test_policy_test_sends_only_a_read_of_the_imodel(file: Path, ids: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    send = UpstreamClient.send

    async def recording_send(self: UpstreamClient, request: Request) -> Any:
        sent.append(f"{request.method} {request.path}")
        return await send(self, request)

    monkeypatch.setattr(UpstreamClient, "send", recording_send)
    arguments = ("--tool", "delete-imodel", "--arg", f"iModelId={ids.foreign_imodel}")
    assert judge(file, *arguments, code=1)["verdict"] == "refused"
    assert sent == [f"GET /imodels/{ids.foreign_imodel}"]
    sent.clear()
    offline = judge(file, *arguments, "--offline", code=1)
    assert offline["verdict"] == "unknown"
    assert "--offline" in offline["because"]
    named = judge(file, "--tool", "list-imodels", "--arg", "iTwinId=NL-A12-0042", code=1)
    assert named["verdict"] == "unknown"
    assert "if it is a name, a call would have to look for it; nothing was sent" in named["because"]
    assert judge(file, "--tool", "list-itwins", code=0)["verdict"] == "allowed"
    assert sent == []
    assert audited() == [], "a test is not a decision"


def test_policy_test_decides_a_flow_by_its_first_request(file: Path, ids: Places) -> None:
    arguments = ("--tool", "find-imodel", "--arg", "name=Bridge")
    assert judge(file, *arguments, code=0)["verdict"] == "allowed"
    assert judge(file, *arguments, "--arg", f"iTwinId={ids.itwin}", code=0)["verdict"] == "allowed"
    assert judge(file, *arguments, "--arg", f"iTwinId={ids.foreign}", code=1)["verdict"] == "refused"
    request = json.loads(invoke("call", "find-imodel", "--sandbox", "--arg", "name=Bridge", "--dry-run").output)
    assert request["url"].endswith("/itwins/recents")
    assert {"name": "$top", "value": "25"} in request["query"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tool", "fly"), "There is no tool 'fly'"),
        (("--tool", "who-am-i"), "a built-in tool"),
        (("--tool", "get-itwin", "--group", "robots"), "need --issuer"),
    ],
)
def test_policy_test_rejects_invalid_usage(file: Path, arguments: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(group, ["policy", "test", str(file), "--sandbox", *arguments])
    assert words in str(result.exception)
    missing = CliRunner().invoke(group, ["policy", "test", "--sandbox", "--tool", "get-itwin"])
    assert "ITWIN_MCP_POLICY" in str(missing.exception)


def test_call_is_refused_by_the_policy(file: Path, ids: Places) -> None:
    result = invoke("call", "delete-itwin", "--sandbox", "--policy", file, "--arg", f"iTwinId={ids.itwin}")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "PolicyRefused"
    listed = invoke("tools", "--sandbox", "--policy", file, "--toolsets", "all").output
    assert "update-itwin" in listed
    assert " delete-itwin " not in listed
