"""Policies through the whole server, checked against the requests that reached the sandbox."""

import json
from dataclasses import replace
from typing import Any

import anyio
import mcp.types as t
import pytest
from mcp import Client

from itwin_mcp.errors import PolicyRefused
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.executor.outcome import Failure, Result
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.executor.policy.gatekeeper import Gatekeeper
from itwin_mcp.executor.policy.rules import FENCED, Policy, Rule
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.server.app import build_server
from itwin_mcp.upstream.messages import Request, Response
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
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
    """Return a policy that allows every tool in one iTwin. JSON is valid YAML."""
    return json.dumps({"itwin-mcp-policy": 1, "default": entry(where) | more})


def entry(where: Places) -> dict[str, Any]:
    return {"itwins": [where.itwin], "tools": {"allow": ["all"]}}


# --- callers ----------------------------------------------------------------------------------------------------


async def test_without_a_policy_only_the_local_caller_is_allowed() -> None:
    where = await places()
    async with fenced(None) as it:
        await it.call("update-itwin", iTwinId=where.foreign, type="Bridge")
        it.reached.clear()
        for tool, arguments in (("list-itwins", {}), ("update-itwin", {"iTwinId": where.itwin, "type": "x"})):
            error = await it.refused(tool, ANNA, **arguments)
            assert error["code"] == "PolicyRefused"
            assert "ITWIN_MCP_POLICY" in error["hint"]
        resource = it.runtime.catalog.resources[0]
        outcome = await it.runtime.executor.read(resource, {"iTwinId": where.itwin}, caller=ANNA)
        assert isinstance(outcome, Failure)
        assert outcome.error.code == "PolicyRefused"
        assert it.reached == []


async def test_caller_without_a_policy_entry_is_refused() -> None:
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


async def test_callers_share_no_names_or_budgets() -> None:
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


# --- tools ------------------------------------------------------------------------------------------------------


async def test_denied_tool_is_neither_listed_nor_run() -> None:
    where = await places()
    text = policy(where, tools={"allow": ["toolset:itwins", "toolset:imodels"], "deny": ["delete-imodel"]})
    async with fenced(text, Launcher.STDIO) as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor)) as client:
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


async def test_flow_that_sends_the_writes_of_a_denied_tool_is_denied() -> None:
    where = await places()
    text = policy(where, itwins="all", tools={"allow": ["all"], "deny": ["create-itwin"]})
    async with fenced(text, Launcher.STDIO) as it:
        assert not {"create-itwin", "provision-project"} & it.runtime.catalog.tools.keys()
        error = await it.refused("provision-project", displayName="Pier 7")
        assert error["code"] == "PolicyRefused"
        assert "(policy.yaml:1 denies create-itwin, which sends the same)" in error["message"]
        assert it.reached == []


async def test_dynamic_tools_refuse_denied_tools_and_itwins() -> None:
    where = await places()
    text = policy(where, tools={"allow": ["all"], "deny": ["list-locks"]})
    async with fenced(text, Launcher.STDIO, toolsets="dynamic") as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor)) as client:
            denied = {"name": "list-locks", "arguments": {"iModelId": where.imodel}}
            assert (await client.call_tool("run-reading-tool", denied)).is_error
            foreign = {"name": "get-imodel", "arguments": {"iModelId": where.foreign_imodel}}
            as_text = {**foreign, "arguments": json.dumps(foreign["arguments"])}
            for sent in (foreign, as_text):
                refused = await client.call_tool("run-reading-tool", sent)
                assert refused.structured_content is not None
                assert refused.structured_content["error"]["code"] == "PolicyRefused"
        assert set(it.reached) == {f"GET /imodels/{where.foreign_imodel}? "}


# --- iTwins -----------------------------------------------------------------------------------------------------

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


async def test_policy_stops_every_request_that_names_another_itwin() -> None:
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


async def test_imodel_of_another_itwin_is_refused_without_naming_the_itwin() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        for tool, arguments in OTHER_IMODEL:
            error = await it.refused(tool, **fill(arguments, where))
            assert error["code"] == "PolicyRefused", error
            assert where.foreign not in json.dumps(error)
        # One read serves all calls.
        assert it.naming(where.foreign, where.foreign_imodel) == [f"GET /imodels/{where.foreign_imodel}? "]


async def test_locations_reads_an_imodel_once_and_learns_from_lists() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        await it.call("list-locks", iModelId=where.imodel)
        await it.call("list-briefcases", iModelId=where.imodel)
        assert [one for one in it.reached if one.startswith(f"GET /imodels/{where.imodel}? ")] != []
        assert len(it.naming("/imodels/")) == 3
    async with fenced(policy(where)) as it:
        await it.call("list-imodels", iTwinId=where.itwin)
        await it.call("list-locks", iModelId=where.imodel)
        assert len(it.naming("/imodels")) == 2


async def test_missing_imodel_under_policy_limits_returns_the_platform_error() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        error = await it.refused("delete-imodel", iModelId="99999999-9999-4999-8999-999999999999")
        assert (error["status"], error["code"]) == (404, "iModelNotFound")
        assert [one.split()[0] for one in it.reached] == ["GET"]


async def test_itwin_lists_are_filtered_before_counting_and_paging() -> None:
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


async def test_tools_over_several_itwins_respect_policy_limits() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        for tool in ("list-imodels", "list-stale-imodels", "list-lock-holders", "count-pushes", "list-changesets"):
            answer = await it.call(tool)
            assert where.foreign not in json.dumps(answer), tool
            assert where.foreign_imodel not in json.dumps(answer), tool
            error = await it.refused(tool, iTwinIds=[where.itwin, where.foreign])
            assert error["code"] == "PolicyRefused", tool
        error = await it.refused("list-changesets", iModelIds=[where.imodel, where.foreign_imodel])
        assert error["code"] == "PolicyRefused"
        allowed = [
            one
            for one in it.naming(where.foreign, where.foreign_imodel)
            if f"/imodels/{where.foreign_imodel}?" not in one
        ]
    assert allowed == []


async def test_name_look_up_finds_nothing_outside_policy_limits() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        assert (await it.call("list-imodels", iTwinId="NL-A12-0042"))["resolved"][0]["id"] == where.itwin
        error = await it.refused("list-imodels", iTwinId="NL-MAAS-0017")
        assert error["code"] == "NameNotFound"
        assert "candidates" not in error
        assert it.naming(where.foreign) == []


async def test_account_wide_tools_are_refused_only_under_policy_limits() -> None:
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


async def test_public_and_own_account_tools_are_allowed_under_policy_limits() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        assert (await it.call("get-my-account"))["iTwin"]["id"]
        assert (await it.call("list-global-repositories"))["repositories"]
        assert (await it.call("list-known-permissions"))["permissions"]


async def test_created_itwin_is_allowed_for_its_creator_only() -> None:
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


async def test_jobs_are_followed_within_policy_limits() -> None:
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
async def test_odd_location_of_an_imodel_is_refused(described: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_contradicting_locations_of_an_imodel_are_read_again() -> None:
    where = await places()
    async with fenced(policy(where)) as it:
        locations = it.runtime.gatekeeper.locations
        listing = Request("GET", "https://api.bentley.com", "/imodels")
        locations.learn(LOCAL, listing, {"iModels": [{"id": where.foreign_imodel, "iTwinId": where.itwin}]})
        locations.learn(LOCAL, listing, {"iModels": [{"id": where.foreign_imodel, "iTwinId": where.foreign}]})
        assert (await it.refused("get-imodel", iModelId=where.foreign_imodel))["code"] == "PolicyRefused"
        assert locations.find_cached(LOCAL, "imodel", where.foreign_imodel) == where.foreign


async def test_location_header_of_a_copy_is_not_trusted_for_another_imodel(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_resources_of_other_itwins_are_refused_under_policy_limits() -> None:
    where = await places()
    async with fenced(policy(where), Launcher.STDIO) as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor)) as client:
            assert (await client.read_resource(f"itwin://itwins/{where.itwin}")).contents
            it.reached.clear()
            with pytest.raises(Exception, match="none of the iTwins that are allowed"):
                await client.read_resource(f"itwin://itwins/{where.foreign}")
        assert it.reached == []


# --- budgets ----------------------------------------------------------------------------------------------------


async def test_writes_per_hour_counts_sent_writes_for_an_hour() -> None:
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


async def test_concurrent_calls_share_writes_per_hour() -> None:
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


async def test_writes_per_hour_zero_refuses_every_write() -> None:
    where = await places()
    async with fenced(policy(where, **{"writes-per-hour": 0})) as it:
        error = await it.refused("update-itwin", iTwinId=where.itwin, type="a")
        assert (error["code"], error["retryable"]) == ("PolicyRefused", False)
        assert it.reached == []


# --- pre-approved -----------------------------------------------------------------------------------------------


async def permit(it: Fenced, tool: str, **arguments: Any) -> str | None:
    """Return who waives the question, or None if the user must be asked."""
    described = it.runtime.gatekeeper.tools[tool]
    return (await it.runtime.gatekeeper.gate(tool, LOCAL).authorize(described, arguments)).waived


def approve(it: Fenced, *tools: str) -> None:
    """Replace the pre-approved tools of the file, because no shipped tool that asks names two iTwins."""
    keeper = it.runtime.gatekeeper
    assert keeper.policy is not None and keeper.policy.default is not None
    approved = tuple(replace(one, tools=frozenset(tools)) for one in keeper.policy.default.pre_approved)
    keeper.policy = replace(keeper.policy, default=replace(keeper.policy.default, pre_approved=approved))


async def test_pre_approved_waives_only_its_tools_in_its_itwins() -> None:
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
        assert (await it.runtime.gatekeeper.gate("fork-imodel", LOCAL).authorize(fork, {})).waived is None


async def test_pre_approved_counts_only_calls_that_the_policy_confirmed() -> None:
    where = await places()
    approved = [{"tools": ["release-all-locks"], "itwins": [where.itwin], "per-hour": 1}]
    text = policy(where, itwins=[where.itwin, where.foreign], **{"pre-approved": approved})
    async with fenced(text) as it:
        approve(it, "update-itwin")
        keeper, tool = it.runtime.gatekeeper, it.runtime.gatekeeper.tools["update-itwin"]

        async def write(confirmed: str | None, itwin: str) -> None:
            gate = keeper.gate("update-itwin", LOCAL)
            granted = await gate.authorize(tool, {"iTwinId": where.itwin})
            run = replace(it.runtime.executor._begin("update-itwin", None, LOCAL), gate=gate.under(granted, confirmed))
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


async def test_pre_approvals_on_one_line_have_separate_budgets() -> None:
    where = await places()
    approved = [
        {"tools": [tool], "itwins": [where.itwin], "per-hour": 1} for tool in ("release-all-locks", "delete-imodel")
    ]
    async with fenced(policy(where, **{"pre-approved": approved})) as it:
        keeper = it.runtime.gatekeeper
        assert keeper.policy is not None and keeper.policy.default is not None
        first, second = keeper.policy.default.pre_approved
        assert first.place == second.place
        keeper.policy = replace(
            keeper.policy,
            default=replace(
                keeper.policy.default,
                pre_approved=(replace(first, tools=frozenset({"update-itwin"})), second),
            ),
        )
        tool = keeper.tools["update-itwin"]
        gate = keeper.gate("update-itwin", LOCAL)
        granted = await gate.authorize(tool, {"iTwinId": where.itwin})
        run = replace(it.runtime.executor._begin("update-itwin", None, LOCAL), gate=gate.under(granted, "policy"))
        await run.perform(tool.operations[0], {"id": where.itwin, "type": "Bridge"})
        assert await permit(it, "update-itwin", iTwinId=where.itwin) is None
        assert await permit(it, "delete-imodel", iModelId=where.imodel) == "policy"


# --- answers of the platform --------------------------------------------------------------------------------------


class Scripted:
    """A platform in memory that answers by path and records its requests."""

    platform = "https://api.bentley.com"

    def __init__(self, answers: dict[str, Response]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def send(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path} {dict(request.query).get('iTwinId', '')}".strip())
        return self._answers[request.path]


async def scripted(where: Places, answers: dict[str, Response], tool: str, **arguments: Any) -> tuple[Any, list[str]]:
    """Return the answer or the error of a call, and the requests that it sent."""
    platform, catalog = Scripted(answers), shipped_catalog()
    rule = Rule({"entry": "policy.yaml:2"}, frozenset({where.itwin}), create_itwins=False, allow={"all": ""}, deny={})
    keeper = Gatekeeper(platform, catalog.tools, Policy("policy.yaml", rule))
    executor = Executor(platform, Seals(lambda: [b"k" * 32]), gatekeeper=keeper)
    outcome = await executor.call(catalog.tools[tool], arguments)
    assert isinstance(outcome, Result | Failure)
    return outcome.answer, platform.asked


def response_of(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, headers, json.dumps(value).encode() if value is not None else b"")


async def test_next_link_into_another_itwin_is_not_followed() -> None:
    where = await places()
    link = f"https://api.bentley.com/imodels?iTwinId={where.foreign}&$top=1&$continuationToken=x"
    page = {"iModels": [{"id": where.imodel, "displayName": "A", "iTwinId": where.itwin}]}
    answers = {"/imodels": response_of(page | {"_links": {"next": {"href": link}}})}
    answer, asked = await scripted(where, answers, "list-imodels", iTwinId=where.itwin)
    assert len(answer["iModels"]) == 1
    assert answer["page"]["error"]["code"] == "PolicyRefused"
    assert asked == [f"GET /imodels {where.itwin}"]


async def test_job_of_an_imodel_of_another_itwin_is_not_followed() -> None:
    where = await places()
    answers = {
        f"/imodels/{where.imodel}": response_of({"iModel": {"id": where.imodel, "iTwinId": where.itwin}}),
        f"/imodels/{where.foreign_imodel}": response_of(
            {"iModel": {"id": where.foreign_imodel, "iTwinId": where.foreign}}
        ),
        f"/imodels/{where.imodel}/baselinefile": response_of({"baselineFile": {"id": "b", "state": "initialized"}}),
    }
    wait = {"iModelId": where.foreign_imodel, "wait": 1}
    answer, asked = await scripted(where, answers, "wait-for-baseline-file", **wait)
    assert answer["error"]["code"] == "PolicyRefused"
    assert asked == [f"GET /imodels/{where.foreign_imodel}"]


async def test_imodel_without_an_itwin_is_refused_under_policy_limits() -> None:
    where = await places()
    answers = {f"/imodels/{where.imodel}": response_of({"iModel": {"id": where.imodel, "iTwinId": None}})}
    answer, asked = await scripted(where, answers, "list-locks", iModelId=where.imodel)
    assert answer["error"]["code"] == "PolicyRefused"
    assert asked == [f"GET /imodels/{where.imodel}"]


async def test_itwin_list_of_an_unexpected_shape_is_emptied_under_policy_limits() -> None:
    where = await places()
    odd = {"iTwins": [{"id": where.foreign}, "x", {"id": 7}, {}], "count": 4, "more": [{"id": where.foreign}]}
    answer, _ = await scripted(where, {"/itwins": response_of(odd)}, "list-itwins")
    assert answer["iTwins"] == []
    assert where.foreign not in json.dumps(answer)


async def test_unknown_platform_path_is_refused_and_another_origin_is_allowed() -> None:
    where = await places()
    platform = Scripted({"/storage/folders": response_of({}), "/x": response_of({})})
    rule = Rule({"entry": "policy.yaml:2"}, frozenset({where.itwin}), create_itwins=False, allow={"all": ""}, deny={})
    gate = Gatekeeper(platform, {}, Policy("policy.yaml", rule)).gate("list-folders", LOCAL)
    operation = shipped_catalog().operations["imodels-api.get-imodel-details"]

    async def pass_request(origin: str, path: str) -> Response:
        request = Request("GET", origin, path)
        return await gate.pass_request(operation, request, lambda: platform.send(request))

    for origin in ("https://api.bentley.com", "https://API.bentley.com:443"):
        with pytest.raises(PolicyRefused, match="beyond"):
            await pass_request(origin, "/storage/folders")
    assert (await pass_request("https://weather.example", "/x")).status == 200
    assert platform.asked == ["GET /x"]


async def test_completions_offer_nothing_outside_policy_limits() -> None:
    where = await places()
    async with fenced(policy(where), Launcher.STDIO) as it:
        runtime = it.runtime
        async with Client(build_server(runtime.catalog, runtime.executor)) as client:
            about = t.ResourceTemplateReference(uri="itwin://itwins/{iTwinId}")
            offered = await client.complete(about, {"name": "iTwinId", "value": ""})
        assert offered.completion.values == [where.itwin]
