"""A tool call walks straight through: how many of our files it runs through, counted by `benchmarks/call_path.py`."""

import pytest
from benchmarks.call_path import trace_call

pytestmark = pytest.mark.anyio

MAX_FILES = 16
MAX_CHANGES = 30


async def test_a_warm_call_runs_through_few_files_in_one_direction() -> None:
    path = (await trace_call()).path
    assert len(set(path)) <= MAX_FILES, path
    assert len(path) - 1 <= MAX_CHANGES, path
