"""Invalid arguments are all reported, and nothing is sent."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)
import json
from typing import Any

import pytest

from tests.executor.bench import ITWIN, answer_of, bench, never, saying

pytestmark = pytest.mark.anyio

FINE = saying(200, {"thing": {"id": "1"}})
GIS = "GeographicInformationSystem"
MAP = {"iTwinId": ITWIN, "uri": "https://maps.example"}
NO_MOMENTS = (
    "2027-02-30T00:00:00Z",
    "2027-01-01T24:30:00Z",
    "2027-01-01 00:00:00Z",
    "soon",
)


@pytest.mark.parametrize(
    ("arguments", "targets", "words"),
    [
        ({}, ["name"], "name is missing"),
        (
            {"name": "a", "nmae": 1, "x": 2},
            ["nmae", "x"],
            "nmae is not an argument (did you mean name?); x is not an argument",
        ),
        ({"name": ["a"]}, ["name"], 'name must be string, not array (for example "text")'),
        ({"name": "a", "dry": "yes"}, ["dry"], "dry must be boolean, not string"),
        ({"name": "a", "count": True}, ["count"], "count must be integer, not boolean"),
        ({"name": "a", "count": 1.5}, ["count"], "count must be integer, not number"),
        ({"name": None}, ["name"], "name is missing"),
        ({"name": "a", "count": "1.5"}, ["count"], "count must be integer, not string (for example 3)"),
        ({"name": "a", "count": "1e999"}, ["count"], "count must be integer, not string"),
        ({"name": "a", "dry": 1}, ["dry"], "dry must be boolean, not integer"),
        ({"name": "a", "tags": {"x": 1}}, ["tags"], "tags must be array, not object"),
        ({"name": "a", "tags": [None]}, ["tags.0"], "tags.0 must be string, not null"),
        ({"name": "a", "north": 1, "clear": ["north"]}, ["north"], "north cannot be both set and cleared"),
        ({"name": "a", "clear": ["kind", 2]}, ["clear.0", "clear.1"], "clear.0 must be one of north"),
        ({"name": "a", "clear": {"north": True}}, ["clear"], "clear must be array, not object"),
        ({"name": "a", "count": -1}, ["count"], "count must be at least 0"),
        ({"name": "a", "north": 91}, ["north"], "north must be at most 90"),
        ({"name": "a", "north": "x"}, ["north"], "north must be number, not string (for example 1)"),
        ({"name": "a", "tags": ["x", {}]}, ["tags.1"], "tags.1 must be string, not object"),
        ({"name": "a", "tags": ["x", "x"]}, ["tags"], "tags must not repeat an element"),
        ({"name": "a", "tags": list("abcd")}, ["tags"], "tags must have at most 3 elements, it has 4"),
        ({"name": ""}, ["name", "name"], "name must have at least 1 character"),
        ({"name": " "}, ["name"], "name must not be blank"),
        ({"name": "a" * 10_000}, ["name"], "name must have at most 20 characters, it has 10000"),
        ({"name": "a", "kind": "odd"}, ["kind"], "kind must be one of plain, fancy"),
        ({"name": "a", "kind": "plain", "dry": True}, ["kind and dry"], "kind and dry cannot be given together"),
        ({"name": "a", "mark": "beefx"}, ["mark"], "mark does not have the form"),
        ({"name": "a", "mark": "beef\n"}, ["mark"], "mark does not have the form"),
        ({"name": "a", "mark": "\n"}, ["mark"], "mark does not have the form"),
        ({"name": "a", "north": float("nan")}, ["north"], "north must be a number, not nan"),
        ({"name": "a", "north": float("-inf")}, ["north"], "north must be a number, not -inf"),
        ({"name": "a", "\ud800\n": 1}, ["\ufffd\ufffd"], "\ufffd\ufffd is not an argument"),
        ({"count": "x", "kind": 1}, ["count", "kind", "name"], "name is missing"),
    ],
)
async def test_every_invalid_argument_is_reported_without_a_request(
    arguments: dict[str, Any], targets: list[str], words: str
) -> None:
    async with bench("things.yaml", never) as it:
        error = await it.refused("make-thing", **arguments)
    assert error["code"] == "InvalidArguments"
    assert sorted(detail["target"] for detail in error["details"]) == sorted(targets)
    assert words in error["message"]
    assert "make-thing takes: name, count," in error["hint"]
    assert not error["retryable"]
    assert it.asked == []


@pytest.mark.parametrize(
    ("tool", "arguments", "messages"),
    [
        ("list-itwins", {"search": "a", "number": "b", "status": "Active", "includeInactive": True}, ["search and number cannot be given together", "status and includeInactive cannot be given together"]),
        ("create-itwin", {"displayName": "a", "class": "Thing", "subClass": "Project"}, ["class Thing and subClass Project cannot be given together"]),
        ("provision-project", {"displayName": "a", "iModelName": "b", "class": "Endeavor", "subClass": "Asset"}, ["class Endeavor and subClass Asset cannot be given together"]),
        ("provision-project", {"displayName": "a", "iModelName": "b", "class": "Thing"}, ["class Thing and subClass Project (its default) cannot be given together"]),
        ("list-repositories", {"iTwinId": ITWIN, "subClass": "ArcGIS"}, ["subClass goes with class, which is missing"]),
        ("list-repositories", {"iTwinId": ITWIN, "class": "iModels", "subClass": "ArcGIS"}, ["class iModels and subClass ArcGIS cannot be given together"]),
        ("create-repository", {**MAP, "class": "Construction", "subClass": "ArcGIS"}, ["class Construction and subClass ArcGIS cannot be given together"]),
        ("create-repository", {**MAP, "class": "Subsurface", "subClass": "Performance"}, ["class Subsurface and subClass Performance cannot be given together"]),
        ("create-repository", {**MAP, "class": GIS, "subClass": "EvoWorkspace"}, [f"class {GIS} and subClass EvoWorkspace cannot be given together"]),
        ("push-changeset", {"iModelId": ITWIN, "changesetId": "a" * 40, "briefcaseId": 2, "filePath": "1.cs", "changedFiles": ["a.dgn"]}, ["changedFiles goes with taskId, which is missing"]),
    ],
)  # fmt: skip
async def test_shipped_rules_across_arguments_are_reported(
    tool: str, arguments: dict[str, Any], messages: list[str]
) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused(tool, **arguments)
    assert [detail["message"] for detail in error["details"]] == messages


@pytest.mark.parametrize(
    ("tool", "arguments", "messages"),
    [
        ("create-repository", {**MAP, "class": GIS, "authentication": {"type": "Basic", "key": "a", "value": "b"}}, ["authentication.username is missing", "authentication.password is missing", "authentication.key is not an argument", "authentication.value is not an argument"]),
        ("update-repository", {"iTwinId": ITWIN, "repositoryId": "a", "authentication": {"type": "Header", "key": "a"}}, ["authentication.value is missing"]),
        ("create-repository", {**MAP, "class": GIS, "uri": "https://"}, ["uri does not have the form"]),
        ("update-repository", {"iTwinId": ITWIN, "repositoryId": "a", "uri": "http:///maps"}, ["uri does not have the form"]),
        ("create-itwin", {"displayName": " ", "class": "Thing", "subClass": "Asset"}, ["displayName must not be blank"]),
        ("update-itwin", {"iTwinId": ITWIN, "displayName": "\t"}, ["displayName must not be blank"]),
        ("provision-project", {"displayName": " ", "iModelName": "b"}, ["displayName must not be blank"]),
        *(("create-share", {"iModelId": ITWIN, "name": "a", "expiration": text}, ["expiration must be a date and time with its zone"]) for text in NO_MOMENTS),
        ("start-authoring-session", {"iModelId": ITWIN, "objectIds": ["0x78", "0x0000078"]}, ["objectIds.1 does not have the form"]),
        ("start-authoring-session", {"iModelId": ITWIN, "objectIds": ["0X0aB"]}, ["objectIds.0 does not have the form"]),
    ],
)  # fmt: skip
async def test_call_that_the_platform_would_reject_is_not_sent(
    tool: str, arguments: dict[str, Any], messages: list[str]
) -> None:
    async with bench("", never, shipped_files=True) as it:
        error = await it.refused(tool, **arguments)
    reported = [detail["message"] for detail in error["details"]]
    assert all(text.startswith(start) for text, start in zip(reported, messages, strict=True))


@pytest.mark.parametrize("text", ["2027-01-01T00:00:00Z", "2028-02-29t23:59:59.25+05:30"])
async def test_date_with_its_zone_is_sent_unchanged(text: str) -> None:
    async with bench("", saying(201, {"share": {"id": "a"}}), shipped_files=True) as it:
        await it.call("create-share", iModelId=ITWIN, name="a", expiration=text)
        assert json.loads(it.server.requests[-1].body)["expiration"] == text


async def test_rule_about_values_reports_only_given_arguments() -> None:
    rule = (
        "not: {anyOf: [{required: [kind, dry], properties: {kind: {const: plain}, dry: {enum: [true]}}}, "
        "{required: [kind, count], properties: {kind: {const: fancy}}}]}"
    )
    async with bench("things.yaml", FINE, replacing={"not: {required: [kind, dry]}": rule}) as it:
        error = await it.refused("make-thing", name="a", kind="plain", dry=True, count=1)
        await it.call("make-thing", name="a", kind="plain", dry=False, count=1)
    assert [detail["message"] for detail in error["details"]] == ["kind plain and dry true cannot be given together"]


@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        (
            "{anyOf: [{required: [mark]}, {required: [kind, dry]}]}",
            {},
            "at least one of these must be given: mark, kind and dry",
        ),
        (
            "{oneOf: [{required: [mark]}, {required: [kind]}]}",
            {"mark": "beef", "kind": "plain"},
            "exactly one of these must be given: mark, kind",
        ),
    ],
)
async def test_rule_for_one_of_several_arguments_is_reported(
    rule: str, arguments: dict[str, Any], message: str
) -> None:
    async with bench("things.yaml", never, replacing={"{not: {required: [kind, dry]}}": rule}) as it:
        error = await it.refused("make-thing", name="a", **arguments)
    assert [detail["message"] for detail in error["details"]] == [message]


async def test_every_missing_argument_is_reported_once() -> None:
    async with bench("things.yaml", never) as it:
        error = await it.refused("get-part")
    assert error["message"] == "get-part was not called: thing is missing; part is missing."
    assert [detail["target"] for detail in error["details"]] == ["thing", "part"]


async def test_many_or_deep_invalid_arguments_give_a_short_error() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    async with bench("things.yaml", never) as it:
        many = await it.refused("make-thing", **{f"surplus{n:05}{'x' * 500}": n for n in range(1000)})
        nested = await it.refused("make-thing", name="a", tags=deep)
    assert len(str(many)) < 10_000
    assert "and many more" in many["message"]
    assert nested["details"][0]["message"] == "it is nested deeper than 64 levels"


@pytest.mark.parametrize(
    "text",
    [
        "..",
        f"../{ITWIN}",
        f"{ITWIN}/..",
        f"{ITWIN}?x=1",
        f"{ITWIN}#x",
        "%2e%2e",
        f"{ITWIN}\x00",
        "\x00",
        "\ud800",
        "x" * 10_000,
        f"https://evil.example/itwins/{ITWIN}",
        f"https://api.bentley.com.evil.example/itwins/{ITWIN}",
        f"https://api.bentley.com/imodels/{ITWIN}",
        f"https://api.bentley.com/itwins/..%2f{ITWIN}",
        f"itwin://itwins/{ITWIN}?x=\ud800",
        "https://[/itwins/x",
        "",
    ],
)
async def test_invalid_id_is_rejected_without_a_request(text: str) -> None:
    async with bench("things.yaml", never) as it:
        error = await it.refused("get-thing", thing=text)
        part = await it.refused("get-part", thing=text, part="1")
    for refusal in (error, part):
        assert refusal["code"] == "InvalidArguments"
        assert refusal["details"][0]["target"] in ("thing", "id")
        assert len(str(refusal)) < 1500
        str(refusal).encode()


@pytest.mark.parametrize("text", [".", "a/b", "a\\b", "a?b", "a#b", "a%62", "a\n", "x" * 2049, ""])
async def test_path_argument_that_would_change_the_path_is_rejected(text: str) -> None:
    async with bench("things.yaml", never) as it:
        error = await it.refused("get-part", thing="1", part=text)
    assert error["details"][0]["target"] == "part"


@pytest.mark.parametrize(
    ("link", "identity"),
    [
        (ITWIN, ITWIN),
        ("ABCDEF01-2345-6789-abcd-ef0123456789", "abcdef01-2345-6789-abcd-ef0123456789"),
        (f"https://api.bentley.com/iTwins/{ITWIN}", ITWIN),
        (f"https://qa-api.bentley.com/itwins/{ITWIN}/exports?x=/../#y", ITWIN),
        (f"itwin://itwins/{ITWIN}", ITWIN),
        (f"https://api.bentley.com/itwins/{ITWIN}/imodels/99999999-9999-4999-8999-999999999999", ITWIN),
    ],
)
async def test_id_is_read_from_a_link_and_reported_in_resolved(link: str, identity: str) -> None:
    async with bench("things.yaml", FINE) as it:
        answer = await it.call("get-thing", thing=link)
    assert it.asked == [f"GET /things/{identity}"]
    resolved = [{"argument": "thing", "given": link, "id": identity}]
    assert answer.get("resolved", []) == ([] if link == identity else resolved)


async def test_defaults_apply_and_whole_floats_are_sent_as_integers() -> None:
    async with bench("things.yaml", saying(200, {"thing": {"id": "1"}, "things": []})) as it:
        await it.call("make-thing", name="a")
        await it.call("make-thing", name="a", count=5.0)
        await it.call("list-things", limit=50.0)
    bodies = [request.body.decode() for request in it.server.requests]
    assert '"south":3' in bodies[0]
    assert '"south":5}' in bodies[1]
    assert it.asked[2] == "GET /things?$top=50"


async def test_resource_rejects_invalid_ids() -> None:
    async with bench("things.yaml", FINE) as it:
        resource = it.catalog.resources[0]
        outcome = await it.executor.read(resource, {"id": f"https://api.bentley.com/itwins/{ITWIN}"})
        assert answer_of(outcome) == {"thing": {"id": "1"}}
        with pytest.raises(Exception, match="nothing was sent"):
            answer_of(await it.executor.read(resource, {"id": "../x"}))
    assert it.asked == [f"GET /things/{ITWIN}"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "a", "tags": [{"a": number} for number in range(4_500)]}, "tags.0 must be string, not object"),
        ({"name": "a", "tags": [[number] for number in range(4_500)]}, "tags.0 must be string, not array"),
        ({"name": "a", "tags": [{}] * 2_000_000}, "tags: there are more than 10000 values in it"),
        ({"name": "a", "tags": [[[]] * 1_000] * 1_000}, "tags: there are more than 10000 values in it"),
        ({"name": "a"} | {f"x{number}": 1 for number in range(9_000)}, "x0 is not an argument"),
        ({"name": "a"} | {f"x{number}": 1 for number in range(500_000)}, "there are more than 10000 values in it"),
    ],
    ids=["objects", "lists", "many", "many lists", "unknown", "many unknown"],
)
async def test_huge_invalid_arguments_are_rejected_quickly(arguments: Any, words: str) -> None:
    """Comparing problems or elements in pairs would take minutes for these."""
    async with bench("things.yaml", never) as it:
        error = await it.refused("make-thing", **arguments)
    assert len(error["details"]) <= 20
    assert len(error["message"]) < 2_000
    assert any(words in detail["message"] for detail in error["details"]), error["details"][:3]
