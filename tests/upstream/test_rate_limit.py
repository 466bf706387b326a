"""Rate limits with an injected clock."""

from __future__ import annotations

import pytest

from itwin_mcp.errors import Unreachable
from itwin_mcp.upstream.rate_limit import MAX_KEYS, Pacer, SteadyRate

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that advances only by `sleep`."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def record_times(pacer: Pacer, clock: Clock, count: int) -> list[float]:
    times = []
    for _ in range(count):
        await pacer.wait_turn()
        times.append(round(clock.time - 1000.0, 3))
    return times


async def test_pacer_without_a_rate_never_waits() -> None:
    clock = Clock()
    assert await record_times(Pacer(clock=clock, sleep=clock.sleep), clock, 5) == [0.0] * 5


async def test_pacer_allows_a_burst_of_one_second_then_spreads_evenly() -> None:
    clock = Clock()
    times = await record_times(Pacer(120, clock=clock, sleep=clock.sleep), clock, 6)
    assert times == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


async def test_pacer_never_exceeds_the_rate_in_any_minute() -> None:
    clock = Clock()
    times = await record_times(Pacer(500, clock=clock, sleep=clock.sleep), clock, 1500)
    for start in range(0, 100, 10):
        assert sum(start <= moment < start + 60 for moment in times) <= 500 + 10


async def test_slow_down_delays_calls_and_adopts_rate_of_the_tier() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock, sleep=clock.sleep)
    pacer.slow_down(10.0, "Community")
    times = await record_times(pacer, clock, 20)
    assert times[0] == 10.0
    assert times[-1] - times[0] == pytest.approx(19 * 0.12, abs=1.1)


async def test_slow_down_keeps_a_configured_rate() -> None:
    clock = Clock()
    pacer = Pacer(60, clock=clock, sleep=clock.sleep)
    pacer.slow_down(None, "Premium")
    assert await record_times(pacer, clock, 3) == [0.0, 0.0, 1.0]


async def test_wait_turn_beyond_the_deadline_raises_and_takes_no_turn() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock, sleep=clock.sleep)
    pacer.slow_down(50.0, None)
    with pytest.raises(Unreachable, match="not sent") as caught:
        await pacer.wait_turn(longest=20.0)
    assert caught.value.retry_after == 50.0
    assert clock.time == 1000.0


def test_pacer_rejects_rate_below_one_per_minute() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pacer(0)


def test_steady_rate_counts_keys_separately_and_drops_idle_ones() -> None:
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
