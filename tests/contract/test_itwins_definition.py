"""The sandbox's answers and the capability files' requests match the official definition of the iTwins API."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT, Argument, Expression, Literal, evaluate
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.parameters import FILE_PATH
from itwin_mcp.capability.tool_actions import Call, CallStep, LookupStep, PreviewRead
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.requests import build_request
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.upstream.messages import FileUpload, JsonBody
from tests.conftest import shipped_catalog
from tests.contract import itwins_definition as definition
from tests.contract.itwins_definition import WireAnswer, WireRequest

pytestmark = pytest.mark.anyio

ACCEPT = "application/vnd.bentley.itwin-platform.v1+json"
WHOLE = {"Prefer": "return=representation"}
NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"
ITWIN = f"/itwins/{seeded_id('itwin', 'interchange')}"
PLAIN = f"/itwins/{seeded_id('itwin', 'drainage')}"
MAPS = f"{ITWIN}/repositories/{seeded_id('repository', 'cadastre')}"
ROADS = f"{ITWIN}/repositories/imodels/resources/{seeded_id('imodel', 'roads')}"
GIS = {"class": "GeographicInformationSystem", "subClass": "UrlTemplate", "uri": "https://maps.example.org/{z}/{x}/{y}"}
BASIC = {"type": "Basic", "username": "u", "password": "p"}
LEVELS = {"queryParameters": {"a": "b"}, "minimumLevel": 1, "maximumLevel": 5}
QUAY = {"class": "Endeavor", "subClass": "Project", "displayName": "Quay"}

CLIENT = "@itwin/itwins-client, src/test/integration/iTwinsClientItwins.test.ts"
ANSWER_DEVIATIONS = {
    ("GET /itwins/{iTwinId}/account", "200 $.iTwin additionalProperties"): (
        f"{CLIENT}: the account in representation result mode has createdDateTime and createdBy"
    ),
    ("PUT /itwins/{iTwinId}/image", "403"): "the operation's own description: itwins_modify is required",
    ("GET /itwins/{iTwinId}/repositories/{repositoryId}/resources", "302"): (
        "the pages of resources: a federated repository answers 302 Found"
    ),
    ("GET /itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}", "302"): "the same",
    ("GET /itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}/graphics", "302"): "the same",
}
"""Answers of the sandbox that deviate from the definition, with the reason."""
MERGE = "the operation's own examples are a JSON object, not a JSON Patch; @itwin/itwins-client sends application/json"
REQUEST_DEVIATIONS = {
    ("GET /itwins/{id}", "header Prefer"): f"{CLIENT}: more properties in representation result mode",
    ("GET /itwins/{iTwinId}/account", "header Prefer"): f"{CLIENT}: an account in representation result mode",
    ("PATCH /itwins/{id}", "content type application/json"): MERGE,
    ("PATCH /itwins/{iTwinId}/repositories/{repositoryId}", "content type application/json"): MERGE,
    ("PATCH /itwins/{iTwinId}/repositories/{repositoryId}", "$.options oneOf"): (
        "the operation's own description: null removes all options"
    ),
    ("PATCH /itwins/{iTwinId}/repositories/{repositoryId}", "$.authentication oneOf"): (
        "the operation's own description: null removes the authentication"
    ),
    ("PUT /itwins/{iTwinId}/image", "content type image/jpeg"): "the operation's own description: png or jpeg",
}
"""Requests of the capability files that deviate from the definition, with the reason."""
NEVER_ANSWERED = {("POST /itwins/favorites/{id}", 403), ("POST /itwins/recents/{id}", 403)}
"""Defined statuses that never occur: every member may use these operations, and all others get 404."""
NOT_DEFINED = {
    "get-global-repositories",
    "get-global-repository",
    "get-global-repository-resources",
    "get-global-repository-resource",
    "get-global-resource-graphics",
}
"""Operations that the portal documents (https://developer.bentley.com/apis/itwins/) and the definition lacks."""


@pytest.mark.parametrize(("shared", "outcome"), [("/nowhere", pytest.fail.Exception), (None, pytest.skip.Exception)])
def test_read_definition_fails_or_skips_if_the_file_is_missing(
    monkeypatch: pytest.MonkeyPatch, shared: str | None, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(definition, "SHARED", shared)
    monkeypatch.setattr(definition, "FILE", Path("/nowhere/itwins.json"))
    with pytest.raises(outcome, match=r"itwins\.json does not exist"):
        definition.read_definition.__wrapped__()


def test_definition_has_28_operations() -> None:
    assert len(definition.list_operations()) == 28


# --- answers ----------------------------------------------------------------------------------------------------


@dataclass
class CheckedClient:
    """A client of one sandbox that compares each answer with the definition."""

    sandbox: Sandbox
    faults: list[tuple[str, str]] = field(default_factory=list)
    seen: set[tuple[str, int]] = field(default_factory=set)

    async def ask(
        self, status: int, method: str, path: str, *, user: str | None = "anna", body: Any = None, **headers: str
    ) -> Any:
        """Send one request, record the faults of its answer, and return its JSON."""
        sent_headers = {"Accept": ACCEPT} | {name.replace("_", "-"): value for name, value in headers.items()}
        if user is not None:
            sent_headers["Authorization"] = f"Bearer {self.sandbox.token(user)}"
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        transport = httpx2.ASGITransport(self.sandbox.app)
        async with httpx2.AsyncClient(transport=transport, base_url=definition.HOST) as http:
            answer = await http.request(method, path, content=content, headers=sent_headers)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        url = answer.request.url
        raw_path = url.raw_path.partition(b"?")[0].decode()
        query = tuple(url.params.multi_items())
        request = WireRequest(method, raw_path, query, tuple(sent_headers.items()), content or b"")
        name = name_operation(request)
        self.seen.add((name, status))
        faults = definition.find_answer_faults(request, WireAnswer(status, answer.headers, answer.content))
        self.faults += [(name, fault.partition(":")[0]) for fault in faults]
        if status == 429:
            assert int(answer.headers["retry-after"]) > 0
        return answer.json() if answer.content else None


def name_operation(request: WireRequest) -> str:
    """Return method and path of the operation in the definition that a request calls."""
    match = definition.find_operation(request.method, request.path)
    assert match is not None, request
    return " ".join(match[0])


def make_picture(width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, "png")
    return content.getvalue()


async def call_every_operation(client: CheckedClient) -> None:
    """Send requests that cover every status and variant of every operation."""
    ask = client.ask
    # lists
    for path in ("/itwins", "/itwins/favorites", "/itwins/recents"):
        for headers in ({}, WHOLE):
            await ask(200, "GET", f"{path}?$top=1&$skip=1", **headers)
            await ask(200, "GET", f"{path}?includeInactive=true", **headers)
        await ask(422, "GET", f"{path}?$top=0&$skip=x&subClass=Nope&status=x")
    await ask(200, "GET", "/itwins?$select=id,status&$filter=status eq 'Active'&$orderby=number desc")
    await ask(422, "GET", "/itwins?$search=a&number=b&$select=nope", X_Max_Return="0", X_iTwin_Query_Scope="x")
    # one iTwin
    itwin = (await ask(201, "POST", "/itwins", body=QUAY | {"number": "Q-1", "parentId": ITWIN[8:]}))["iTwin"]
    await ask(422, "POST", "/itwins", body={"latitude": 91, "subClass": "x"})
    await ask(409, "POST", "/itwins", body=QUAY | {"number": "Q-1"})
    await ask(403, "POST", "/itwins", user="priya", body=QUAY)
    new_itwin = f"/itwins/{itwin['id']}"
    await ask(200, "GET", new_itwin)
    await ask(200, "GET", ITWIN, **WHOLE)
    await ask(200, "PATCH", new_itwin, body={"type": "Wall", "latitude": None, "ianaTimeZone": "Europe/Amsterdam"})
    await ask(422, "PATCH", new_itwin, body={"number": "NL-A12-0042", "id": "x", "status": "x"})
    await ask(403, "PATCH", ITWIN, user="priya", body={"type": "x"})
    await ask(200, "GET", f"{new_itwin}/account")
    await ask(200, "GET", f"{new_itwin}/account", **WHOLE)
    await ask(200, "GET", "/itwins/myprimaryaccount")
    for path in ("favorites", "recents"):
        await ask(204, "POST", f"/itwins/{path}/{itwin['id']}")
    await ask(204, "DELETE", f"/itwins/favorites/{itwin['id']}")
    # images
    await ask(404, "GET", f"{PLAIN}/image")
    await ask(201, "PUT", f"{PLAIN}/image", body=make_picture(400, 250), Content_Type="image/png")
    await ask(422, "PUT", f"{PLAIN}/image", body=make_picture(501, 100), Content_Type="image/png")
    await ask(413, "PUT", f"{PLAIN}/image", body=b"x" * (5 << 20 | 1), Content_Type="image/png")
    await ask(403, "PUT", f"{PLAIN}/image", user="priya", body=make_picture(9, 9), Content_Type="image/png")
    await ask(200, "GET", f"{PLAIN}/image")
    await ask(403, "DELETE", f"{PLAIN}/image", user="priya")
    await ask(204, "DELETE", f"{PLAIN}/image")
    # exports
    for output in ("Csv", "JsonGZip", "JsonZipArchive"):
        export = await ask(201, "POST", "/itwins/exports", body={"outputFormat": output, "select": "id,number"})
        await ask(200, "GET", f"/itwins/exports/{export['export']['id']}")
    await ask(422, "POST", "/itwins/exports", body={"outputFormat": "Csv"})
    await ask(422, "POST", "/itwins/exports", body={"outputFormat": "x", "subClass": "x", "filter": "x"})
    await ask(
        403, "POST", "/itwins/exports", user="priya", body={"outputFormat": "Csv", "queryScope": "OrganizationAdmin"}
    )
    await ask(200, "GET", "/itwins/exports")
    # repositories and their resources
    await ask(200, "GET", f"{ITWIN}/repositories")
    await ask(422, "GET", f"{ITWIN}/repositories?class=x&subClass=y")
    body = GIS | {"displayName": "Tiles", "authentication": BASIC, "options": LEVELS}
    tiles = (await ask(201, "POST", f"{new_itwin}/repositories", body=body))["repository"]
    await ask(409, "POST", f"{new_itwin}/repositories", body=GIS)
    await ask(422, "POST", f"{new_itwin}/repositories", body={"class": "x", "options": {}})
    await ask(403, "POST", f"{ITWIN}/repositories", user="priya", body=GIS)
    other = (await ask(201, "POST", f"{new_itwin}/repositories", body=GIS | {"uri": "https://b.example.org"}))[
        "repository"
    ]
    repository = f"{new_itwin}/repositories/{tiles['id']}"
    await ask(200, "GET", repository)
    await ask(200, "PATCH", repository, body={"options": {"queryParameters": {"a": "b"}}, "displayName": "Tiles 2"})
    await ask(409, "PATCH", f"{new_itwin}/repositories/{other['id']}", body={"uri": GIS["uri"]})
    await ask(422, "PATCH", repository, body={"uri": None, "options": {"minimumLevel": 1}})
    await ask(403, "PATCH", MAPS, user="priya", body={})
    await ask(201, "POST", f"{repository}/resources", body={"id": "a/b", "type": "Layer", "displayName": "Soil"})
    await ask(409, "POST", f"{repository}/resources", body={"id": "a/b", "displayName": "Soil"})
    await ask(422, "POST", f"{repository}/resources", body={})
    await ask(403, "POST", f"{MAPS}/resources", user="priya", body={})
    for headers in ({}, WHOLE):
        for name in ("imodels", "cesiumcuratedcontent", "realitydata"):
            await ask(200, "GET", f"{ITWIN}/repositories/{name}/resources?$top=1&$skip=1", **headers)
        await ask(200, "GET", f"{repository}/resources?$search=soil", **headers)
        await ask(200, "GET", f"{repository}/resources/a%2Fb", **headers)
        await ask(200, "GET", ROADS, **headers)
        await ask(200, "GET", f"{ITWIN}/repositories/cesiumcuratedcontent/resources/2", **headers)
    await ask(422, "GET", f"{ITWIN}/repositories/imodels/resources?$top=0")
    for path in (f"{repository}/resources/a%2Fb", ROADS, f"{ITWIN}/repositories/cesiumcuratedcontent/resources/2"):
        await ask(200, "GET", f"{path}/graphics")
    await ask(200, "GET", f"{repository}/resources/none/graphics")
    await ask(422, "GET", "/itwins/x/repositories/y/resources/z/graphics")
    for path in ("resources", "resources/x", "resources/x/graphics"):
        await ask(302, "GET", f"{ITWIN}/repositories/geospatialfeatures/{path}")
    await ask(403, "DELETE", f"{MAPS}/resources/parcels", user="priya")
    await ask(204, "DELETE", f"{repository}/resources/a%2Fb")
    await ask(403, "DELETE", MAPS, user="priya")
    await ask(204, "DELETE", repository)
    await ask(403, "DELETE", ITWIN, user="tomasz")
    await ask(204, "DELETE", new_itwin)


def fill_with_unknown_ids(path: str) -> str:
    """Return the path with ids that do not exist."""
    return "/".join(NOBODY if part.startswith("{") else part for part in path.split("/"))


async def test_sandbox_answers_match_the_definition() -> None:
    operations = definition.list_operations()
    with Sandbox.open(job_seconds=0) as sandbox:
        client = CheckedClient(sandbox)
        await call_every_operation(client)
        for method, path in operations:
            await client.ask(401, method, fill_with_unknown_ids(path), user=None)
            if "{" not in path:
                await client.ask(404, method, path, Accept="application/vnd.bentley.itwin-platform.v9+json")
            elif not path.endswith("/graphics"):
                body = make_picture(9, 9) if path.endswith("/image") and method == "PUT" else None
                await client.ask(404, method, fill_with_unknown_ids(path), body=body, Content_Type="image/png")
        await client.ask(404, "GET", f"/itwins/{NOBODY}/repositories/imodels/resources/x/graphics")
    with Sandbox.open(rate_limit=1) as sandbox:
        limited = CheckedClient(sandbox)
        await limited.ask(200, "GET", "/itwins/myprimaryaccount")
        for method, path in operations:
            await limited.ask(429, method, fill_with_unknown_ids(path))
    faults = Counter(client.faults + limited.faults)
    assert [fault for fault in faults if fault not in ANSWER_DEVIATIONS] == []
    assert [fault for fault in ANSWER_DEVIATIONS if fault not in faults] == [], "these no longer deviate"
    defined = {
        (" ".join(key), int(status)) for key, operation in operations.items() for status in operation["responses"]
    }
    assert defined - client.seen - limited.seen == NEVER_ANSWERED


# --- requests ---------------------------------------------------------------------------------------------------


def make_samples(schema: Mapping[str, Any]) -> list[Any]:
    """Return valid values of an argument's schema, including the limits that it sets."""
    kinds = schema.get("type", "string")
    values: list[Any] = [*schema.get("enum", ()), *schema.get("examples", ())]
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "null":
            values.append(None)
        elif kind == "boolean":
            values += [True, False]
        elif kind in ("number", "integer"):
            values += [schema.get("minimum", 0), schema.get("maximum", 1)]
        elif kind == "array":
            values += [[value] for value in make_samples(schema["items"])]
        elif kind == "object":
            children = schema.get("properties", {})
            members = {name: make_samples(child)[: None if "enum" in child else 1] for name, child in children.items()}
            for names in chain.from_iterable(combinations(members, count) for count in range(len(members) + 1)):
                choices = product(*(members[name] for name in names))
                values += [dict(zip(names, choice, strict=True)) for choice in choices]
        elif kind == "string":
            values += ["x", "x" * schema.get("maxLength", 1), "https://example.org", NOBODY]
    is_valid = Draft202012Validator(schema).is_valid
    return [value for value in values if is_valid(value)]


def list_calls(tool: Tool) -> Iterator[tuple[Operation, Mapping[str, Expression], set[str]]]:
    """Yield each operation of the iTwins API that a tool calls, its bindings, and the inputs that are always filled."""
    steps = (tool.action,) if isinstance(tool.action, Call) else tool.action.steps
    confirm = tool.confirm
    reads = () if confirm is None else (*confirm.reads, *((confirm.target,) if confirm.target else ()))
    for call in (*steps, *reads):
        if not isinstance(call, LookupStep) and call.operation.namespace == "itwins-api":
            yield call.operation, call.bindings, list_filled_inputs(tool, call)


def list_filled_inputs(tool: Tool, call: Call | CallStep | PreviewRead) -> set[str]:
    """Return the inputs that always have a value, because `x-defaults` takes it from a required argument."""
    plan = call.defaults if isinstance(call, CallStep) else None
    required = {argument.name for argument in tool.arguments if argument.required or argument.default is not ABSENT}
    return {
        name
        for name, expression, _ in (plan.values if plan is not None else ())
        if isinstance(expression, Argument) and expression.name in required
    }


def make_inputs(tool: Tool, bindings: Mapping[str, Expression], filled: set[str]) -> Iterator[dict[str, Any]]:
    """Yield inputs of a call: with all arguments, and with only the required ones and each value of each argument."""
    arguments = {argument.name: make_samples(argument.schema) for argument in tool.arguments}
    fixed: dict[str, Any] = {}
    samples: dict[str, list[Any]] = {}
    for name, expression in bindings.items():
        if isinstance(expression, Argument):
            assert arguments[expression.name], f"{tool.name}: no sample of {expression.name}"
            samples[name] = arguments[expression.name]
        else:
            # The other expressions are the ids that earlier steps return.
            fixed[name] = evaluate(expression, {}, {}) if isinstance(expression, Literal) else NOBODY
    required = {argument.name for argument in tool.arguments if argument.required or argument.default is not ABSENT}
    base = fixed | {
        name: values[0]
        for name, values in samples.items()
        if isinstance(expression := bindings[name], Argument) and (expression.name in required or name in filled)
    }
    yield base | {name: values[0] for name, values in samples.items()}
    for name, values in samples.items():
        for value in values:
            yield base | {name: value}


def make_wire_request(operation: Operation, values: Mapping[str, Any]) -> WireRequest:
    """Return the request that the executor builds, as the server receives it."""
    request = build_request(operation, values)
    content, content_type = b"", ""
    if isinstance(request.body, JsonBody):
        content, content_type = json.dumps(request.body.value).encode(), "application/json"
    elif isinstance(request.body, FileUpload):
        content, content_type = b"x", request.body.media_type
    return WireRequest(request.method, request.path, request.query, request.headers, content, content_type)


def find_name_faults(operation: Operation) -> Iterator[tuple[str, str]]:
    """Yield the undefined parameters and properties of an operation, even if no tool uses them."""
    request = make_wire_request(operation, dict.fromkeys(operation.inputs, NOBODY))
    for fault in definition.find_request_faults(request):
        if fault.startswith(("query", "header", "the operation")) or "additionalProperties" in fault:
            yield name_operation(request), fault


def make_every_request() -> Iterator[tuple[str, WireRequest]]:
    """Yield every request to the iTwins API that a tool can make, with the operation's name."""
    for tool in shipped_catalog().tools.values():
        for operation, bindings, filled in list_calls(tool):
            for values in make_inputs(tool, bindings, filled):
                extensions = () if operation.file is None else operation.file.types
                for extension in extensions or ("",):
                    with suppress(InvalidArguments):  # a value that is not allowed in a path is never sent
                        yield operation.name, make_wire_request(operation, values | {FILE_PATH: f"x{extension}"})


def test_requests_of_capability_files_match_the_definition() -> None:
    definition.read_definition()
    faults: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for operation in shipped_catalog().operations.values():
        if operation.namespace == "itwins-api" and operation.name not in NOT_DEFINED and operation.file is None:
            faults.update(find_name_faults(operation))
    for name, request in make_every_request():
        if name in NOT_DEFINED:
            continue
        operation_name = name_operation(request)
        seen.add(operation_name)
        faults.update((operation_name, fault) for fault in definition.find_request_faults(request))
    assert [fault for fault in faults if fault not in REQUEST_DEVIATIONS] == []
    assert [fault for fault in REQUEST_DEVIATIONS if fault not in faults] == [], "these no longer deviate"
    assert {" ".join(key) for key in definition.list_operations()} - seen == set()
