"""Locks: levels, conflicts, newer changesets, release in chunks, pages."""

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


async def acquire_briefcase(http: httpx2.AsyncClient) -> int:
    number: int = (await http.post(f"{ROADS}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    return number


async def get_changeset(http: httpx2.AsyncClient, index: int) -> str:
    changeset_id: str = (await http.get(f"{ROADS}/changesets/{index}")).json()["changeset"]["id"]
    return changeset_id


async def set_lock(http: httpx2.AsyncClient, number: int, level: str, *ids: str, **fields: object) -> httpx2.Response:
    body = {"briefcaseId": number, "lockedObjects": [{"lockLevel": level, "objectIds": ids}]}
    return await http.patch(LOCKS, json=body | fields)


async def list_held(http: httpx2.AsyncClient, number: int) -> list[dict[str, Any]]:
    locks = (await http.get(f"{LOCKS}?briefcaseId={number}")).json()["locks"]
    assert len(locks) <= 1
    return locks[0]["lockedObjects"] if locks else []


async def test_update_locks_acquires_several_levels_at_once(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    objects = [
        {"lockLevel": "exclusive", "objectIds": ["0xbb"]},
        {"lockLevel": "shared", "objectIds": ["0xaa"]},
    ]
    answer = await http.patch(LOCKS, json={"briefcaseId": number, "lockedObjects": objects})
    assert (answer.status_code, answer.json()) == (200, {"lock": {"briefcaseId": number, "lockedObjects": objects}})
    assert await list_held(http, number) == objects


async def test_released_lock_cannot_be_released_again(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    await set_lock(http, number, "exclusive", "0xcc")
    released = await set_lock(http, number, "none", "0xcc", changesetId=await get_changeset(http, 1))
    assert released.json() == {"lock": {"briefcaseId": number, "lockedObjects": []}}
    again = await set_lock(http, number, "none", "0xcc")
    assert again.status_code == 404
    assert again.json()["error"] == {"code": "LockNotFound", "message": "Requested Lock(s) is not available."}


async def test_exclusive_lock_conflicts_and_shared_locks_do_not(http: httpx2.AsyncClient) -> None:
    first, second = await acquire_briefcase(http), await acquire_briefcase(http)
    assert (await set_lock(http, first, "shared", "0x5")).status_code == 200
    assert (await set_lock(http, second, "shared", "0x5")).status_code == 200
    answer = await set_lock(http, first, "exclusive", "0x5", "0x6")
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "code": "ConflictWithAnotherUser",
        "message": "Lock(s) is owned by another Briefcase.",
        "conflictingLocks": [{"objectId": "0x5", "lockLevel": "shared", "briefcaseIds": [second]}],
    }
    assert await list_held(http, first) == [{"lockLevel": "shared", "objectIds": ["0x5"]}]  # nothing has changed
    await set_lock(http, second, "none", "0x5")
    assert (await set_lock(http, first, "exclusive", "0x5")).status_code == 200
    conflicts = (await set_lock(http, second, "shared", "0x5")).json()["error"]["conflictingLocks"]
    assert conflicts == [{"objectId": "0x5", "lockLevel": "exclusive", "briefcaseIds": [first]}]


async def test_shared_lock_from_an_older_changeset_is_granted(http: httpx2.AsyncClient) -> None:
    first, second = await acquire_briefcase(http), await acquire_briefcase(http)
    await set_lock(http, first, "exclusive", "0x5", changesetId=await get_changeset(http, 6))
    await set_lock(http, first, "none", "0x5", changesetId=await get_changeset(http, 6))
    assert (await set_lock(http, second, "shared", "0x5", changesetId=await get_changeset(http, 5))).status_code == 200
    assert (
        await set_lock(http, second, "exclusive", "0x5", changesetId=await get_changeset(http, 5))
    ).status_code == 409


async def test_exclusive_lock_from_an_older_changeset_is_refused(
    http: httpx2.AsyncClient,
) -> None:
    first, second = await acquire_briefcase(http), await acquire_briefcase(http)
    fifth, sixth = await get_changeset(http, 5), await get_changeset(http, 6)
    await set_lock(http, first, "exclusive", "0x5", "0x6", changesetId=sixth)
    await set_lock(http, first, "none", "0x5", changesetId=sixth)
    await set_lock(http, first, "none", "0x6", changesetId="")  # abandoned, not changed
    for base in (fifth, ""):
        answer = await set_lock(http, second, "exclusive", "0x5", "0x6", changesetId=base)
        assert answer.status_code == 409
        assert answer.json()["error"] == {
            "code": "NewerChangesExist",
            "message": "One or more objects have been locked in a newer Changeset.",
            "objectIds": ["0x5"],
        }
    assert (await set_lock(http, second, "exclusive", "0x5", "0x6", changesetId=sixth)).status_code == 200


@pytest.mark.parametrize(
    ("imodel", "change", "code"),
    [
        ("invalid%20iModel%20id", {}, "iModelNotFound"),
        (None, {"briefcaseId": 0}, "BriefcaseNotFound"),
        (None, {"changesetId": "a" * 40}, "ChangesetNotFound"),
    ],
)
async def test_update_locks_error_names_what_is_missing(
    http: httpx2.AsyncClient, imodel: str | None, change: dict[str, object], code: str
) -> None:
    objects = [{"lockLevel": "shared", "objectIds": ["0x2"]}]
    body = {"briefcaseId": await acquire_briefcase(http), "lockedObjects": objects} | change
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
async def test_update_locks_rejects_invalid_requests(http: httpx2.AsyncClient, objects: object) -> None:
    answer = await http.patch(LOCKS, json={"briefcaseId": await acquire_briefcase(http), "lockedObjects": objects})
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "Cannot update Locks.")


async def test_manager_releases_but_never_acquires_locks_of_others(http: httpx2.AsyncClient, http_as: Connect) -> None:
    sync = http_as("service-meridian-design-sync")
    number = await acquire_briefcase(sync)
    await set_lock(sync, number, "exclusive", "0x7")
    assert (await set_lock(http, number, "exclusive", "0x8")).status_code == 403
    assert (await set_lock(http, number, "none", "0x7")).status_code == 200
    assert (await set_lock(http_as("priya"), number, "none", "0x7")).status_code == 403


async def test_lock_list_page_counts_objects(http: httpx2.AsyncClient) -> None:
    pages, url = [], f"{LOCKS}?$top=3&$continuationToken="
    while url:
        page = (await http.get(url)).json()
        pages.append([(lock["briefcaseId"], lock["lockedObjects"]) for lock in page["locks"]])
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


async def test_lock_list_filters_by_briefcase_and_level(http: httpx2.AsyncClient) -> None:
    shared = (await http.get(f"{LOCKS}?lockLevel=shared")).json()["locks"]
    assert [lock["briefcaseId"] for lock in shared] == [2, 4]
    assert (await http.get(f"{LOCKS}?briefcaseId=500")).json()["locks"] == []
    for query in ("lockLevel=none", "briefcaseId=x"):
        assert (await http.get(f"{LOCKS}?{query}")).status_code == 422


async def test_release_chunk_releases_1000_locks_at_a_time(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    for start in (0x1000, 0x2000):
        assert (
            await set_lock(http, number, "exclusive", *(hex(start + offset) for offset in range(1000)))
        ).status_code == 200
    await set_lock(http, number, "shared", "0x9999")
    body = {"briefcaseId": number, "changesetId": await get_changeset(http, 12)}
    chunks = [(await http.post(f"{LOCKS}/release-chunk", json=body)).json() for _ in range(3)]
    assert chunks == [{"isLastChunk": False}, {"isLastChunk": False}, {"isLastChunk": True}]
    assert await list_held(http, number) == []
    assert (await http.post(f"{LOCKS}/release-chunk", json=body)).json() == {"isLastChunk": True}


async def test_released_briefcase_has_no_locks(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    await set_lock(http, number, "exclusive", "0x77")
    await http.delete(f"{ROADS}/briefcases/{number}")
    assert (await set_lock(http, await acquire_briefcase(http), "exclusive", "0x77")).status_code == 200


async def test_released_locks_omit_objects_that_are_held_again(http: httpx2.AsyncClient) -> None:
    number, last = await acquire_briefcase(http), await get_changeset(http, 12)
    await set_lock(http, number, "exclusive", "0xa", "0xb", "0xc", "0xd")
    await set_lock(http, number, "shared", "0xe")
    await set_lock(http, number, "none", "0xa", "0xb", "0xe", changesetId=last)
    await set_lock(http, number, "shared", "0xc", changesetId=last)  # demoted
    await set_lock(http, number, "none", "0xd")  # abandoned
    await set_lock(http, number, "shared", "0xb")  # held again
    path = f"{LOCKS}/released-locks?afterChangesetIndex"
    assert (await http.get(f"{path}=11")).json()["releasedLocks"] == [
        {"lockLevel": "exclusive", "objectIds": ["0xa"]},
        {"lockLevel": "shared", "objectIds": ["0xe"]},
    ]
    assert (await http.get(f"{path}=12")).json()["releasedLocks"] == []
    missing = (await http.get(f"{LOCKS}/released-locks")).json()["error"]["details"]
    assert [(detail["code"], detail["target"]) for detail in missing] == [
        ("MissingRequiredParameter", "afterChangesetIndex")
    ]


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
_TIMELINE = [operation for operation in OPERATIONS if any(f"}}/{word}" in operation.path for word in _WORDS)]


@settings(max_examples=200)
@given(
    operation=st.sampled_from(_TIMELINE),
    slot=st.sampled_from(["0", "2", "5", "x", "9" * 12, "a" * 40]),
    query=st.dictionaries(
        st.sampled_from(("ownerId", "briefcaseId", "lockLevel", "afterChangesetIndex", "$orderBy", "$top")), st.text()
    ),
    body=st.dictionaries(st.sampled_from(_PROPERTIES), _JSON, max_size=8),
)
async def test_timeline_operations_never_answer_500(
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
