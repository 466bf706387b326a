"""A tool call passes through few of our files, as `benchmarks/call_path.py` counts them."""

import pytest
from benchmarks.call_path import trace_call

pytestmark = pytest.mark.anyio

MAX_FILES = 16
MAX_CHANGES = 30


async def test_trace_of_a_warm_call_has_few_files_and_few_changes_of_file() -> None:
    path = (await trace_call()).path
    assert len(set(path)) <= MAX_FILES, path
    assert len(path) - 1 <= MAX_CHANGES, path
