"""Requests are built from values: no injection, no path traversal, no credential for another origin."""

import base64
import json
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itwin_mcp.capability.expressions import Argument, Literal, Text
from itwin_mcp.capability.operations import BodyTemplate, Slot
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.requests import _build_body, expand_path, find_path_problem
from itwin_mcp.upstream.messages import JsonBody, Request
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.wire_format import build_body, build_url
from tests.executor.bench import ITWIN, TOKEN, bench, never, query_of, saying
from tests.upstream.loopback import loopback

pytestmark = pytest.mark.anyio

MADE = saying(200, {"thing": {"id": "1"}})
NOT_SURROGATES = st.characters(exclude_categories=["Cs"])


# --- paths ------------------------------------------------------------------------------------------------------


@given(
    template=st.lists(
        st.lists(
            st.one_of(st.sampled_from(["imodels", "v", "a.b", ":x"]), st.builds(Slot, st.sampled_from("ab"))),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=4,
    ),
    values=st.fixed_dictionaries(
        {name: st.one_of(st.text(max_size=20), st.sampled_from([".", "..", "a/b", "%2e", "é"])) for name in "ab"}
    ),
)
def test_expand_path_keeps_the_segments_or_rejects_the_value(template: list[list[Any]], values: dict[str, str]) -> None:
    try:
        path = expand_path(tuple(map(tuple, template)), values)
    except InvalidArguments:
        used = {part.name for segment in template for part in segment if isinstance(part, Slot)}
        assert any(find_path_problem(values[name]) for name in used)
        return
    sent = build_url(parse_origin("https://api.bentley.com"), Request("GET", "https://api.bentley.com", path))
    segments = sent.raw_path.decode().split("/")[1:]
    expected = ["".join(values[part.name] if isinstance(part, Slot) else part for part in path) for path in template]
    assert [unquote(segment) for segment in segments] == expected
    assert not {".", ".."} & set(expected)


async def test_path_value_is_encoded_into_its_segment() -> None:
    async with bench("things.yaml", MADE) as it:
        await it.call("get-part", thing="a b;c=ü", part="1&2")
    assert it.asked == [f"GET /things/{quote('a b;c=ü', safe='')}/parts/v1%262"]


# --- queries, headers, bodies -----------------------------------------------------------------------------------


async def test_lists_and_booleans_are_sent_in_wire_form_in_queries() -> None:
    async with bench("things.yaml", MADE) as it:
        await it.call("make-thing", name="a", dry=False, tags=["x&y", "z"])
        await it.call("make-thing", name="a", tags=[])
    assert query_of(it.server.requests[0]) == {"dry": "false", "tags": "x&y,z"}
    assert query_of(it.server.requests[1]) == {}


async def test_absent_argument_is_omitted_and_a_cleared_one_sent_as_null() -> None:
    async with bench("things.yaml", MADE) as it:
        await it.call("make-thing", name="a")
        await it.call("make-thing", name="a", clear=["north"])
    sent = [json.loads(request.body) for request in it.server.requests]
    assert sent[0] == {"name": "a", "area": {"south": 3}, "label": "thing a", "sizes": [3, 7]}
    assert sent[1]["area"] == {"south": 3, "north": None}


def test_build_body_omits_objects_that_become_empty() -> None:
    template = BodyTemplate("json", {"a": {"b": {"c": Argument("c")}}, "empty": {}, "list": [Argument("c")]})
    assert _build_body(template, {}) == JsonBody({"empty": {}, "list": []})
    assert _build_body(template, {"c": {}}) == JsonBody({"a": {"b": {"c": {}}}, "empty": {}, "list": [{}]})
    assert _build_body(BodyTemplate("json", {"a": Argument("a")}), {}) == JsonBody({})


async def test_header_is_sent_only_with_all_its_values() -> None:
    async with bench("things.yaml", MADE) as it:
        await it.call("make-thing", name="a", kind="plain")
        await it.call("make-thing", name="a", kind="plain", mark="beef")
    assert "x-note" not in it.server.requests[0].headers
    assert it.server.requests[1].headers["x-note"] == "plain-beef"
    assert it.server.requests[0].headers["accept"] == "application/vnd.bentley.itwin-platform.v1+json"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(NOT_SURROGATES),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(NOT_SURROGATES), children, max_size=3),
    max_leaves=8,
)


@given(value=JSON, name=st.text(NOT_SURROGATES))
def test_build_body_keeps_values_exactly(value: Any, name: str) -> None:
    template = BodyTemplate("json", {"v": Argument("v"), "in": Text(("<", Argument("n"), ">")), "fixed": Literal(1)})
    body = _build_body(template, {"v": value, "n": name})
    content, _ = build_body(Request("POST", "https://api.bentley.com", "/", body=body))
    assert isinstance(content, bytes)
    assert json.loads(content) == {"v": value, "in": f"<{name}>", "fixed": 1}


async def test_text_xml_and_form_bodies_escape_their_values() -> None:
    text = "a</note><evil x='1'>&amp;=\n\"é"
    async with bench("things.yaml", saying(204)) as it:
        for kind in ("text", "xml", "form"):
            assert await it.call(f"write-{kind}", text=text) == {"written": True}
    plain, xml, form = it.server.requests
    assert plain.body.decode() == f"Note: {text}"
    assert plain.headers["content-type"] == "text/plain"
    parsed = ElementTree.fromstring(xml.body)
    assert (parsed.tag, parsed.text, parsed.attrib) == ("note", text, {"to": "all"})
    assert form.form == {"text": text, "to": "all"}


async def test_lone_surrogates_are_rejected_in_every_argument() -> None:
    async with bench("things.yaml", never) as it:
        for tool, arguments in (
            ("get-part", {"thing": "1", "part": "\ud800"}),
            ("make-thing", {"name": "\ud800"}),
            ("make-thing", {"name": "a", "tags": ["\ud800"]}),
            ("write-text", {"text": "\ud800"}),
            ("list-things", {"kind": "\ud800"}),
        ):
            error = await it.refused(tool, **arguments)
            assert error["code"] == "InvalidArguments"
            json.dumps(error, ensure_ascii=False).encode()


async def test_first_request_returns_the_request_without_sending_it() -> None:
    async with bench("things.yaml", saying(200, {"things": []})) as it:
        request = it.executor.first_request(it.catalog.tools["list-things"], {"kind": "x", "limit": 7})
        assert it.asked == []
        await it.call("list-things", kind="x", limit=7)
    assert it.asked == [f"GET {request.path}?" + "&".join(f"{name}={value}" for name, value in request.query)]


# --- credentials of foreign origins -----------------------------------------------------------------------------

BEARER = '{type: bearer, token: "{{KEY}}"}'
BASIC = '{type: basic, username: "me", password: "{{KEY}}"}'
HEADER = '{type: apikey, key: X-Key, value: "{{KEY}}"}'
QUERY = '{type: apikey, key: key, value: "{{KEY}}", placement: query}'


@pytest.mark.parametrize(
    ("authentication", "headers", "query"),
    [
        (BEARER, {"authorization": "Bearer s3cret"}, {}),
        (BASIC, {"authorization": "Basic " + base64.b64encode(b"me:s3cret").decode()}, {}),
        (HEADER, {"x-key": "s3cret"}, {}),
        (QUERY, {}, {"key": "s3cret"}),
    ],
)
async def test_foreign_origin_gets_only_its_own_credential(
    authentication: str, headers: dict[str, str], query: dict[str, str]
) -> None:
    async def pages(asked: Any) -> None:
        more = {"next": f"{server.origin}/v1/rows?after=2"} if "after" not in asked.target else {}
        await asked.json(200, {"rows": [{"id": asked.target}], **more})

    async with loopback(pages) as server:
        replacing = {"http://foreign.invalid": server.origin, "AUTHENTICATION": authentication}
        async with bench("foreign.yaml", never, environment={"FOREIGN_KEY": "s3cret"}, replacing=replacing) as it:
            answer = await it.call("list-rows", limit=5)
    assert answer["page"]["complete"]
    assert len(server.requests) == 2
    for asked in server.requests:
        assert TOKEN not in str(asked.headers)
        assert {name: asked.headers.get(name) for name in headers} == headers
        assert query.items() <= query_of(asked).items()
        assert "authorization" in headers or "authorization" not in asked.headers


async def test_unset_foreign_credential_is_reported_without_a_request() -> None:
    async with loopback(never) as server:
        replacing = {"http://foreign.invalid": server.origin, "AUTHENTICATION": BEARER}
        async with bench("foreign.yaml", never, replacing=replacing) as it:
            error = await it.refused("list-rows")
    assert error["code"] == "NotSignedIn"
    assert "Set FOREIGN_KEY in the environment" in error["hint"]
    assert server.requests == []


async def test_platform_request_ignores_credentials_of_the_file() -> None:
    async with bench("things.yaml", MADE, environment={"ITWIN_ACCESS_TOKEN": "other"}) as it:
        await it.call("get-thing", thing=ITWIN)
    assert it.server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
