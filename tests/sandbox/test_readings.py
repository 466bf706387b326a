"""The table of our readings holds to the operations that exist."""

from itwin_mcp.sandbox.operations import OPERATIONS
from itwin_mcp.sandbox.readings import READINGS, readings_of


def test_every_reading_names_operations_that_exist_and_says_something() -> None:
    known = {operation.slug for operation in OPERATIONS}
    for reading in READINGS:
        assert set(reading.slugs) <= known
        assert reading.unknown.endswith(".")
        assert reading.reading.strip()


def test_the_readings_of_an_operation_are_found_by_its_slug() -> None:
    assert any("quota" in reading.unknown for reading in readings_of("acquire-imodel-briefcase"))
    assert readings_of("no-such-operation") == ()
