"""Names, numbers, links and presets instead of ids: how they are resolved, reported and rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from itwin_mcp.capability.parameters import Preset, apply_presets
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.names import SECONDS
from tests.conftest import shipped_catalog
from tests.executor.bench import IMODEL, ITWIN, MADE, bench, never, query_of
from tests.upstream.loopback import Asked, Handler

pytestmark = pytest.mark.anyio
ENTITIES = shipped_catalog().entities
NAMED = {"itwin", "imodel", "named-version", "user", "owner", "role", "repository"}
OTHER = "44444444-4444-4444-8444-444444444444"
BRIDGE = {"id": ITWIN, "displayName": "Bridge 7", "number": "B-7", "subClass": "Project"}
TWIN = {"id": OTHER, "displayName": "Bridge 7", "number": "B-8", "subClass": "Asset"}
STEEL = {"id": IMODEL, "name": "Steel", "iTwinId": ITWIN}

UNSENT = [
    *("a\x00b", "a\nb", "a\x7fb", "a\x9fb", "   "),
    *("n" * 256, "https://evil.example/itwins/1", f"https://evil.example/itwins/{ITWIN}"),
    *("https://api.bentley.com/itwins", f"https://api.bentley.com/imodels/{IMODEL}", "itwin://imodels/x"),
]
NO_IDS = [
    *("..", ".", "a/b", "../x", "../../imodels/x", "a?b=c", "a#b", "100%", "60% Design", "%2e%2e", "%2F..%2f", "a\\b"),
    *("javascript:/x", "//evil.example/x", f"../imodels/{IMODEL}", f"{IMODEL}/..", f"%20{IMODEL}"),
]
"""Names that would climb or add a segment if they were put into a path."""


def platform(
    itwins: Sequence[Mapping[str, Any]] = (BRIDGE,), imodels: Sequence[Mapping[str, Any]] = (STEEL,), **lists: Any
) -> Handler:
    """Serve lists that filter by number, displayName and name; every other path is a single entity."""

    async def answer(asked: Asked) -> None:
        path, query = asked.target.partition("?")[0], query_of(asked)
        if path == "/itwins/":
            path = "/itwins"
        if path == "/itwins":
            name, value = ("number", query["number"]) if "number" in query else ("displayName", query["displayName"])
            found = [one for one in itwins if str(one[name]).lower() == value.lower()]
            await asked.json(200, {"iTwins": found})
        elif path == "/itwins/recents":
            await asked.json(200, {"iTwins": list(itwins)[:1]})
        elif path == "/imodels":
            await asked.json(200, {"iModels": [one for one in imodels if one["name"] == query["name"]]})
        elif path.endswith("/namedversions"):
            found = [one for one in lists["versions"] if one["name"] == query["name"]]
            await asked.json(200, {"namedVersions": found})
        elif path.endswith("/users"):
            await asked.json(200, {"users": lists["users"]})
        elif path.startswith("/itwins/"):
            await asked.json(200, {"iTwin": {"id": path.rpartition("/")[2]}})
        elif path.startswith("/imodels/") and "/users/" in path:
            await asked.json(200, {"user": {"id": path.rpartition("/")[2]}})
        elif path.startswith("/imodels/") and "/changesets/" in path:
            await asked.json(200, {"changeset": {"id": "c" * 40, "index": 3}})
        elif path.startswith("/imodels/") and "/namedversions/" in path:
            await asked.json(200, {"namedVersion": {"id": path.rpartition("/")[2]}})
        else:
            await asked.json(200, {"iModel": {"id": path.split("/")[2]}})

    return answer


async def test_id_needs_no_look_up_and_is_not_in_resolved() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        assert "resolved" not in await it.call("get-itwin", iTwinId=ITWIN)
        assert it.asked == [f"GET /itwins/{ITWIN}"]


@pytest.mark.parametrize(
    "link",
    [
        f"https://api.bentley.com/itwins/{ITWIN.upper()}",
        f"itwin://itwins/{ITWIN}",
        f"https://x.bentley.com/a/iTwins/{ITWIN}/b",
    ],
)
async def test_link_is_parsed_and_never_followed(link: str) -> None:
    async with bench("", platform(), shipped_files=True) as it:
        answer = await it.call("get-itwin", iTwinId=link)
        assert answer["resolved"] == [{"argument": "iTwinId", "given": link, "id": ITWIN}]
        assert it.asked == [f"GET /itwins/{ITWIN}"]


@pytest.mark.parametrize(
    ("given", "requests", "more"), [("B-7", 1, {"by": "number", "name": "Bridge 7"}), ("Bridge 7", 2, {})]
)
async def test_itwin_is_resolved_by_number_then_by_name(given: str, requests: int, more: dict[str, str]) -> None:
    async with bench("", platform(), shipped_files=True) as it:
        answer = await it.call("get-itwin", iTwinId=given)
        assert answer["iTwin"]["id"] == ITWIN
        assert answer["resolved"] == [{"argument": "iTwinId", "given": given, "id": ITWIN, **more}]
        assert len(it.asked) == requests + 1
        assert query_of(it.server.requests[0])["number"] == given


@pytest.mark.parametrize("text", UNSENT)
@pytest.mark.parametrize("tool", ["get-itwin", "list-imodels"])
async def test_impossible_name_is_rejected_without_a_request(tool: str, text: str) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused(tool, iTwinId=text)
        assert error["code"] == "InvalidArguments"
        assert error["details"][0]["target"] == "iTwinId"
        assert it.asked == []


@pytest.mark.parametrize("text", NO_IDS)
async def test_name_that_looks_like_a_path_is_sent_only_in_a_query(text: str) -> None:
    version = {"id": MADE, "name": text}
    async with bench("", platform(versions=[version]), shipped_files=True) as it:
        found = await it.call("get-named-version", iModelId=IMODEL, namedVersionId=text)
        assert found["resolved"] == [{"argument": "namedVersionId", "given": text, "id": MADE}]
        assert (await it.refused("get-itwin", iTwinId=text))["code"] == "NameNotFound"
        paths = [asked.target.partition("?")[0] for asked in it.server.requests]
        versions = f"/imodels/{IMODEL}/namedversions"
        assert paths == [versions, f"{versions}/{MADE}", "/itwins", "/itwins"]
        assert query_of(it.server.requests[0])["name"] == text
        assert query_of(it.server.requests[2])["number"] == text


@pytest.mark.parametrize("text", NO_IDS)
@pytest.mark.parametrize(
    ("tool", "argument"),
    [("get-changeset-group", "changesetGroupId"), ("get-imodel-user", "userId")],
)
async def test_text_that_looks_like_a_path_is_rejected_where_only_ids_are_valid(
    tool: str, argument: str, text: str
) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused(tool, iModelId=IMODEL, **{argument: text})
        assert (error["code"], error["details"][0]["target"]) == ("InvalidArguments", argument)
        assert it.asked == []


UPPER, HEX = ITWIN.upper(), ITWIN.replace("-", "")


@pytest.mark.parametrize(
    "given",
    [
        *(f" {ITWIN} ", f"\t{ITWIN}\r\n", f"\u00a0{ITWIN}\u2003", f"\u3000{ITWIN}\u2009"),
        *(f"{{{ITWIN}}}", f"{{ {UPPER} }}", f'"{ITWIN}"', f"'{ITWIN}'", f"`{ITWIN}`"),
        *(f"\u201c{ITWIN}\u201d", f"\u201e{ITWIN}\u201c", f"\u2018{ITWIN}\u2019", f"\u00ab {ITWIN} \u00bb"),
        f" '{{{ITWIN}}}'\n",
        *(f"urn:uuid:{ITWIN}", f"URN:UUID:{UPPER}", f"{{urn:uuid:{HEX}}}", HEX, HEX.upper(), f"'{HEX}'"),
        *(f" https://api.bentley.com/itwins/{ITWIN} ", f'"https://api.bentley.com/itwins/{ITWIN}"'),
        *(f"https://api.bentley.com/itwins/{HEX}", f"\u201citwin://itwins/{UPPER}\u201d"),
        *(f"https://developer.bentley.com/my-itwins/{ITWIN}", f"https://developer.bentley.com/my-itwins/{UPPER}/"),
        *(f"https://developer.bentley.com/My-iTwins/{ITWIN}/{IMODEL}/view?x=1#y",
          f"https://developer.bentley.com/my-itwins/{ITWIN}/imodels"),
    ],
)  # fmt: skip
async def test_known_id_accepts_pasted_ids(given: str) -> None:
    async with bench("", platform(), shipped_files=True) as it:
        answer = await it.call("get-itwin", iTwinId=given)
        assert answer["resolved"] == [{"argument": "iTwinId", "given": given, "id": ITWIN}]
        assert it.asked == [f"GET /itwins/{ITWIN}"]


@pytest.mark.parametrize(
    ("tool", "more", "argument", "given", "path"),
    [
        ("get-imodel", {}, "iModelId", f"https://developer.bentley.com/my-itwins/{ITWIN}/{IMODEL}", ""),
        ("get-imodel", {}, "iModelId", f"https://developer.bentley.com/my-itwins/{OTHER}/{IMODEL.upper()}/view", ""),
        ("get-named-version", {"iModelId": f"\u201c{IMODEL}\u201d"}, "namedVersionId", "{" + MADE + "}",
         f"/namedversions/{MADE}"),
        ("get-imodel-user", {"iModelId": IMODEL}, "userId", MADE.replace("-", ""), f"/users/{MADE}"),
        ("get-itwin-member", {"iTwinId": ITWIN}, "memberId", f"“{MADE}”", f"/members/users/{MADE}"),
        ("get-share", {"iModelId": IMODEL}, "shareId", "\u00a0'Ab_1'", "/shares/Ab_1"),
    ],
)  # fmt: skip
async def test_known_id_accepts_pasted_ids_of_every_entity(
    tool: str, more: dict[str, str], argument: str, given: str, path: str
) -> None:
    async with bench("", never, shipped_files=True) as it:
        sent = it.executor.first_request(it.catalog.tools[tool], {**more, argument: given})
        assert sent.path in (f"/imodels/{IMODEL}{path}", f"/accesscontrol/itwins/{ITWIN}{path}")


@pytest.mark.parametrize(
    "given",
    [
        *(ITWIN[:-1], f"{ITWIN[:8]}{ITWIN[9:]}", f"urn:{ITWIN}", f"[{ITWIN}]", f"{{{ITWIN}", f"{ITWIN}\u2019"),
        "\u0661" * 32,
    ],
)
async def test_known_id_takes_other_texts_as_names(given: str) -> None:
    async with bench("", platform(), shipped_files=True) as it:
        assert (await it.refused("get-itwin", iTwinId=given))["code"] == "NameNotFound"
        assert [query_of(asked).get("number") for asked in it.server.requests] == [given, None]


@pytest.mark.parametrize(
    "link",
    [
        f"https://developer.bentley.com/my-itwins/{ITWIN}",
        f"https://developer.bentley.com/my-itwins/{ITWIN}/imodels",
        f"https://evil.example/my-itwins/{ITWIN}/{IMODEL}",
        f"'https://evil.example/my-itwins/{ITWIN}/{IMODEL}'",
    ],
)
async def test_portal_link_without_an_imodel_is_rejected(link: str) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused("get-imodel", iModelId=link)
        assert (error["code"], "is a link, but has no id" in error["message"]) == ("InvalidArguments", True)


async def test_portal_link_to_a_source_may_be_in_another_itwin() -> None:
    async with bench("", never, shipped_files=True) as it:
        link = f"https://developer.bentley.com/my-itwins/{OTHER}/{IMODEL}"
        sent = it.executor.first_request(it.catalog.tools["clone-imodel"], {"iModelId": link, "iTwinId": ITWIN})
        assert sent.path == f"/imodels/{IMODEL}/clone"


@pytest.mark.parametrize(
    ("tool", "given", "argument"),
    [
        ("get-changeset", {"iModelId": IMODEL, "changeset": f"https://api.bentley.com/imodels/{MADE}/changesets/3"},
         "changeset"),
        ("get-changeset", {"iModelId": IMODEL, "changeset": f"itwin://imodels/{MADE}/changesets/3"}, "changeset"),
        ("get-changeset", {"iModelId": IMODEL, "changeset": f"'itwin://imodels/{MADE}/changesets/3'\u00a0"},
         "changeset"),
        ("get-named-version", {"iModelId": IMODEL, "namedVersionId": f"itwin://imodels/{MADE}/namedversions/{OTHER}"},
         "namedVersionId"),
        ("get-repository",
         {"iTwinId": ITWIN, "repositoryId": f"https://api.bentley.com/itwins/{OTHER}/repositories/forms"},
         "repositoryId"),
        ("get-repository-resource",
         {"iTwinId": ITWIN, "repositoryId": OTHER,
          "resourceId": f"https://api.bentley.com/itwins/{ITWIN}/repositories/forms/resources/1"},
         "resourceId"),
    ],
)  # fmt: skip
async def test_link_into_another_imodel_itwin_or_repository_is_rejected(
    tool: str, given: dict[str, str], argument: str
) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused(tool, **given)
        assert (error["code"], error["details"][0]["target"]) == ("InvalidArguments", argument)
        assert "is a link into the" in error["message"]
        assert it.asked == []
        with pytest.raises(InvalidArguments, match="is a link into the"):
            it.executor.first_request(it.catalog.tools[tool], given)


async def test_link_into_the_imodel_of_the_call_is_accepted() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        link = f"https://api.bentley.com/imodels/{IMODEL.upper()}/changesets/3"
        await it.call("get-changeset", iModelId="Steel", changeset=link)
        assert it.asked[-1] == f"GET /imodels/{IMODEL}/changesets/3"


async def test_name_with_reserved_characters_is_quoted_in_the_query() -> None:
    name = "Brücke & Söhne=1 + “2”; $filter 'x'"
    async with bench("", platform([{**BRIDGE, "displayName": name}]), shipped_files=True) as it:
        assert (await it.call("get-itwin", iTwinId=name))["iTwin"]["id"] == ITWIN
        assert [query_of(asked).get("displayName") for asked in it.server.requests] == [None, name, None]
        assert it.server.requests[-1].target == f"/itwins/{ITWIN}"


async def test_ambiguous_name_lists_candidates() -> None:
    many = [{**TWIN, "id": f"44444444-4444-4444-8444-{index:012d}"} for index in range(11)]
    async with bench("", platform([BRIDGE, *many]), shipped_files=True) as it:
        error = await it.refused("list-imodels", iTwinId="Bridge 7")
        assert error["code"] == "AmbiguousName"
        assert error["target"] == "iTwinId"
        assert error["candidates"][0] == BRIDGE
        assert len(error["candidates"]) == 10
        assert "12" in error["message"]
        assert len(it.asked) == 2


async def test_name_not_found_hints_and_lists_names_that_differ_in_case() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        error = await it.refused("get-itwin", iTwinId="Tunnel")
        assert (error["code"], "candidates" in error) == ("NameNotFound", False)
        assert "find-itwin" in error["hint"]
        near = await it.refused("get-itwin", iTwinId="BRIDGE 7")
        assert (near["code"], near["candidates"]) == ("NameNotFound", [BRIDGE])
        assert len(it.asked) == 4


async def test_candidates_of_an_ambiguous_name_are_cleaned() -> None:
    evil = {**TWIN, "number": "B\u202e-8\U000e0041"}
    async with bench("", platform([BRIDGE, evil]), shipped_files=True) as it:
        error = await it.refused("get-itwin", iTwinId="Bridge 7")
        assert error["candidates"][1]["number"] == "B-8"


async def test_invalid_id_from_a_look_up_is_not_put_into_a_path() -> None:
    async with bench("", platform([{**BRIDGE, "id": "../imodels"}]), shipped_files=True) as it:
        assert (await it.refused("get-itwin", iTwinId="B-7"))["code"] == "NameNotFound"
        assert all(asked.startswith(("GET /itwins?", "GET /itwins/?")) for asked in it.asked)


async def test_imodel_name_is_resolved_in_the_itwin_of_the_call() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        tool = it.catalog.tools["get-imodel"]
        both = replace(tool, arguments=(*tool.arguments, it.catalog.tools["get-itwin"].arguments[0]))
        run = it.executor._begin("get-imodel", None, Caller("a"))
        given = {"iModelId": "Steel", "iTwinId": "B-7"}
        arguments, resolved = await it.executor._names.resolve(run, both, given, given)
        assert arguments == {"iModelId": IMODEL, "iTwinId": ITWIN}
        assert [one["argument"] for one in resolved] == ["iModelId", "iTwinId"]
        assert query_of(it.server.requests[1])["iTwinId"] == ITWIN


async def test_imodel_name_is_resolved_in_the_itwin_of_the_settings() -> None:
    async with bench("", platform(), shipped_files=True, itwin_id=OTHER) as it:
        answer = await it.call("get-imodel", iModelId="Steel")
        assert answer["resolved"] == [{"argument": "iModelId", "given": "Steel", "id": IMODEL}]
        assert len(it.asked) == 2
        assert query_of(it.server.requests[0])["iTwinId"] == OTHER


async def test_imodel_name_is_resolved_in_the_most_recent_itwin() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        answer = await it.call("get-imodel", iModelId="Steel")
        assert answer["resolved"][0]["searched"] == f"the iTwin {ITWIN}, which you used last"
        assert len(it.asked) == 3
        error = await it.refused("get-imodel", iModelId="Concrete")
        assert error["code"] == "NameNotFound"
        assert ITWIN in error["message"]
        assert len(it.asked) == 4


async def test_imodel_name_without_a_recent_itwin_takes_one_request() -> None:
    async with bench("", platform([]), shipped_files=True) as it:
        assert (await it.refused("get-imodel", iModelId="Steel"))["code"] == "NameNotFound"
        assert len(it.asked) == 1


async def test_source_of_a_copy_is_not_resolved_in_the_target_itwin() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        error = await it.refused("clone-imodel", iModelId="Concrete", iTwinId=OTHER, wait=0)
        assert error["code"] == "NameNotFound"
        assert query_of(it.server.requests[1])["iTwinId"] == ITWIN
        assert all(asked.startswith("GET ") for asked in it.asked)


async def test_named_version_is_resolved_by_name_in_its_imodel() -> None:
    async with bench("", platform(versions=[{"id": MADE, "name": "Tender"}]), shipped_files=True) as it:
        answer = await it.call("get-named-version", iModelId=IMODEL, namedVersionId="Tender")
        assert answer["resolved"] == [{"argument": "namedVersionId", "given": "Tender", "id": MADE}]
        assert it.server.requests[0].target.startswith(f"/imodels/{IMODEL}/namedversions?")
        assert len(it.asked) == 2


async def test_user_is_resolved_by_email_only() -> None:
    users = [{"id": MADE, "email": "Ann@Example.com"}, {"id": OTHER, "email": "bo@example.com"}]
    async with bench("", platform(users=users), shipped_files=True) as it:
        answer = await it.call("get-imodel-user", iModelId=IMODEL, userId="ann@example.com")
        assert answer["resolved"][0]["id"] == MADE
        assert len(it.asked) == 2
        refused = await it.refused("get-imodel-user", iModelId=IMODEL, userId="Ann")
        assert (refused["code"], len(it.asked)) == ("InvalidArguments", 2)


async def test_itwin_number_takes_precedence_over_the_name_of_another() -> None:
    async with bench("", platform([BRIDGE, {**TWIN, "number": "Bridge 7", "displayName": "Quay"}]),
                     shipped_files=True) as it:  # fmt: skip
        for _ in range(2):
            answer = await it.call("get-itwin", iTwinId="Bridge 7")
            told = {"argument": "iTwinId", "given": "Bridge 7", "id": OTHER, "by": "number", "name": "Quay"}
            assert answer["resolved"] == [told]


async def test_owner_accepts_me_id_or_email() -> None:
    users = [{"id": MADE, "email": "Ann@Example.com"}]
    briefcases = {"briefcases": []}

    async def answer(asked: Asked) -> None:
        await asked.json(200, {"users": users} if "/users" in asked.target else briefcases)

    async with bench("", answer, shipped_files=True) as it:
        for given, meant in (("me", "me"), (MADE, MADE), ("ann@example.com", MADE)):
            await it.call("list-briefcases", iModelId=IMODEL, ownerId=given)
            assert query_of(it.server.requests[-1])["ownerId"] == meant
        assert len(it.asked) == 4
        error = await it.refused("list-briefcases", iModelId=IMODEL, ownerId="Ann")
        assert (error["code"], len(it.asked)) == ("InvalidArguments", 4)


async def test_changeset_index_needs_no_look_up() -> None:
    async with bench("", never, shipped_files=True) as it:
        sent = it.executor.first_request(it.catalog.tools["get-changeset"], {"iModelId": IMODEL, "changeset": "12"})
        assert sent.path.endswith("/changesets/12")


async def test_resolved_name_is_cached_for_a_minute_per_caller() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        for caller, requests in (("a", 2), ("a", 1), ("b", 2)):
            before = len(it.asked)
            await it.call("get-itwin", Caller(caller), iTwinId="B-7")
            assert len(it.asked) - before == requests
        it.clock.time += SECONDS
        before = len(it.asked)
        await it.call("get-itwin", Caller("a"), iTwinId="B-7")
        assert len(it.asked) - before == 2


async def test_write_clears_the_cached_names_of_its_caller() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        await it.call("get-itwin", iTwinId="B-7")
        await it.call("update-itwin", iTwinId="B-7", displayName="Bridge 8")
        assert len(it.asked) == 3
        await it.call("get-itwin", iTwinId="B-7")
        assert len(it.asked) == 5


async def test_failed_look_up_says_that_the_tool_was_not_called() -> None:
    async def refuse(asked: Asked) -> None:
        await asked.json(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})

    async with bench("", refuse, shipped_files=True) as it:
        error = await it.refused("update-itwin", iTwinId="B-7", displayName="x")
        assert error["status"] == 403
        assert "update-itwin itself was not called" in error["hint"]
        assert len(it.asked) == 1


async def test_first_request_rejects_names_that_need_a_look_up() -> None:
    async with bench("", never, shipped_files=True) as it:
        tools, would = it.catalog.tools, "if it is a name, a call would have to look for it"
        with pytest.raises(InvalidArguments, match=f"'B-7' is neither an id .*; {would}; nothing was sent"):
            it.executor.first_request(tools["get-itwin"], {"iTwinId": "B-7"})
        for tool, more in (("get-changeset", {"changeset": "B-7"}), ("create-named-version", {"name": "x"})):
            with pytest.raises(InvalidArguments, match=r"'(B-7|latest)' would have to be looked up; nothing was sent"):
                it.executor.first_request(tools[tool], {"iModelId": IMODEL, **more})
        assert it.asked == []


# --- presets ----------------------------------------------------------------------------------------------------


async def test_preset_replaces_an_omitted_id_and_is_in_resolved() -> None:
    async with bench("", platform(), shipped_files=True) as it:
        it.catalog = apply_presets(it.catalog, {"iTwinId": Preset("ITWIN_ID", ITWIN)})
        answer = await it.call("get-itwin")
        assert answer["resolved"] == [{"argument": "iTwinId", "given": ITWIN, "id": ITWIN, "preset": "ITWIN_ID"}]
        other = await it.call("get-itwin", iTwinId=OTHER)
        assert (other["iTwin"]["id"], "resolved" in other) == (OTHER, False)


def test_with_presets_changes_schemas_except_of_destructive_tools() -> None:
    catalog = shipped_catalog()
    preset = apply_presets(catalog, {"iTwinId": Preset("ITWIN_ID", ITWIN), "iModelId": Preset("IMODEL_ID", IMODEL)})
    assert preset.tools["get-imodel"].input_schema.get("required") is None
    assert preset.tools["get-imodel"].input_schema["properties"]["iModelId"]["default"] == IMODEL
    for name, tool in preset.tools.items():
        before = catalog.tools[name]
        if tool.annotations.destructive or "minProperties" in tool.rule:
            assert tool is before
        if name in ("wait-for-imodel", "get-imodel-creation"):
            assert tool is before, "the new iModel is not the one of the setting"
        required = {one.name for one in tool.arguments if one.required}
        assert set(tool.input_schema.get("required", ())) == required
        assert {one.name for one in before.arguments if one.required} - required <= {"iTwinId", "iModelId"}


# --- the texts --------------------------------------------------------------------------------------------------


def test_argument_descriptions_offer_a_name_only_if_it_is_looked_up() -> None:
    for tool in shipped_catalog().tools.values():
        for one in tool.arguments:
            text = str(one.schema.get("description"))
            named = one.entity is not None and one.entity.kind in NAMED
            if one.entity is ENTITIES["user"] and not any(
                other.entity is ENTITIES["imodel"] for other in tool.arguments
            ):
                named = False  # an e-mail address is looked for in an iModel
            if one.entity is not None:
                words = (", name or link", ", names or links", ", e-mail or link")
                assert any(word in text for word in words) == named, (tool.name, one.name, text)


def test_tools_in_look_up_hints_exist() -> None:
    named = {word for entity in ENTITIES.values() for word in re.findall(r"[a-z]+(?:-[a-z]+)+", entity.hint)}
    assert {"find-itwin", "find-imodel", "list-named-versions", "list-imodel-users"} <= named
    assert named <= shipped_catalog().tools.keys()


async def test_error_lists_every_impossible_name() -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused("get-named-version", iModelId="\x00", namedVersionId="\x01")
    assert [detail["target"] for detail in error["details"]] == ["iModelId", "namedVersionId"]
    assert "iModelId" in error["message"] and "namedVersionId" in error["message"]
