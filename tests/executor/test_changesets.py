"""The argument `changeset`: every text that it accepts, sent in the form that each operation takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import CapabilityError
from itwin_mcp.executor.context import Caller
from tests.executor.bench import IMODEL, ITWIN, MADE, Bench, bench, linked, never, query_of, saying, shipped_catalog
from tests.upstream.loopback import Asked, Handler

pytestmark = pytest.mark.anyio
OTHER = "44444444-4444-4444-8444-444444444444"
ID = {index: f"{index:040x}" for index in range(1, 1200)}
BASELINE_VERSION = {"id": OTHER, "name": "Start", "changesetId": None, "changesetIndex": 0}
TENDER = {"id": MADE, "name": "Tender", "changesetId": ID[2], "changesetIndex": 2}
CLONE = {"iTwinId": ITWIN, "wait": 0}
LOCK = {"briefcaseId": 2, "objectIds": ["0x1"]}


def history(
    waiting: Sequence[int] = (),
    last: int = 3,
    versions: Sequence[Mapping[str, Any]] = (TENDER, BASELINE_VERSION),
    **odd: Any,
) -> Handler:
    """Serve an iModel with changesets up to `last`. Those in `waiting` have no file yet."""

    def changeset(index: int) -> dict[str, Any]:
        state = "waitingForFile" if index in waiting else "fileUploaded"
        return {"id": ID[index], "index": index, "state": state, **odd}

    async def answer(asked: Asked) -> None:
        path, query = asked.target.partition("?")[0], query_of(asked)
        kind, _, end = path.removeprefix(f"/imodels/{IMODEL}/").partition("/")
        if asked.method != "GET":
            version = {"id": MADE, "name": "x", "state": "visible", "changesetId": None, "changesetIndex": 0}
            await asked.json(
                201,
                {
                    "namedVersion": version,
                    "iModel": {"id": MADE},
                    "lock": {},
                    "isLastChunk": True,
                    "briefcase": {"id": "2", "briefcaseId": 2},
                },
                {"Location": f"/imodels/{MADE}"},
            )
        elif kind == "changesets" and not end:
            assert query["$orderBy"] == "index desc"
            newest = min(last, int(query.get("lastIndex", last)))
            listed = [changeset(index) for index in range(newest, 0, -1)]
            await asked.json(200, {"changesets": listed[: int(query["$top"])]})
        elif end.endswith("/checkpoint"):
            await asked.json(200, {"checkpoint": {}})
        elif kind == "changesets":
            await asked.json(200, {"changeset": changeset(int(end, 16 if len(end) == 40 else 10))})
        elif kind == "namedversions" and not end:
            await asked.json(
                200, {"namedVersions": [version for version in versions if version["name"] == query["name"]]}
            )
        elif kind == "namedversions":
            found = next(version for version in versions if version["id"] == end)
            await asked.json(200, {"namedVersion": found})
        else:
            await asked.json(200, {"iModel": {"id": IMODEL}, "users": [], "locks": [], "briefcase": {"id": "2"}})

    return answer


EMPTY: Mapping[str, Mapping[str, Any]] = {
    "clone-imodel": {"iModelId": IMODEL, **CLONE},
    "fork-imodel": {"iModelId": IMODEL, **CLONE},
    "create-imodel-from-template": {"templateIModelId": IMODEL, **CLONE, "name": "x"},
    "acquire-locks": {"iModelId": IMODEL, **LOCK},
    "release-locks": {"iModelId": IMODEL, **LOCK},
    "release-all-locks": {"iModelId": IMODEL, "briefcaseId": 2},
    "start-authoring-session": {"iModelId": IMODEL, "objectIds": ["0x1"]},
    "end-authoring-session": {"iModelId": IMODEL, "briefcaseId": 2},
}
"""Tools that send an empty id for the baseline, with their other required arguments."""


def body_of(it: Bench) -> dict[str, Any]:
    """Return the body of the last request."""
    body: dict[str, Any] = json.loads(it.server.requests[-1].body)
    return body


def sent_changeset(it: Bench) -> str | None:
    """Return the changesetId in the last request with a body."""
    body = [json.loads(request.body) for request in it.server.requests if request.body][-1]
    return body.get("template", body).get("changesetId")


INDEX_3 = {"id": ID[3], "index": 3}
INDEX_2 = {"id": ID[2], "index": 2}
WAYS = [
    ("latest", ID[3], INDEX_3, 1),
    (" “Latest” ", ID[3], INDEX_3, 1),
    ("{" + ID[2].upper() + "}", ID[2], {"id": ID[2]}, 0),
    ("2", None, {"index": 2}, 0),
    (f"https://api.bentley.com/imodels/{IMODEL}/changesets/2", None, {"index": 2}, 0),
    (f"itwin://imodels/{IMODEL}/changesets/{ID[2]}", ID[2], {"id": ID[2]}, 0),
    (f"https://api.bentley.com/imodels/{IMODEL}/namedversions/{MADE}", ID[2], INDEX_2, 1),
    (MADE, ID[2], INDEX_2, 1),
    ("Tender", ID[2], INDEX_2, 1),
]


@pytest.mark.parametrize(("given", "identifier", "told", "requests"), WAYS)
async def test_changeset_in_a_path_is_sent_as_id_or_index(
    given: str, identifier: str | None, told: dict[str, Any], requests: int
) -> None:
    async with bench("", history(), shipped_files=True) as it:
        answer = await it.call("get-changeset", iModelId=IMODEL, changeset=given)
        assert it.asked[-1] == f"GET /imodels/{IMODEL}/changesets/{identifier or 2}"
        assert len(it.asked) == requests + 1
        expected = [] if given == "2" else [{"argument": "changeset", "given": given, **told}]
        assert answer.get("resolved", []) == expected


@pytest.mark.parametrize(("given", "identifier", "told", "requests"), WAYS)
async def test_changeset_in_a_body_is_sent_as_id(
    given: str, identifier: str | None, told: dict[str, Any], requests: int
) -> None:
    if identifier is None:  # an index, which the operation does not take
        identifier, told, requests = ID[2], INDEX_2, 1
    async with bench("", history(), shipped_files=True) as it:
        answer = await it.call("create-named-version", iModelId=IMODEL, name="x", changeset=given)
        assert body_of(it) == {"name": "x", "changesetId": identifier}
        assert len(it.asked) == requests + 1
        assert answer["resolved"] == [{"argument": "changeset", "given": given, **told}]


BASELINES = [
    *("baseline", " 'BASELINE'", "0", "00", "Start"),
    f"https://api.bentley.com/imodels/{IMODEL}/changesets/0",
    f"itwin://imodels/{IMODEL}/namedversions/{OTHER}",
]


@pytest.mark.parametrize("given", BASELINES)
async def test_baseline_is_sent_in_the_form_of_each_operation(given: str) -> None:
    told = [{"argument": "changeset", "given": given, "index": 0}]
    async with bench("", history(), shipped_files=True) as it:
        assert (await it.call("create-named-version", iModelId=IMODEL, name="x", changeset=given))["resolved"] == told
        assert body_of(it) == {"name": "x"}
        for tool, arguments in EMPTY.items():
            await it.call(tool, **arguments, changeset=given)
            assert sent_changeset(it) == "", tool
        await it.call("get-changeset-checkpoint", iModelId=IMODEL, changeset=given)
        assert it.asked[-1] == f"GET /imodels/{IMODEL}/changesets/0/checkpoint"


@pytest.mark.parametrize("given", BASELINES)
@pytest.mark.parametrize("tool", ["get-changeset", "download-changeset", "get-extended-data", "create-extended-data"])
async def test_baseline_is_rejected_by_tools_that_need_a_changeset(tool: str, given: str, tmp_path: Path) -> None:
    more = {"download-changeset": {"filePath": str(tmp_path / "1.cs")}, "create-extended-data": {"data": {}}}
    async with bench("", history(), shipped_files=True, roots=[tmp_path]) as it:
        error = await it.refused(tool, iModelId=IMODEL, changeset=given, **more.get(tool, {}))
        assert (error["code"], error["details"][0]["target"]) == ("InvalidArguments", "changeset")
        assert f"is the baseline, which {tool} does not take" in error["message"]
        assert "list-changesets" in error["hint"]
        assert len(it.asked) == (1 if given == "Start" or "namedversions" in given else 0)


@pytest.mark.parametrize("tool", EMPTY)
async def test_omitted_changeset_sends_no_extra_request_and_no_id(tool: str) -> None:
    async with bench("", history(), shipped_files=True) as it:
        await it.call(tool, **EMPTY[tool])
        assert [request for request in it.asked if "/changesets" in request or "/namedversions" in request] == []
        assert sent_changeset(it) is None


async def test_create_named_version_marks_the_latest_changeset_by_default() -> None:
    async with bench("", history(), shipped_files=True) as it:
        answer = await it.call("create-named-version", iModelId=IMODEL, name="x")
        assert body_of(it)["changesetId"] == ID[3]
        assert answer["resolved"] == [{"argument": "changeset", "given": "latest", **INDEX_3}]
        assert len(it.asked) == 2
        schema = it.catalog.tools["create-named-version"].input_schema
        assert schema["properties"]["changeset"]["default"] == "latest"
        others = [
            tool for tool in it.catalog.tools.values() for argument in tool.arguments if argument.name == "changeset"
        ]
        assert [tool.name for tool in others if "default" in tool.input_schema["properties"]["changeset"]] == [
            "create-named-version"
        ]


@pytest.mark.parametrize(
    ("waiting", "last", "index", "pages"),
    [
        ([], 3, 3, 1),
        ([3], 3, 2, 1),
        ([1, 2, 3], 3, 0, 1),
        ([], 0, 0, 1),
        (range(4, 10), 9, 3, 2),
        (range(1, 6), 5, 0, 1),
        (range(1, 107), 106, 0, 3),
        (range(3, 1105), 1104, 2, 3),
    ],
)
async def test_latest_resolves_to_the_newest_uploaded_changeset(
    waiting: Sequence[int], last: int, index: int, pages: int
) -> None:
    async with bench("", history(waiting, last), shipped_files=True) as it:
        answer = await it.call("create-named-version", iModelId=IMODEL, name="x")
        assert answer["resolved"][0]["index"] == index
        assert body_of(it).get("changesetId") == (ID[index] if index else None)
        assert len(it.asked) == pages + 1


async def test_latest_gives_up_after_three_pages() -> None:
    async with bench("", history(range(1, 1200), 1199), shipped_files=True) as it:
        error = await it.refused("create-named-version", iModelId=IMODEL, name="x")
        assert (error["code"], len(it.asked)) == ("NameNotFound", 3)


ODD: list[Mapping[str, Any]] = [
    *({"state": None}, {"state": 7}, {"id": None}, {"id": "../x"}, {"index": None}, {"index": [3]}, {"id": "3"}),
]


@pytest.mark.parametrize("odd", ODD)
async def test_latest_with_an_odd_changeset_is_an_unexpected_answer(odd: Mapping[str, Any]) -> None:
    async with bench("", history(**odd), shipped_files=True) as it:
        error = await it.refused("create-named-version", iModelId=IMODEL, name="x")
        assert error["code"] == "UnexpectedAnswer"
        assert "create-named-version itself was not called" in error["hint"]
        assert all(request.startswith("GET ") for request in it.asked)


@pytest.mark.parametrize("body", [{}, {"changesets": None}, {"changesets": [None]}, []])
async def test_latest_without_a_changeset_list_is_an_unexpected_answer(body: Any) -> None:
    async with bench("", saying(200, body), shipped_files=True) as it:
        error = await it.refused("create-named-version", iModelId=IMODEL, name="x")
        assert (error["code"], len(it.asked)) == ("UnexpectedAnswer", 1)


@pytest.mark.parametrize(
    "odd", [{"changesetIndex": None}, {"changesetIndex": 4}, {"changesetId": "x"}, {"changesetId": 5}]
)
async def test_named_version_with_odd_changeset_is_not_the_baseline(odd: Mapping[str, Any]) -> None:
    version = {**BASELINE_VERSION, **odd}
    if "changesetIndex" not in odd:
        version["changesetIndex"] = 4
    async with bench("", history(versions=[version]), shipped_files=True) as it:
        for given in ("Start", OTHER):
            error = await it.refused("clone-imodel", iModelId=IMODEL, **CLONE, changeset=given)
            assert error["code"] == "UnexpectedAnswer"
        assert all(request.startswith("GET ") for request in it.asked)


async def test_latest_accepts_an_index_as_text() -> None:
    async with bench("", history(index="3"), shipped_files=True) as it:
        answer = await it.call("create-named-version", iModelId=IMODEL, name="x")
        assert answer["resolved"][0] == {"argument": "changeset", "given": "latest", **INDEX_3}


async def test_changeset_by_version_name_is_exact_and_cached_unlike_latest() -> None:
    async with bench("", history(), shipped_files=True) as it:
        for given, requests in (("Tender", 2), ("Tender", 1), ("latest", 2), ("latest", 2)):
            before = len(it.asked)
            await it.call("get-changeset", Caller("a"), iModelId=IMODEL, changeset=given)
            assert len(it.asked) - before == requests
        for given in ("tender", "'Tender'", "Tender ", "12th of May"):
            error = await it.refused("get-changeset", iModelId=IMODEL, changeset=given)
            assert error["code"] == "NameNotFound"
            assert f"no named version in the iModel {IMODEL}" in error["message"]
            assert "list-named-versions" in error["hint"]


async def test_ambiguous_version_name_lists_candidates() -> None:
    twins = [TENDER, {**TENDER, "id": OTHER}]
    async with bench("", history(versions=twins), shipped_files=True) as it:
        error = await it.refused("get-changeset", iModelId=IMODEL, changeset="Tender")
        assert error["code"] == "AmbiguousName"
        assert [candidate["id"] for candidate in error["candidates"]] == [MADE, OTHER]


async def test_changeset_words_ids_and_indexes_take_precedence_over_names() -> None:
    versions = [{**TENDER, "name": name} for name in ("latest", "baseline", "3", ID[3])]
    async with bench("", history(versions=versions), shipped_files=True) as it:
        for given, taken in (("latest", ID[3]), ("3", "3"), (ID[3], ID[3])):
            await it.call("get-changeset", iModelId=IMODEL, changeset=given)
            assert it.asked[-1].endswith(f"/changesets/{taken}")
        await it.call("get-changeset-checkpoint", iModelId=IMODEL, changeset="baseline")
        assert it.asked[-1].endswith("/changesets/0/checkpoint")


@pytest.mark.parametrize(
    "given",
    [
        *("", "a\nb", "x" * 256, "https://evil.example/imodels/1/changesets/3"),
        f"https://api.bentley.com/imodels/{IMODEL}/changesets/extendeddata",
        f"https://developer.bentley.com/my-itwins/{ITWIN}/{IMODEL}",
        *(f"itwin://imodels/{MADE}/changesets/3", f" 'https://api.bentley.com/imodels/{MADE}/changesets/3'"),
        f"https://developer.bentley.com/my-itwins/{ITWIN}/{MADE}/changesets/3",
    ],
)
async def test_invalid_changeset_is_rejected_without_a_request(given: str) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused("get-changeset", iModelId=IMODEL, changeset=given)
        assert (error["code"], error["details"][0]["target"]) == ("InvalidArguments", "changeset")


async def test_link_to_a_named_version_of_another_imodel_is_rejected() -> None:
    async with bench("", history(), shipped_files=True) as it:
        link = f"https://api.bentley.com/imodels/{OTHER}/namedversions/{MADE}"
        error = await it.refused("clone-imodel", iModelId=IMODEL, **CLONE, changeset=link)
        assert f"is a link into the imodel {OTHER}" in error["message"]
        assert it.asked == []


async def test_changeset_of_clone_or_template_is_looked_up_in_its_source() -> None:
    async with bench("", history(), shipped_files=True) as it:
        link = f"https://developer.bentley.com/my-itwins/{OTHER}/{IMODEL}/changesets/{ID[2]}"
        for given in ("Tender", link, "2"):
            for tool in ("clone-imodel", "create-imodel-from-template"):
                await it.call(tool, **EMPTY[tool], changeset=given)
                assert sent_changeset(it) == ID[2]
        assert {request.split("/")[2].partition("?")[0] for request in it.asked if request.startswith("GET ")} == {
            IMODEL
        }


async def test_failed_changeset_look_up_says_that_the_tool_was_not_called() -> None:
    refusal = {"error": {"code": "ChangesetNotFound", "message": "Requested Changeset is not available."}}
    async with bench("", saying(404, refusal), shipped_files=True) as it:
        for given in ("latest", "7", MADE, "Tender"):
            error = await it.refused("clone-imodel", iModelId=IMODEL, **CLONE, changeset=given)
            assert (error["code"], error["status"]) == ("ChangesetNotFound", 404)
            assert "clone-imodel itself was not called" in error["hint"]


def test_every_changeset_argument_is_named_changeset() -> None:
    changeset = shipped_catalog().entities["changeset"]
    for tool in shipped_catalog().tools.values():
        for argument in tool.arguments:
            if tool.name == "push-changeset":
                assert argument.entity is not changeset
            else:
                assert argument.name.lower() not in ("changesetid", "changesetindex", "templatechangesetid"), tool.name
                assert (argument.name == "changeset") == (argument.entity is changeset), tool.name
                assert argument.entity is not changeset or "latest, " in str(argument.schema["description"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{kind: imodel, takes: id}", "only an entity with a `sequence` has a form"),
        ("{kind: changeset, takes: index}", "'index' is not one of"),
        ("{kind: changset}", "there is no entity 'changset': did you mean 'changeset'?"),
        ("{takes: id}", "the key 'kind' is missing"),
        ("[changeset]", "must be text or a mapping"),
    ],
)
def test_x_entity_form_is_checked(word: str, message: str) -> None:
    with pytest.raises(CapabilityError) as refused:
        linked("things.yaml", {"x-entity: itwin}": f"x-entity: {word}}}"})
    assert message in str(refused.value)
