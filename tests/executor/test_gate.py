"""What a policy lets pass: through the whole server, against the sandbox's own record of what reached it."""

import json
from dataclasses import replace
from typing import Any

import anyio
import mcp.types as t
import pytest
from mcp import Client

from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.conversation import LOCAL, Caller
from itwin_mcp.executor.executor import Executor
from itwin_mcp.executor.gate import FENCED, Gatekeeper
from itwin_mcp.executor.policy import Policy, Rule
from itwin_mcp.executor.seals import Seals
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.server.app import build_server
from itwin_mcp.sign_in import Started
from itwin_mcp.upstream.wire import Request, Response
from tests.executor.bench import shipped_catalog
from tests.executor.fenced import ISSUER, Fenced, Places, audited, fenced, places

pytestmark = pytest.mark.anyio

ANNA = Caller("anna", ISSUER, "anna", ("modellers",))


ODD_HOMES: list[Any] = [
    None,
    [],
    "ITWIN",
    {},
    {"iModel": None},
    {"iModel": "IMODEL"},
    {"iModel": [{"id": "IMODEL", "iTwinId": "ITWIN"}]},
    {"iModel": {"id": "IMODEL"}},
    {"iModel": {"id": "IMODEL", "iTwinId": None}},
    {"iModel": {"id": "IMODEL", "iTwinId": ["ITWIN"]}},
    {"iModel": {"id": "IMODEL", "iTwinId": {"id": "ITWIN"}}},
    {"iModel": {"id": "IMODEL", "iTwinId": 7}},
    {"iModel": {"id": "OTHER", "iTwinId": "ITWIN"}},
    {"iModel": {"id": None, "iTwinId": "ITWIN"}},
    {"iModel": {"iTwinId": "ITWIN"}},
    {"iModels": [{"id": "IMODEL", "iTwinId": "ITWIN"}]},
]


def policy(where: Places, **more: Any) -> str:
    """Everything, but in one iTwin alone; JSON is YAML."""
    return json.dumps({"itwin-mcp-policy": 1, "default": entry(where) | more})


def entry(where: Places) -> dict[str, Any]:
    return {"itwins": [where.itwin], "tools": {"allow": ["all"]}}


# --- who --------------------------------------------------------------------------------------------------------


async def test_without_a_policy_the_local_caller_may_do_all_and_a_caller_who_signed_in_nothing() -> None:
    where = await places()
    async with fenced(None) as it:
        await it.call("update-itwin", iTwinId=where.foreign, type="Bridge")
        it.reached.clear()
        for tool, arguments in (("list-itwins", {}), ("update-itwin", {"iTwinId": where.itwin, "type": "x"})):
            error = await it.refused(tool, ANNA, **arguments)
            assert error["code"] == "PolicyRefused"
            assert "ITWIN_MCP_POLICY" in error["hint"]
        with pytest.raises(PolicyRefused):
            await it.runtime.executor.read(it.runtime.catalog.resources[0], {"iTwinId": where.itwin}, caller=ANNA)
        assert it.reached == []


async def test_whom_no_entry_names_may_do_nothing_and_learns_nothing_of_others() -> None:
    where = await places()
    text = json.dumps({"itwin-mcp-policy": 1, "callers": [{"issuer": ISSUER, "subject": "anna", **entry(where)}]})
    async with fenced(text) as it:
        assert (await it.call("get-itwin", ANNA, iTwinId=where.itwin))["iTwin"]["id"] == where.itwin
        it.reached.clear()
        for stranger in (LOCAL, Caller("bert", ISSUER, "bert"), Caller("anna2", "https://other.example", "anna")):
            error = await it.refused("get-itwin", stranger, iTwinId=where.itwin)
            assert error["code"] == "PolicyRefused"
            assert "anna" not in json.dumps(error)
        assert it.reached == []


async def test_two_callers_never_meet_in_names_or_budgets() -> None:
    where = await places()
    bert = Caller("bert", ISSUER, "bert")
    entries = [
        {"issuer": ISSUER, "subject": "anna", "writes-per-hour": 1, **entry(where)},
        {"issuer": ISSUER, "subject": "bert", "writes-per-hour": 1, **entry(where), "itwins": [where.foreign]},
    ]
    async with fenced(json.dumps({"itwin-mcp-policy": 1, "callers": entries})) as it:
        assert (await it.call("list-imodels", ANNA, iTwinId="NL-A12-0042"))["resolved"]
        assert (await it.refused("list-imodels", bert, iTwinId="NL-A12-0042"))["code"] == "NameNotFound"
        await it.call("add-itwin-to-recents", ANNA, iTwinId=where.itwin)
        assert (await it.refused("add-itwin-to-recents", ANNA, iTwinId=where.itwin))["code"] == "BudgetSpent"
        await it.call("add-itwin-to-recents", bert, iTwinId=where.foreign)
        found = [one["id"] for one in (await it.call("list-recent-itwins", bert))["iTwins"]]
        assert found == [where.foreign]


# --- which tools ------------------------------------------------------------------------------------------------


async def test_a_tool_that_is_not_allowed_is_neither_listed_nor_run() -> None:
    where = await places()
    text = policy(where, tools={"allow": ["toolset:itwins", "toolset:imodels"], "deny": ["delete-imodel"]})
    async with fenced(text, Started.STDIO) as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor, runtime.session)) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            named = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
        assert {"get-itwin", "update-imodel", "who-am-i"} <= listed
        assert not {"delete-imodel", "list-locks"} & listed
        assert any("itwins/" in uri for uri in named)
        assert not any("changesets" in uri for uri in named)
        error = await it.refused("delete-imodel", iModelId=where.imodel)
        assert "policy.yaml:1" in error["message"]
        assert it.reached == []
    assert [(line["decision"], line["targets"]) for line in audited()] == [
        ("refused", [{"type": "imodel", "id": where.imodel}])
    ]


async def test_a_flow_is_no_way_round_a_tool_that_is_denied() -> None:
    where = await places()
    text = policy(where, itwins="all", tools={"allow": ["all"], "deny": ["create-itwin"]})
    async with fenced(text, Started.STDIO) as it:
        assert not {"create-itwin", "provision-project"} & it.runtime.catalog.tools.keys()
        error = await it.refused("provision-project", displayName="Pier 7")
        assert error["code"] == "PolicyRefused"
        assert "(policy.yaml:1 denies create-itwin, which sends the same)" in error["message"]
        assert it.reached == []


async def test_the_dynamic_tools_run_nothing_that_is_not_allowed() -> None:
    where = await places()
    text = policy(where, tools={"allow": ["all"], "deny": ["list-locks"]})
    async with fenced(text, Started.STDIO, toolsets="dynamic") as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor, runtime.session)) as client:
            denied = {"name": "list-locks", "arguments": {"iModelId": where.imodel}}
            assert (await client.call_tool("run-reading-tool", denied)).is_error
            foreign = {"name": "get-imodel", "arguments": {"iModelId": where.foreign_imodel}}
            as_text = {**foreign, "arguments": json.dumps(foreign["arguments"])}
            for sent in (foreign, as_text):
                refused = await client.call_tool("run-reading-tool", sent)
                assert refused.structured_content is not None
                assert refused.structured_content["error"]["code"] == "PolicyRefused"
        assert set(it.reached) == {f"GET /imodels/{where.foreign_imodel}? "}


# --- which iTwins -----------------------------------------------------------------------------------------------

FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "an id in the path": ("get-itwin", {"iTwinId": "{foreign}"}),
    "in capital letters": ("delete-itwin", {"iTwinId": "{FOREIGN}"}),
    "a link": ("update-itwin", {"iTwinId": "https://api.bentley.com/iTwins/{foreign}", "type": "Bridge"}),
    "an id in the query": ("list-imodels", {"iTwinId": "{foreign}"}),
    "a parent in the query": ("list-itwins", {"parentId": "{foreign}"}),
    "a filter": ("list-itwins", {"filter": "parentId eq '{FOREIGN}'"}),
    "a search for the id": ("list-itwins", {"search": "{foreign}"}),
    "an id in the body": ("create-imodel", {"iTwinId": "{foreign}", "name": "A"}),
    "a parent in the body": (
        "create-itwin",
        {"class": "Thing", "subClass": "Asset", "displayName": "A", "parentId": "{foreign}"},
    ),
    "where a copy goes": ("clone-imodel", {"iModelId": "{imodel}", "iTwinId": "{foreign}"}),
    "access control": ("list-itwin-members", {"iTwinId": "{foreign}"}),
    "a list of one's own": ("add-itwin-to-favorites", {"iTwinId": "{foreign}"}),
    "an account": ("get-itwin-account", {"iTwinId": "{foreign}"}),
}


def fill(value: Any, where: Places) -> Any:
    if isinstance(value, dict):
        return {key: fill(child, where) for key, child in value.items()}
    if not isinstance(value, str):
        return value
    named = {"{foreign}": where.foreign, "{FOREIGN}": where.foreign.upper(), "{itwin}": where.itwin}
    for slot, text in {**named, "{imodel}": where.imodel, "{other}": where.foreign_imodel}.items():
        value = value.replace(slot, text)
    return value


async def test_no_request_that_names_another_itwin_leaves() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        for case, (tool, arguments) in FOREIGN.items():
            error = await it.refused(tool, **fill(arguments, where))
            assert error["code"] == "PolicyRefused", (case, error)
            assert "policy.yaml:1" in error["message"]
            assert it.naming(where.foreign) == [], case


OTHER_IMODEL: list[tuple[str, dict[str, Any]]] = [
    ("get-imodel", {"iModelId": "{other}"}),
    ("delete-imodel", {"iModelId": "{other}"}),
    ("list-locks", {"iModelId": "https://api.bentley.com/imodels/{other}/locks"}),
    ("add-imodel-to-favorites", {"iModelId": "{other}"}),
    ("clone-imodel", {"iModelId": "{other}", "iTwinId": "{itwin}"}),
    ("create-imodel-from-template", {"iTwinId": "{itwin}", "name": "A", "templateIModelId": "{other}"}),
    ("wait-for-imodel", {"iModelId": "{other}"}),
]


async def test_an_imodel_is_judged_by_its_itwin_which_is_read_and_never_told() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        for tool, arguments in OTHER_IMODEL:
            error = await it.refused(tool, **fill(arguments, where))
            assert error["code"] == "PolicyRefused", error
            assert where.foreign not in json.dumps(error)
        # Read once for all of them.
        assert it.naming(where.foreign, where.foreign_imodel) == [f"GET /imodels/{where.foreign_imodel}? "]


async def test_the_itwin_of_an_imodel_is_read_once_and_learned_from_lists() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        await it.call("list-locks", iModelId=where.imodel)
        await it.call("list-briefcases", iModelId=where.imodel)
        assert [one for one in it.reached if one.startswith(f"GET /imodels/{where.imodel}? ")] != []
        assert len(it.reached) == 3
    async with fenced(policy(where)) as it:
        await it.call("list-imodels", iTwinId=where.itwin)
        await it.call("list-locks", iModelId=where.imodel)
        assert len(it.reached) == 2


async def test_an_imodel_that_is_not_there_is_the_platforms_own_answer() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        error = await it.refused("delete-imodel", iModelId="99999999-9999-4999-8999-999999999999")
        assert (error["status"], error["code"]) == (404, "iModelNotFound")
        assert [one.split()[0] for one in it.reached] == ["GET"]


async def test_lists_of_itwins_are_cut_before_anything_is_counted_or_paged() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        listed = await it.call("list-itwins", limit=1)
        while listed["page"].get("cursor"):
            assert [one["id"] for one in listed["iTwins"]] in ([], [where.itwin])
            listed = await it.call("list-itwins", limit=1, cursor=listed["page"]["cursor"])
        assert listed["page"]["note"] == FENCED
        whole = await it.call("list-itwins")
        assert [one["id"] for one in whole["iTwins"]] == [where.itwin]
        assert whole["page"] == {"returned": 1, "complete": True, "total": 1, "note": FENCED}
        found = await it.call("find-itwin", name="NL-MAAS-0017")
        assert where.foreign not in json.dumps(found)
        assert {one["id"] for one in (await it.call("list-recent-itwins"))["iTwins"]} <= {where.itwin}
    async with fenced(None) as it:
        assert "note" not in (await it.call("list-itwins"))["page"]


async def test_a_name_finds_nothing_outside() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        assert (await it.call("list-imodels", iTwinId="NL-A12-0042"))["resolved"][0]["id"] == where.itwin
        error = await it.refused("list-imodels", iTwinId="NL-MAAS-0017")
        assert error["code"] == "NameNotFound"
        assert "candidates" not in error
        assert it.naming(where.foreign) == []


async def test_what_reaches_beyond_is_refused_in_a_fence_and_open_without_one() -> None:
    where = await places()
    asset = {"class": "Thing", "subClass": "Asset", "displayName": "A"}
    beyond: dict[str, dict[str, Any]] = {"create-export": {"outputFormat": "Csv"}, "list-exports": {}}
    async with fenced(policy(where)) as it:
        for tool, arguments in (beyond | {"create-itwin": asset}).items():
            assert (await it.refused(tool, **arguments))["code"] == "PolicyRefused"
        assert it.reached == []
    async with fenced(policy(where, itwins="all")) as it:
        for tool, arguments in (beyond | {"create-itwin": asset}).items():
            await it.call(tool, **arguments)
    async with fenced(policy(where, itwins="all", **{"create-itwins": False})) as it:
        assert "making iTwins" in (await it.refused("create-itwin", **asset))["message"]


async def test_what_is_about_the_caller_or_public_is_open_in_a_fence() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        assert (await it.call("get-my-account"))["iTwin"]["id"]
        assert (await it.call("list-global-repositories"))["repositories"]
        assert (await it.call("list-known-permissions"))["permissions"]


async def test_an_itwin_that_a_caller_made_is_theirs_and_nobody_elses() -> None:
    where = await places()
    entries = [
        {"issuer": ISSUER, "subject": name, **entry(where), "create-itwins": name == "anna"}
        for name in ("anna", "bert")
    ]
    made = {"class": "Thing", "subClass": "Asset", "displayName": "Yard", "parentId": where.itwin}
    async with fenced(json.dumps({"itwin-mcp-policy": 1, "callers": entries})) as it:
        other = Caller("bert", ISSUER, "bert")
        assert "making iTwins" in (await it.refused("create-itwin", other, **made))["message"]
        under = await it.refused("create-itwin", ANNA, **made | {"parentId": where.foreign})
        assert under["code"] == "PolicyRefused"
        itwin = (await it.call("create-itwin", ANNA, **made))["iTwin"]["id"]
        assert (await it.call("get-itwin", ANNA, iTwinId=itwin))["iTwin"]["displayName"] == "Yard"
        assert itwin in [one["id"] for one in (await it.call("list-itwins", ANNA))["iTwins"]]
        assert (await it.refused("get-itwin", other, iTwinId=itwin))["code"] == "PolicyRefused"


async def test_jobs_are_followed_inside_the_fence() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        copy = await it.call("clone-imodel", iModelId=where.imodel, iTwinId=where.itwin, name="Copy", wait=30)
        assert copy["iModel"]["iTwinId"] == where.itwin
        assert [one.split("?")[0] for one in it.reached][:4] == [
            f"GET /imodels/{where.imodel}",
            f"POST /imodels/{where.imodel}/clone",
            f"GET /imodels/{copy['iModel']['id']}",
            f"GET /imodels/{copy['iModel']['id']}/operations/create",
        ]


@pytest.mark.parametrize("described", ODD_HOMES, ids=repr)
async def test_odd_answer_about_where_an_imodel_is_lets_nothing_pass(
    described: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        answer = Sandbox.answer

        def odd(self: Sandbox, request: Any, body: bytes, upload: Any = None) -> Any:
            whole = answer(self, request, body, upload)
            words = {"ITWIN": where.itwin, "IMODEL": where.foreign_imodel, "OTHER": where.imodel}
            text = json.dumps(described)
            for word, identifier in words.items():
                text = text.replace(word, identifier)
            return replace(whole, body=json.loads(text)) if request.url.path.startswith("/imodels") else whole

        monkeypatch.setattr(Sandbox, "answer", odd)
        for tool in ("get-imodel", "list-changesets", "create-named-version"):
            more = {"name": "Late"} if tool.startswith("create") else {}
            error = await it.refused(tool, iModelId=where.foreign_imodel, **more)
            assert error["code"] in ("PolicyRefused", "UnexpectedAnswer")
        assert {one.split("?")[0] for one in it.reached} == {f"GET /imodels/{where.foreign_imodel}"}


async def test_answers_that_contradict_each_other_about_an_imodel_are_not_believed() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        homes = it.runtime.gatekeeper.homes
        listing = Request("GET", "https://api.bentley.com", "/imodels")
        homes.learn(listing, {"iModels": [{"id": where.foreign_imodel, "iTwinId": where.itwin}]})
        homes.learn(listing, {"iModels": [{"id": where.foreign_imodel, "iTwinId": where.foreign}]})
        assert (await it.refused("get-imodel", iModelId=where.foreign_imodel))["code"] == "PolicyRefused"
        assert homes.known(where.foreign_imodel) == where.foreign


async def test_location_of_a_copy_does_not_say_where_another_imodel_is(monkeypatch: pytest.MonkeyPatch) -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        answer = Sandbox.answer

        def swapped(self: Sandbox, request: Any, body: bytes, upload: Any = None) -> Any:
            whole = answer(self, request, body, upload)
            link = {"Location": f"/imodels/{where.foreign_imodel}"}
            return replace(whole, headers={**whole.headers, **link}) if request.method == "POST" else whole

        monkeypatch.setattr(Sandbox, "answer", swapped)
        error = await it.refused("clone-imodel", iModelId=where.imodel, iTwinId=where.itwin, name="Copy", wait=30)
    assert error["code"] == "PolicyRefused"
    assert error["job"]["iModelId"] == where.foreign_imodel
    foreign = [one.split("?")[0] for one in it.naming(where.foreign_imodel)]
    assert foreign == [f"GET /imodels/{where.foreign_imodel}"]


async def test_resources_are_fenced_as_tools_are() -> None:
    where = await places()
    async with fenced(policy(where), Started.STDIO) as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor, runtime.session)) as client:
            assert (await client.read_resource(f"itwin://itwins/{where.itwin}")).contents
            it.reached.clear()
            with pytest.raises(Exception, match="none of the iTwins that are allowed"):
                await client.read_resource(f"itwin://itwins/{where.foreign}")
        assert it.reached == []


# --- how often --------------------------------------------------------------------------------------------------


async def test_writes_are_counted_when_they_are_sent_and_come_back_after_an_hour() -> None:
    where = await places()
    async with fenced(policy(where, **{"writes-per-hour": 2})) as it:
        time = [1_000.0]
        it.runtime.gatekeeper.budgets._now = lambda: time[0]
        assert (await it.refused("update-itwin", iTwinId=where.foreign, type="a"))["code"] == "PolicyRefused"
        await it.call("update-itwin", iTwinId=where.itwin, type="a")
        time[0] += 600
        await it.call("update-itwin", iTwinId=where.itwin, type="b")
        await it.call("get-itwin", iTwinId=where.itwin)
        it.reached.clear()
        error = await it.refused("update-itwin", iTwinId=where.itwin, type="c")
        assert (error["code"], error["retryable"], error["retryAfterSeconds"]) == ("BudgetSpent", True, 3000.0)
        assert "2 an hour" in error["message"]
        assert it.reached == []
        time[0] += 3000
        await it.call("update-itwin", iTwinId=where.itwin, type="c")
        assert (await it.refused("update-itwin", iTwinId=where.itwin, type="d"))["retryAfterSeconds"] == 600.0


async def test_calls_at_the_same_time_share_the_budget() -> None:
    where = await places()
    async with fenced(policy(where, **{"writes-per-hour": 3})) as it:
        codes: list[str] = []

        async def write(number: int) -> None:
            try:
                await it.call("update-itwin", iTwinId=where.itwin, type=f"Type {number}")
                codes.append("done")
            except PolicyRefused as error:
                codes.append(error.code)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(write, number)
        assert sorted(codes) == ["BudgetSpent"] * 7 + ["done"] * 3
        assert len([one for one in it.reached if one.startswith("PATCH")]) == 3


async def test_no_writes_an_hour_means_none() -> None:
    where = await places()
    async with fenced(policy(where, **{"writes-per-hour": 0})) as it:
        error = await it.refused("update-itwin", iTwinId=where.itwin, type="a")
        assert (error["code"], error["retryable"]) == ("PolicyRefused", False)
        assert it.reached == []


# --- what is approved beforehand --------------------------------------------------------------------------------


async def permit(it: Fenced, tool: str, **arguments: Any) -> str | None:
    """Whether a person need not be asked."""
    described = it.runtime.gatekeeper.tools[tool]
    return (await it.runtime.gatekeeper.gate(tool, LOCAL).permit(described, arguments)).waived


def approve(it: Fenced, *tools: str) -> None:
    """Approve these instead of what the file says: of the shipped tools that ask, none names two iTwins."""
    keeper = it.runtime.gatekeeper
    assert keeper.policy is not None and keeper.policy.default is not None
    approved = tuple(replace(one, tools=frozenset(tools)) for one in keeper.policy.default.pre_approved)
    keeper.policy = replace(keeper.policy, default=replace(keeper.policy.default, pre_approved=approved))


async def test_approval_beforehand_is_for_these_tools_in_these_itwins_up_to_its_cap() -> None:
    where = await places()
    approved = [{"tools": ["release-all-locks"], "itwins": [where.itwin], "per-hour": 1}]
    text = policy(where, itwins=[where.itwin, where.foreign], **{"pre-approved": approved})
    async with fenced(text) as it:
        lock = {"iModelId": where.imodel, "briefcaseId": "2"}
        assert await permit(it, "release-all-locks", **lock) == "policy"
        assert await permit(it, "release-all-locks", **lock | {"iModelId": where.foreign_imodel}) is None
        assert await permit(it, "delete-imodel", iModelId=where.imodel) is None
        approve(it, "fork-imodel")
        assert await permit(it, "fork-imodel", iModelId=where.imodel, iTwinId=where.itwin) == "policy"
        assert await permit(it, "fork-imodel", iModelId=where.imodel, iTwinId=where.foreign) is None
        assert await permit(it, "fork-imodel", iModelId=where.foreign_imodel, iTwinId=where.itwin) is None
        fork = it.runtime.gatekeeper.tools["fork-imodel"]
        assert (await it.runtime.gatekeeper.gate("fork-imodel", LOCAL).permit(fork, {})).waived is None


async def test_what_the_policy_confirmed_is_counted_and_kept_to_its_itwins() -> None:
    where = await places()
    approved = [{"tools": ["release-all-locks"], "itwins": [where.itwin], "per-hour": 1}]
    text = policy(where, itwins=[where.itwin, where.foreign], **{"pre-approved": approved})
    async with fenced(text) as it:
        approve(it, "update-itwin")
        keeper, tool = it.runtime.gatekeeper, it.runtime.gatekeeper.tools["update-itwin"]

        async def write(confirmed: str | None, itwin: str) -> None:
            gate = keeper.gate("update-itwin", LOCAL)
            granted = await gate.permit(tool, {"iTwinId": where.itwin})
            gate.begin(granted, confirmed)
            run = it.runtime.executor._run("update-itwin", None, LOCAL, gate)
            await run.perform(tool.operations[0], {"id": itwin, "type": "Bridge"})

        await write("person", where.itwin)
        assert await permit(it, "update-itwin", iTwinId=where.itwin) == "policy", "a person's word costs no approval"
        with pytest.raises(PolicyRefused, match="none of the iTwins"):
            await write("policy", where.foreign)
        assert await permit(it, "update-itwin", iTwinId=where.itwin) == "policy", "what was refused costs none either"
        await write("policy", where.itwin)
        assert await permit(it, "update-itwin", iTwinId=where.itwin) is None
        await write("person", where.foreign)
        assert len(it.naming(where.foreign)) == 1
    assert [line.get("confirmed") for line in audited() if line["decision"] == "done"] == ["person", "policy", "person"]


# --- what the platform says ---------------------------------------------------------------------------------------


class Scripted:
    """A platform in memory that answers by path, and a record of what it was asked."""

    platform = "https://api.bentley.com"

    def __init__(self, answers: dict[str, Response]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def send(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path} {dict(request.query).get('iTwinId', '')}".strip())
        return self._answers[request.path]


async def scripted(where: Places, answers: dict[str, Response], tool: str, **arguments: Any) -> tuple[Any, list[str]]:
    """The answer or the error of a call, and what was asked."""
    platform, catalog = Scripted(answers), shipped_catalog()
    rule = Rule({"entry": "policy.yaml:2"}, frozenset({where.itwin}), create_itwins=False, allow={"all": ""}, deny={})
    keeper = Gatekeeper(platform, catalog.operations, catalog.tools, Policy("policy.yaml", rule))
    executor = Executor(platform, Seals(lambda: [b"k" * 32]), gatekeeper=keeper)
    try:
        return await executor.call(catalog.tools[tool], arguments), platform.asked
    except CallError as error:
        return {"error": error.to_json(tool)}, platform.asked


def says(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, headers, json.dumps(value).encode() if value is not None else b"")


async def test_a_link_to_a_next_page_of_another_itwin_is_not_followed() -> None:
    where = await places()
    link = f"https://api.bentley.com/imodels?iTwinId={where.foreign}&$top=1&$continuationToken=x"
    page = {"iModels": [{"id": where.imodel, "displayName": "A", "iTwinId": where.itwin}]}
    answers = {"/imodels": says(page | {"_links": {"next": {"href": link}}})}
    answer, asked = await scripted(where, answers, "list-imodels", iTwinId=where.itwin)
    assert len(answer["iModels"]) == 1
    assert answer["page"]["error"]["code"] == "PolicyRefused"
    assert asked == [f"GET /imodels {where.itwin}"]


async def test_a_job_that_leads_to_another_itwins_imodel_is_not_followed() -> None:
    where = await places()
    answers = {
        f"/imodels/{where.imodel}": says({"iModel": {"id": where.imodel, "iTwinId": where.itwin}}),
        f"/imodels/{where.foreign_imodel}": says({"iModel": {"id": where.foreign_imodel, "iTwinId": where.foreign}}),
        f"/imodels/{where.imodel}/baselinefile": says({"baselineFile": {"id": "b", "state": "initialized"}}),
    }
    wait = {"iModelId": where.foreign_imodel, "wait": 1}
    answer, asked = await scripted(where, answers, "wait-for-baseline-file", **wait)
    assert answer["error"]["code"] == "PolicyRefused"
    assert asked == [f"GET /imodels/{where.foreign_imodel}"]


async def test_an_answer_that_says_nothing_of_an_itwin_lets_nothing_pass() -> None:
    where = await places()
    answers = {f"/imodels/{where.imodel}": says({"iModel": {"id": where.imodel, "iTwinId": None}})}
    answer, asked = await scripted(where, answers, "list-locks", iModelId=where.imodel)
    assert answer["error"]["code"] == "PolicyRefused"
    assert asked == [f"GET /imodels/{where.imodel}"]


async def test_a_list_of_itwins_of_another_shape_shows_nothing() -> None:
    where = await places()
    odd = {"iTwins": [{"id": where.foreign}, "x", {"id": 7}, {}], "count": 4, "more": [{"id": where.foreign}]}
    answer, _ = await scripted(where, {"/itwins": says(odd)}, "list-itwins")
    assert answer["iTwins"] == []
    assert where.foreign not in json.dumps(answer)


async def test_a_request_that_the_table_lacks_passes_no_fence_and_another_origin_needs_none() -> None:
    where = await places()
    platform = Scripted({"/storage/folders": says({}), "/x": says({})})
    rule = Rule({"entry": "policy.yaml:2"}, frozenset({where.itwin}), create_itwins=False, allow={"all": ""}, deny={})
    gate = Gatekeeper(platform, {}, {}, Policy("policy.yaml", rule)).gate("list-folders", LOCAL)
    operation = shipped_catalog().operations["imodels-api.get-imodel-details"]

    async def carry(origin: str, path: str) -> Response:
        request = Request("GET", origin, path)
        return await gate.carry(operation, request, lambda: platform.send(request))

    for origin in ("https://api.bentley.com", "https://API.bentley.com:443"):
        with pytest.raises(PolicyRefused, match="beyond"):
            await carry(origin, "/storage/folders")
    assert (await carry("https://weather.example", "/x")).status == 200
    assert platform.asked == ["GET /x"]


async def test_completions_offer_nothing_outside() -> None:
    where = await places()
    async with fenced(policy(where), Started.STDIO) as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor, runtime.session)) as client:
            about = t.ResourceTemplateReference(uri="itwin://itwins/{iTwinId}")
            offered = await client.complete(about, {"name": "iTwinId", "value": ""})
        assert offered.completion.values == [where.itwin]
