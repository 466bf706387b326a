"""Renewal with many callers, and with clocks that the test moves."""

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


class FakeIssuer:
    """A `fetch` for Renewal that counts its calls. It waits for `gate` and raises `failure` if they are set."""

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


def build_outage() -> CallError:
    return Unreachable("SignInUnreachable", "away", hint="h")


def build_refusal() -> CallError:
    return NotSignedIn("no", hint="h")


async def test_concurrent_callers_share_one_renewal() -> None:
    issuer = FakeIssuer(Clock())
    issuer.gate = anyio.Event()
    source = issuer.renewal()
    values: list[str] = []

    async def call() -> None:
        values.append((await source.get_token()).value)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        issuer.gate.set()
    assert (issuer.calls, values) == (1, ["t1"] * 200)


async def test_concurrent_refusals_share_one_renewal() -> None:
    issuer = FakeIssuer(Clock())
    source = issuer.renewal()
    old = await source.get_token()
    values: list[str] = []

    async def call() -> None:
        values.append((await source.get_token(stale=old)).value)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)
    assert (issuer.calls, values) == (2, ["t2"] * 200)


async def test_refusal_of_an_older_token_is_ignored() -> None:
    issuer = FakeIssuer(Clock())
    source = issuer.renewal()
    old = await source.get_token()
    await source.get_token(stale=old)
    assert (await source.get_token(stale=old)).value == "t2"
    assert issuer.calls == 2


async def test_cancelled_caller_does_not_lose_the_new_token() -> None:
    issuer = FakeIssuer(Clock())
    issuer.gate = anyio.Event()
    source = issuer.renewal()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.get_token)
        await issuer.begun.wait()
        tasks.cancel_scope.cancel()
        issuer.gate.set()
    assert (await source.get_token()).value == "t1"
    assert issuer.calls == 1


async def test_waiting_callers_are_cancelled_at_once() -> None:
    issuer = FakeIssuer(Clock())
    issuer.gate = anyio.Event()
    source = issuer.renewal()
    cancelled = anyio.Event()

    async def wait(scope: anyio.CancelScope) -> None:
        with scope:
            await source.get_token()
        cancelled.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.get_token)
        await issuer.begun.wait()
        scope = anyio.CancelScope()
        tasks.start_soon(wait, scope)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        with anyio.fail_after(1):
            await cancelled.wait()
        issuer.gate.set()


async def test_concurrent_callers_share_one_failure() -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    issuer.failure = build_outage
    source = issuer.renewal()
    errors: list[CallError] = []

    async def call() -> None:
        try:
            await source.get_token()
        except Unreachable as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)
    assert (issuer.calls, len(errors), len({id(error) for error in errors})) == (1, 200, 200)


async def test_pauses_grow_until_the_sign_in_server_recovers() -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    issuer.failure = build_outage
    source = issuer.renewal()
    asked_at = []
    for second in range(120):
        before = issuer.calls
        with pytest.raises(Unreachable):
            await source.get_token()
        if issuer.calls > before:
            asked_at.append(second)
        clock.move(1)
    assert asked_at == [0, 1, 3, 7, 15, 31, 61, 91]
    issuer.failure = None
    clock.move(30)
    assert (await source.get_token()).value == "t9"


async def test_refusal_is_remembered_for_the_configured_time() -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    issuer.failure = build_refusal
    source = issuer.renewal(remember_refusal=30.0)
    for seconds, calls in ((0, 1), (29, 1), (2, 2)):
        clock.move(seconds)
        with pytest.raises(NotSignedIn):
            await source.get_token()
        assert issuer.calls == calls


async def test_refusal_is_not_remembered_by_default() -> None:
    issuer = FakeIssuer(Clock())
    issuer.failure = build_refusal
    source = issuer.renewal()
    for _ in range(2):
        with pytest.raises(NotSignedIn):
            await source.get_token()
    assert issuer.calls == 2


async def test_token_is_renewed_at_four_fifths_of_its_life() -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    source = issuer.renewal()
    await source.get_token()
    clock.move(2879)
    await source.get_token()
    assert issuer.calls == 1
    clock.move(2)
    assert (await source.get_token()).value == "t2"


async def test_early_renewal_does_not_delay_other_callers() -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    source = issuer.renewal()
    await source.get_token()
    clock.move(3000)
    issuer.gate, issuer.begun = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.get_token)
        await issuer.begun.wait()
        assert (await source.get_token()).value == "t1"
        issuer.gate.set()
    assert (await source.get_token()).value == "t2"


async def test_outage_keeps_the_old_token_until_it_expires() -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    source = issuer.renewal()
    await source.get_token()
    issuer.failure = build_outage
    clock.move(3000)
    assert (await source.get_token()).value == "t1"
    clock.move(601)
    with pytest.raises(Unreachable):
        await source.get_token()


async def test_refused_token_is_not_reused_in_an_outage() -> None:
    issuer = FakeIssuer(Clock())
    source = issuer.renewal()
    old = await source.get_token()
    issuer.failure = build_outage
    with pytest.raises(Unreachable):
        await source.get_token(stale=old)


@pytest.mark.parametrize("life", [1.0, 5.0, 30.0])
async def test_short_lived_token_is_not_renewed_at_every_call(life: float) -> None:
    issuer = FakeIssuer(Clock(), life)
    source = issuer.renewal()
    for _ in range(5):
        await source.get_token()
    assert issuer.calls == 1


@pytest.mark.parametrize(
    ("wall", "steady", "calls"),
    [(0, 2900, 2), (2900, 0, 2), (7200, 0, 2), (-7200, 100, 1), (-7200, 2900, 2), (30, 30, 1), (-30, -0, 1), (0, 0, 1)],
)
async def test_token_expires_by_either_clock(wall: float, steady: float, calls: int) -> None:
    clock = Clock()
    issuer = FakeIssuer(clock)
    source = issuer.renewal()
    await source.get_token()
    clock.wall += wall
    clock.steady += steady
    await source.get_token()
    assert issuer.calls == calls


async def test_hanging_sign_in_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "RENEW_SECONDS", 0.02)
    issuer = FakeIssuer(Clock())
    issuer.gate = anyio.Event()
    with pytest.raises(Unreachable, match="gave no token"):
        await issuer.renewal().get_token()
