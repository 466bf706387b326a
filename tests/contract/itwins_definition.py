"""The official definition of the iTwins API, and comparison of requests and answers with it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from tests.house.documents import ROOT

SHARED = os.environ.get("ITWIN_MCP_SHARED")  # read here: fixtures of the session clear our variables
FILE = (Path(SHARED) if SHARED else ROOT.parent / "shared") / "reference/openapi/itwins.json"
HOST = "https://api.bentley.com"
COMMON_HEADERS = frozenset({"accept", "authorization", "content-type"})
WHOLE = {
    "iTwins-prefer-return-minimal": "iTwins-prefer-return-representation",
    "ResourceArrayResponse": "ResourceRepresentationArrayResponse",
    "ResourceResponse": "ResourceRepresentationResponse",
}
"""The schemas of `Prefer: return=representation`, which the definition has and no operation refers to."""
DETAILED = {"ErrorResponse": "DetailedErrorResponse"}


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it goes over the wire."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as it comes back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@cache
def read() -> dict[str, Any]:
    """Return the definition. Skips where there is none, and fails where the variable names a folder without it."""
    if not FILE.exists():
        if SHARED:
            pytest.fail(f"ITWIN_MCP_SHARED is {SHARED}, but {FILE} does not exist.")
        pytest.skip(f"The official definition is not here: {FILE} does not exist, and ITWIN_MCP_SHARED is not set.")
    definition: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    # Its security schemes are subscription keys of a former gateway. Each operation says: Bearer, scope itwin-platform.
    del definition["security"]
    return definition


def operations() -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the operations by method and path, such as `/itwins/{id}`."""
    return {
        (method.upper(), f"/itwins{path.removesuffix('/')}"): operation
        for path, methods in read()["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "put", "post", "patch", "delete")
    }


def find(method: str, path: str) -> tuple[tuple[str, str], Mapping[str, Any]] | None:
    """Return the operation that serves a path, with its method and path; literal segments win over slots."""
    wanted = path.removesuffix("/").split("/")
    fitting = [
        (sum(part.startswith("{") for part in known.split("/")), (verb, known), operation)
        for (verb, known), operation in operations().items()
        if verb == method and _fits(known.split("/"), wanted)
    ]
    if not fitting:
        return None
    _, key, operation = min(fitting, key=lambda found: found[0])
    return key, operation


def _fits(known: list[str], wanted: list[str]) -> bool:
    return len(known) == len(wanted) and all(
        part.startswith("{") or part == given for part, given in zip(known, wanted, strict=True)
    )


def faults_of_request(sent: Sent) -> Iterator[str]:
    """Name what a request has that the definition does not."""
    found = find(sent.method, sent.path)
    if found is None:
        yield "the operation"
        return
    _, operation = found
    declared = {(one["in"], one["name"].lower()) for one in operation.get("parameters", ())}
    for name, _ in sent.query:
        if ("query", name.lower()) not in declared:
            yield f"query {name}"
    for name, _ in sent.headers:
        if ("header", name.lower()) not in declared and name.lower() not in COMMON_HEADERS:
            yield f"header {name}"
    content_type = sent.content_type
    documented = list(operation.get("requestBody", {}).get("content", ()))
    if sent.body and documented and content_type not in documented:
        yield f"content type {content_type}"
        content_type = documented[0]
    yield from _names_of(_openapi().iter_request_faults(_mock(sent, content_type)))


def faults_of_answer(sent: Sent, answered: Answered) -> Iterator[str]:
    """Name what an answer has that the definition does not."""
    found = find(sent.method, sent.path)
    if found is None:
        yield "the operation"
        return
    if str(answered.status) not in found[1]["responses"]:
        yield f"{answered.status}"
        return
    swapped: dict[str, str] = {}
    if ("prefer", "return=representation") in {(name.lower(), value) for name, value in sent.headers}:
        swapped |= WHOLE
    if b'"details"' in answered.body:
        swapped |= DETAILED
    response = MockResponse(
        answered.body, answered.status, dict(answered.headers), answered.headers.get("content-type", "")
    )
    openapi = _openapi(tuple(sorted(swapped.items())))
    for fault in _names_of(openapi.iter_answer_faults(_mock(sent, sent.content_type), response)):
        yield f"{answered.status} {fault}"


class _OpenApi:
    """openapi-core, asked for all faults rather than for the first."""

    def __init__(self, definition: dict[str, Any]) -> None:
        # The PATCH operations are declared as JSON Patch.
        config = Config(extra_media_type_deserializers={"application/json-patch+json": json.loads})
        self._openapi = OpenAPI.from_dict(definition, config=config)

    def iter_request_faults(self, request: MockRequest) -> Iterable[Exception]:
        return self._openapi.request_validator.iter_errors(request)

    def iter_answer_faults(self, request: MockRequest, response: MockResponse) -> Iterable[Exception]:
        return self._openapi.response_validator.iter_errors(request, response)


@cache
def _openapi(swapped: tuple[tuple[str, str], ...] = ()) -> _OpenApi:
    """Return the definition with references to some schemas replaced."""
    definition = read()
    text = json.dumps(definition["paths"])
    for name, other in swapped:
        text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{other}"')
    return _OpenApi(definition | {"paths": json.loads(text)})


def _mock(sent: Sent, content_type: str) -> MockRequest:
    path = sent.path if sent.path != "/itwins" else "/itwins/"
    # The sign-in and the media type are added when a request is sent.
    query, headers = dict(sent.query), {"Authorization": "Bearer x", "Content-Type": content_type, **dict(sent.headers)}
    return MockRequest(HOST, sent.method, path, None, query, None, headers, None, sent.body, content_type)


def _names_of(errors: Iterable[Exception]) -> Iterator[str]:
    """Name each fault by the rule that is broken and by its place, without values: `$.iTwin additionalProperties`."""
    for error in errors:
        cause: BaseException = error
        while not hasattr(cause, "schema_errors") and cause.__cause__ is not None:
            cause = cause.__cause__
        if hasattr(cause, "schema_errors"):
            for fault in cause.schema_errors:
                name = f"{fault.json_path} {fault.validator}"
                yield f"{name}: {_unexpected(fault)}" if fault.validator == "additionalProperties" else name
        elif isinstance(error, OpenAPIError):
            yield f"{error}"
        else:
            raise error


def _unexpected(fault: Any) -> str:
    return ", ".join(sorted(set(fault.instance) - set(fault.schema.get("properties", ()))))
