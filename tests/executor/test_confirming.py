"""The stage that asks, on its own: calls that nobody is asked about, and tools whose file says nothing."""

from typing import Any

import pytest

from itwin_mcp.errors import CallError, InvalidArguments, Unconfirmed
from itwin_mcp.executor.confirm import Confirming, Spent
from itwin_mcp.executor.conversation import LOCAL, Answer, Confirmed, Later, Question, Silence
from itwin_mcp.executor.preview import as_typed, grew
from itwin_mcp.executor.seals import Seals
from tests.executor.bench import IMODEL, ITWIN, KEY, bench, never, saying

pytestmark = pytest.mark.anyio


async def test_a_waived_call_asks_nobody_but_needs_the_id() -> None:
    async with bench("", never, shipped_files=True) as it:
        stage, tool = Confirming(Seals(lambda: [KEY])), it.catalog.tools["delete-imodel"]
        run = it.executor._run("delete-imodel", None, LOCAL)
        link = {"argument": "iModelId", "given": f"https://api.bentley.com/imodels/{IMODEL}", "id": IMODEL}
        for resolved in ([], [link]):
            assert await stage.confirm(run, tool, {"iModelId": IMODEL}, resolved, "policy") == Confirmed("policy")
        with pytest.raises(InvalidArguments, match="takes no name"):
            await stage.confirm(run, tool, {"iModelId": IMODEL}, [link | {"given": "Bridge 7"}], "policy")
        assert await stage.confirm(run, it.catalog.tools["get-imodel"], {"iModelId": IMODEL}, []) is None


async def test_a_foreign_tool_that_says_nothing_shows_its_title_and_has_an_id_typed() -> None:
    asked: list[Question] = []

    class Person(Silence):
        async def ask(self, question: Question) -> Answer | Later:
            asked.append(question)
            return Answer("accept", Confirmed("person", "terminal"), question.name)

    async with bench("things.yaml", saying(204)) as it:
        tool = it.catalog.tools["drop-thing"]
        with pytest.raises(Unconfirmed):
            await it.executor.call(tool, {"thing": ITWIN}, Silence())
        assert it.asked == []
        assert await it.executor.call(tool, {"thing": ITWIN}, Person()) == {"deleted": True}
    assert tool.title in asked[0].message
    assert asked[0].name == ITWIN


async def test_a_thing_that_changes_all_the_time_is_not_destroyed() -> None:
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
async def test_locks_that_cannot_be_read_are_asked_about_as_unknown(status: int, locks: Any) -> None:
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
        with pytest.raises(Unconfirmed) as waits:
            await it.executor.call(it.catalog.tools["release-all-locks"], arguments, Silence())
    lost = waits.value.preview["loses"]["lockedElements"]
    assert lost is None or lost == {"count": 0, "more": True}


async def test_read_that_lacks_an_id_of_the_target_is_asked_about_as_unknown() -> None:
    async def handler(asked: Any) -> None:
        assert "/itwins" not in asked.path
        await asked.json(200, {"iModel": {"id": IMODEL, "name": "Pier"}, "userPermissions": []})

    async with bench("", handler, shipped_files=True) as it:
        arguments = {"iModelId": IMODEL, "userId": ITWIN, "permissions": ["imodels_read"]}
        with pytest.raises(Unconfirmed) as waits:
            await it.executor.call(it.catalog.tools["update-imodel-user-permissions"], arguments, Silence())
    assert "Pier" in waits.value.preview["question"]


def test_a_nonce_counts_once_and_is_forgotten_when_it_cannot_be_used_any_more() -> None:
    now = [0.0]
    spent = Spent(300, lambda: now[0])
    assert spent.spend("a")
    assert not spent.spend("a")
    now[0] = 400.0
    assert spent.spend("b")
    assert spent._until.keys() == {"b"}


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
def test_only_what_is_more_or_other_is_asked_anew(before: dict[str, Any], now: dict[str, Any], more: bool) -> None:
    assert grew(before, now) is more


def test_what_is_typed_may_differ_in_spaces_and_quotes_alone() -> None:
    assert as_typed(" Pier  7\n“East”\u200b ") == as_typed('Pier 7 "East"') == "Pier 7 'East'"
    assert as_typed("Cafe\u0301") == as_typed("Café")
    assert as_typed("pier 7") != as_typed("Pier 7")
