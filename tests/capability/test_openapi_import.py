"""Import of OpenAPI definitions: a made-up library, the platform's own definitions, and documents that are broken."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.openapi_import.definition import Definition, read_definition
from itwin_mcp.capability.openapi_import.importer import Choice, ImportedFile, UsedNames, import_operations
from itwin_mcp.errors import SettingsError
from tests.conftest import shipped_catalog

LIBRARY = Path(__file__).parent / "data" / "library-api.yaml"
SHARED = os.environ.get("ITWIN_MCP_SHARED")  # read at import, because fixtures clear our variables
DEFINITIONS = sorted(Path(SHARED or "/missing").glob("reference/openapi/*.json"))
EVERYTHING = Choice(everything=True)


@cache
def import_library() -> tuple[ImportedFile, dict[str, Any]]:
    imported = import_operations(read_definition(LIBRARY), EVERYTHING, UsedNames())
    return imported, yaml.safe_load(imported.text)


def read_operations() -> dict[str, Any]:
    resources = import_library()[1]["capability"]["consumes"][0]["resources"].values()
    return {name: operation for resource in resources for name, operation in resource["operations"].items()}


def read_tools() -> dict[str, Any]:
    tools: dict[str, Any] = import_library()[1]["capability"]["exposes"][0]["tools"]
    return tools


def list_taken_names() -> UsedNames:
    catalog = shipped_catalog()
    namespaces = {operation.namespace for operation in catalog.operations.values()} | set(catalog.toolsets)
    return UsedNames(catalog.tools.keys(), namespaces, catalog.entities.keys())


def link_text(text: str, folder: Path) -> Catalog:
    file = folder / "imported.yaml"
    file.write_text(text, encoding="utf-8")
    return link_files([file])


def import_root(root: Any, choice: Choice = EVERYTHING) -> ImportedFile:
    return import_operations(Definition(root, "api.json"), choice, UsedNames())


def write_definition(**paths: Any) -> dict[str, Any]:
    """Return a small definition with one path for each argument."""
    return {
        "openapi": "3.0.3",
        "info": {"title": "Small", "version": "1"},
        "servers": [{"url": "https://small.example"}],
        "paths": {f"/{name}": {"get": node} for name, node in paths.items()},
    }


def answer_with(schema: Any) -> dict[str, Any]:
    return {"200": {"description": "", "content": {"application/json": {"schema": schema}}}}


def test_imported_library_links_without_warnings(tmp_path: Path) -> None:
    imported, _ = import_library()
    catalog = link_text(imported.text, tmp_path)
    assert list(catalog.tools) == imported.tools
    assert catalog.warnings == ()


def test_report_lists_everything_that_is_left_out() -> None:
    report = "\n".join(f"{subject}: {message}" for subject, message in import_library()[0].report)
    for expected in (
        "GET /old: is not imported: it is deprecated",
        "GET /books: the parameter kind: takes one value per call",
        "GET /books: the parameter place: is left out: it is written in the style deepObject",
        "POST /books: the body is sent as application/json, and never as application/xml",
        "POST /books: the body's author: friends: Person contains itself",
        "POST /books/{id}/scans: its callbacks are not received",
        "GET /readers/{id}: the answer's member 'error' is returned as 'errorData'",
        "POST /search: is one of 2 shapes (oneOf)",
        "POST /search: the body's year: multipleOf is not checked before a call",
        "GET /covers/{id}: is not imported: it answers image/png",
        "GET /session: is not imported: its required parameter 'session' is sent in the cookie",
        "HEAD /books/{id}: is not imported",
        "webhooks: are not received",
    ):
        assert expected in report


@pytest.mark.parametrize(
    ("operation", "page"),
    [
        ("list-books", {"style": "link", "items": "$.books", "next": "$._links.next.href", "size": "top", "most": 50}),
        (
            "list-readers",
            {"style": "token", "items": "$.data", "next": "$.meta.nextCursor", "token": "cursor", "size": "limit"}
            | {"most": 20, "count": "$.meta.total"},
        ),
    ],
)
def test_paging_is_recognized(operation: str, page: dict[str, Any]) -> None:
    assert read_operations()[operation]["x-page"] == page
    assert not {"top", "skip", "limit", "cursor"} & read_tools()[operation]["inputParameters"].keys()


def test_paging_by_skip_needs_no_link() -> None:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "integer"}, "description": "Maximum: 1,000."}
        for name in ("offset", "pageSize")
    ]
    node = {
        "operationId": "list",
        "parameters": parameters,
        "responses": answer_with({"properties": {"a": {"items": {}}}}),
    }
    file = yaml.safe_load(import_root(write_definition(things=node)).text)
    operation = file["capability"]["consumes"][0]["resources"]["things"]["operations"]["list"]
    assert operation["x-page"] == {"style": "skip", "items": "$.a", "skip": "offset", "size": "pageSize", "most": 1000}


def test_paging_by_page_number_is_reported() -> None:
    parameters = [{"name": "page", "in": "query", "schema": {"type": "integer"}}]
    node = {"parameters": parameters, "responses": answer_with({"properties": {"a": {"items": {}}}})}
    imported = import_root(write_definition(things=node))
    assert any("paging by page is left to the caller" in message for _, message in imported.report)
    assert "page: {type: integer, required: false" in imported.text


def test_list_at_the_root_of_an_answer_is_returned_and_its_paging_reported() -> None:
    assert read_tools()["list-shelves"]["outputParameters"] == [
        {
            "type": "array",
            "mapping": "$",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "mapping": "$.id"},
                    "floor": {"type": "number", "mapping": "$.floor"},
                },
            },
        }
    ]
    report = import_library()[0].report
    assert ("GET /shelves", "paging by offset is left to the caller: the answer is a list itself") in report


def test_job_is_recognized_by_location_and_states() -> None:
    wait = read_operations()["scan-book"]["x-wait"]
    assert wait["handle"] == {"header": "Location", "as": "scanId", "in": "scanId"}
    assert (wait["poll"], wait["check"]) == ("town-library-api.get-scan", "get-scan")
    assert (wait["pending"], wait["done"], wait["failed"]) == (["Queued", "InProgress"], ["Completed"], ["Failed"])
    assert "# review: In no list, and so awaited: Paused." in import_library()[0].text
    assert read_tools()["scan-book"]["outputParameters"] == read_tools()["get-scan"]["outputParameters"]


def test_entities_are_guessed_and_marked_for_review() -> None:
    imported, file = import_library()
    assert file["x-entities"]["book"]["find"] == [
        {"call": "town-library-api.list-books", "items": "books", "match": "title", "by": "title"}
    ]
    assert (file["x-entities"]["book"]["id"], file["x-entities"]["book"]["labels"]) == ("uuid", ["title"])
    assert file["x-entities"]["reader"]["id"] == {"pattern": "[0-9]{1,19}"}
    assert imported.text.count("# review: guessed from the list") == 2
    assert read_tools()["update-book"]["inputParameters"]["bookId"]["x-entity"] == "book"


def test_arguments_have_enumerations_bounds_and_required_members() -> None:
    inputs = read_tools()["add-book"]["inputParameters"]
    assert inputs["title"] == {"type": "string", "description": "The title.", "x-schema": {"minLength": 1}}
    assert inputs["kind"]["x-schema"] == {"enum": ["novel", "atlas", "score"]}
    assert inputs["kind"]["required"] is False
    assert inputs["pages"]["x-schema"] == {"minimum": 1, "maximum": 9999}
    assert inputs["author"]["x-schema"]["required"] == ["name"]
    assert "id" not in inputs, "it is readOnly"
    assert "secret" in inputs


def test_nullable_member_can_be_cleared_by_an_update_only() -> None:
    assert read_tools()["update-book"]["inputParameters"]["note"]["x-schema"] == {"type": ["string", "null"]}
    assert "x-schema" not in read_tools()["add-book"]["inputParameters"]["note"]


def test_wire_names_headers_and_media_types_are_written() -> None:
    operations = read_operations()
    assert operations["list-books"]["inputParameters"]["top"] == {"in": "query", "x-wire": "$top"}
    assert operations["list-books"]["inputParameters"]["Accept"]["value"] == "application/vnd.library.v1+json"
    assert operations["update-book"]["inputParameters"]["Content-Type"]["value"] == "application/merge-patch+json"
    assert operations["put-cover"]["x-body"]["types"] == {".png": "image/png"}
    assert operations["search"]["body"]["data"] == {"words": "{{words}}", "year": "{{year}}", "shelf": "{{shelf}}"}


def test_argument_with_a_name_of_the_engine_is_renamed() -> None:
    assert read_tools()["list-readers"]["with"] == {"fields": "town-library.fieldsValue"}


def test_descriptions_are_one_plain_sentence() -> None:
    assert read_tools()["list-books"]["description"] == "List the books. All of them, see the guide."
    assert read_tools()["add-book"]["description"] == "Add a book, in Town Library."
    assert import_library()[1]["info"]["description"] == "Books, loans and readers of the town library."


def test_members_that_only_callers_write_are_not_answered() -> None:
    (answer,) = read_tools()["get-book"]["outputParameters"]
    assert "secret" not in answer["properties"]
    assert answer["properties"]["pages"] == {"type": "number", "mapping": "$.pages"}


@pytest.mark.parametrize(
    ("schemes", "authentication"),
    [
        ({"s": {"type": "http", "scheme": "bearer"}}, {"type": "bearer", "token": "{{SMALL_TOKEN}}"}),
        (
            {"s": {"type": "http", "scheme": "basic"}},
            {"type": "basic", "username": "{{SMALL_USERNAME}}", "password": "{{SMALL_PASSWORD}}"},
        ),
        (
            {"s": {"type": "apiKey", "in": "query", "name": "key"}},
            {"type": "apikey", "key": "key", "value": "{{SMALL_KEY}}", "placement": "query"},
        ),
        ({"s": {"type": "oauth2"}}, {"type": "bearer", "token": "{{SMALL_TOKEN}}"}),
        ({"s": {"type": "apiKey", "in": "cookie", "name": "key"}}, None),
        ({"s": {"type": "mutualTLS"}}, None),
    ],
)
def test_authentication_follows_the_security_schemes(
    schemes: dict[str, Any], authentication: dict[str, str] | None, tmp_path: Path
) -> None:
    root = write_definition(things={"responses": answer_with({"type": "object"})})
    root |= {"components": {"securitySchemes": schemes}, "security": [{"s": []}]}
    imported = import_root(root)
    assert yaml.safe_load(imported.text)["capability"]["consumes"][0].get("authentication") == authentication
    assert (authentication is None) == any(
        subject == "the security scheme s" and "not supp" in message for subject, message in imported.report
    )
    link_text(imported.text, tmp_path)


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (Choice(operations=["getBook"]), ["get-book"]),
        (Choice(operations=["DELETE /books/{id}", "oldList"]), ["remove-book", "old-list"]),
        (Choice(tags=["Readers"]), ["list-readers", "get-reader"]),
        (Choice(paths=["/books/{id}/scans"]), ["scan-book", "get-scan"]),
        (Choice(paths=["/rea*"]), ["list-readers", "get-reader"]),
        (Choice(operations=["search"], tags=["Scans"]), ["scan-book", "get-scan", "search"]),
    ],
)
def test_choice_by_operation_tag_and_path(choice: Choice, tools: list[str]) -> None:
    assert import_operations(read_definition(LIBRARY), choice, UsedNames()).tools == tools


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(operations=["getBok"]), "no operation 'getBok': did you mean 'getBook'?"),
        (Choice(tags=["Book"]), "no tag 'Book': did you mean 'Books'?"),
        (Choice(paths=["/boks"]), "No path begins with '/boks'"),
        (Choice(operations=["getCover"]), "Nothing can be imported. GET /covers/{id}: is not imported: it answers"),
    ],
)
def test_choice_that_matches_nothing_is_refused(choice: Choice, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        import_operations(read_definition(LIBRARY), choice, UsedNames())
    assert words in str(refused.value)


def test_names_of_our_own_files_are_not_used_again(tmp_path: Path) -> None:
    taken = UsedNames(tools=["get-book"], namespaces=["town-library"], entities=["book"])
    imported = import_operations(read_definition(LIBRARY), Choice(tags=["Books"]), taken)
    assert imported.namespace == "my-town-library"
    assert "my-town-library-get-book" in imported.tools
    assert list(yaml.safe_load(imported.text)["x-entities"]) == ["my-town-library-book"]
    link_text(imported.text, tmp_path)


@pytest.mark.parametrize("file", DEFINITIONS or [None], ids=lambda file: file.stem if file else "missing")
def test_definitions_of_the_platform_are_imported(file: Path | None, tmp_path: Path) -> None:
    if file is None:
        assert not SHARED, f"ITWIN_MCP_SHARED is {SHARED}, but it contains no definitions."
        pytest.skip("The definitions of the platform are not here: ITWIN_MCP_SHARED is not set.")
    definition = read_definition(file)
    imported = import_operations(definition, EVERYTHING, list_taken_names())
    left_out = [subject for subject, message in imported.report if message.startswith("is not imported")]
    assert len(imported.tools) + len(left_out) == len(definition.operations)
    catalog = link_text(imported.text, tmp_path)
    assert list(catalog.tools) == imported.tools
    assert catalog.warnings == ()
    (consumes,) = yaml.safe_load(imported.text)["capability"]["consumes"]
    assert consumes["authentication"] == {"type": "bearer", "token": "{{ITWIN_ACCESS_TOKEN}}"}


def test_itwins_definition_yields_paging_waiting_and_our_entities() -> None:
    file = next((file for file in DEFINITIONS if file.stem == "itwins"), None)
    if file is None:
        pytest.skip("The definitions of the platform are not here: ITWIN_MCP_SHARED is not set.")
    imported = import_operations(read_definition(file), EVERYTHING, list_taken_names())
    assert (
        'x-page: {style: link, items: "$.iTwins", next: "$._links.next.href", size: top, most: 1000}' in imported.text
    )
    assert 'handle: {body: "$.export.id", as: exportId}' in imported.text
    assert 'iTwinId: {type: string, description: "iTwin: id, number, name or link.", x-entity: itwin}' in imported.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("a: [", "is neither JSON nor YAML"),
        ("[]", "is not an OpenAPI 3 definition"),
        ('swagger: "2.0"', "convert Swagger 2.0 to OpenAPI 3 first"),
        ('openapi: "4.0.0"', "only 3.0 and 3.1"),
        ("openapi: &a 3.0.0\nx: *a", "has YAML aliases"),
        ("[" * 100_000, "is nested too deep"),
        ("x: " + "[" * 5_000, "is neither JSON nor YAML"),
        ('{"openapi": "3.0.0", "paths": 5}', "names no server"),
        ('{"openapi": "3.0.0", "servers": [{"url": "/v1"}]}', "names no server with a whole URL"),
        ('{"openapi": "3.0.0", "servers": [{"url": "https://a.example"}], "paths": {}}', "no operation was chosen"),
    ],
)
def test_document_that_is_no_definition_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        import_operations(read_definition(file), EVERYTHING, UsedNames())
    assert words in str(refused.value)


def list_nodes(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from list_nodes(child, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize(
    "odd", [None, [], {}, "x", -1, {"$ref": "#/paths"}, {"$ref": "other.yaml#/a"}, "{{x}}\x07"], ids=repr
)
def test_definition_with_one_odd_node_never_crashes_or_yields_a_broken_file(odd: Any, tmp_path: Path) -> None:
    root = yaml.safe_load(LIBRARY.read_text(encoding="utf-8"))
    for path in list(list_nodes(root))[1::23]:
        broken = copy.deepcopy(root)
        holder = broken
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = odd
        try:
            imported = import_root(broken)
        except SettingsError:
            continue
        link_text(imported.text, tmp_path)
