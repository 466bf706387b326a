"""The table of readings, our assumptions about undocumented behaviour."""

from itwin_mcp.sandbox.operations import OPERATIONS
from itwin_mcp.sandbox.readings import READINGS, find_readings


def test_readings_name_existing_operations_and_have_texts() -> None:
    slugs = {operation.slug for operation in OPERATIONS}
    for reading in READINGS:
        assert set(reading.slugs) <= slugs
        assert reading.unknown.endswith(".")
        assert reading.reading.strip()


def test_find_readings_returns_readings_of_one_operation() -> None:
    assert any("quota" in reading.unknown for reading in find_readings("acquire-imodel-briefcase"))
    assert find_readings("no-such-operation") == ()
