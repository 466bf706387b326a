"""Compare requests and answers with the official OpenAPI definition of the iTwins API."""

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

SHARED = os.environ.get("ITWIN_MCP_SHARED")  # read at import, because fixtures clear our variables
FILE = (Path(SHARED) if SHARED else ROOT.parent / "shared") / "reference/openapi/itwins.json"
HOST = "https://api.bentley.com"
COMMON_HEADERS = frozenset({"accept", "authorization", "content-type"})
REPRESENTATION_SCHEMAS = {
    "iTwins-prefer-return-minimal": "iTwins-prefer-return-representation",
    "ResourceArrayResponse": "ResourceRepresentationArrayResponse",
    "ResourceResponse": "ResourceRepresentationResponse",
}
"""Schemas for `Prefer: return=representation`. The definition has them, but its operations do not refer to them."""
DETAILED_SCHEMAS = {"ErrorResponse": "DetailedErrorResponse"}


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request, as the server receives it."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """One HTTP answer, as the client receives it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@cache
def read_definition() -> dict[str, Any]:
    """Return the definition.

    Without the file, skip the test, or fail it if ITWIN_MCP_SHARED is set.
    """
    if not FILE.exists():
        if SHARED:
            pytest.fail(f"ITWIN_MCP_SHARED is {SHARED}, but {FILE} does not exist.")
        pytest.skip(f"The official definition is not here: {FILE} does not exist, and ITWIN_MCP_SHARED is not set.")
    definition: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    # Its security schemes are subscription keys of a former gateway. The operations themselves require a bearer token.
    del definition["security"]
    return definition


def list_operations() -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the operations by method and path, such as `/itwins/{id}`."""
    return {
        (method.upper(), f"/itwins{path.removesuffix('/')}"): operation
        for path, methods in read_definition()["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "put", "post", "patch", "delete")
    }


def find_operation(method: str, path: str) -> tuple[tuple[str, str], Mapping[str, Any]] | None:
    """Return the operation that serves a path, with its method and its path in the definition.

    Of several, return the one with the fewest slots: literal segments take precedence.
    """
    segments = path.removesuffix("/").split("/")
    candidates = [
        (key, operation)
        for key, operation in list_operations().items()
        if key[0] == method and _matches(key[1].split("/"), segments)
    ]
    return min(candidates, key=lambda candidate: candidate[0][1].count("{"), default=None)


def _matches(template: list[str], segments: list[str]) -> bool:
    return len(template) == len(segments) and all(
        part.startswith("{") or part == segment for part, segment in zip(template, segments, strict=True)
    )


def find_request_faults(request: WireRequest) -> Iterator[str]:
    """Yield the parts of a request that the definition does not allow."""
    match = find_operation(request.method, request.path)
    if match is None:
        yield "the operation"
        return
    _, operation = match
    declared = {(parameter["in"], parameter["name"].lower()) for parameter in operation.get("parameters", ())}
    for name, _ in request.query:
        if ("query", name.lower()) not in declared:
            yield f"query {name}"
    for name, _ in request.headers:
        if ("header", name.lower()) not in declared and name.lower() not in COMMON_HEADERS:
            yield f"header {name}"
    content_type = request.content_type
    declared_types = list(operation.get("requestBody", {}).get("content", ()))
    if request.body and declared_types and content_type not in declared_types:
        yield f"content type {content_type}"
        content_type = declared_types[0]
    yield from _name_faults(_load_openapi().request_validator.iter_errors(_make_request(request, content_type)))


def find_answer_faults(request: WireRequest, answer: WireAnswer) -> Iterator[str]:
    """Yield the parts of an answer that the definition does not allow."""
    match = find_operation(request.method, request.path)
    if match is None:
        yield "the operation"
        return
    if str(answer.status) not in match[1]["responses"]:
        yield f"{answer.status}"
        return
    replaced_schemas: dict[str, str] = {}
    if ("prefer", "return=representation") in {(name.lower(), value) for name, value in request.headers}:
        replaced_schemas |= REPRESENTATION_SCHEMAS
    if b'"details"' in answer.body:
        replaced_schemas |= DETAILED_SCHEMAS
    response = MockResponse(answer.body, answer.status, dict(answer.headers), answer.headers.get("content-type", ""))
    openapi = _load_openapi(tuple(sorted(replaced_schemas.items())))
    errors = openapi.response_validator.iter_errors(_make_request(request, request.content_type), response)
    for fault in _name_faults(errors):
        yield f"{answer.status} {fault}"


@cache
def _load_openapi(replaced_schemas: tuple[tuple[str, str], ...] = ()) -> OpenAPI:
    """Return the definition with references to some schemas replaced."""
    definition = read_definition()
    text = json.dumps(definition["paths"])
    for name, replacement in replaced_schemas:
        text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{replacement}"')
    # The PATCH operations are declared as JSON Patch.
    config = Config(extra_media_type_deserializers={"application/json-patch+json": json.loads})
    return OpenAPI.from_dict(definition | {"paths": json.loads(text)}, config=config)


def _make_request(request: WireRequest, content_type: str) -> MockRequest:
    path = request.path if request.path != "/itwins" else "/itwins/"
    # The executor adds these headers only when it sends a request.
    headers = {"Authorization": "Bearer x", "Content-Type": content_type, **dict(request.headers)}
    query = dict(request.query)
    return MockRequest(HOST, request.method, path, None, query, None, headers, None, request.body, content_type)


def _name_faults(errors: Iterable[Exception]) -> Iterator[str]:
    """Name each fault by its JSON path and the violated keyword, such as `$.iTwin additionalProperties`."""
    for error in errors:
        cause: BaseException = error
        while not hasattr(cause, "schema_errors") and cause.__cause__ is not None:
            cause = cause.__cause__
        if hasattr(cause, "schema_errors"):
            for fault in cause.schema_errors:
                name = f"{fault.json_path} {fault.validator}"
                if fault.validator == "additionalProperties":
                    unexpected = set(fault.instance) - set(fault.schema.get("properties", ()))
                    name = f"{name}: {', '.join(sorted(unexpected))}"
                yield name
        elif isinstance(error, OpenAPIError):
            yield f"{error}"
        else:
            raise error
