"""The contract in plain HTTP: the sandbox keeps it, and `-m live` reports where the real platform differs."""

import pytest

from tests.contract.live.checks import CHECKS, Check
from tests.contract.live.platforms import Real, emulated, run
from tests.contract.live.report import UNKNOWNS, Report

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_sandbox_passes_contract_check(check: Check) -> None:
    async with emulated() as wire:
        await check.body(wire)
    assert wire.seen


@pytest.mark.live
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_platform_passes_contract_check(check: Check, real: Real, may_write: bool, report: Report) -> None:
    if check.writes and not may_write:
        pytest.skip("it writes, and --live-write is not given")
    async with real.wire() as platform:
        broken = await run(check, platform)
    async with emulated() as sandbox:
        await check.body(sandbox)
    report.compare(check.sentence, check.unknown, sandbox, platform)
    if broken is not None:
        report.unexpected(check.sentence, check.unknown, broken)
        # An open question has no expectation to break: the report shows the answer.
        assert check.unknown is not None, f"proven, but not so: {broken}"


def test_open_questions_each_have_a_check() -> None:
    # The seventh question, the headers of rate limits, is checked in every answer.
    assert {check.unknown for check in CHECKS} - {None} == UNKNOWNS.keys() - {7}
    assert len({check.sentence for check in CHECKS}) == len(CHECKS)
