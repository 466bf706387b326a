"""One token for however many callers, with clocks in the test's hand."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from itwin_mcp.errors import CallError, NotSignedIn, Unreachable
from itwin_mcp.upstream.sign_in import renewal
from itwin_mcp.upstream.sign_in.renewal import Renewal
from itwin_mcp.upstream.sign_in.token import Token

from .identity import Clock  # noqa: TID252

pytestmark = pytest.mark.anyio


class Issuing:
    """A fetch that counts, and fails or waits as it is told."""

    def __init__(self, clock: Clock, life: float = 3600.0) -> None:
        self.clock = clock
        self.life = life
        self.calls = 0
        self.failure: Callable[[], CallError] | None = None
        self.gate: anyio.Event | None = None
        self.begun = anyio.Event()

    async def __call__(self) -> Token:
        self.calls += 1
        number = self.calls
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure()
        return Token(f"t{number}", expires_at=self.clock.now() + self.life)

    def renewal(self, remember_refusal: float = 0.0) -> Renewal:
        clock = self.clock
        return Renewal(self, remember_refusal=remember_refusal, now=clock.now, monotonic=clock.monotonic)


def away() -> CallError:
    return Unreachable("SignInUnreachable", "away", hint="h")


def refused() -> CallError:
    return NotSignedIn("no", hint="h")


async def test_concurrent_callers_share_one_renewal() -> None:
    issuing = Issuing(Clock())
    issuing.gate = anyio.Event()
    source = issuing.renewal()
    got: list[str] = []

    async def call() -> None:
        got.append((await source.get_token()).value)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        issuing.gate.set()
    assert (issuing.calls, got) == (1, ["t1"] * 200)


async def test_concurrent_refusals_share_one_renewal() -> None:
    issuing = Issuing(Clock())
    source = issuing.renewal()
    old = await source.get_token()
    got: list[str] = []

    async def call() -> None:
        got.append((await source.get_token(stale=old)).value)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)
    assert (issuing.calls, got) == (2, ["t2"] * 200)


async def test_refusal_of_an_older_token_renews_nothing() -> None:
    issuing = Issuing(Clock())
    source = issuing.renewal()
    old = await source.get_token()
    await source.get_token(stale=old)
    assert (await source.get_token(stale=old)).value == "t2"
    assert issuing.calls == 2


async def test_cancelled_caller_does_not_lose_the_new_token() -> None:
    issuing = Issuing(Clock())
    issuing.gate = anyio.Event()
    source = issuing.renewal()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.get_token)
        await issuing.begun.wait()
        tasks.cancel_scope.cancel()
        issuing.gate.set()
    assert (await source.get_token()).value == "t1"
    assert issuing.calls == 1


async def test_waiting_callers_are_cancelled_at_once() -> None:
    issuing = Issuing(Clock())
    issuing.gate = anyio.Event()
    source = issuing.renewal()
    left = anyio.Event()

    async def wait(scope: anyio.CancelScope) -> None:
        with scope:
            await source.get_token()
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.get_token)
        await issuing.begun.wait()
        scope = anyio.CancelScope()
        tasks.start_soon(wait, scope)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        with anyio.fail_after(1):
            await left.wait()
        issuing.gate.set()


async def test_failing_sign_in_server_is_asked_once() -> None:
    clock = Clock()
    issuing = Issuing(clock)
    issuing.failure = away
    source = issuing.renewal()
    errors: list[CallError] = []

    async def call() -> None:
        try:
            await source.get_token()
        except Unreachable as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)
    assert (issuing.calls, len(errors), len({id(error) for error in errors})) == (1, 200, 200)


async def test_pauses_grow_until_the_sign_in_server_recovers() -> None:
    clock = Clock()
    issuing = Issuing(clock)
    issuing.failure = away
    source = issuing.renewal()
    asked_at = []
    for second in range(120):
        before = issuing.calls
        with pytest.raises(Unreachable):
            await source.get_token()
        if issuing.calls > before:
            asked_at.append(second)
        clock.move(1)
    assert asked_at == [0, 1, 3, 7, 15, 31, 61, 91]
    issuing.failure = None
    clock.move(30)
    assert (await source.get_token()).value == "t9"


async def test_refusal_is_remembered_for_the_configured_time() -> None:
    clock = Clock()
    issuing = Issuing(clock)
    issuing.failure = refused
    source = issuing.renewal(remember_refusal=30.0)
    for seconds, calls in ((0, 1), (29, 1), (2, 2)):
        clock.move(seconds)
        with pytest.raises(NotSignedIn):
            await source.get_token()
        assert issuing.calls == calls
    at_once = Issuing(clock)
    at_once.failure = refused
    source = at_once.renewal()
    for _ in range(2):
        with pytest.raises(NotSignedIn):
            await source.get_token()
    assert at_once.calls == 2


async def test_token_is_renewed_at_four_fifths_of_its_life() -> None:
    clock = Clock()
    issuing = Issuing(clock)
    source = issuing.renewal()
    await source.get_token()
    clock.move(2879)
    await source.get_token()
    assert issuing.calls == 1
    clock.move(2)
    assert (await source.get_token()).value == "t2"


async def test_early_renewal_delays_nobody() -> None:
    clock = Clock()
    issuing = Issuing(clock)
    source = issuing.renewal()
    await source.get_token()
    clock.move(3000)
    issuing.gate, issuing.begun = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.get_token)
        await issuing.begun.wait()
        assert (await source.get_token()).value == "t1"
        issuing.gate.set()
    assert (await source.get_token()).value == "t2"


async def test_outage_keeps_the_old_token_until_it_expires() -> None:
    clock = Clock()
    issuing = Issuing(clock)
    source = issuing.renewal()
    await source.get_token()
    issuing.failure = away
    clock.move(3000)
    assert (await source.get_token()).value == "t1"
    clock.move(601)
    with pytest.raises(Unreachable):
        await source.get_token()


async def test_outage_does_not_bring_back_a_refused_token() -> None:
    issuing = Issuing(Clock())
    source = issuing.renewal()
    old = await source.get_token()
    issuing.failure = away
    with pytest.raises(Unreachable):
        await source.get_token(stale=old)


@pytest.mark.parametrize("life", [1.0, 5.0, 30.0])
async def test_short_lived_token_makes_no_loop(life: float) -> None:
    issuing = Issuing(Clock(), life)
    source = issuing.renewal()
    for _ in range(5):
        await source.get_token()
    assert issuing.calls == 1


@pytest.mark.parametrize(
    ("wall", "steady", "calls"),
    [(0, 2900, 2), (2900, 0, 2), (7200, 0, 2), (-7200, 100, 1), (-7200, 2900, 2), (30, 30, 1), (-30, -0, 1), (0, 0, 1)],
)
async def test_token_expires_by_either_clock(wall: float, steady: float, calls: int) -> None:
    clock = Clock()
    issuing = Issuing(clock)
    source = issuing.renewal()
    await source.get_token()
    clock.wall += wall
    clock.steady += steady
    await source.get_token()
    assert issuing.calls == calls


async def test_hanging_sign_in_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "RENEW_SECONDS", 0.02)
    issuing = Issuing(Clock())
    issuing.gate = anyio.Event()
    with pytest.raises(Unreachable, match="gave no token"):
        await issuing.renewal().get_token()
