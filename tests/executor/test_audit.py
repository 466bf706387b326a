"""The audit log: one line before and one after every write, with ids and codes only."""

import json
import os
import re
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from itwin_mcp.executor.confirmation.seals import SealError
from itwin_mcp.executor.context import Caller, Confirmation, NoReply, NullConversation, Reply
from itwin_mcp.executor.outcome import Failure, Question
from itwin_mcp.executor.policy.audit import Audit
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.executor.bench import preview_of
from tests.executor.fenced import ISSUER, Places, audited, fenced, places

pytestmark = pytest.mark.anyio

CANARY = "canary-that-no-log-may-hold"


def policy(where: Places, **more: Any) -> str:
    entry = {"itwins": [where.itwin], "tools": {"allow": ["all"], "deny": ["delete-itwin"]}} | more
    return json.dumps({"itwin-mcp-policy": 1, "default": entry})


async def test_audit_logs_a_write_before_sending_and_after_its_outcome() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        await it.call("update-itwin", iTwinId=where.itwin, type=CANARY)
        await it.call("get-itwin", iTwinId=where.itwin)
    before, after = audited()
    for line in (before, after):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert before["call"] == after["call"]
    common = {
        "call": before["call"],
        "caller": {"key": "local"},
        "tool": "update-itwin",
        "operation": "itwins-api.update-itwin",
        "method": "PATCH",
        "origin": "embedded sandbox",
        "targets": [{"type": "itwin", "id": where.itwin}],
    }
    assert before == {"decision": "allowed", **common}
    assert re.fullmatch(r"[0-9a-f-]{36}", after.pop("correlationId"))
    assert after == {"decision": "done", **common, "status": 200}


async def test_audit_logs_refusals_and_failures_with_their_code() -> None:
    where = await places()
    absent = "99999999-9999-4999-8999-999999999999"
    async with fenced(policy(where, **{"writes-per-hour": 1})) as it:
        await it.refused("delete-itwin", iTwinId=where.itwin)
        await it.refused("update-itwin", iTwinId=where.foreign, type=CANARY)
        await it.refused("update-named-version", iModelId=where.imodel, namedVersionId=absent, name=CANARY)
        await it.refused("update-itwin", iTwinId=where.itwin, type=CANARY)
        await it.refused("get-itwin", iTwinId=where.foreign)
    told = [(line["decision"], line["tool"], line.get("code"), line.get("status")) for line in audited()]
    assert told == [
        ("refused", "delete-itwin", "PolicyRefused", None),
        ("refused", "update-itwin", "PolicyRefused", None),
        ("allowed", "update-named-version", None, None),
        ("failed", "update-named-version", "NamedVersionNotFound", 404),
        ("refused", "update-itwin", "BudgetSpent", None),
    ]
    version = audited()[3]["targets"]
    assert version == [{"type": "imodel", "id": where.imodel}, {"type": "named-version", "id": absent}]


async def test_audit_logs_nobody_to_ask_as_refused_and_a_question_as_asked() -> None:
    where = await places()
    for started in (Launcher.SHELL, Launcher.HTTP, Launcher.STDIO):
        async with fenced(None, started) as it:
            described = it.runtime.gatekeeper.tools["delete-imodel"]
            preview_of(await it.runtime.executor.call(described, {"iModelId": where.imodel}))
            assert all(one.startswith("GET") for one in it.reached)
    assert [(line["decision"], line.get("code")) for line in audited()] == [
        ("refused", "NobodyToAsk"),
        ("refused", "NobodyToAsk"),
        ("asked", None),
    ]


@pytest.mark.parametrize("flaw", ["forged", "expired", "for another call"])
async def test_unusable_confirmation_is_audited_as_refused_not_as_declined(
    flaw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = await places()
    share = {"iModelId": where.imodel, "name": "Guests", "expiration": "2099-01-01T00:00:00Z"}
    codes = {"expired": "ConfirmationExpired"}
    async with fenced(None, Launcher.HTTP, confirm="two-step") as it:
        tool, call = it.runtime.gatekeeper.tools["create-share"], it.runtime.executor.call
        token = preview_of(await call(tool, share))["confirmation"]
        if flaw == "forged":
            token = token[:-4] + "AAAA"
        elif flaw == "expired":
            monkeypatch.setattr("itwin_mcp.executor.confirmation.confirm.Seals.open", _expired)
        else:
            share["name"] = "Others"
        outcome = await call(tool, share | {"confirmation": token})
        assert isinstance(outcome, Failure)
        assert outcome.error.code == codes.get(flaw, "ConfirmationInvalid")
    assert [(line["decision"], line.get("code")) for line in audited()] == [
        ("asked", None),
        ("refused", outcome.error.code),
    ]


def _expired(*_: Any, **__: Any) -> Any:
    raise SealError("expired")


async def test_user_decline_is_audited_as_declined() -> None:
    class No(NullConversation):
        async def ask(self, question: Question) -> Reply | NoReply:
            return Reply("decline", Confirmation("person", "terminal"))

    where = await places()
    async with fenced(None) as it:
        tool = it.runtime.gatekeeper.tools["delete-imodel"]
        outcome = await it.runtime.executor.call(tool, {"iModelId": where.imodel}, No())
    assert isinstance(outcome, Failure)
    assert [(line["decision"], line.get("code")) for line in audited()] == [("declined", "Declined")]


async def test_audit_logs_issuer_and_subject_of_the_caller() -> None:
    where = await places()
    entry = {"issuer": ISSUER, "groups": ["modellers"], "itwins": [where.itwin], "tools": {"allow": ["all"]}}
    async with fenced(json.dumps({"itwin-mcp-policy": 1, "callers": [entry]})) as it:
        await it.call("add-itwin-to-recents", Caller("k", ISSUER, "anna", ("modellers",)), iTwinId=where.itwin)
        await it.refused("add-itwin-to-recents", Caller("m", ISSUER, "bert"), iTwinId=where.itwin)
    assert [(line["decision"], line["caller"]) for line in audited()] == [
        ("allowed", {"key": "k", "issuer": ISSUER, "subject": "anna"}),
        ("done", {"key": "k", "issuer": ISSUER, "subject": "anna"}),
        ("refused", {"key": "m", "issuer": ISSUER, "subject": "bert"}),
    ]


async def test_audit_logs_writes_without_a_policy() -> None:
    where = await places()
    async with fenced(None) as it:
        made = await it.call("create-imodel", iTwinId=where.itwin, name=CANARY, description=CANARY, wait=30)
    assert made["iModel"]["id"]
    assert [(line["decision"], line["targets"]) for line in audited()] == [
        ("allowed", [{"type": "itwin", "id": where.itwin}]),
        ("done", [{"type": "itwin", "id": where.itwin}]),
    ]


async def test_audit_log_contains_no_argument_value_name_or_secret() -> None:
    where = await places()
    header = {"type": "Header", "key": CANARY, "value": CANARY}
    async with fenced(None) as it:
        repository = {"iTwinId": where.itwin, "class": "GeographicInformationSystem", "subClass": "WebMapService"}
        await it.call("create-repository", **repository, uri=f"https://{CANARY}.example/", authentication=header)
        soon = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
        shared = {"name": CANARY, "permission": "imodels_read", "expiration": soon}
        key = (await it.agreed("create-share", iModelId=where.imodel, **shared))["share"]["shareKey"]
        await it.refused("delete-itwin", iTwinId=CANARY)
        await it.refused("delete-imodel", iModelId=f"https://api.bentley.com/imodels/{CANARY}")
    text = (Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "audit.jsonl").read_text()
    assert text.count('"decision":"done"') == 2
    assert CANARY not in text
    assert key not in text
    assert "eyJ" not in text
    assert "Crossing" not in text


async def test_audit_logs_a_cancelled_write_with_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    where = await places()
    async with fenced(None) as it:
        under_way = anyio.Event()

        async def hang(self: UpstreamClient, request: Request) -> Any:
            under_way.set()
            await anyio.sleep_forever()

        monkeypatch.setattr(UpstreamClient, "send", hang)
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                await it.call("update-itwin", iTwinId=where.itwin, type="Bridge")

            tasks.start_soon(write)
            await under_way.wait()
            assert [line["decision"] for line in audited()] == ["allowed"]
            tasks.cancel_scope.cancel()
    last = audited()[-1]
    assert (last["decision"], last["code"], last["outcomeUnknown"]) == ("failed", "Cancelled", True)


async def test_unwritable_audit_log_blocks_writes_but_not_reads(caplog: pytest.LogCaptureFixture) -> None:
    where = await places()
    async with fenced(None) as it:
        audit = it.runtime.gatekeeper.audit
        assert audit is not None
        audit._file = Path(os.environ["ITWIN_MCP_STATE_DIR"])
        error = await it.refused("update-itwin", iTwinId=where.itwin, type="Bridge")
        assert error["code"] == "AuditFailed"
        assert "ITWIN_MCP_AUDIT_LOG" in error["hint"]
        assert it.reached == []
        assert str(audit._file) not in json.dumps(error)
        assert str(audit._file) in caplog.text
        await it.call("get-itwin", iTwinId=where.itwin)


async def test_write_succeeds_if_the_audit_log_fails_after_it(caplog: pytest.LogCaptureFixture) -> None:
    where = await places()
    async with fenced(None) as it:
        audit = it.runtime.gatekeeper.audit
        assert audit is not None
        append, left = audit._append, [1]

        async def once(*given: Any) -> None:
            if not left:
                raise OSError(28, "No space left on device")
            left.pop()
            await append(*given)

        audit._append = once  # type: ignore[method-assign]
        assert (await it.call("update-itwin", iTwinId=where.itwin, type="Bridge"))["iTwin"]["type"] == "Bridge"
    assert [line["decision"] for line in audited()] == ["allowed"]
    assert "The audit log lacks done itwins-api.update-itwin" in caplog.text


async def test_concurrent_audit_lines_stay_whole_in_an_owner_only_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "audit.jsonl"
    audits = [Audit(file, lambda: 1_700_000_000.0) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(
                audits[number % 4].before, "allowed", {"number": number, "code": None, "filler": "x" * 500}
            )
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["number"] for line in lines) == list(range(200))
    assert lines[0]["time"] == "2023-11-14T22:13:20.000Z"
    assert "code" not in lines[0]
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_audit_without_a_file_writes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    await Audit(None, lambda: 0.0).before("refused", {"code": "PolicyRefused"})
    captured = capfd.readouterr()
    assert json.loads(captured.err) == {
        "time": "1970-01-01T00:00:00.000Z",
        "decision": "refused",
        "code": "PolicyRefused",
    }
    assert captured.out == ""


def calls_by_file(folder: Path) -> dict[str, list[int]]:
    """Return the `call` of each line, per log file."""
    files = [file for file in folder.iterdir() if not file.name.endswith(".lock")]
    return {file.name: [json.loads(line)["call"] for line in file.read_text().splitlines()] for file in files}


async def test_audit_rotates_a_large_file_and_keeps_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.executor.policy.audit.MAX_FILE_BYTES", 2_000)
    file = tmp_path / "audit.jsonl"
    logs = [Audit(file, lambda: 0.0) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(logs[number % 4].before, "allowed", {"call": number})
    files = calls_by_file(tmp_path)
    assert sorted(call for calls in files.values() for call in calls) == list(range(100))
    assert len(files) > 2


async def test_audit_keeps_nine_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.executor.policy.audit.MAX_FILE_BYTES", 1)
    file = tmp_path / "audit.jsonl"
    audit = Audit(file, lambda: 0.0)
    for number in range(15):
        await audit.before("allowed", {"call": number})
    older = {f"audit.jsonl.{number}": [14 - number] for number in range(1, 10)}
    assert calls_by_file(tmp_path) == {"audit.jsonl": [14], **older}
