"""Compare the table of platform paths that the policy trusts with the operations that we consume."""

import pytest

from itwin_mcp.capability.operations import Operation, Slot
from itwin_mcp.capability.policy_paths import shipped_policy_paths
from itwin_mcp.executor.policy.request_itwins import Reach, read_reach
from itwin_mcp.upstream.messages import JsonBody, Request, TextBody
from itwin_mcp.upstream.origin import parse_origin
from tests.executor.bench import shipped_catalog

ITWIN = "11111111-1111-4111-8111-111111111111"
IMODEL = "22222222-2222-4222-8222-222222222222"
PLATFORM = "https://api.bentley.com"
PATHS = shipped_policy_paths()


def path_of(operation: Operation) -> str:
    """Return the path of an operation with slot names instead of values."""
    return "".join(
        "/" + "".join(part.name if isinstance(part, Slot) else part for part in segment) for segment in operation.path
    )


def on_the_platform() -> list[Operation]:
    every = shipped_catalog().operations.values()
    return [one for one in every if parse_origin(one.origin) == parse_origin(PLATFORM)]


def test_rows_cover_exactly_the_consumed_operations() -> None:
    rows = {operation.key: PATHS.find_row(operation.method, path_of(operation)) for operation in on_the_platform()}
    assert len(rows) > 90
    assert [key for key, row in rows.items() if row is None] == []
    used = {(operation.method, row[0]) for operation in on_the_platform() if (row := rows[operation.key])}
    assert [(method, row.segments) for row in PATHS.rows for method in row.methods if (method, row) not in used] == []


def test_slots_of_a_row_match_its_operations() -> None:
    """An id in a path is never taken for a fixed word, and a fixed word never for an id."""
    for operation in on_the_platform():
        found = PATHS.find_row(operation.method, path_of(operation))
        assert found is not None
        for segment, own in zip(operation.path, found[0].segments, strict=True):
            assert own.startswith("{") == any(isinstance(part, Slot) for part in segment), operation.key


def test_operations_within_an_itwin_have_an_itwin_argument() -> None:
    """Operations within iTwins name one in their path or have the argument `iTwinId`."""
    for operation in on_the_platform():
        found = PATHS.find_row(operation.method, path_of(operation))
        assert found is not None
        if found[0].kind == "within" and not {"{itwin}", "{imodel}"} & set(found[0].segments):
            assert "iTwinId" in operation.inputs, operation.key


def reach(method: str, path: str, query: tuple[tuple[str, str], ...] = (), body: object = None) -> Reach | None:
    sent = body if isinstance(body, TextBody) else JsonBody(body) if body is not None else None
    return read_reach(PATHS, Request(method, PLATFORM, path, query, body=sent))  # type: ignore[arg-type]


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
def test_read_reach_finds_an_itwin_in_path_query_and_body(
    method: str, path: str, query: tuple[tuple[str, str], ...], body: object
) -> None:
    found = reach(method, path, query, body)
    assert found is not None
    assert found.itwins == {ITWIN}
    assert ("itwin", ITWIN) in found.targets


def test_read_reach_finds_several_ids_and_a_template_imodel() -> None:
    body = {"iTwinId": ITWIN, "template": {"iModelId": IMODEL, "changesetId": None}}
    found = reach("POST", "/imodels", (), body)
    assert found is not None
    assert (found.itwins, found.things) == ({ITWIN}, {("imodel", IMODEL)})
    other = ITWIN.replace("1", "9")
    twice = reach("GET", "/imodels", (("iTwinId", f"{ITWIN},{other}"), ("iTwinId", "x")))
    assert twice is not None
    assert twice.itwins == {ITWIN, other, "x"}


def test_read_reach_does_not_take_a_parent_changeset_for_an_itwin() -> None:
    found = reach("POST", f"/imodels/{IMODEL}/changesets", (), {"parentId": "a" * 40, "id": "b" * 40})
    assert found is not None
    assert (found.itwins, found.things) == (frozenset(), {("imodel", IMODEL)})


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
def test_read_reach_returns_none_for_unknown_or_ambiguous_paths(path: str) -> None:
    assert reach("GET", path) is None


def test_read_reach_returns_none_for_an_unknown_method() -> None:
    assert reach("DELETE", "/itwins") is None
    assert reach("PATCH", f"/imodels/{IMODEL}/clone", (), {}) is None


def test_read_reach_marks_a_text_body_as_unreadable() -> None:
    found = reach("POST", f"/imodels/{IMODEL}/shares", (), TextBody("anything", "text/plain"))
    assert found is not None
    assert not found.readable


def test_read_reach_reports_only_ids_as_targets() -> None:
    found = reach("GET", "/imodels/canary-secret.of-someone/shares/ey.canary", (("iTwinId", "canary"),))
    assert found is not None
    assert found.targets == ()
