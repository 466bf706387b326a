"""An API that is served from its OpenAPI definition alone: its tools are called against a loopback server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from mcp import Client

from itwin_mcp.capability.openapi_import.definition import read_definition
from itwin_mcp.capability.openapi_import.importer import Choice, UsedNames, import_operations
from tests.conftest import connect
from tests.upstream.loopback import Asked, Loopback, loopback

pytestmark = pytest.mark.anyio

LIBRARY = Path(__file__).parents[1] / "capability" / "data" / "library-api.yaml"
ATLAS = {"id": "11111111-1111-4111-8111-111111111111", "title": "Atlas", "kind": "atlas", "pages": 90, "secret": "s"}
NOVELS = [
    {"id": f"22222222-2222-4222-8222-{number:012}", "title": f"Novel {number}", "kind": "novel"} for number in range(3)
]
BOOKS = [ATLAS, *NOVELS]
SCAN = {"id": "scan-1", "status": "Completed", "url": "https://scans.example/1"}


async def answer(request: Asked) -> None:
    """Answer as the library: two books or readers per page, and a scan that has ended when it is first looked at."""
    query = dict(parse_qsl(request.target.partition("?")[2]))
    book = next((book for book in BOOKS if request.path.startswith(f"/v1/books/{book['id']}")), None)
    if request.method == "GET" and request.path == "/v1/books":
        skip = int(query.get("skip", 0))
        found = [book for book in BOOKS if query.get("title", book["title"]) == book["title"]]
        origin = f"http://{request.headers['host']}/v1/books"
        links = {"next": {"href": f"{origin}?skip={skip + 2}"}} if len(found) > skip + 2 else {}
        await request.json(200, {"books": found[skip : skip + 2], "_links": links})
    elif request.path == "/v1/readers":
        first = int(query.get("cursor", 1))
        meta = {"total": 4} | ({"nextCursor": str(first + 2)} if first < 3 else {})
        await request.json(200, {"data": [{"id": first, "name": "A"}, {"id": first + 1, "name": "B"}], "meta": meta})
    elif request.path == "/v1/shelves":
        await request.json(200, [{"id": "a", "floor": 1, "dust": 3}])
    elif request.path == "/v1/shelves/count":
        await request.json(200, 1)
    elif request.method == "POST" and request.path == "/v1/books":
        await request.json(201, {**json.loads(request.body), "id": ATLAS["id"]})
    elif request.path.endswith("/scans"):
        await request.answer(202, headers={"Location": f"{request.path}/scan-1"})
    elif request.path.endswith("/scans/scan-1"):
        await request.json(200, SCAN)
    elif request.method == "PATCH" and book is not None:
        await request.json(200, {**book, **json.loads(request.body)})
    elif book is not None:
        await request.json(200, book)
    else:
        await request.json(404, {"title": "Not Found", "status": 404, "detail": "There is no such book."})


@asynccontextmanager
async def open_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **serves: Any
) -> AsyncIterator[tuple[Client, Loopback]]:
    """Connect a client to our server, which also serves the imported file."""
    monkeypatch.setenv("TOWN_LIBRARY_KEY", "canary-key")
    async with loopback(answer) as api:
        imported = import_operations(
            read_definition(LIBRARY), Choice(everything=True), UsedNames(), base_uri=f"{api.origin}/v1"
        )
        file = tmp_path / "library.yaml"
        file.write_text(imported.text, encoding="utf-8")
        async with connect(capabilities=(file,), **serves) as client:
            yield client, api


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answered = (await client.call_tool(tool, arguments)).structured_content
    assert answered is not None
    return answered


async def test_imported_tools_page_write_wait_and_resolve_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path, monkeypatch) as (client, api):
        listed = await call(client, "list-books", limit=3)
        assert [book["title"] for book in listed["books"]] == ["Atlas", "Novel 0", "Novel 1"]
        assert (listed["page"]["complete"], "secret" in listed["books"][0]) == (False, False)
        readers = await call(client, "list-readers")
        assert [reader["id"] for reader in readers["data"]] == [1, 2, 3, 4]
        assert (readers["page"]["complete"], readers["page"]["total"]) == (True, 4)
        added = await call(client, "add-book", title="Atlas", pages=90, author={"name": "Ada"})
        assert (added["title"], added["author"]["name"]) == ("Atlas", "Ada")
        assert json.loads(api.requests[-1].body) == {"title": "Atlas", "pages": 90, "author": {"name": "Ada"}}
        scanned = await call(client, "scan-book", bookId=ATLAS["id"])
        assert scanned == SCAN
        assert (await call(client, "get-book", bookId="Atlas"))["pages"] == 90
        changed = await call(client, "update-book", bookId=ATLAS["id"], title="Atlas", clear=["note"])
        assert changed["title"] == "Atlas"
        assert json.loads(api.requests[-1].body) == {"title": "Atlas", "note": None}
        assert api.requests[-1].headers["content-type"] == "application/merge-patch+json"
        assert await call(client, "list-shelves") == {"result": [{"id": "a", "floor": 1}]}
        assert await call(client, "count-shelves") == {"result": 1}
        assert all(request.headers["x-library-key"] == "canary-key" for request in api.requests)


async def test_imported_tools_reject_wrong_arguments_before_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path, monkeypatch) as (client, api):
        refused = await call(client, "add-book", title="", kind="comic", pages=10000)
        assert {detail["target"] for detail in refused["error"]["details"]} == {"title", "kind", "pages"}
        assert api.requests == []
