"""Coverage of the sandbox: it answers each operation as `sandbox coverage` says, and nothing else."""

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
# Details that the documentation leaves open: bodies, rights and quotas (section 11 of our notes on the platform).
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
# Ids for slots: things of the seeded portfolio.
KNOWN = {
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


def filled(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda slot: KNOWN[slot[1]], path)


async def ask(sandbox: Sandbox, method: str, path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(sandbox.app)
    headers = {"Authorization": f"Bearer {sandbox.token()}"}
    async with httpx2.AsyncClient(transport=transport, base_url="https://api.bentley.com", headers=headers) as http:
        return await http.request(method, path, json={} if method in ("POST", "PUT", "PATCH") else None)


def shape(path: str) -> tuple[str, ...]:
    return tuple("{}" if part.startswith("{") else part.lower() for part in path.split("/")[1:])


def fits(path: str, known: tuple[str, ...]) -> bool:
    """Return whether a path with slots could stand for a known one, or the other way round."""
    parts = shape(path)
    return len(parts) == len(known) and all(a == b or b == "{}" for a, b in zip(parts, known, strict=True))


def test_operations_table_has_33_itwins_and_57_imodels_operations() -> None:
    assert (len(ITWINS), len(IMODELS), len(OPERATIONS)) == (33, 57, 90)
    assert len({operation.slug for operation in OPERATIONS}) == 90
    assert len({(operation.method, shape(operation.path)) for operation in OPERATIONS}) == 90
    for operation in OPERATIONS:
        assert operation.path.startswith("/itwins" if operation in ITWINS else "/imodels")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.slug)
async def test_operation_is_answered_as_list_coverage_says(sandbox: Sandbox, operation: Operation) -> None:
    row = next(row for row in list_coverage() if row.operation == operation)
    answer = await ask(sandbox, operation.method, filled(operation.path))
    assert (answer.status_code == 501) == (row.status == "not"), answer.text
    assert answer.status_code < 500 or row.status == "not"
    assert (row.status == "partly") == bool(row.missing)


def test_list_coverage_has_every_operation_emulated_or_partly() -> None:
    rows = list_coverage()
    assert [row.operation for row in rows] == list(OPERATIONS)
    assert {row.status for row in rows} <= {"emulated", "partly"}, [row for row in rows if row.status == "not"]


async def test_sandbox_answers_404_to_undocumented_methods(sandbox: Sandbox) -> None:
    served = {(route.method, shape(route.path)) for route in ROUTES}
    tried = 0
    for path, method in itertools.product(sorted({operation.path for operation in OPERATIONS}), METHODS):
        if any(one == method and fits(path, known) for one, known in served):
            continue
        answer = await ask(sandbox, method, filled(path))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound"), f"{method} {path}"
        tried += 1
    assert tried > 150


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
        answer = await ask(sandbox, method, filled(path))
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
    shown = json.loads(CliRunner().invoke(command, ["coverage", "--json"]).stdout)
    rows = [(row.operation.slug, row.operation.method, row.operation.path, row.status) for row in list_coverage()]
    assert [(one["slug"], one["method"], one["path"], one["status"]) for one in shown["operations"]] == rows
    assert [one["reading"] for one in shown["readings"]] == [one.reading for one in READINGS]
    text = CliRunner().invoke(command, ["coverage"]).stdout
    emulated = sum(row.status == "emulated" for row in list_coverage())
    assert f"90 documented: {emulated} emulated, {90 - emulated} partly, 0 not." in text
    for row in list_coverage():
        assert row.operation.path in text
