"""Locks: shared and exclusive, conflicts, newer changesets, release in chunks, pages that count objects."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.operations import OPERATIONS, Operation
from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import ORIGIN

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ROADS = f"/imodels/{seeded_id('imodel', 'roads')}"
LOCKS = f"{ROADS}/locks"


async def acquire(http: httpx2.AsyncClient) -> int:
    number: int = (await http.post(f"{ROADS}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    return number


async def changeset(http: httpx2.AsyncClient, index: int) -> str:
    found: str = (await http.get(f"{ROADS}/changesets/{index}")).json()["changeset"]["id"]
    return found


async def lock(http: httpx2.AsyncClient, number: int, level: str, *ids: str, **more: object) -> httpx2.Response:
    body = {"briefcaseId": number, "lockedObjects": [{"lockLevel": level, "objectIds": ids}]}
    return await http.patch(LOCKS, json=body | more)


async def held(http: httpx2.AsyncClient, number: int) -> list[dict[str, Any]]:
    locks = (await http.get(f"{LOCKS}?briefcaseId={number}")).json()["locks"]
    assert len(locks) <= 1
    return locks[0]["lockedObjects"] if locks else []


async def test_locks_are_acquired_in_groups(http: httpx2.AsyncClient) -> None:
    number = await acquire(http)
    wanted = [
        {"lockLevel": "exclusive", "objectIds": ["0xbb"]},
        {"lockLevel": "shared", "objectIds": ["0xaa"]},
    ]
    answer = await http.patch(LOCKS, json={"briefcaseId": number, "lockedObjects": wanted})
    assert (answer.status_code, answer.json()) == (200, {"lock": {"briefcaseId": number, "lockedObjects": wanted}})
    assert await held(http, number) == wanted


async def test_a_released_lock_is_gone_and_cannot_be_released_again(http: httpx2.AsyncClient) -> None:
    number = await acquire(http)
    await lock(http, number, "exclusive", "0xcc")
    released = await lock(http, number, "none", "0xcc", changesetId=await changeset(http, 1))
    assert released.json() == {"lock": {"briefcaseId": number, "lockedObjects": []}}
    again = await lock(http, number, "none", "0xcc")
    assert again.status_code == 404
    assert again.json()["error"] == {"code": "LockNotFound", "message": "Requested Lock(s) is not available."}


async def test_shared_locks_stand_together_and_an_exclusive_one_alone(http: httpx2.AsyncClient) -> None:
    first, second = await acquire(http), await acquire(http)
    assert (await lock(http, first, "shared", "0x5")).status_code == 200
    assert (await lock(http, second, "shared", "0x5")).status_code == 200
    answer = await lock(http, first, "exclusive", "0x5", "0x6")
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "code": "ConflictWithAnotherUser",
        "message": "Lock(s) is owned by another Briefcase.",
        "conflictingLocks": [{"objectId": "0x5", "lockLevel": "shared", "briefcaseIds": [second]}],
    }
    assert await held(http, first) == [{"lockLevel": "shared", "objectIds": ["0x5"]}]  # nothing of it was done
    await lock(http, second, "none", "0x5")
    assert (await lock(http, first, "exclusive", "0x5")).status_code == 200
    refused = (await lock(http, second, "shared", "0x5")).json()["error"]["conflictingLocks"]
    assert refused == [{"objectId": "0x5", "lockLevel": "exclusive", "briefcaseIds": [first]}]


async def test_a_shared_lock_from_an_older_changeset_is_not_refused(http: httpx2.AsyncClient) -> None:
    first, second = await acquire(http), await acquire(http)
    await lock(http, first, "exclusive", "0x5", changesetId=await changeset(http, 6))
    await lock(http, first, "none", "0x5", changesetId=await changeset(http, 6))
    assert (await lock(http, second, "shared", "0x5", changesetId=await changeset(http, 5))).status_code == 200
    assert (await lock(http, second, "exclusive", "0x5", changesetId=await changeset(http, 5))).status_code == 409


async def test_an_object_changed_in_a_newer_changeset_is_not_locked_from_an_older_one(
    http: httpx2.AsyncClient,
) -> None:
    first, second = await acquire(http), await acquire(http)
    fifth, sixth = await changeset(http, 5), await changeset(http, 6)
    await lock(http, first, "exclusive", "0x5", "0x6", changesetId=sixth)
    await lock(http, first, "none", "0x5", changesetId=sixth)
    await lock(http, first, "none", "0x6", changesetId="")  # abandoned, not changed
    for base in (fifth, ""):
        answer = await lock(http, second, "exclusive", "0x5", "0x6", changesetId=base)
        assert answer.status_code == 409
        assert answer.json()["error"] == {
            "code": "NewerChangesExist",
            "message": "One or more objects have been locked in a newer Changeset.",
            "objectIds": ["0x5"],
        }
    assert (await lock(http, second, "exclusive", "0x5", "0x6", changesetId=sixth)).status_code == 200


@pytest.mark.parametrize(
    ("imodel", "change", "code"),
    [
        ("invalid%20iModel%20id", {}, "iModelNotFound"),
        (None, {"briefcaseId": 0}, "BriefcaseNotFound"),
        (None, {"changesetId": "a" * 40}, "ChangesetNotFound"),
    ],
)
async def test_what_is_missing_is_named(
    http: httpx2.AsyncClient, imodel: str | None, change: dict[str, object], code: str
) -> None:
    objects = [{"lockLevel": "shared", "objectIds": ["0x2"]}]
    body = {"briefcaseId": await acquire(http), "lockedObjects": objects} | change
    answer = await http.patch(f"/imodels/{imodel}/locks" if imodel else LOCKS, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


@pytest.mark.parametrize(
    "objects",
    [
        None,
        [],
        "0x1",
        [{"lockLevel": "wide", "objectIds": ["0x1"]}],
        [{"lockLevel": "shared", "objectIds": []}],
        [{"lockLevel": "shared", "objectIds": ["one"]}],
        [{"lockLevel": "shared", "objectIds": ["0x1"]}, {"lockLevel": "none", "objectIds": ["0x1"]}],
        [{"lockLevel": "shared", "objectIds": [hex(number) for number in range(1001)]}],
    ],
)
async def test_locks_that_cannot_be_are_refused(http: httpx2.AsyncClient, objects: object) -> None:
    answer = await http.patch(LOCKS, json={"briefcaseId": await acquire(http), "lockedObjects": objects})
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "Cannot update Locks.")


async def test_locks_of_others_are_released_by_a_manager_and_never_acquired(
    http: httpx2.AsyncClient, http_as: Connect
) -> None:
    sync = http_as("service-meridian-design-sync")
    number = await acquire(sync)
    await lock(sync, number, "exclusive", "0x7")
    assert (await lock(http, number, "exclusive", "0x8")).status_code == 403
    assert (await lock(http, number, "none", "0x7")).status_code == 200
    assert (await lock(http_as("priya"), number, "none", "0x7")).status_code == 403


async def test_a_page_counts_objects_and_a_lock_goes_on_over_pages(http: httpx2.AsyncClient) -> None:
    pages, url = [], f"{LOCKS}?$top=3&$continuationToken="
    while url:
        page = (await http.get(url)).json()
        pages.append([(one["briefcaseId"], one["lockedObjects"]) for one in page["locks"]])
        url = page["_links"]["next"] and page["_links"]["next"]["href"]
    assert pages == [
        [
            (
                2,
                [
                    {"lockLevel": "exclusive", "objectIds": ["0x2000000001a", "0x20000000021"]},
                    {"lockLevel": "shared", "objectIds": ["0x1"]},
                ],
            )
        ],
        [
            (2, [{"lockLevel": "shared", "objectIds": ["0x10"]}]),
            (4, [{"lockLevel": "shared", "objectIds": ["0x1"]}]),
        ],
    ]


async def test_the_list_is_narrowed_by_briefcase_and_level(http: httpx2.AsyncClient) -> None:
    shared = (await http.get(f"{LOCKS}?lockLevel=shared")).json()["locks"]
    assert [one["briefcaseId"] for one in shared] == [2, 4]
    assert (await http.get(f"{LOCKS}?briefcaseId=500")).json()["locks"] == []
    for query in ("lockLevel=none", "briefcaseId=x"):
        assert (await http.get(f"{LOCKS}?{query}")).status_code == 422


async def test_all_locks_of_a_briefcase_are_released_chunk_by_chunk(http: httpx2.AsyncClient) -> None:
    number = await acquire(http)
    for start in (0x1000, 0x2000):
        assert (await lock(http, number, "exclusive", *(hex(start + one) for one in range(1000)))).status_code == 200
    await lock(http, number, "shared", "0x9999")
    body = {"briefcaseId": number, "changesetId": await changeset(http, 12)}
    chunks = [(await http.post(f"{LOCKS}/release-chunk", json=body)).json() for _ in range(3)]
    assert chunks == [{"isLastChunk": False}, {"isLastChunk": False}, {"isLastChunk": True}]
    assert await held(http, number) == []
    assert (await http.post(f"{LOCKS}/release-chunk", json=body)).json() == {"isLastChunk": True}


async def test_a_released_briefcase_holds_no_lock(http: httpx2.AsyncClient) -> None:
    number = await acquire(http)
    await lock(http, number, "exclusive", "0x77")
    await http.delete(f"{ROADS}/briefcases/{number}")
    assert (await lock(http, await acquire(http), "exclusive", "0x77")).status_code == 200


async def test_released_locks_are_those_that_nobody_holds_any_more(http: httpx2.AsyncClient) -> None:
    number, last = await acquire(http), await changeset(http, 12)
    await lock(http, number, "exclusive", "0xa", "0xb", "0xc", "0xd")
    await lock(http, number, "shared", "0xe")
    await lock(http, number, "none", "0xa", "0xb", "0xe", changesetId=last)
    await lock(http, number, "shared", "0xc", changesetId=last)  # demoted
    await lock(http, number, "none", "0xd")  # abandoned
    await lock(http, number, "shared", "0xb")  # held again
    path = f"{LOCKS}/released-locks?afterChangesetIndex"
    assert (await http.get(f"{path}=11")).json()["releasedLocks"] == [
        {"lockLevel": "exclusive", "objectIds": ["0xa"]},
        {"lockLevel": "shared", "objectIds": ["0xe"]},
    ]
    assert (await http.get(f"{path}=12")).json()["releasedLocks"] == []
    missing = (await http.get(f"{LOCKS}/released-locks")).json()["error"]["details"]
    assert [(one["code"], one["target"]) for one in missing] == [("MissingRequiredParameter", "afterChangesetIndex")]


_PROPERTIES = (
    "id", "parentId", "briefcaseId", "fileSize", "containingChanges", "synchronizationInfo", "groupId", "state", "data",
    "description", "deviceName", "changesetId", "lockedObjects", "name",
)  # fmt: skip
_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.just("a" * 40) | st.just("0x1")
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("lockLevel", "objectIds", "taskId", "changedFiles")), inner, max_size=4)
    ),
    max_leaves=8,
)
_WORDS = ("changesets", "changesetgroups", "namedversions", "briefcases", "locks")
_TIMELINE = [one for one in OPERATIONS if any(f"}}/{word}" in one.path for word in _WORDS)]


@settings(max_examples=200)
@given(
    operation=st.sampled_from(_TIMELINE),
    slot=st.sampled_from(["0", "2", "5", "x", "9" * 12, "a" * 40]),
    query=st.dictionaries(
        st.sampled_from(("ownerId", "briefcaseId", "lockLevel", "afterChangesetIndex", "$orderBy", "$top")), st.text()
    ),
    body=st.dictionaries(st.sampled_from(_PROPERTIES), _JSON, max_size=8),
)
async def test_nothing_in_a_body_makes_the_timeline_fail(
    sandbox: Sandbox, operation: Operation, slot: str, query: dict[str, str], body: dict[str, object]
) -> None:
    path = operation.path.replace("/imodels/{iModelId}", ROADS)
    path = "/".join(slot if part.startswith("{") else part for part in path.split("/"))
    headers = {"Authorization": f"Bearer {sandbox.token()}"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(sandbox.app), base_url=ORIGIN, headers=headers
    ) as http:
        answer = await http.request(operation.method, path, params=query, json=body)
    assert answer.status_code < 500
