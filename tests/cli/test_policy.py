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
def where() -> Places:
    return anyio.run(places)


@pytest.fixture
def file(tmp_path: Path, where: Places) -> Path:
    """Write a policy with one iTwin for the local caller, and a robot that may delete an iModel in it once an hour."""
    robot = {
        "issuer": ISSUER,
        "groups": ["robots"],
        "itwins": [where.itwin],
        "tools": {"allow": ["delete-imodel"]},
        "pre-approved": [{"tools": ["delete-imodel"], "itwins": [where.itwin], "per-hour": 1}],
    }
    local = {
        "itwins": [where.itwin],
        "tools": {"allow": ["all"], "deny": ["delete-itwin"]},
        "writes-per-hour": 3,
    }
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps({"itwin-mcp-policy": 1, "default": local, "callers": [robot]}, indent=1))
    return path


def invoke(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(group, [str(one) for one in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def verdict(file: Path, *arguments: str, code: int) -> Any:
    done = invoke("policy", "test", file, "--sandbox", "--json", *arguments)
    assert done.exit_code == code, done.output
    return json.loads(done.output)


def test_policy_check_summarizes_a_valid_file(file: Path) -> None:
    done = invoke("policy", "check", file)
    assert done.exit_code == 0
    assert "No problems. Entries for callers: 1; other callers, and the user of a local server, have" in done.output
    figures = json.loads(invoke("policy", "check", file, "--json").output)
    assert figures["problems"] == []
    assert (figures["callers"], figures["default"]) == (1, True)


def test_policy_check_lists_problems_with_line_and_exits_with_two(file: Path) -> None:
    file.write_text("itwin-mcp-policy: 1\ndefault:\n  itwins: all\n  tools: {allow: [fly, al]}\n")
    done = invoke("policy", "check", file)
    assert done.exit_code == 2
    assert f"{file}:4: there is no tool 'fly'" in done.output
    assert "2 problems." in done.output
    told = json.loads(invoke("policy", "check", file, "--json").stdout)["problems"]
    assert [(one["line"], one["rule"]) for one in told] == [(4, "tool"), (4, "tool")]
    for verb in (("call", "list-itwins"), ("tools",)):
        refused = run(*verb, "--sandbox", ITWIN_MCP_POLICY=str(file))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{file}:4: there is no tool 'fly'" in refused.stderr


def test_policy_check_reports_another_issuer_than_the_servers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_MCP_AUTH_AUDIENCE", "https://mcp.example/mcp")
    for issuer, code in ((ISSUER, 0), (f"{ISSUER}/", 2)):
        monkeypatch.setenv("ITWIN_MCP_AUTH_ISSUER", issuer)
        done = invoke("policy", "check", file)
        assert done.exit_code == code, done.output
    assert f"'{ISSUER}' names no caller: this server takes tokens of '{ISSUER}/' alone" in done.output


def test_policy_test_names_the_line_that_decides(file: Path, where: Places) -> None:
    lines = file.read_text().splitlines()

    def line(text: str) -> str:
        return f"policy.yaml:{next(number for number, one in enumerate(lines, 1) if text in one)}"

    denied = verdict(file, "--tool", "delete-itwin", "--arg", f"iTwinId={where.itwin}", code=1)
    assert (denied["verdict"], denied["rule"]) == ("refused", line('"default"'))
    assert line('"delete-itwin"') in denied["because"]
    allowed = verdict(file, "--tool", "update-itwin", "--arg", f"iTwinId={where.itwin}", "--arg", "type=a", code=0)
    assert (allowed["verdict"], allowed["waived"]) == ("allowed", None)
    assert f"up to 3 writes an hour ({line('writes-per-hour')})" in allowed["because"]
    foreign = verdict(file, "--tool", "list-imodels", "--arg", f"iTwinId={where.foreign}", code=1)
    assert line('"itwins"') in foreign["because"]
    robot = ("--issuer", ISSUER, "--group", "robots", "--tool", "delete-imodel", "--arg", f"iModelId={where.imodel}")
    approved = verdict(file, *robot, code=0)
    assert approved["waived"] == "policy"
    assert "approved beforehand, up to 1 times an hour" in approved["because"]
    words = invoke("policy", "test", file, "--sandbox", *robot)
    assert words.output.startswith("Allowed: delete-imodel is allowed")
    assert "It needs no confirmation." in words.output


def test_policy_test_reads_only_an_imodel_and_nothing_offline(
    file: Path, where: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = UpstreamClient.send

    async def counted(self: UpstreamClient, request: Request) -> Any:
        sent.append(f"{request.method} {request.path}")
        return await send(self, request)

    monkeypatch.setattr(UpstreamClient, "send", counted)
    about = ("--tool", "delete-imodel", "--arg", f"iModelId={where.foreign_imodel}")
    assert verdict(file, *about, code=1)["verdict"] == "refused"
    assert sent == [f"GET /imodels/{where.foreign_imodel}"]
    sent.clear()
    offline = verdict(file, *about, "--offline", code=1)
    assert offline["verdict"] == "unknown"
    assert "--offline" in offline["because"]
    named = verdict(file, "--tool", "list-imodels", "--arg", "iTwinId=NL-A12-0042", code=1)
    assert named["verdict"] == "unknown"
    assert "if it is a name, a call would have to look for it; nothing was sent" in named["because"]
    assert verdict(file, "--tool", "list-itwins", code=0)["verdict"] == "allowed"
    assert sent == []
    assert audited() == [], "what is only asked is no decision"


def test_policy_test_judges_a_flow_by_its_first_request(file: Path, where: Places) -> None:
    about = ("--tool", "find-imodel", "--arg", "name=Bridge")
    assert verdict(file, *about, code=0)["verdict"] == "allowed"
    assert verdict(file, *about, "--arg", f"iTwinId={where.itwin}", code=0)["verdict"] == "allowed"
    assert verdict(file, *about, "--arg", f"iTwinId={where.foreign}", code=1)["verdict"] == "refused"
    dry = json.loads(invoke("call", "find-imodel", "--sandbox", "--arg", "name=Bridge", "--dry-run").output)
    assert dry["url"].endswith("/itwins/recents")
    assert {"name": "$top", "value": "25"} in dry["query"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tool", "fly"), "There is no tool 'fly'"),
        (("--tool", "who-am-i"), "a built-in tool"),
        (("--tool", "get-itwin", "--group", "robots"), "need --issuer"),
    ],
)
def test_policy_test_explains_what_it_cannot_judge(file: Path, arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(group, ["policy", "test", str(file), "--sandbox", *arguments])
    assert words in str(done.exception)
    missing = CliRunner().invoke(group, ["policy", "test", "--sandbox", "--tool", "get-itwin"])
    assert "ITWIN_MCP_POLICY" in str(missing.exception)


def test_call_is_refused_by_the_policy(file: Path, where: Places) -> None:
    done = invoke("call", "delete-itwin", "--sandbox", "--policy", file, "--arg", f"iTwinId={where.itwin}")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "PolicyRefused"
    listed = invoke("tools", "--sandbox", "--policy", file, "--toolsets", "all").output
    assert "update-itwin" in listed
    assert " delete-itwin " not in listed
