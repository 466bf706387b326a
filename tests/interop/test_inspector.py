"""The command line of the MCP Inspector, over stdio and HTTP and in both protocol eras."""

import json
import subprocess
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop import makers
from tests.interop.driver import PATIENCE, SERVE_STDIO
from tests.server.processes import Served

pytestmark = pytest.mark.interop

EXIT_CODE_OF_TOOL_ERRORS = 5
Inspect = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=["stdio, legacy", "stdio, modern", "HTTP, legacy", "HTTP, modern"])
def inspect(request: pytest.FixtureRequest, served: Served, environment: dict[str, str]) -> Inspect:
    """Return a function that runs one method of the Inspector."""
    transport, era = request.param.split(", ")
    program = makers.inspector()

    def run(method: str, *options: str) -> subprocess.CompletedProcess[str]:
        request = ["--format", "json", "--protocol-era", era, "--method", method, *options]
        if transport == "stdio":
            command = [*program, "--transport", "stdio", *request, "--", *SERVE_STDIO]
        else:
            command = [*program, served.url, "--transport", "http", *request]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)

    return run


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["result"])


def test_inspector_lists_calls_and_reads(inspect: Inspect) -> None:
    called = result(inspect("tools/call", "--tool-name", "list-recent-itwins", "--tool-arg", "limit=1"))
    itwin = called["structuredContent"]["iTwins"][0]
    assert called["structuredContent"]["page"]["returned"] == 1
    read = result(inspect("resources/read", "--uri", f"itwin://itwins/{itwin['id']}"))
    assert json.loads(read["contents"][0]["text"])["iTwin"]["displayName"] == itwin["displayName"]
    templates = result(inspect("resources/templates/list"))["resourceTemplates"]
    assert {"itwin://itwins/{iTwinId}", "itwin://imodels/{iModelId}"} <= {item["uriTemplate"] for item in templates}


def test_inspector_shows_a_tool_error_with_its_exit_code(inspect: Inspect) -> None:
    arguments = json.dumps({"iTwinId": str(uuid.uuid4())})
    done = inspect("tools/call", "--tool-name", "get-itwin", "--tool-args-json", arguments)
    assert done.returncode == EXIT_CODE_OF_TOOL_ERRORS, done.stderr
    refused = json.loads(done.stdout)["result"]
    assert refused["isError"] is True
    assert refused["structuredContent"]["error"]["code"] == "iTwinNotFound"


def test_inspector_strict_lint_reports_no_error(inspect: Inspect) -> None:
    done = inspect("tools/list", "--strict")
    tools = {tool["name"]: tool for tool in result(done)["tools"]}
    assert tools["get-itwin"]["inputSchema"]["required"] == ["iTwinId"]
    assert "\n0 errors, " in done.stderr


def test_inspector_verifies_every_skill_file(served: Served, environment: dict[str, str]) -> None:
    command = [*makers.inspector(), served.url, "--transport", "http", "--protocol-era", "modern"]
    command += ["--method", "skills/list", "--verify", "--require-digests"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert "version-history" in {report["name"] for report in reports}
    assert {report["outcome"] for report in reports} == {"verified"}
