"""The confirmation stage by itself: waived calls, tools without `x-confirm`, and reads that cannot be trusted."""

from dataclasses import replace
from typing import Any

import pytest

from itwin_mcp.errors import CallError, InvalidArguments
from itwin_mcp.executor.confirmation.confirm import Confirmer, UsedConfirmations
from itwin_mcp.executor.confirmation.preview import has_grown, normalize_name
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.executor.context import LOCAL, CallContext, Confirmation, NoReply, NullConversation, Reply
from itwin_mcp.executor.outcome import Question
from itwin_mcp.executor.policy.rules import Permit
from tests.executor.bench import IMODEL, ITWIN, KEY, answer_of, bench, never, preview_of, saying

pytestmark = pytest.mark.anyio


async def test_confirm_skips_the_question_for_a_pre_approved_call_and_rejects_names() -> None:
    async with bench("", never, shipped_files=True) as it:
        stage, tool = Confirmer(Seals(lambda: [KEY])), it.catalog.tools["delete-imodel"]
        run = it.executor._begin("delete-imodel", None, LOCAL)
        given = {"iModelId": IMODEL}
        context = CallContext(tool, tool.name, given, run, given, permit=Permit("policy"))
        link = {"argument": "iModelId", "given": f"https://api.bentley.com/imodels/{IMODEL}", "id": IMODEL}
        for resolved in ([], [link]):
            confirmed = await stage.confirm(replace(context, resolved=resolved))
            assert isinstance(confirmed, CallContext)
            assert confirmed.confirmation == Confirmation("policy")
        with pytest.raises(InvalidArguments, match="takes no name"):
            await stage.confirm(replace(context, resolved=[link | {"given": "Bridge 7"}]))
        assert not it.catalog.tools["get-imodel"].confirms


async def test_undescribed_destructive_tool_shows_its_title_and_asks_for_the_id() -> None:
    asked: list[Question] = []

    class Person(NullConversation):
        async def ask(self, question: Question) -> Reply | NoReply:
            asked.append(question)
            return Reply("accept", Confirmation("person", "terminal"), question.name)

    async with bench("things.yaml", saying(204)) as it:
        tool = it.catalog.tools["drop-thing"]
        preview_of(await it.executor.call(tool, {"thing": ITWIN}, NullConversation()))
        assert it.asked == []
        assert answer_of(await it.executor.call(tool, {"thing": ITWIN}, Person())) == {"deleted": True}
    assert tool.title in asked[0].message
    assert asked[0].name == ITWIN


async def test_confirmation_fails_if_the_loss_keeps_growing() -> None:
    count = iter(range(100))

    async def handler(asked: Any) -> None:
        assert asked.method == "GET"
        if asked.target.startswith("/accesscontrol"):
            await asked.json(200, {"members": [{"email": "a@b"}] * next(count)})
        else:
            thing = {"id": ITWIN, "displayName": "X"}
            await asked.json(200, {"iTwin": thing, "iTwins": [], "iModels": [], "repositories": []})

    async with bench("", handler, shipped_files=True) as it:
        with pytest.raises(CallError) as caught:
            await it.call("delete-itwin", iTwinId=ITWIN)
    assert caught.value.code == "ConfirmationInvalid"


UNSURE: list[tuple[int, Any]] = [
    (200, {"locks": None}),
    (200, {}),
    (200, {"locks": {}}),
    (200, {"locks": "none"}),
    (200, {"locks": [], "_links": {"next": {"href": 7}}}),
    (200, {"locks": [{"briefcaseId": 2, "lockedObjects": None}]}),
    (200, []),
    (403, {"error": {"code": "InsufficientPermissions", "message": "No."}}),
    (404, {"message": "no such route"}),
    (404, {"error": {"code": "ResourceNotFound", "message": "Verify the API URL and the Accept header."}}),
    (404, "<html>"),
]


@pytest.mark.parametrize(("status", "locks"), UNSURE, ids=repr)
async def test_preview_shows_unreadable_locks_as_unknown(status: int, locks: Any) -> None:
    async def handler(asked: Any) -> None:
        assert asked.method == "GET"
        if "/locks" in asked.path:
            await asked.json(status, locks)
        elif "/users" in asked.path:
            await asked.json(200, {"users": []})
        else:
            await asked.json(200, {"iModel": {"name": "Pier"}, "briefcase": {"briefcaseId": 2, "ownerId": "x"}})

    async with bench("", handler, shipped_files=True) as it:
        arguments = {"iModelId": IMODEL, "briefcaseId": 2}
        outcome = await it.executor.call(it.catalog.tools["release-all-locks"], arguments, NullConversation())
    lost = preview_of(outcome)["loses"]["lockedElements"]
    assert lost is None or lost == {"count": 0, "more": True}


async def test_preview_asks_if_the_entry_is_missing_in_the_read() -> None:
    async def handler(asked: Any) -> None:
        assert "/itwins" not in asked.path
        await asked.json(200, {"iModel": {"id": IMODEL, "name": "Pier"}, "userPermissions": []})

    async with bench("", handler, shipped_files=True) as it:
        arguments = {"iModelId": IMODEL, "entries": [{"userId": ITWIN, "permissions": ["imodels_read"]}]}
        tool = it.catalog.tools["update-imodel-user-permissions"]
        outcome = await it.executor.call(tool, arguments, NullConversation())
    assert "Pier" in preview_of(outcome)["question"]


def test_used_confirmations_rejects_reuse_and_forgets_expired_nonces() -> None:
    now = [0.0]
    spent = UsedConfirmations(300, lambda: now[0])
    assert spent.spend("a")
    assert not spent.spend("a")
    now[0] = 400.0
    assert spent.spend("b")
    assert spent._expiries.keys() == {"b"}


@pytest.mark.parametrize(
    ("before", "now", "more"),
    [
        ({"a": 2}, {"a": 2}, False),
        ({"a": 2}, {"a": 1}, False),
        ({"a": 2}, {"a": 3}, True),
        ({"a": 2}, {"a": None}, True),
        ({"a": None}, {"a": None}, False),
        ({"a": None}, {"a": 5}, True),
        ({}, {"a": 1}, True),
        ({"a": 1}, {}, False),
        ({"a": "x"}, {"a": "y"}, True),
        ({}, {"a": "x"}, True),
    ],
)
def test_has_grown_detects_more_or_other_losses(before: dict[str, Any], now: dict[str, Any], more: bool) -> None:
    assert has_grown(before, now) is more


def test_normalize_name_ignores_spaces_and_quotes_only() -> None:
    assert normalize_name(" Pier  7\n“East”\u200b ") == normalize_name('Pier 7 "East"') == "Pier 7 'East'"
    assert normalize_name("Cafe\u0301") == normalize_name("Café")
    assert normalize_name("pier 7") != normalize_name("Pier 7")
