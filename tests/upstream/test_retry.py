"""Retries: which failures are retried, how often, and after which delay."""

from __future__ import annotations

import pytest

from itwin_mcp.errors import PlatformError
from itwin_mcp.upstream import retry
from itwin_mcp.upstream.retry import AttemptError, Retries, RetryBudget

pytestmark = pytest.mark.anyio


def build_failure(after: float | None = None, *, transient: bool = True, maybe_executed: bool = False) -> AttemptError:
    error = PlatformError("C", "m", hint="h")
    return AttemptError(error, transient=transient, maybe_executed=maybe_executed, after=after)


def compute_delay(retries: Retries, failure: AttemptError, made: int = 1, left: float = 60.0) -> float | None:
    return retries.compute_delay(failure, made, "GET", left)


def test_backoff_doubles_with_full_jitter() -> None:
    assert [compute_delay(Retries(chance=lambda: 1.0), build_failure(), made) for made in (1, 2, 3)] == [1.0, 2.0, None]
    assert compute_delay(Retries(chance=lambda: 0.0), build_failure()) == 0.0


def test_retry_after_is_respected_with_little_jitter() -> None:
    assert compute_delay(Retries(chance=lambda: 0.0), build_failure(7.0)) == 7.0
    assert compute_delay(Retries(chance=lambda: 1.0), build_failure(7.0)) == 7.5


@pytest.mark.parametrize(("after", "left"), [(61.0, 600.0), (30.0, 30.5), (None, 0.5)])
def test_delay_beyond_deadline_or_maximum_fails_at_once(after: float | None, left: float) -> None:
    assert compute_delay(Retries(chance=lambda: 1.0), build_failure(after), left=left) is None


async def test_run_sleeps_before_retries_and_raises_error_without_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    attempts: list[int] = []

    async def attempt() -> None:
        attempts.append(1)
        raise build_failure()

    monkeypatch.setattr(retry, "sleep", sleep)
    with pytest.raises(PlatformError) as caught:
        await Retries(chance=lambda: 1.0).run(attempt, method="GET", seconds_left=lambda: 60.0)
    assert (len(attempts), slept) == (3, [1.0, 2.0])
    assert caught.value.__context__ is None


async def test_run_passes_other_exceptions_through() -> None:
    attempts: list[int] = []

    async def attempt() -> None:
        attempts.append(1)
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        await Retries().run(attempt, method="GET", seconds_left=lambda: 60.0)
    assert len(attempts) == 1


def test_retry_budget_allows_one_retry_for_ten_calls_after_its_reserve() -> None:
    budget = RetryBudget(reserve=2.0, share=0.1)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    budget.calls += 11
    assert [budget.withdraw(), budget.withdraw()] == [True, False]
