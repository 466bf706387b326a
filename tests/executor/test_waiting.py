"""Jobs are started once, polled with growing pauses, and reported with a handle to continue."""

import json
import logging
from typing import Any

import anyio
import pytest

from tests.executor.bench import IMODEL, ITWIN, MADE, Bench, Clock, bench, hang_up, saying
from tests.upstream.loopback import Asked, Handler

pytestmark = pytest.mark.anyio

READY = {"iModel": {"id": MADE, "name": "Pier 7", "state": "initialized"}}
LOCATION = {"Location": f"https://api.bentley.com/imodels/{MADE}"}
JOB = {"iModelId": MADE, "checkWith": "wait-for-imodel"}


def creation(state: Any, **more: Any) -> Any:
    return {"createOperation": {"state": state, **more}}


class Platform:
    """Creates and clones iModels. `looks` are the answers to successive polls; the last one repeats."""

    def __init__(self, *looks: Any, begin: Handler | None = None, headers: dict[str, str] | None = None) -> None:
        self.looks = list(looks) or [creation("successful")]
        self.begin = begin
        self.headers = headers
        self.listed: Handler = saying(200, {"iModels": []})
        self.read: Handler = saying(200, READY)

    async def __call__(self, asked: Asked) -> None:
        if asked.method == "POST" and self.begin is not None:
            await self.begin(asked)
        elif asked.method == "POST" and asked.path.endswith("/clone"):
            await asked.answer(202, b"", {**LOCATION, **(self.headers or {})})
        elif asked.method == "POST":
            await asked.json(201, {"iModel": {"id": MADE, "state": "notInitialized"}}, self.headers)
        elif asked.path.endswith("/operations/create"):
            look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
            if callable(look):
                await look(asked)
            else:
                await asked.json(200, look)
        elif asked.path == "/imodels":
            await self.listed(asked)
        else:
            await self.read(asked)


def garbled(status: int) -> Handler:
    """Answer with an HTML page instead of JSON."""

    async def answer(asked: Asked) -> None:
        await asked.answer(status, b"<html>", {"Content-Type": "application/json"})

    return answer


async def create(it: Bench, **more: Any) -> dict[str, Any]:
    return await it.call("create-imodel", iTwinId=ITWIN, name="Pier 7", **more)


async def clone(it: Bench, **more: Any) -> dict[str, Any]:
    return await it.call("clone-imodel", iModelId=IMODEL, iTwinId=ITWIN, **more)


# --- jobs that succeed ------------------------------------------------------------------------------------------


async def test_job_named_in_the_body_is_awaited_and_its_result_returned() -> None:
    platform = Platform(creation("scheduled"), creation("waitingForFile"), creation("successful"))
    async with bench("jobs.yaml", platform) as it:
        assert await create(it) == {"iModel": {"id": MADE, "name": "Pier 7"}}
    assert it.asked == ["POST /imodels", *[f"GET /imodels/{MADE}/operations/create"] * 3, f"GET /imodels/{MADE}"]


async def test_job_named_in_location_is_awaited_under_its_own_id() -> None:
    async with bench("jobs.yaml", Platform()) as it:
        assert (await clone(it))["iModel"]["id"] == MADE
    assert it.asked == [
        f"POST /imodels/{IMODEL}/clone",
        f"GET /imodels/{MADE}/operations/create",
        f"GET /imodels/{MADE}",
    ]


async def test_job_accepted_with_a_text_body_is_awaited() -> None:
    async def accepted(asked: Asked) -> None:
        await asked.answer(202, b"Accepted.", {**LOCATION, "Content-Type": "text/plain"})

    async with bench("jobs.yaml", Platform(begin=accepted)) as it:
        assert (await clone(it))["iModel"]["id"] == MADE


async def test_wait_for_imodel_only_reads_the_job() -> None:
    async with bench("jobs.yaml", Platform()) as it:
        assert (await it.call("wait-for-imodel", iModelId=MADE))["iModel"]["name"] == "Pier 7"
    assert it.asked == [f"GET /imodels/{MADE}/operations/create", f"GET /imodels/{MADE}"]


async def test_job_without_a_result_operation_returns_its_last_state() -> None:
    async def exports(asked: Asked) -> None:
        state = "Queued" if asked.method == "POST" else "Completed"
        await asked.json(200, {"export": {"id": "e1", "status": state}})

    async with bench("jobs.yaml", exports) as it:
        assert await it.call("start-export", name="a") == {"export": {"id": "e1", "status": "Completed"}}
    assert it.asked == ["POST /imodels", "GET /imodels/e1"]


# --- pauses -----------------------------------------------------------------------------------------------------


async def test_waiting_polls_with_growing_pauses_within_wait() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"))) as it:
        answer = await create(it, wait=30)
        slept = it.clock.slept
    assert answer == {"job": {"operation": "create-imodel", "state": "scheduled", **JOB}}
    assert slept[:4] == [0.5, 0.75, 1.125, 1.6875]
    assert slept[:-1] == sorted(slept[:-1])
    assert max(slept) <= 5
    assert sum(slept) == pytest.approx(30)
    assert len(it.asked) < 15


async def test_waiting_honors_retry_after_of_a_poll() -> None:
    patient = saying(200, creation("scheduled"), {"Retry-After": "7"})
    accepted = saying(202, creation("scheduled"), {"Retry-After": "9"})
    async with bench("jobs.yaml", Platform(patient, accepted, creation("successful"))) as it:
        await create(it, wait=30)
    assert it.clock.slept == [7, 9]


async def test_waiting_honors_retry_after_of_the_first_answer() -> None:
    async with bench("jobs.yaml", Platform(headers={"Retry-After": "4"})) as it:
        await clone(it)
        await create(it)
    assert it.clock.slept == [4, 4]


async def test_waiting_ends_if_retry_after_exceeds_the_time_left() -> None:
    patient = saying(200, creation("scheduled"), {"Retry-After": "60"})
    async with bench("jobs.yaml", Platform(patient)) as it:
        assert (await create(it, wait=30))["job"]["state"] == "scheduled"
    assert it.clock.slept == []
    assert len(it.asked) == 2


async def test_wait_zero_starts_the_job_and_returns_its_handle() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"))) as it:
        assert await clone(it, wait=0) == {"job": {"operation": "clone-imodel", "state": None, **JOB}}
    assert it.asked == [f"POST /imodels/{IMODEL}/clone"]
    assert it.clock.slept == []


async def test_wait_zero_polls_a_followed_job_once() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"), creation("successful"))) as it:
        followed = await it.call("wait-for-imodel", iModelId=MADE, wait=0)
        assert followed == {"job": {"operation": "wait-for-imodel", "state": "scheduled", **JOB}}
        assert "iModel" in await it.call("wait-for-imodel", iModelId=MADE, wait=0)
    assert it.clock.slept == []


async def test_job_is_followed_in_another_process() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"))) as it:
        job = (await clone(it, wait=1))["job"]
    async with bench("jobs.yaml", Platform()) as it:
        assert (await it.call(job["checkWith"], iModelId=job["iModelId"]))["iModel"]["id"] == MADE


async def test_hanging_poll_does_not_delay_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.executor.waiting.LAST_LOOK", -29.8)
    async with bench("jobs.yaml", Platform(Asked.until_closed)) as it:
        with anyio.fail_after(10):
            assert (await create(it, wait=30))["job"]["iModelId"] == MADE


# --- progress ---------------------------------------------------------------------------------------------------


async def test_waiting_reports_progress_that_grows() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"), creation("scheduled"), creation("successful"))) as it:
        await clone(it, wait=20)
    assert [text for _, _, text in it.listener.told] == [
        "The clone: begun",
        "The clone: scheduled, not ready after 0 of at most 20 s",
        "The clone: scheduled, not ready after 0 of at most 20 s",
    ]
    done = [done for done, _, _ in it.listener.told]
    assert done == sorted(done)
    assert {total for _, total, _ in it.listener.told} == {20}


# --- jobs that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "FAILED", "mainIModelIsMissingFederationGuids"])
async def test_failed_state_raises_job_failed_with_state_and_reason(state: str) -> None:
    async with bench("jobs.yaml", Platform(creation(state, error="the disk is full"))) as it:
        error = await it.refused("clone-imodel", iModelId=IMODEL, iTwinId=ITWIN)
    assert error["code"] == "JobFailed"
    assert error["message"] == f"The clone has failed: the platform says {state}, because: the disk is full."
    assert error["details"] == [{"code": state, "message": "the disk is full"}]
    assert error["job"] == {"operation": "clone-imodel", "state": state, **JOB}
    assert f"Remove what it left (iModelId {MADE})" in error["hint"]
    assert not error["retryable"]


@pytest.mark.parametrize("state", ["Queued", "somethingNew", "", 7, True])
async def test_unknown_state_is_awaited_and_reported_as_job(state: Any) -> None:
    async with bench("jobs.yaml", Platform(creation(state))) as it:
        answer = await clone(it, wait=3)
    told = {"Queued": "Queued", "somethingNew": "somethingNew", "": "", 7: "7", True: "true"}[state]
    assert answer == {"job": {"operation": "clone-imodel", "state": told, **JOB}}
    assert sum(it.clock.slept) == pytest.approx(3)


async def test_job_in_an_unknown_state_can_still_succeed() -> None:
    async with bench("jobs.yaml", Platform(creation("Queued"), creation("SUCCESSFUL"))) as it:
        assert (await clone(it))["iModel"]["id"] == MADE


@pytest.mark.parametrize("look", [creation(None), creation({}), {"createOperation": None}, {"other": 1}, ["x"], "x"])
async def test_poll_without_a_state_is_reported_as_state_null(look: Any) -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"), saying(200, look))) as it:
        answer = await create(it, wait=3)
    assert answer == {"job": {"operation": "create-imodel", "state": None, **JOB}}


@pytest.mark.parametrize(
    ("tool", "state"),
    [
        ("wait-for-imodel", {"createOperation": {"state": "failed"}}),
        ("wait-for-imodel", {"createOperation": {"state": "mainIModelIsMissingFederationGuids"}}),
        ("wait-for-baseline-file", {"baselineFile": {"state": "fileIsBriefcase"}}),
        ("wait-for-baseline-file", {"baselineFile": {"state": "initializationFailed"}}),
        ("wait-for-checkpoint", {"checkpoint": {"state": "failed"}}),
        ("wait-for-checkpoint", {"checkpoint": {"state": "notGenerated"}}),
        ("wait-for-export", {"export": {"id": "e", "status": "Failed"}}),
    ],
)
async def test_wait_tools_know_the_documented_failure_states(tool: str, state: Any) -> None:
    ids = {"iModelId": IMODEL, "namedVersionId": MADE, "exportId": MADE}
    async with bench("jobs.yaml", saying(200, state), shipped_files=True) as it:
        taken = {one.name for one in it.catalog.tools[tool].arguments}
        error = await it.refused(tool, wait=0, **{name: value for name, value in ids.items() if name in taken})
    assert error["code"] == "JobFailed"
    assert "Remove" not in error["hint"]


@pytest.mark.parametrize(
    ("look", "code"),
    [
        (hang_up, "ConnectionLost"),
        (saying(404, {"error": {"code": "iModelNotFound", "message": "No."}}), "iModelNotFound"),
        (garbled(200), "UnexpectedAnswer"),
    ],
)
async def test_failed_poll_reports_the_running_job(look: Handler, code: str) -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"), look)) as it:
        error = await it.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["code"] == code
    assert error["job"] == {"operation": "create-imodel", "state": "scheduled", **JOB}
    assert "do not begin it again" in error["hint"]
    assert it.asked.count("POST /imodels") == 1


async def test_unreadable_result_reports_the_successful_job() -> None:
    platform = Platform()
    platform.read = saying(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
    async with bench("jobs.yaml", platform) as it:
        error = await it.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["job"]["state"] == "successful"
    assert error["hint"].startswith("The job has ended well, only reading its result failed")


# --- cancellation -----------------------------------------------------------------------------------------------


async def test_cancelled_wait_ends_promptly_and_logs_the_running_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sleepless(Clock):
        async def sleep(self, seconds: float) -> None:
            scope.cancel()
            await anyio.sleep_forever()

    caplog.set_level(logging.INFO, "itwin_mcp.executor")
    async with bench("jobs.yaml", Platform(creation("scheduled")), clock=Sleepless()) as it:
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            await create(it)
    assert scope.cancelled_caught
    assert f"create-imodel was cancelled; the job of iModelId {MADE} goes on" in caplog.text


async def test_cancelled_write_logs_that_it_may_have_been_carried_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancel(asked: Asked) -> None:
        scope.cancel()
        await asked.until_closed()

    async with bench("jobs.yaml", Platform(begin=cancel)) as it:
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            await create(it)
    assert scope.cancelled_caught
    assert "create-imodel was cancelled in api.create-imodel: it may have been carried out" in caplog.text


# --- unknown outcomes -------------------------------------------------------------------------------------------

LOST = [
    (hang_up, "ConnectionLost"),
    (saying(500, {"error": {"code": "Unknown", "message": "Oh."}}), "Unknown"),
    (garbled(201), "UnexpectedAnswer"),
]


@pytest.mark.parametrize(("begin", "code"), LOST)
async def test_create_of_unknown_outcome_is_found_by_name(begin: Handler, code: str) -> None:
    platform = Platform(begin=begin)
    there = {"id": MADE, "name": "Pier 7", "createdDateTime": "2026-11-21T10:00:00Z", "extent": None}
    platform.listed = saying(200, {"iModels": [{"id": IMODEL, "name": "Pier 70"}, there]})
    async with bench("jobs.yaml", platform) as it:
        error = await it.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert it.asked == ["POST /imodels", f"GET /imodels?iTwinId={ITWIN}&name=Pier%207"]
    assert error["code"] == code
    assert error["found"] == [{"id": MADE, "name": "Pier 7", "createdDateTime": "2026-11-21T10:00:00Z"}]
    assert error["job"] == {"operation": "create-imodel", "state": None, **JOB}
    assert "it is there, see found" in error["hint"]
    assert "(wait-for-imodel), and do not call again" in error["hint"]
    assert not error["retryable"]


@pytest.mark.parametrize(("begin", "code"), LOST)
async def test_create_of_unknown_outcome_reports_that_nothing_was_found(begin: Handler, code: str) -> None:
    async with bench("jobs.yaml", Platform(begin=begin)) as it:
        error = await it.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["code"] == code
    assert error["found"] == []
    assert "it is not there (yet)" in error["hint"]
    assert "job" not in error


async def test_create_of_unknown_outcome_reports_a_failed_search() -> None:
    platform = Platform(begin=hang_up)
    platform.listed = saying(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
    async with bench("jobs.yaml", platform) as it:
        error = await it.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["code"] == "ConnectionLost"
    assert "failed too (InsufficientPermissions). The change may have been made or not." in error["hint"]


async def test_clone_of_unknown_outcome_without_a_name_is_not_searched() -> None:
    async with bench("jobs.yaml", Platform(begin=hang_up)) as it:
        error = await it.refused("clone-imodel", iModelId=IMODEL, iTwinId=ITWIN)
    assert len(it.asked) == 1
    assert error["outcomeUnknown"] is True
    assert "found" not in error


@pytest.mark.parametrize("status", [403, 409, 422, 429])
async def test_refused_create_is_not_searched(status: int) -> None:
    begin = saying(status, {"error": {"code": "No", "message": "No."}}, {"Retry-After": "999"})
    async with bench("jobs.yaml", Platform(begin=begin)) as it:
        await it.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert it.asked == ["POST /imodels"]


@pytest.mark.parametrize("tool", ["create-imodel", "clone-imodel", "fork-imodel"])
async def test_tools_that_create_imodels_search_after_an_unknown_outcome(tool: str) -> None:
    platform = Platform(begin=hang_up)
    platform.listed = saying(200, {"iModels": [{"id": MADE, "name": "Pier 7"}]})
    source = {} if tool == "create-imodel" else {"iModelId": IMODEL}
    async with bench("jobs.yaml", platform, shipped_files=True) as it:
        error = await it.refused(tool, iTwinId=ITWIN, name="Pier 7", **source)
    assert error["found"] == [{"id": MADE, "name": "Pier 7"}]
    assert error["job"]["iModelId"] == MADE


# --- accepted, but the answer does not say what was made ---------------------------------------------------------

WITHOUT_ID = [{"iModel": {"name": "Pier 7"}}, {"iModel": {"id": "../x"}}, {"iModel": None}, [], "x"]
LOCATIONS = [
    "",
    f"https://elsewhere.example/imodels/{MADE}",
    f"//elsewhere.example/imodels/{MADE}",
    f"http://[broken/{MADE}",
    f"https://user@api.bentley.com/imodels/{MADE}",
    f"javascript:/{MADE}",
    "https://api.bentley.com/",
    "/imodels/\u00ff\u00fe",
    "see the list",
    "x",
]


def located(link: str) -> Handler:
    return saying(202, None, {"Location": link} if link else {})


@pytest.mark.parametrize("body", WITHOUT_ID)
async def test_accepted_create_without_an_id_is_found_by_name(body: Any) -> None:
    platform = Platform(begin=saying(201, body))
    platform.listed = saying(200, {"iModels": [{"id": MADE, "name": "Pier 7"}]})
    async with bench("jobs.yaml", platform) as it:
        job = (await create(it))["job"]
    assert (job["iModelId"], job["state"], job["checkWith"]) == (MADE, None, "wait-for-imodel")
    assert "do not call again" in job["hint"]


@pytest.mark.parametrize("link", LOCATIONS)
async def test_clone_with_an_unusable_location_is_found_by_name(link: str) -> None:
    platform = Platform(begin=located(link))
    platform.listed = saying(200, {"iModels": [{"id": MADE, "name": "Pier 7"}]})
    async with bench("jobs.yaml", platform) as it:
        job = (await clone(it, name="Pier 7"))["job"]
    assert it.asked == [f"POST /imodels/{IMODEL}/clone", f"GET /imodels?iTwinId={ITWIN}&name=Pier%207"]
    assert (job["iModelId"], job["checkWith"], job["found"]) == (
        MADE,
        "wait-for-imodel",
        [{"id": MADE, "name": "Pier 7"}],
    )
    assert "was begun" in job["hint"]


async def test_clone_without_location_and_name_returns_a_job_with_a_hint() -> None:
    async with bench("jobs.yaml", Platform(begin=located(""))) as it:
        job = (await clone(it))["job"]
    assert {name: job[name] for name in ("operation", "iModelId", "state")} == {
        "operation": "clone-imodel",
        "iModelId": None,
        "state": None,
    }
    assert "Do not call again: look for it in a list first." in job["hint"]
    assert "checkWith" not in job


@pytest.mark.parametrize("listed", [saying(200, {"iModels": []}), saying(500), saying(200, {"iModels": None})])
async def test_clone_without_location_that_is_not_found_is_still_a_job(listed: Handler) -> None:
    platform = Platform(begin=located(""))
    platform.listed = listed
    async with bench("jobs.yaml", platform) as it:
        job = (await clone(it, name="Pier 7"))["job"]
    assert job["iModelId"] is None
    assert "call again" in job["hint"]


@pytest.mark.parametrize("link", [f"/imodels/{MADE}", f"imodels/{MADE}/", "{origin}" + f"/imodels/{MADE}?a=b#c"])
async def test_location_may_be_relative_or_on_the_configured_platform(link: str) -> None:
    async def begin(asked: Asked) -> None:
        await asked.answer(202, b"", {"Location": link.replace("{origin}", it.server.origin)})

    async with bench("jobs.yaml", Platform(begin=begin)) as it:
        assert (await clone(it))["iModel"]["id"] == MADE


async def test_flow_with_a_job_of_unknown_id_reports_remaining_steps() -> None:
    async with bench("jobs.yaml", Platform(begin=saying(201, {"iModel": {}}))) as it:
        job = (await it.call("create-and-touch", iTwinId=ITWIN, name="Pier 7"))["job"]
    assert (job["iModelId"], job["remaining"]) == (None, ["touch"])


# --- in a flow --------------------------------------------------------------------------------------------------


async def test_flow_waits_for_its_job_before_the_next_step() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"), creation("successful"))) as it:
        assert await it.call("create-and-touch", iTwinId=ITWIN, name="Pier 7") == {"id": MADE}
    assert it.asked[-1] == f"PUT /imodels/{MADE}"


async def test_flow_out_of_time_returns_the_job_and_remaining_steps() -> None:
    async with bench("jobs.yaml", Platform(creation("scheduled"))) as it:
        answer = await it.call("create-and-touch", iTwinId=ITWIN, name="Pier 7", wait=3)
    expected = {"operation": "create-and-touch", "state": "scheduled", **JOB, "remaining": ["touch"]}
    assert answer == {"job": expected}
    assert not [one for one in it.asked if one.startswith("PUT")]
    json.dumps(answer)
