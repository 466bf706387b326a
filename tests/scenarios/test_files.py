"""File uploads and downloads through MCP against the sandbox. File content never reaches the agent."""

# ruff: noqa: ASYNC240 - the files of a test are small

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from PIL import Image

from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.conftest import agrees, connect
from tests.scenarios.test_daily_work import ask, refused

pytestmark = pytest.mark.anyio

BASELINE = os.urandom(3 << 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


@pytest.fixture(params=["in memory, 2026-07-28", "in memory, 2025-11-25", "a subprocess over stdio"])
async def agent(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Client]:
    if request.param.startswith("a subprocess"):
        args = ["-m", "itwin_mcp", "serve", "--sandbox", "--job-seconds", "0", "--files-root", str(root)]
        args += ["--toolsets", "all"]
        server = stdio_client(StdioServerParameters(command=sys.executable, args=args))
        async with Client(server, elicitation_callback=agrees) as client:
            yield client
    else:
        mode = "legacy" if "2025" in request.param else "auto"
        async with connect(mode, files_root=[root], toolsets="all") as client:
            yield client


async def read_recent_itwin(client: Client) -> str:
    return str((await ask(client, "list-recent-itwins", limit=1))["iTwins"][0]["id"])


async def test_create_imodel_from_file_and_download_baseline_file_round_trip(agent: Client, root: Path) -> None:
    (root / "pier.bim").write_bytes(BASELINE)
    messages: list[tuple[float, float | None, str | None]] = []
    extent = {"southWest": {"latitude": 51, "longitude": 4}, "northEast": {"latitude": 52, "longitude": 5}}
    where = {"extent": extent, "containersEnabled": ["schemas", "codes"]}

    async def listen(done: float, total: float | None, text: str | None) -> None:
        messages.append((done, total, text))

    result = await agent.call_tool(
        "create-imodel-from-file",
        {"iTwinId": await read_recent_itwin(agent), "name": "From a file", "filePath": "pier.bim", **where},
        progress_callback=listen,
    )
    assert not result.is_error, result.structured_content
    assert result.structured_content is not None
    imodel = result.structured_content["iModel"]
    assert imodel["state"] == "initialized"
    read = (await ask(agent, "get-imodel", iModelId=imodel["id"]))["iModel"]
    assert (read["extent"], read["containersEnabled"]) == (extent, ["schemas", "codes"])
    bytes_told = [done for done, total, _ in messages if total == len(BASELINE)]
    assert bytes_told[-1] == len(BASELINE)
    assert bytes_told == sorted(bytes_told)
    assert any(text is not None and "pier.bim" in text and "sent" in text for _, _, text in messages)
    download = await ask(agent, "download-baseline-file", iModelId=imodel["id"], filePath="back.bim")
    assert download["file"] == {"path": str(root / "back.bim"), "size": len(BASELINE)}
    assert (root / "back.bim").read_bytes() == BASELINE
    assert sorted(path.name for path in root.iterdir()) == ["back.bim", "pier.bim"]


async def test_push_changeset_and_download_changeset_round_trip(agent: Client, root: Path) -> None:
    imodel = (await ask(agent, "create-imodel", iTwinId=await read_recent_itwin(agent), name="Pushed to"))["iModel"][
        "id"
    ]
    briefcase = (await ask(agent, "acquire-briefcase", iModelId=imodel))["briefcase"]["briefcaseId"]
    content = b"changes" * 1_000
    (root / "1.cs").write_bytes(content)
    pushed = await ask(
        agent,
        "push-changeset",
        iModelId=imodel,
        changesetId=hashlib.sha1(content).hexdigest(),
        briefcaseId=briefcase,
        taskId="sync-7",
        containingChanges=["schema", "geometry"],
        changedFiles=["pier.dgn"],
        filePath=str(root / "1.cs"),
    )
    changeset = (await ask(agent, "get-changeset", iModelId=imodel, changeset="1"))["changeset"]
    assert changeset["containingChanges"] == ["schema", "geometry"]
    assert changeset["synchronizationInfo"] == {"taskId": "sync-7", "changedFiles": ["pier.dgn"]}
    assert (pushed["changeset"]["state"], pushed["changeset"]["fileSize"]) == ("fileUploaded", len(content))
    await ask(agent, "download-changeset", iModelId=imodel, changeset="1", filePath="copy.cs")
    assert (root / "copy.cs").read_bytes() == content
    again = await refused(agent, "download-changeset", iModelId=imodel, changeset="1", filePath="copy.cs")
    assert "exists already" in again["message"]
    assert "overwrite" in again["hint"]
    (root / "copy.cs").write_bytes(b"old")
    await ask(agent, "download-changeset", iModelId=imodel, changeset="1", filePath="copy.cs", overwrite=True)
    assert (root / "copy.cs").read_bytes() == content
    await ask(agent, "download-checkpoint", iModelId=imodel, changeset="baseline", filePath="model.bim")
    assert (root / "model.bim").stat().st_size > 0


async def test_upload_itwin_image_and_imodel_thumbnail(agent: Client, root: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(picture, "png")
    (root / "look.PNG").write_bytes(picture.getvalue())
    itwin = await read_recent_itwin(agent)
    assert (await ask(agent, "upload-itwin-image", iTwinId=itwin, filePath="look.PNG"))["image"]["id"]
    imodel = (await ask(agent, "create-imodel", iTwinId=itwin, name="Pictured"))["iModel"]["id"]
    assert await ask(agent, "upload-imodel-thumbnail", iModelId=imodel, filePath="look.PNG") == {"uploaded": True}
    (root / "look.gif").write_bytes(b"GIF89a")
    assert (
        "must end in .png"
        in (await refused(agent, "upload-itwin-image", iTwinId=itwin, filePath="look.gif"))["message"]
    )
    (root / "large.png").write_bytes(bytes(5_242_881))
    large = await refused(agent, "upload-itwin-image", iTwinId=itwin, filePath="large.png")
    assert "more than the 5242880 allowed" in large["message"]


async def test_download_export_saves_the_file(agent: Client, root: Path) -> None:
    export = (await ask(agent, "create-export", outputFormat="Csv"))["export"]
    download = await ask(agent, "download-export", exportId=export["id"], filePath="itwins.csv")
    assert download["export"]["status"] == "Completed"
    assert (root / "itwins.csv").read_text(encoding="utf-8").count("\n") > 5


async def test_save_list_saves_the_whole_list_and_returns_its_first_items(agent: Client, root: Path) -> None:
    complete = await ask(agent, "list-itwins", limit=1000)
    saved = await ask(agent, "save-list", tool="list-itwins", path="itwins.csv")
    assert saved["first"] == complete["iTwins"][:3]
    assert saved["saved"]["items"] == saved["page"]["total"] == len(complete["iTwins"])
    assert saved["page"]["complete"] is True
    with (root / "itwins.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["id"] for row in rows] == [itwin["id"] for itwin in complete["iTwins"]]
    again = await refused(agent, "save-list", tool="list-itwins", path="itwins.csv")
    assert "exists already" in again["message"]


async def test_create_imodel_from_file_reports_a_broken_baseline_as_completed(agent: Client, root: Path) -> None:
    itwin = await read_recent_itwin(agent)
    (root / "broken.bim").write_bytes(b"sandbox:broken")
    error = await refused(agent, "create-imodel-from-file", iTwinId=itwin, name="Broken", filePath="broken.bim")
    assert error["code"] == "JobFailed"
    assert error["details"][0]["code"] == "initializationFailed"
    assert error["completed"][0]["step"] == "create"
    (root / "good.bim").write_bytes(b"good")
    begun = await ask(agent, "create-imodel-from-file", iTwinId=itwin, name="Begun", filePath="good.bim", wait=0)
    assert begun["job"]["remaining"] == ["imodel"]
    waited = await ask(agent, begun["job"]["checkWith"], iModelId=begun["job"]["iModelId"])
    assert waited["baselineFile"]["state"] == "initialized"


async def test_export_link_of_the_embedded_sandbox_has_a_reserved_host(agent: Client, root: Path) -> None:
    export = (await ask(agent, "create-export", outputFormat="Csv"))["export"]
    link = (await ask(agent, "get-export", exportId=export["id"]))["export"]["outputUrl"]
    assert urlsplit(link).netloc == "storage.sandbox.invalid"


async def test_embedded_sandbox_serves_an_imodel_as_checkpoint(agent: Client, root: Path) -> None:
    imodel = (await ask(agent, "create-imodel", iTwinId=await read_recent_itwin(agent), name="Opened"))["iModel"]["id"]
    await ask(agent, "download-checkpoint", iModelId=imodel, changeset="baseline", filePath="model.bim")
    with closing(sqlite3.connect(root / "model.bim")) as sql:
        (guid,) = sql.execute("SELECT Data FROM be_Prop WHERE Name = 'DbGuid'").fetchone()
    assert str(uuid.UUID(bytes=guid)) == imodel


async def test_file_tools_without_files_root_explain_the_setting() -> None:
    new = {"iTwinId": "1c4b1d5e-0000-4000-8000-000000000000", "name": "n", "filePath": "a.bim"}
    async with connect(toolsets="all") as client:
        error = await refused(client, "create-imodel-from-file", **new)
        assert "no folder was allowed" in error["message"]
        assert "--files-root" in error["hint"]
        assert "save-list" not in {tool.name for tool in (await client.list_tools()).tools}
        with pytest.raises(MCPError, match="no folder for files is allowed"):
            await client.call_tool("save-list", {"tool": "list-itwins", "path": "a.csv"})


@pytest.mark.parametrize("toolsets", [None, "dynamic"])
async def test_save_list_is_served_with_files_root_and_not_read_only(toolsets: str | None, root: Path) -> None:
    async with connect(toolsets=toolsets, files_root=[root]) as client:
        (tool,) = [tool for tool in (await client.list_tools()).tools if tool.name == "save-list"]
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (False, False)
        saved = await ask(client, "save-list", tool="list-itwins", arguments={"fields": "all"}, path="all.json")
    assert saved["saved"]["items"] == len(json.loads((root / "all.json").read_text(encoding="utf-8"))) > 10
    async with connect(files_root=[root], read_only=True) as client:
        assert "save-list" not in {tool.name for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize(
    ("tool", "why"),
    [
        ("update-itwin", "changes data"),
        ("download-changeset", "changes data"),
        ("get-itwin", "no list"),
        ("who-am-i", "no list"),
        ("save-list", "no list"),
        ("list-shares", "not a tool that is served"),
        ("no-such-tool", "not a tool that is served"),
    ],
)
async def test_save_list_runs_only_served_reading_list_tools(tool: str, why: str, root: Path) -> None:
    async with connect(toolsets="itwins,session,changesets,files", files_root=[root]) as client:
        error = await refused(client, "save-list", tool=tool, path="a.csv")
        assert error["code"] == "InvalidArguments"
        assert why in error["message"]
        assert "list-" in error["hint"]
    assert not (root / "a.csv").exists()


async def test_save_list_checks_the_arguments_of_the_tool_and_resolves_names(agent: Client, root: Path) -> None:
    wrong = await refused(agent, "save-list", tool="list-imodels", arguments={"itwin": "x"}, path="a.csv")
    assert (wrong["code"], (root / "a.csv").exists()) == ("InvalidArguments", False)
    arguments = {"iTwinId": "NL-A12-0042", "orderBy": "name"}
    saved = await ask(agent, "save-list", tool="list-imodels", arguments=arguments, path="models.csv")
    assert saved["resolved"][0]["argument"] == "iTwinId"
    with (root / "models.csv").open(encoding="utf-8", newline="") as text:
        assert [row["name"] for row in csv.DictReader(text)][:3] == [loss["name"] for loss in saved["first"]]


async def test_save_list_saves_and_labels_the_lists_of_a_flow(agent: Client, root: Path) -> None:
    arguments = {"iTwinId": "NL-A12-0042", "since": "2026-01-01"}
    answer = (await ask(agent, "list-stale-imodels", **arguments))["iModels"]
    saved = await ask(agent, "save-list", tool="list-stale-imodels", arguments=arguments, path="stale.csv")
    with (root / "stale.csv").open(encoding="utf-8", newline="") as text:
        rows = [(row["list"], row["id"]) for row in csv.DictReader(text)]
    itwin = saved["resolved"][0]["id"]
    models = [(f"iModels.{name}", item["id"]) for name in ("neverPushed", "stale", "active") for item in answer[name]]
    assert rows == [*models, ("searched", itwin)]
    assert saved["page"] == {"returned": len(rows), "complete": True, "total": len(rows)}


async def test_save_list_follows_the_policy_counts_as_a_write_and_is_audited(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("policy")
    policy, log = folder / "policy.yaml", folder / "audit.jsonl"
    monkeypatch.setenv("ITWIN_MCP_AUDIT_LOG", str(log))
    rules = """itwin-mcp-policy: 1
default:
  itwins: all
  tools: {allow: [read-only, save-list], deny: [list-imodels]}
  writes-per-hour: 1
"""
    policy.write_text(rules, encoding="utf-8")
    async with connect(files_root=[root], policy=policy) as client:
        denied = await refused(client, "save-list", tool="list-imodels", arguments={"iTwinId": "x"}, path="a.csv")
        assert denied["code"] == "InvalidArguments"
        assert (await ask(client, "save-list", tool="list-itwins", path="first.csv"))["saved"]["items"]
        spent = await refused(client, "save-list", tool="list-itwins", path="second.csv")
        assert spent["code"] == "BudgetSpent"
    assert sorted(path.name for path in root.iterdir()) == ["first.csv"]
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [(line["decision"], line["tool"], line["targets"][0]["id"]) for line in lines] == [
        ("allowed", "save-list", "list-itwins"),
        ("done", "save-list", "list-itwins"),
        ("refused", "save-list", "list-itwins"),
    ]
    policy.write_text(rules.replace(", save-list", ""), encoding="utf-8")
    async with connect(files_root=[root], policy=policy) as client:
        assert "save-list" not in {tool.name for tool in (await client.list_tools()).tools}


async def test_http_server_rejects_files_without_files_root(root: Path) -> None:
    (root / "pier.bim").write_bytes(b"pier")
    for roots, output in (([], "no folder was allowed"), ([root], None)):
        settings = read_settings(os.environ, sandbox=True, job_seconds=0, files_root=roots, toolsets="all")
        async with open_runtime(settings, os.environ, Launcher.HTTP) as runtime:
            server = build_server(runtime.catalog, runtime.executor)
            async with Client(server) as client:
                arguments = {"iTwinId": await read_recent_itwin(client), "name": "Over HTTP", "filePath": "pier.bim"}
                if output is None:
                    assert (await ask(client, "create-imodel-from-file", **arguments))["iModel"]["id"]
                else:
                    error = await refused(client, "create-imodel-from-file", **arguments)
                    assert output in error["message"]
                    assert "those of the server's machine" in error["hint"]


def test_call_command_allows_files_in_the_current_folder(root: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "itwin_mcp",
            "call",
            "save-list",
            "--sandbox",
            "--arg",
            "tool=list-itwins",
            *arguments,
        ]
        return subprocess.run([*command, *arguments], cwd=root, capture_output=True, text=True, timeout=60)

    done = call("--arg", "path=here.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["saved"]["path"] == str(root / "here.json")
    refusal = call("--arg", f"path={root.parent / 'there.json'}")
    assert refusal.returncode == 1
    assert "lies outside" in json.loads(refusal.stdout)["error"]["message"]
    wrong = call("--files-root", "no-such-folder")
    assert wrong.returncode == 2
    assert "--files-root no-such-folder is not a folder" in wrong.stderr


# --- our own files ----------------------------------------------------------------------------------------------


@pytest.fixture
def state(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder inside the allowed folder, as if a user allowed their home folder."""
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(root / "state"))
    (root / "state" / "approvals").mkdir(parents=True)
    (root / "state" / "seal.key").write_bytes(bytes(32))
    return root / "state"


@pytest.mark.parametrize("path", ["state/approvals/AAAAAAAA.approved", "State/seal", "near/policy.yaml", "platform.db"])
async def test_download_rejects_paths_of_our_own_state_files(root: Path, state: Path, path: str) -> None:
    (root / "State").symlink_to(state)
    (root / "near").symlink_to(root)
    policy = root / "policy.yaml"
    policy.write_text("itwin-mcp-policy: 1\ndefault: {itwins: all, tools: {allow: [all]}}\n")
    async with connect(files_root=[root], policy=policy, sandbox_db=root / "platform.db", person=None) as agent:
        imodel = (await ask(agent, "list-imodels", iTwinId=await read_recent_itwin(agent), limit=1))["iModels"][0]["id"]
        before = sorted(root.rglob("*"))
        arguments = {"iModelId": imodel, "changeset": "1", "filePath": path, "overwrite": True}
        error = await refused(agent, "download-changeset", **arguments)
        assert "is where itwin-mcp keeps its own files" in error["message"]
        assert sorted(root.rglob("*")) == before


async def test_upload_rejects_our_own_state_files(root: Path, state: Path) -> None:
    async with connect(files_root=[root]) as agent:
        new = {"iTwinId": await read_recent_itwin(agent), "name": "Mine"}
        for secret in ("state/seal.key", "state/approvals/../seal.key", str(state / "seal.key")):
            error = await refused(agent, "create-imodel-from-file", **new, filePath=secret)
            assert "its own files" in error["message"] or "`..`" in error["message"]
        (root / "plan.bim").write_bytes(b"plan")
        assert await ask(agent, "create-imodel-from-file", **new, filePath="plan.bim")
