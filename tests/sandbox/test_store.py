"""The store: shared database files, killed processes, unknown databases."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.operations import OPERATIONS, Operation
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.sandbox.store import UnknownDatabase

pytestmark = pytest.mark.anyio
ORIGIN = "https://api.bentley.com"
PROJECT = {"class": "Endeavor", "subClass": "Project", "displayName": "x"}
WRITER = """
import asyncio, sys, httpx2
from pathlib import Path
from itwin_mcp.sandbox import Sandbox
async def main():
    box = Sandbox.open(Path(sys.argv[1]))
    headers = {"Authorization": "Bearer " + box.token()}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(box.app), base_url="https://api.bentley.com",
                                  headers=headers) as http:
        while True:
            body = {"class": "Endeavor", "subClass": "Project", "displayName": "x"}
            print((await http.post("/itwins", json=body)).json()["iTwin"]["id"], flush=True)
asyncio.run(main())
"""


def open_client(sandbox: Sandbox) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {sandbox.token()}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(sandbox.app), base_url=ORIGIN, headers=headers)


async def test_sandboxes_on_one_file_share_state_and_tokens(tmp_path: Path) -> None:
    with Sandbox.open(tmp_path / "box.db") as first, Sandbox.open(tmp_path / "box.db") as second:
        async with open_client(first) as first_http, open_client(second) as second_http:
            created = (await first_http.post("/itwins", json=PROJECT)).json()["iTwin"]
            token = {"Authorization": f"Bearer {first.token()}"}
            assert (await second_http.get(f"/itwins/{created['id']}", headers=token)).json()["iTwin"] == created


async def test_acknowledged_writes_survive_killed_processes(tmp_path: Path) -> None:
    database = tmp_path / "box.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(database)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for _ in range(3)
    ]
    acknowledged: list[str] = []
    for writer in writers:
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(5)]
    for writer in writers:
        writer.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.communicate()[0].splitlines() if len(line) == 37]
    with Sandbox.open(database) as sandbox:
        async with open_client(sandbox) as http:
            for itwin_id in acknowledged:
                assert (await http.get(f"/itwins/{itwin_id}")).status_code == 200


def test_sandbox_open_rejects_a_foreign_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE theirs (id)")
    with pytest.raises(UnknownDatabase):
        Sandbox.open(tmp_path / "other.db")


def test_sandbox_open_closes_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Pier 7: cracks\n" * 100)
    # A connection that stays open is a ResourceWarning from Python 3.13 on, and so a failure.
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        Sandbox.open(tmp_path / "notes.txt")


async def test_unseeded_sandbox_has_an_account_and_its_owner() -> None:
    with Sandbox.open(seed=False) as sandbox:
        async with open_client(sandbox) as http:
            assert (await http.get("/itwins")).json()["iTwins"] == []
            assert (await http.post("/itwins", json=PROJECT)).status_code == 201


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_PROPERTIES = (
    "class", "subClass", "displayName", "number", "parentId", "latitude", "ianaTimeZone", "status", "iTwinId", "name",
    "description", "extent", "containersEnabled", "creationMode", "template", "baselineFile", "changesetId",
    "changesetIndex", "preserveHistory", "geographicCoordinateSystem", "state",
    "userId",
    "roleId",
    "permissions",
    "permission",
    "expiration",
)  # fmt: skip
_PARAMETERS = (
    "$top", "$skip", "$continuationToken", "$search", "$filter", "$orderby", "$select", "name", "state", "status",
    "iTwinId", "subClass", "afterIndex", "lastIndex", "includeInactive", "number",
    "size",
)  # fmt: skip
_WORDS = st.sampled_from(
    [
        "(",
        ")",
        "'a'",
        "in",
        "[",
        "]",
        ",",
        "eq",
        "and",
        "or",
        "not",
        "contains",
        "number",
        "latitude",
        "1",
        "null",
        "x'",
    ]
)
_VALUES = st.text(max_size=30) | st.lists(_WORDS, max_size=12).map(" ".join) | st.integers().map(str)
_KNOWN = {"iTwinId": seeded_id("itwin", "interchange"), "iModelId": seeded_id("imodel", "roads")}


@settings(max_examples=150)
@given(
    operation=st.sampled_from(OPERATIONS),
    slot=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
    | st.just("3"),
    use_known=st.booleans(),
    query=st.dictionaries(st.sampled_from(_PARAMETERS), _VALUES, max_size=4),
    body=st.none() | st.dictionaries(st.sampled_from(_PROPERTIES), _JSON, max_size=6),
)
async def test_sandbox_never_answers_500(
    sandbox: Sandbox,
    operation: Operation,
    slot: str,
    use_known: bool,
    query: dict[str, str],
    body: dict[str, object] | None,
) -> None:
    path = operation.path
    for name, value in _KNOWN.items() if use_known else ():
        path = path.replace(f"{{{name}}}", value)
    parts = [quote(slot, safe="") if part.startswith("{") else part for part in path.split("/")]
    async with open_client(sandbox) as http:
        answer = await http.request(operation.method, "/".join(parts), params=query, json=body)
    assert answer.status_code != 500
    if answer.status_code >= 400:
        assert answer.json()["error"]["code"]
