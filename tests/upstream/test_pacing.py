"""Pacing by an injected clock."""

from __future__ import annotations

import pytest

from itwin_mcp.errors import Unreachable
from itwin_mcp.upstream.pacing import Pacer

pytestmark = pytest.mark.anyio


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def moments(pacer: Pacer, clock: Clock, count: int) -> list[float]:
    seen = []
    for _ in range(count):
        await pacer.turn()
        seen.append(round(clock.time - 1000.0, 3))
    return seen


async def test_without_a_rate_nobody_waits() -> None:
    clock = Clock()
    assert await moments(Pacer(clock=clock, sleep=clock.sleep), clock, 5) == [0.0] * 5


async def test_a_set_rate_lets_a_seconds_worth_through_and_then_paces() -> None:
    clock = Clock()
    seen = await moments(Pacer(120, clock=clock, sleep=clock.sleep), clock, 6)
    assert seen == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


async def test_a_minute_never_holds_more_calls_than_the_rate_and_its_first_second() -> None:
    clock = Clock()
    seen = await moments(Pacer(500, clock=clock, sleep=clock.sleep), clock, 1500)
    for start in range(0, 100, 10):
        assert sum(start <= moment < start + 60 for moment in seen) <= 500 + 10


async def test_a_refusal_holds_all_calls_and_teaches_the_tiers_rate() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock, sleep=clock.sleep)
    pacer.refused(10.0, "Community")
    seen = await moments(pacer, clock, 20)
    assert seen[0] == 10.0
    assert seen[-1] - seen[0] == pytest.approx(19 * 0.12, abs=1.1)


async def test_a_rate_that_was_set_is_not_replaced_by_the_tier() -> None:
    clock = Clock()
    pacer = Pacer(60, clock=clock, sleep=clock.sleep)
    pacer.refused(None, "Premium")
    assert await moments(pacer, clock, 3) == [0.0, 0.0, 1.0]


async def test_a_moment_after_the_deadline_is_refused_and_not_taken() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock, sleep=clock.sleep)
    pacer.refused(50.0, None)
    with pytest.raises(Unreachable, match="not sent") as caught:
        await pacer.turn(longest=20.0)
    assert caught.value.retry_after == 50.0
    assert clock.time == 1000.0


def test_a_rate_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pacer(0)
