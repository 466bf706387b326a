"""The table of what each request of the platform is about, against the operations that we consume."""

import pytest

from itwin_mcp.capability.plans import Operation, Slot
from itwin_mcp.executor.reach import ROWS, Reach, reach_of, row_of
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.wire import JsonBody, Request, TextBody
from tests.executor.bench import shipped_catalog

ITWIN = "11111111-1111-4111-8111-111111111111"
IMODEL = "22222222-2222-4222-8222-222222222222"
PLATFORM = "https://api.bentley.com"


def path_of(operation: Operation) -> str:
    """The path with the name of each slot in its place."""
    return "".join(
        "/" + "".join(part.name if isinstance(part, Slot) else part for part in segment) for segment in operation.path
    )


def on_the_platform() -> list[Operation]:
    every = shipped_catalog().operations.values()
    return [one for one in every if parse_origin(one.origin) == parse_origin(PLATFORM)]


def test_every_operation_has_a_row_and_every_row_an_operation() -> None:
    rows = {operation.key: row_of(operation.method, path_of(operation)) for operation in on_the_platform()}
    assert len(rows) > 90
    assert [key for key, row in rows.items() if row is None] == []
    used = {(operation.method, row[0]) for operation in on_the_platform() if (row := rows[operation.key])}
    assert [(method, row.segments) for row in ROWS for method in row.methods if (method, row) not in used] == []


def test_the_slots_of_a_row_are_those_of_its_operations() -> None:
    """An id that an operation puts into the path is never taken for a fixed word of it, nor the other way round."""
    for operation in on_the_platform():
        found = row_of(operation.method, path_of(operation))
        assert found is not None
        for segment, own in zip(operation.path, found[0].segments, strict=True):
            assert own.startswith("{") == any(isinstance(part, Slot) for part in segment), operation.key


def test_what_an_operation_is_within_stands_where_the_row_says() -> None:
    """An operation within iTwins names one in its path, or has an input that is read as one."""
    for operation in on_the_platform():
        found = row_of(operation.method, path_of(operation))
        assert found is not None
        if found[0].kind == "within" and not {"{itwin}", "{imodel}"} & set(found[0].segments):
            assert "iTwinId" in operation.inputs, operation.key


def reach(method: str, path: str, query: tuple[tuple[str, str], ...] = (), body: object = None) -> Reach | None:
    sent = body if isinstance(body, TextBody) else JsonBody(body) if body is not None else None
    return reach_of(Request(method, PLATFORM, path, query, body=sent))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("GET", f"/iTwins/{ITWIN.upper()}", (), None),
        ("GET", f"/itwins/%31{ITWIN[1:]}/repositories/", (), None),
        ("POST", f"/itwins/favorites/{ITWIN}", (), None),
        ("GET", "/itwins", (("parentId", ITWIN),), None),
        ("GET", "/itwins", (("$filter", f"parentId eq '{ITWIN.upper()}'"),), None),
        ("GET", "/itwins", (("number", ITWIN),), None),
        ("GET", "/imodels", (("itwinid", ITWIN),), None),
        ("GET", "/imodels/recents", (("iTwinId", ITWIN),), None),
        ("POST", "/itwins", (), {"displayName": "a", "parentId": ITWIN}),
        ("POST", "/itwins", (), {"displayName": "a", "iTwinAccountId": ITWIN}),
        ("POST", "/imodels", (), {"name": "a", "iTwinId": ITWIN}),
        ("POST", "/imodels", (), {"name": "a", "template": {"deep": [{"ITWINID": ITWIN}]}}),
        ("GET", f"/accesscontrol/itwins/{ITWIN}/roles", (), None),
    ],
)
def test_an_itwin_is_found_wherever_it_is_named(
    method: str, path: str, query: tuple[tuple[str, str], ...], body: object
) -> None:
    found = reach(method, path, query, body)
    assert found is not None
    assert found.itwins == {ITWIN}
    assert ("itwin", ITWIN) in found.targets


def test_several_are_all_found_and_a_template_names_an_imodel() -> None:
    body = {"iTwinId": ITWIN, "template": {"iModelId": IMODEL, "changesetId": None}}
    found = reach("POST", "/imodels", (), body)
    assert found is not None
    assert (found.itwins, found.imodels) == ({ITWIN}, {IMODEL})
    other = ITWIN.replace("1", "9")
    twice = reach("GET", "/imodels", (("iTwinId", f"{ITWIN},{other}"), ("iTwinId", "x")))
    assert twice is not None
    assert twice.itwins == {ITWIN, other, "x"}


def test_the_parent_of_a_changeset_is_no_itwin() -> None:
    found = reach("POST", f"/imodels/{IMODEL}/changesets", (), {"parentId": "a" * 40, "id": "b" * 40})
    assert found is not None
    assert (found.itwins, found.imodels) == (frozenset(), {IMODEL})


@pytest.mark.parametrize(
    "path",
    [
        "/storage/folders",
        f"/itwins/{ITWIN}/unheard-of",
        f"/itwins/../imodels/{IMODEL}",
        f"/itwins//{ITWIN}",
        f"/itwins/{ITWIN}%2Fimage",
        f"/itwins/{ITWIN}/./image",
    ],
)
def test_a_path_that_the_table_lacks_or_that_may_be_read_in_two_ways_has_no_reach(path: str) -> None:
    assert reach("GET", path) is None


def test_a_method_that_the_table_lacks_has_no_reach() -> None:
    assert reach("DELETE", "/itwins") is None
    assert reach("PATCH", f"/imodels/{IMODEL}/clone", (), {}) is None


def test_a_body_of_text_cannot_be_read() -> None:
    found = reach("POST", f"/imodels/{IMODEL}/shares", (), TextBody("anything", "text/plain"))
    assert found is not None
    assert not found.readable


def test_what_is_no_id_never_becomes_a_target() -> None:
    found = reach("GET", "/imodels/canary-secret.of-someone/shares/ey.canary", (("iTwinId", "canary"),))
    assert found is not None
    assert found.targets == ()
