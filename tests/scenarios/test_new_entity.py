"""A new API with an entity of its own, by YAML alone: ids, links, names, completions, hints, search, and the policy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import mcp.types as t
import pytest
from mcp import Client

from tests.conftest import connect
from tests.executor.fenced import fenced, places
from tests.upstream.loopback import Asked, Loopback, loopback

pytestmark = pytest.mark.anyio

FILE = """\
ikanos: "1.0.0-beta5"
info: {display: "Issues", description: "Issues of a project."}
x-entities:
  issue:
    id: {pattern: "[A-Z]{2,5}-[0-9]{1,6}"}
    link: issues
    find:
    - {call: issues-api.list-issues, items: issues, match: subject, by: subject, where: "your issues", with: {top: 20}}
    complete:
    - {tool: list-issues, items: issues, search: subject}
    labels: [subject]
    list: list-issues
    paths: [/v1/issues]
    unique: subject
    refusals: {IssueClosed: "Reopen the issue first."}
    words: [snag, mangel]
capability:
  consumes:
  - type: http
    namespace: issues-api
    baseUri: "ORIGIN"
    resources:
      issues:
        path: "/v1/issues"
        operations:
          list-issues: {method: GET, inputParameters: {subject: {in: query}, top: {in: query}}}
      issue:
        path: "/v1/issues/{{id}}"
        operations:
          get-issue: {method: GET, inputParameters: {id: {in: path}}}
  exposes:
  - type: mcp
    transport: stdio
    namespace: issues
    tools:
      list-issues:
        display: "List issues"
        description: "List the issues."
        inputParameters:
          subject: {type: string, required: false, description: "Part of the subject."}
        call: issues-api.list-issues
        with: {subject: issues.subject}
        hints: {readOnly: true}
        outputParameters:
        - type: object
          properties:
            issues:
              type: array
              mapping: "$.issues"
              items:
                type: object
                properties:
                  id: {type: string, mapping: "$.id"}
                  subject: {type: string, mapping: "$.subject"}
      get-issue:
        display: "Read an issue"
        description: "Read one issue."
        inputParameters:
          issueId: {type: string, description: "Issue: id, subject or link.", x-entity: issue}
        call: issues-api.get-issue
        with: {id: issues.issueId}
        hints: {readOnly: true}
        outputParameters:
        - type: object
          properties:
            issue:
              type: object
              mapping: "$.issue"
              properties:
                id: {type: string, mapping: "$.id"}
                subject: {type: string, mapping: "$.subject"}
    prompts:
      explain-issue:
        display: "Explain an issue"
        description: "Explain one issue."
        arguments: {issueId: {description: "The issue."}}
        template:
        - {role: user, content: "Read {{issueId}} with `get-issue`, then explain it."}
"""
CRACK = {"id": "ROAD-7", "subject": "Crack in pier 3"}
RUST = {"id": "ROAD-8", "subject": "Rust at the railing"}
SAME_SUBJECT = [{"id": "ROAD-1", "subject": "Twice"}, {"id": "ROAD-2", "subject": "Twice"}]
ISSUES = [CRACK, RUST, *SAME_SUBJECT]


async def answer(request: Asked) -> None:
    """Answer as an API of issues: list them, filtered by a part of the subject, or return one."""
    query = dict(parse_qsl(request.target.partition("?")[2]))
    if request.path == "/v1/issues":
        wanted = query.get("subject", "").lower()
        await request.json(200, {"issues": [issue for issue in ISSUES if wanted in issue["subject"].lower()]})
        return
    match = next((issue for issue in ISSUES if request.path == f"/v1/issues/{issue['id']}"), None)
    if request.path == "/v1/issues/ROAD-9":
        await request.json(409, {"code": "IssueClosed", "message": "The issue is closed."})
    elif match is None:
        await request.json(404, {"code": "IssueNotFound", "message": "There is no such issue."})
    else:
        await request.json(200, {"issue": match})


@asynccontextmanager
async def desk(tmp_path: Path, **serves: Any) -> AsyncIterator[tuple[Client, Loopback]]:
    """Connect a client to our server, which also serves FILE."""
    async with loopback(answer) as api:
        file = tmp_path / "issues.yaml"
        file.write_text(FILE.replace("ORIGIN", api.origin), encoding="utf-8")
        async with connect(capabilities=(file,), **serves) as client:
            yield client, api


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answered = (await client.call_tool(tool, arguments)).structured_content
    assert answered is not None
    return answered


@pytest.mark.parametrize("arguments", ["ROAD-7", " “ROAD-7” ", "itwin://issues/ROAD-7", "ORIGIN/v1/issues/ROAD-7"])
async def test_id_or_link_of_a_declared_entity_is_read_without_a_request(tmp_path: Path, arguments: str) -> None:
    async with desk(tmp_path) as (client, api):
        read = await ask(client, "get-issue", issueId=arguments.replace("ORIGIN", api.origin))
        assert read["issue"] == CRACK
        assert [request.path for request in api.requests] == ["/v1/issues/ROAD-7"]


async def test_name_of_a_declared_entity_is_looked_up(tmp_path: Path) -> None:
    async with desk(tmp_path) as (client, api):
        read = await ask(client, "get-issue", issueId="Crack in pier 3")
        assert read["issue"] == CRACK
        assert read["resolved"] == [{"argument": "issueId", "given": "Crack in pier 3", "id": "ROAD-7"}]
        assert [request.path for request in api.requests] == ["/v1/issues", "/v1/issues/ROAD-7"]
        several = (await ask(client, "get-issue", issueId="Twice"))["error"]
        assert (several["code"], several["candidates"]) == ("AmbiguousName", SAME_SUBJECT)
        nothing = (await ask(client, "get-issue", issueId="Nothing of the kind"))["error"]
        assert (nothing["code"], nothing["hint"]) == ("NameNotFound", "Look for it with list-issues.")
        assert "in your issues" in nothing["message"]


async def test_declared_entity_rejects_a_link_to_another_host(tmp_path: Path) -> None:
    async with desk(tmp_path) as (client, api):
        refused = (await ask(client, "get-issue", issueId="https://evil.example/v1/issues/ROAD-7"))["error"]
        assert refused["code"] == "InvalidArguments"
        assert api.requests == []


async def test_declared_entity_is_completed_by_its_listing_tool(tmp_path: Path) -> None:
    async with desk(tmp_path) as (client, _):
        prompt = t.PromptReference(name="explain-issue")
        offered = await client.complete(prompt, {"name": "issueId", "value": "rust"})
        assert offered.completion.values == ["Rust at the railing"]


async def test_refusal_names_the_listing_tool_of_a_declared_entity(tmp_path: Path) -> None:
    async with desk(tmp_path) as (client, _):
        absent = (await ask(client, "get-issue", issueId="ROAD-404"))["error"]
        assert (absent["code"], absent["status"]) == ("IssueNotFound", 404)
        assert "Find the issue's right id with `list-issues`" in absent["hint"]
        closed = (await ask(client, "get-issue", issueId="ROAD-9"))["error"]
        assert closed["hint"] == "Reopen the issue first."


async def test_search_finds_tools_by_the_words_of_a_declared_entity(tmp_path: Path) -> None:
    async with desk(tmp_path, toolsets="dynamic") as (client, _):
        for question in ("read a snag", "Mangel lesen"):
            matches = await ask(client, "find-tools", query=question)
            assert matches["tools"][0]["name"] in ("get-issue", "list-issues"), question


async def test_policy_refuses_paths_of_a_declared_entity(tmp_path: Path) -> None:
    where = await places()
    file = tmp_path / "issues.yaml"
    file.write_text(FILE.replace("ORIGIN", "https://api.bentley.com"), encoding="utf-8")
    policy = json.dumps({"itwin-mcp-policy": 1, "default": {"itwins": [where.itwin], "tools": {"allow": ["all"]}}})
    async with fenced(policy, capabilities=(file,)) as it:
        for arguments in ("ROAD-7", "Crack in pier 3"):
            assert (await it.refused("get-issue", issueId=arguments))["code"] == "PolicyRefused"
        assert (await it.refused("list-issues"))["code"] == "PolicyRefused"
        assert [request for request in it.reached if "/issues" in request] == []
