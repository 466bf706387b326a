"""The sandbox emulates exactly the operations that `itwin-mcp sandbox coverage` lists."""

import itertools
import json
import re
from collections.abc import Iterator

import httpx2
import pytest
from click.testing import CliRunner

from itwin_mcp.cli.sandbox import command
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.coverage import list_coverage
from itwin_mcp.sandbox.operations import IMODELS, ITWINS, OPERATIONS, Operation
from itwin_mcp.sandbox.readings import READINGS, find_readings
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.sandbox.services import ROUTES

pytestmark = pytest.mark.anyio

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# The documentation of these operations lacks bodies, rights or quotas (section 11 of our notes on the platform).
UNDOCUMENTED = (
    "get-imodel-user-permissions",
    "update-imodel-user-permissions",
    "get-imodel-role-permissions",
    "update-imodel-role-permissions",
    "create-imodel-share",
    "get-imodel-share",
    "get-imodel-shares",
    "update-imodel-share",
    "revoke-imodel-share",
    "delete-itwin",
    "get-itwin",
    "get-my-itwins",
    "create-repository",
)
# Values for the slots of paths. The last two ids do not exist, all others are seeded.
SLOT_VALUES = {
    "iTwinId": seeded_id("itwin", "interchange"),
    "iModelId": seeded_id("imodel", "roads"),
    "namedVersionId": seeded_id("version", "roads/3"),
    "changesetGroupId": seeded_id("group", "roads/0"),
    "userId": seeded_id("user", "tomasz"),
    "changesetIdOrIndex": "3",
    "briefcaseId": "2",
    "repositoryId": "cesium",
    "resourceId": "2",
    "exportId": seeded_id("export", "none"),
    "shareId": seeded_id("share", "none"),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.open() as opened:
        yield opened


def fill_slots(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda slot: SLOT_VALUES[slot[1]], path)


async def send_request(sandbox: Sandbox, method: str, path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(sandbox.app)
    headers = {"Authorization": f"Bearer {sandbox.token()}"}
    async with httpx2.AsyncClient(transport=transport, base_url="https://api.bentley.com", headers=headers) as http:
        return await http.request(method, path, json={} if method in ("POST", "PUT", "PATCH") else None)


def get_shape(path: str) -> tuple[str, ...]:
    """Return the segments of a path without the names of its slots."""
    return tuple("{}" if part.startswith("{") else part.lower() for part in path.split("/")[1:])


def matches(path: str, route_shape: tuple[str, ...]) -> bool:
    """Return whether a route serves a path. A slot of the route matches any segment."""
    parts = get_shape(path)
    return len(parts) == len(route_shape) and all(
        served in (part, "{}") for part, served in zip(parts, route_shape, strict=True)
    )


def test_operations_table_has_33_itwins_and_57_imodels_operations() -> None:
    assert (len(ITWINS), len(IMODELS), len(OPERATIONS)) == (33, 57, 90)
    assert len({operation.slug for operation in OPERATIONS}) == 90
    assert len({(operation.method, get_shape(operation.path)) for operation in OPERATIONS}) == 90
    for operation in OPERATIONS:
        assert operation.path.startswith("/itwins" if operation in ITWINS else "/imodels")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.slug)
async def test_sandbox_answers_operation_according_to_list_coverage(sandbox: Sandbox, operation: Operation) -> None:
    row = next(row for row in list_coverage() if row.operation == operation)
    answer = await send_request(sandbox, operation.method, fill_slots(operation.path))
    assert (answer.status_code == 501) == (row.status == "not"), answer.text
    assert answer.status_code < 500 or row.status == "not"
    assert (row.status == "partly") == bool(row.missing)


def test_list_coverage_has_every_operation_emulated_or_partly() -> None:
    rows = list_coverage()
    assert [row.operation for row in rows] == list(OPERATIONS)
    assert {row.status for row in rows} <= {"emulated", "partly"}, [row for row in rows if row.status == "not"]


async def test_sandbox_answers_404_to_undocumented_methods(sandbox: Sandbox) -> None:
    routes = {(route.method, get_shape(route.path)) for route in ROUTES}
    count = 0
    for path, method in itertools.product(sorted({operation.path for operation in OPERATIONS}), METHODS):
        if any(served_method == method and matches(path, shape) for served_method, shape in routes):
            continue
        answer = await send_request(sandbox, method, fill_slots(path))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound"), f"{method} {path}"
        count += 1
    assert count > 150


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/itwins/exports/{exportId}/download",
        "/itwins/{iTwinId}/exports",
        "/itwins/myitwins/recents",
        "/imodels/{iModelId}/elements",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/download",
        "/imodels/{iModelId}/locks/{userId}",
        "/issues",
        "/savedviews",
        "/synchronization/imodels/storageconnections",
        "/webhooks",
        "/reality-management/reality-data",
    ],
)
async def test_sandbox_refuses_undocumented_paths(sandbox: Sandbox, path: str) -> None:
    emulated = path.startswith(("/itwins", "/imodels"))
    for method in METHODS:
        answer = await send_request(sandbox, method, fill_slots(path))
        refusal = (404, "ResourceNotFound") if emulated else (501, "NotEmulated")
        assert (answer.status_code, answer.json()["error"]["code"]) == refusal, method


def test_routes_without_a_slug_are_not_itwins_or_imodels() -> None:
    roots = {route.path.split("/")[1] for route in ROUTES if not route.slug}
    assert roots.isdisjoint({"itwins", "imodels"})
    assert {"accesscontrol", "connect", "users", ".well-known"} <= roots


@pytest.mark.parametrize("slug", UNDOCUMENTED)
def test_find_readings_covers_undocumented_operations(slug: str) -> None:
    assert find_readings(slug)


def test_sandbox_coverage_command_prints_table_and_readings() -> None:
    output = json.loads(CliRunner().invoke(command, ["coverage", "--json"]).stdout)
    rows = [(row.operation.slug, row.operation.method, row.operation.path, row.status) for row in list_coverage()]
    names = ("slug", "method", "path", "status")
    assert [tuple(operation[name] for name in names) for operation in output["operations"]] == rows
    assert [reading["reading"] for reading in output["readings"]] == [reading.reading for reading in READINGS]
    text = CliRunner().invoke(command, ["coverage"]).stdout
    emulated = sum(row.status == "emulated" for row in list_coverage())
    assert f"90 documented: {emulated} emulated, {90 - emulated} partly, 0 not." in text
    for row in list_coverage():
        assert row.operation.path in text
