"""Error details of the platform are mapped to the arguments of a tool."""

import pytest

from itwin_mcp.errors import PlatformError
from itwin_mcp.executor.refusals import name_arguments
from tests.conftest import shipped_catalog

TOOLS = shipped_catalog().tools


@pytest.mark.parametrize(
    ("tool", "target", "argument"),
    [
        ("create-imodel", "name", "name"),
        ("create-imodel", "extent.southWest.latitude", "extent"),
        ("create-imodel", "extent/northEast", "extent"),
        ("create-imodel", "geographicCoordinateSystem.horizontalCRSId", "horizontalCRSId"),
        ("create-imodel", "horizontalCRSId", "horizontalCRSId"),
        ("create-imodel", "creationMode", None),
        ("list-itwins", "$search", "search"),
        ("list-itwins", "SubClass", "subClass"),
        ("list-itwins", "$top", None),
        ("create-named-version", "changesetId", "changeset"),
    ],
)
def test_name_arguments_adds_the_argument_of_each_target(tool: str, target: str, argument: str | None) -> None:
    details = [{"code": "InvalidValue", "message": "no", "target": target}, {"code": "Other", "message": "no"}]
    error = PlatformError("InvalidiModelsRequest", "no", hint="", status=422, details=details)
    named = name_arguments(error, TOOLS[tool])
    assert named.details[0].get("argument") == argument
    assert "argument" not in named.details[1]
    assert "argument" not in error.details[0], "the error itself stays as it is"
