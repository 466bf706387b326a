"""How long is waited between attempts, and when not at all."""

from __future__ import annotations

import pytest

from itwin_mcp.errors import PlatformError
from itwin_mcp.upstream.retry import AttemptError, RepeatBudget, Repeats

pytestmark = pytest.mark.anyio


def failure(after: float | None = None, *, transient: bool = True, maybe_executed: bool = False) -> AttemptError:
    error = PlatformError("C", "m", hint="h")
    return AttemptError(error, transient=transient, maybe_executed=maybe_executed, after=after)


def wait(repeats: Repeats, failed: AttemptError, made: int = 1, left: float = 60.0) -> float | None:
    return repeats._wait(failed, made, "GET", left)


def test_the_wait_grows_and_is_spread_over_its_whole_length() -> None:
    assert [wait(Repeats(chance=lambda: 1.0), failure(), made) for made in (1, 2, 3)] == [1.0, 2.0, None]
    assert wait(Repeats(chance=lambda: 0.0), failure()) == 0.0


def test_retry_after_is_kept_and_a_little_spread() -> None:
    assert wait(Repeats(chance=lambda: 0.0), failure(7.0)) == 7.0
    assert wait(Repeats(chance=lambda: 1.0), failure(7.0)) == 7.5


@pytest.mark.parametrize(("after", "left"), [(61.0, 600.0), (30.0, 30.5), (None, 0.5)])
def test_a_wait_that_does_not_fit_is_an_error_at_once(after: float | None, left: float) -> None:
    assert wait(Repeats(chance=lambda: 1.0), failure(after), left=left) is None


async def test_the_last_error_is_raised_bare() -> None:
    attempts: list[int] = []

    async def attempt() -> None:
        attempts.append(1)
        raise failure()

    with pytest.raises(PlatformError) as caught:
        await Repeats().run(attempt, method="GET", seconds_left=lambda: 60.0)
    assert len(attempts) == 3
    assert caught.value.__context__ is None


async def test_an_error_that_is_no_failed_attempt_passes_at_once() -> None:
    attempts: list[int] = []

    async def attempt() -> None:
        attempts.append(1)
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        await Repeats().run(attempt, method="GET", seconds_left=lambda: 60.0)
    assert len(attempts) == 1


def test_the_budget_gives_one_repeat_for_ten_calls_after_its_reserve() -> None:
    budget = RepeatBudget(reserve=2.0, share=0.1)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    for _ in range(11):
        budget.deposit()
    assert [budget.withdraw(), budget.withdraw()] == [True, False]
