"""Rate limits with an injected clock."""

from __future__ import annotations

import pytest

from itwin_mcp.errors import Unreachable
from itwin_mcp.upstream.rate_limit import MAX_KEYS, Pacer, SteadyRate

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def moments(pacer: Pacer, clock: Clock, count: int) -> list[float]:
    seen = []
    for _ in range(count):
        await pacer.wait_turn()
        seen.append(round(clock.time - 1000.0, 3))
    return seen


async def test_pacer_without_a_rate_never_waits() -> None:
    clock = Clock()
    assert await moments(Pacer(clock=clock, sleep=clock.sleep), clock, 5) == [0.0] * 5


async def test_pacer_allows_a_burst_of_one_second_then_spreads_evenly() -> None:
    clock = Clock()
    seen = await moments(Pacer(120, clock=clock, sleep=clock.sleep), clock, 6)
    assert seen == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


async def test_pacer_never_exceeds_the_rate_in_any_minute() -> None:
    clock = Clock()
    seen = await moments(Pacer(500, clock=clock, sleep=clock.sleep), clock, 1500)
    for start in range(0, 100, 10):
        assert sum(start <= moment < start + 60 for moment in seen) <= 500 + 10


async def test_slow_down_holds_all_calls_and_adopts_the_tiers_rate() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock, sleep=clock.sleep)
    pacer.slow_down(10.0, "Community")
    seen = await moments(pacer, clock, 20)
    assert seen[0] == 10.0
    assert seen[-1] - seen[0] == pytest.approx(19 * 0.12, abs=1.1)


async def test_slow_down_keeps_a_configured_rate() -> None:
    clock = Clock()
    pacer = Pacer(60, clock=clock, sleep=clock.sleep)
    pacer.slow_down(None, "Premium")
    assert await moments(pacer, clock, 3) == [0.0, 0.0, 1.0]


async def test_wait_turn_beyond_the_deadline_raises_and_takes_no_turn() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock, sleep=clock.sleep)
    pacer.slow_down(50.0, None)
    with pytest.raises(Unreachable, match="not sent") as caught:
        await pacer.wait_turn(longest=20.0)
    assert caught.value.retry_after == 50.0
    assert clock.time == 1000.0


def test_rate_below_one_a_minute_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pacer(0)


def test_steady_rate_counts_each_key_apart_and_forgets_rested_ones() -> None:
    clock = Clock()
    rate = SteadyRate(60, 2.0, clock)
    for _ in range(3):
        assert rate.compute_wait("anna") == 0.0
        rate.take("anna")
    assert (rate.compute_wait("anna"), rate.compute_wait("tomasz")) == (1.0, 0.0)
    clock.time += 1.0
    assert rate.compute_wait("anna") == 0.0
    clock.time += 10.0
    for number in range(MAX_KEYS):
        rate.take(str(number))
    assert rate.compute_wait("anna") == 0.0
    assert len(rate._due) <= MAX_KEYS
