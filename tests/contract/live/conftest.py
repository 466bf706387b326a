"""Options of the live run, and what belongs to the whole of it: the platform's address, and the report in the end.

The developer's variables are read here, before any test: later each test runs without them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.live.platforms import Real
from tests.contract.live.report import Report

TOKEN = os.environ.get("ITWIN_ACCESS_TOKEN", "")
API_URL = os.environ.get("ITWIN_API_URL", "https://api.bentley.com").rstrip("/")


@pytest.fixture(scope="session")
def real() -> Real:
    if not TOKEN:
        pytest.skip("ITWIN_ACCESS_TOKEN is not set: there is no platform to talk to")
    return Real(API_URL, TOKEN)


@pytest.fixture(scope="session")
def may_write(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--live-write", default=False))


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Iterator[Report]:
    report = Report()
    yield report
    if report.checks:
        report.write(pytestconfig.getoption("--live-report", default=None) or Path("live-report"))
