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


def make_creation(state: Any, **more: Any) -> Any:
    return {"createOperation": {"state": state, **more}}


class Platform:
    """Creates and clones iModels. `polls` are the answers to successive polls; the last one repeats."""

    def __init__(self, *polls: Any, begin: Handler | None = None, headers: dict[str, str] | None = None) -> None:
        self.looks = list(polls) or [make_creation("successful")]
        self.begin = begin
        self.headers = headers
        self.listed: Handler = saying(200, {"iModels": []})
        self.read: Handler = saying(200, READY)

    async def __call__(self, request: Asked) -> None:
        if request.method == "POST" and self.begin is not None:
            await self.begin(request)
        elif request.method == "POST" and request.path.endswith("/clone"):
            await request.answer(202, b"", {**LOCATION, **(self.headers or {})})
        elif request.method == "POST":
            await request.json(201, {"iModel": {"id": MADE, "state": "notInitialized"}}, self.headers)
        elif request.path.endswith("/operations/create"):
            poll = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
            if callable(poll):
                await poll(request)
            else:
                await request.json(200, poll)
        elif request.path == "/imodels":
            await self.listed(request)
        else:
            await self.read(request)


def answer_html(status: int) -> Handler:
    """Answer with an HTML page instead of JSON."""

    async def answer(request: Asked) -> None:
        await request.answer(status, b"<html>", {"Content-Type": "application/json"})

    return answer


async def create(harness: Bench, **more: Any) -> dict[str, Any]:
    return await harness.call("create-imodel", iTwinId=ITWIN, name="Pier 7", **more)


async def clone(harness: Bench, **more: Any) -> dict[str, Any]:
    return await harness.call("clone-imodel", iModelId=IMODEL, iTwinId=ITWIN, **more)


# --- jobs that succeed ------------------------------------------------------------------------------------------


async def test_job_named_in_the_body_is_awaited_and_its_result_returned() -> None:
    platform = Platform(make_creation("scheduled"), make_creation("waitingForFile"), make_creation("successful"))
    async with bench("jobs.yaml", platform) as harness:
        assert await create(harness) == {"iModel": {"id": MADE, "name": "Pier 7"}}
    assert harness.asked == ["POST /imodels", *[f"GET /imodels/{MADE}/operations/create"] * 3, f"GET /imodels/{MADE}"]


async def test_job_named_in_location_is_awaited_under_its_own_id() -> None:
    async with bench("jobs.yaml", Platform()) as harness:
        assert (await clone(harness))["iModel"]["id"] == MADE
    assert harness.asked == [
        f"POST /imodels/{IMODEL}/clone",
        f"GET /imodels/{MADE}/operations/create",
        f"GET /imodels/{MADE}",
    ]


async def test_job_accepted_with_a_text_body_is_awaited() -> None:
    async def accepted(request: Asked) -> None:
        await request.answer(202, b"Accepted.", {**LOCATION, "Content-Type": "text/plain"})

    async with bench("jobs.yaml", Platform(begin=accepted)) as harness:
        assert (await clone(harness))["iModel"]["id"] == MADE


async def test_wait_for_imodel_only_reads_the_job() -> None:
    async with bench("jobs.yaml", Platform()) as harness:
        assert (await harness.call("wait-for-imodel", iModelId=MADE))["iModel"]["name"] == "Pier 7"
    assert harness.asked == [f"GET /imodels/{MADE}/operations/create", f"GET /imodels/{MADE}"]


async def test_job_without_a_result_operation_returns_its_last_state() -> None:
    async def exports(request: Asked) -> None:
        state = "Queued" if request.method == "POST" else "Completed"
        await request.json(200, {"export": {"id": "e1", "status": state}})

    async with bench("jobs.yaml", exports) as harness:
        assert await harness.call("start-export", name="a") == {"export": {"id": "e1", "status": "Completed"}}
    assert harness.asked == ["POST /imodels", "GET /imodels/e1"]


# --- pauses -----------------------------------------------------------------------------------------------------


async def test_waiting_polls_with_growing_pauses_within_wait() -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"))) as harness:
        answer = await create(harness, wait=30)
        slept = harness.clock.slept
    assert answer == {"job": {"operation": "create-imodel", "state": "scheduled", **JOB}}
    assert slept[:4] == [0.5, 0.75, 1.125, 1.6875]
    assert slept[:-1] == sorted(slept[:-1])
    assert max(slept) <= 5
    assert sum(slept) == pytest.approx(30)
    assert len(harness.asked) < 15


async def test_waiting_honors_retry_after_of_a_poll() -> None:
    patient = saying(200, make_creation("scheduled"), {"Retry-After": "7"})
    accepted = saying(202, make_creation("scheduled"), {"Retry-After": "9"})
    async with bench("jobs.yaml", Platform(patient, accepted, make_creation("successful"))) as harness:
        await create(harness, wait=30)
    assert harness.clock.slept == [7, 9]


async def test_waiting_honors_retry_after_of_the_first_answer() -> None:
    async with bench("jobs.yaml", Platform(headers={"Retry-After": "4"})) as harness:
        await clone(harness)
        await create(harness)
    assert harness.clock.slept == [4, 4]


async def test_waiting_ends_if_retry_after_exceeds_the_time_left() -> None:
    patient = saying(200, make_creation("scheduled"), {"Retry-After": "60"})
    async with bench("jobs.yaml", Platform(patient)) as harness:
        assert (await create(harness, wait=30))["job"]["state"] == "scheduled"
    assert harness.clock.slept == []
    assert len(harness.asked) == 2


async def test_wait_zero_starts_the_job_and_returns_its_handle() -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"))) as harness:
        assert await clone(harness, wait=0) == {"job": {"operation": "clone-imodel", "state": None, **JOB}}
    assert harness.asked == [f"POST /imodels/{IMODEL}/clone"]
    assert harness.clock.slept == []


async def test_wait_zero_polls_a_followed_job_once() -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"), make_creation("successful"))) as harness:
        followed = await harness.call("wait-for-imodel", iModelId=MADE, wait=0)
        assert followed == {"job": {"operation": "wait-for-imodel", "state": "scheduled", **JOB}}
        assert "iModel" in await harness.call("wait-for-imodel", iModelId=MADE, wait=0)
    assert harness.clock.slept == []


async def test_job_is_followed_in_another_process() -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"))) as harness:
        job = (await clone(harness, wait=1))["job"]
    async with bench("jobs.yaml", Platform()) as harness:
        assert (await harness.call(job["checkWith"], iModelId=job["iModelId"]))["iModel"]["id"] == MADE


async def test_hanging_poll_does_not_delay_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.executor.waiting.LAST_LOOK", -29.8)
    async with bench("jobs.yaml", Platform(Asked.until_closed)) as harness:
        with anyio.fail_after(10):
            assert (await create(harness, wait=30))["job"]["iModelId"] == MADE


# --- progress ---------------------------------------------------------------------------------------------------


async def test_waiting_reports_progress_that_grows() -> None:
    async with bench(
        "jobs.yaml", Platform(make_creation("scheduled"), make_creation("scheduled"), make_creation("successful"))
    ) as harness:
        await clone(harness, wait=20)
    assert [text for _, _, text in harness.listener.told] == [
        "The clone: begun",
        "The clone: scheduled, not ready after 0 of at most 20 s",
        "The clone: scheduled, not ready after 0 of at most 20 s",
    ]
    done = [done for done, _, _ in harness.listener.told]
    assert done == sorted(done)
    assert {total for _, total, _ in harness.listener.told} == {20}


# --- jobs that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "FAILED", "mainIModelIsMissingFederationGuids"])
async def test_failed_state_raises_job_failed_with_state_and_reason(state: str) -> None:
    async with bench("jobs.yaml", Platform(make_creation(state, error="the disk is full"))) as harness:
        error = await harness.refused("clone-imodel", iModelId=IMODEL, iTwinId=ITWIN)
    assert error["code"] == "JobFailed"
    assert error["message"] == f"The clone has failed: the platform says {state}, because: the disk is full."
    assert error["details"] == [{"code": state, "message": "the disk is full"}]
    assert error["job"] == {"operation": "clone-imodel", "state": state, **JOB}
    assert f"Remove what it left (iModelId {MADE})" in error["hint"]
    assert not error["retryable"]


@pytest.mark.parametrize("state", ["Queued", "somethingNew", "", 7, True])
async def test_unknown_job_state_is_polled_until_the_wait_ends(state: Any) -> None:
    async with bench("jobs.yaml", Platform(make_creation(state))) as harness:
        answer = await clone(harness, wait=3)
    told = {"Queued": "Queued", "somethingNew": "somethingNew", "": "", 7: "7", True: "true"}[state]
    assert answer == {"job": {"operation": "clone-imodel", "state": told, **JOB}}
    assert sum(harness.clock.slept) == pytest.approx(3)


async def test_job_in_an_unknown_state_can_still_succeed() -> None:
    async with bench("jobs.yaml", Platform(make_creation("Queued"), make_creation("SUCCESSFUL"))) as harness:
        assert (await clone(harness))["iModel"]["id"] == MADE


@pytest.mark.parametrize(
    "poll", [make_creation(None), make_creation({}), {"createOperation": None}, {"other": 1}, ["x"], "x"]
)
async def test_poll_without_a_state_is_reported_as_state_null(poll: Any) -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"), saying(200, poll))) as harness:
        answer = await create(harness, wait=3)
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
    async with bench("jobs.yaml", saying(200, state), shipped_files=True) as harness:
        taken = {item.name for item in harness.catalog.tools[tool].arguments}
        error = await harness.refused(tool, wait=0, **{name: value for name, value in ids.items() if name in taken})
    assert error["code"] == "JobFailed"
    assert "Remove" not in error["hint"]


@pytest.mark.parametrize(
    ("poll", "code"),
    [
        (hang_up, "ConnectionLost"),
        (saying(404, {"error": {"code": "iModelNotFound", "message": "No."}}), "iModelNotFound"),
        (answer_html(200), "UnexpectedAnswer"),
    ],
)
async def test_failed_poll_reports_the_running_job(poll: Handler, code: str) -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"), poll)) as harness:
        error = await harness.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["code"] == code
    assert error["job"] == {"operation": "create-imodel", "state": "scheduled", **JOB}
    assert "do not begin it again" in error["hint"]
    assert harness.asked.count("POST /imodels") == 1


async def test_unreadable_result_reports_the_successful_job() -> None:
    platform = Platform()
    platform.read = saying(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
    async with bench("jobs.yaml", platform) as harness:
        error = await harness.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
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
    async with bench("jobs.yaml", Platform(make_creation("scheduled")), clock=Sleepless()) as harness:
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            await create(harness)
    assert scope.cancelled_caught
    assert f"create-imodel was cancelled; the job of iModelId {MADE} goes on" in caplog.text


async def test_cancelled_write_logs_that_it_may_have_been_carried_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancel(request: Asked) -> None:
        scope.cancel()
        await request.until_closed()

    async with bench("jobs.yaml", Platform(begin=cancel)) as harness:
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            await create(harness)
    assert scope.cancelled_caught
    assert "create-imodel was cancelled in api.create-imodel: it may have been carried out" in caplog.text


# --- unknown outcomes -------------------------------------------------------------------------------------------

LOST = [
    (hang_up, "ConnectionLost"),
    (saying(500, {"error": {"code": "Unknown", "message": "Oh."}}), "Unknown"),
    (answer_html(201), "UnexpectedAnswer"),
]


@pytest.mark.parametrize(("begin", "code"), LOST)
async def test_create_of_unknown_outcome_is_found_by_name(begin: Handler, code: str) -> None:
    platform = Platform(begin=begin)
    there = {"id": MADE, "name": "Pier 7", "createdDateTime": "2026-11-21T10:00:00Z", "extent": None}
    platform.listed = saying(200, {"iModels": [{"id": IMODEL, "name": "Pier 70"}, there]})
    async with bench("jobs.yaml", platform) as harness:
        error = await harness.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert harness.asked == ["POST /imodels", f"GET /imodels?iTwinId={ITWIN}&name=Pier%207"]
    assert error["code"] == code
    assert error["found"] == [{"id": MADE, "name": "Pier 7", "createdDateTime": "2026-11-21T10:00:00Z"}]
    assert error["job"] == {"operation": "create-imodel", "state": None, **JOB}
    assert "it is there, see found" in error["hint"]
    assert "(wait-for-imodel), and do not call again" in error["hint"]
    assert not error["retryable"]


@pytest.mark.parametrize(("begin", "code"), LOST)
async def test_create_of_unknown_outcome_reports_that_nothing_was_found(begin: Handler, code: str) -> None:
    async with bench("jobs.yaml", Platform(begin=begin)) as harness:
        error = await harness.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["code"] == code
    assert error["found"] == []
    assert "it is not there (yet)" in error["hint"]
    assert "job" not in error


async def test_create_of_unknown_outcome_reports_a_failed_search() -> None:
    platform = Platform(begin=hang_up)
    platform.listed = saying(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
    async with bench("jobs.yaml", platform) as harness:
        error = await harness.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert error["code"] == "ConnectionLost"
    assert "failed too (InsufficientPermissions). The change may have been made or not." in error["hint"]


async def test_clone_of_unknown_outcome_without_a_name_is_not_searched() -> None:
    async with bench("jobs.yaml", Platform(begin=hang_up)) as harness:
        error = await harness.refused("clone-imodel", iModelId=IMODEL, iTwinId=ITWIN)
    assert len(harness.asked) == 1
    assert error["outcomeUnknown"] is True
    assert "found" not in error


@pytest.mark.parametrize("status", [403, 409, 422, 429])
async def test_refused_create_is_not_searched(status: int) -> None:
    begin = saying(status, {"error": {"code": "No", "message": "No."}}, {"Retry-After": "999"})
    async with bench("jobs.yaml", Platform(begin=begin)) as harness:
        await harness.refused("create-imodel", iTwinId=ITWIN, name="Pier 7")
    assert harness.asked == ["POST /imodels"]


@pytest.mark.parametrize("tool", ["create-imodel", "clone-imodel", "fork-imodel"])
async def test_tools_that_create_imodels_search_after_an_unknown_outcome(tool: str) -> None:
    platform = Platform(begin=hang_up)
    platform.listed = saying(200, {"iModels": [{"id": MADE, "name": "Pier 7"}]})
    source = {} if tool == "create-imodel" else {"iModelId": IMODEL}
    async with bench("jobs.yaml", platform, shipped_files=True) as harness:
        error = await harness.refused(tool, iTwinId=ITWIN, name="Pier 7", **source)
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


def answer_with_location(link: str) -> Handler:
    return saying(202, None, {"Location": link} if link else {})


@pytest.mark.parametrize("body", WITHOUT_ID)
async def test_accepted_create_without_an_id_is_found_by_name(body: Any) -> None:
    platform = Platform(begin=saying(201, body))
    platform.listed = saying(200, {"iModels": [{"id": MADE, "name": "Pier 7"}]})
    async with bench("jobs.yaml", platform) as harness:
        job = (await create(harness))["job"]
    assert (job["iModelId"], job["state"], job["checkWith"]) == (MADE, None, "wait-for-imodel")
    assert "do not call again" in job["hint"]


@pytest.mark.parametrize("link", LOCATIONS)
async def test_clone_with_an_unusable_location_is_found_by_name(link: str) -> None:
    platform = Platform(begin=answer_with_location(link))
    platform.listed = saying(200, {"iModels": [{"id": MADE, "name": "Pier 7"}]})
    async with bench("jobs.yaml", platform) as harness:
        job = (await clone(harness, name="Pier 7"))["job"]
    assert harness.asked == [f"POST /imodels/{IMODEL}/clone", f"GET /imodels?iTwinId={ITWIN}&name=Pier%207"]
    assert (job["iModelId"], job["checkWith"], job["found"]) == (
        MADE,
        "wait-for-imodel",
        [{"id": MADE, "name": "Pier 7"}],
    )
    assert "was begun" in job["hint"]


async def test_clone_without_location_and_name_returns_a_job_with_a_hint() -> None:
    async with bench("jobs.yaml", Platform(begin=answer_with_location(""))) as harness:
        job = (await clone(harness))["job"]
    assert {name: job[name] for name in ("operation", "iModelId", "state")} == {
        "operation": "clone-imodel",
        "iModelId": None,
        "state": None,
    }
    assert "Do not call again: look for it in a list first." in job["hint"]
    assert "checkWith" not in job


@pytest.mark.parametrize("listed", [saying(200, {"iModels": []}), saying(500), saying(200, {"iModels": None})])
async def test_clone_without_location_that_is_not_found_is_still_a_job(listed: Handler) -> None:
    platform = Platform(begin=answer_with_location(""))
    platform.listed = listed
    async with bench("jobs.yaml", platform) as harness:
        job = (await clone(harness, name="Pier 7"))["job"]
    assert job["iModelId"] is None
    assert "call again" in job["hint"]


@pytest.mark.parametrize("link", [f"/imodels/{MADE}", f"imodels/{MADE}/", "{origin}" + f"/imodels/{MADE}?a=b#c"])
async def test_location_may_be_relative_or_on_the_configured_platform(link: str) -> None:
    async def begin(request: Asked) -> None:
        await request.answer(202, b"", {"Location": link.replace("{origin}", harness.server.origin)})

    async with bench("jobs.yaml", Platform(begin=begin)) as harness:
        assert (await clone(harness))["iModel"]["id"] == MADE


async def test_flow_with_a_job_of_unknown_id_reports_remaining_steps() -> None:
    async with bench("jobs.yaml", Platform(begin=saying(201, {"iModel": {}}))) as harness:
        job = (await harness.call("create-and-touch", iTwinId=ITWIN, name="Pier 7"))["job"]
    assert (job["iModelId"], job["remaining"]) == (None, ["touch"])


# --- in a flow --------------------------------------------------------------------------------------------------


async def test_flow_waits_for_its_job_before_the_next_step() -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"), make_creation("successful"))) as harness:
        assert await harness.call("create-and-touch", iTwinId=ITWIN, name="Pier 7") == {"id": MADE}
    assert harness.asked[-1] == f"PUT /imodels/{MADE}"


async def test_flow_out_of_time_returns_the_job_and_remaining_steps() -> None:
    async with bench("jobs.yaml", Platform(make_creation("scheduled"))) as harness:
        answer = await harness.call("create-and-touch", iTwinId=ITWIN, name="Pier 7", wait=3)
    expected = {"operation": "create-and-touch", "state": "scheduled", **JOB, "remaining": ["touch"]}
    assert answer == {"job": expected}
    assert not [request for request in harness.asked if request.startswith("PUT")]
    json.dumps(answer)
