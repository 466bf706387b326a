"""A user's own capability file for another API is served with ours, without any Python."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from itwin_mcp.errors import CapabilityError
from tests.conftest import connect
from tests.upstream.loopback import Asked, Loopback, loopback

pytestmark = pytest.mark.anyio

FILE = """
ikanos: "1.0.0-beta5"
info: {{display: "Stations", description: "Weather stations of the site."}}
binds:
- namespace: weather-environment
  keys: {{WEATHER_KEY: MY_WEATHER_KEY}}
capability:
  consumes:
  - type: http
    namespace: weather
    baseUri: "{origin}/v1"
    authentication: {{type: bearer, token: "{{{{WEATHER_KEY}}}}"}}
    resources:
      stations:
        path: "/stations"
        operations:
          find-stations:
            inputParameters: {{q: {{in: query, x-wire: "$q"}}}}
          add-station:
            method: POST
            body: {{type: json, data: {{name: "{{{{name}}}}", height: "{{{{height}}}}"}}}}
      station:
        path: "/stations/{{{{id}}}}"
        operations:
          get-station: {{inputParameters: {{id: {{in: path}}}}}}
  exposes:
  - type: mcp
    transport: stdio
    namespace: stations
    tools:
      find-stations:
        description: "Find weather stations by a word."
        inputParameters: {{word: {{type: string, description: "Part of the name."}}}}
        call: weather.find-stations
        with: {{q: stations.word}}
        outputParameters: [{{type: object, properties: {{stations: {{type: array, mapping: "$.items", items: {{type: object, properties: {{}}}}}}}}}}]
      get-station:
        description: "Read one weather station."
        inputParameters: {{station: {{type: string, description: "Its id."}}}}
        call: weather.get-station
        with: {{id: stations.station}}
        outputParameters: [{{type: object, properties: {{id: {{type: string, mapping: "$.id"}}, name: {{type: string, mapping: "$.name"}}}}}}]
      add-station:
        description: "Put up a weather station."
        inputParameters:
          name: {{type: string, description: "Its name."}}
          height: {{type: number, description: "Metres above the sea.", required: false}}
        call: weather.add-station
        with: {{name: stations.name, height: stations.height}}
        outputParameters: [{{type: object, properties: {{id: {{type: string, mapping: "$.id"}}}}}}]
"""  # noqa: E501 lines of a capability file


async def answer(request: Asked) -> None:
    """Answer like a tiny API of weather stations."""
    if request.method == "POST":
        await request.json(201, {"id": "s9"})
    elif request.path == "/v1/stations":
        word = dict(parse_qsl(urlsplit(request.target).query)).get("$q")
        await request.json(200, {"items": [{"id": "s1", "matches": word}]})
    else:
        await request.json(200, {"id": request.target.rpartition("/")[2], "name": "Roof"})


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loopback]:
    monkeypatch.setenv("MY_WEATHER_KEY", "weather-secret")
    async with loopback(answer) as api:
        yield api


def write_capability_file(folder: Path, origin: str) -> Path:
    file = folder / "stations.yaml"
    file.write_text(FILE.format(origin=origin))
    return file


@pytest.mark.parametrize("sandbox", [True, False])
async def test_users_capability_file_is_served_with_its_own_credential(
    api: Loopback, tmp_path: Path, sandbox: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ITWIN_ACCESS_TOKEN", "canary-of-the-platform")
    async with connect(sandbox=sandbox, capabilities=[write_capability_file(tmp_path, api.origin)]) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"find-stations", "list-itwins"} <= names
        answer = await client.call_tool("find-stations", {"word": "roof & tower=1"})
        assert answer.structured_content == {"stations": [{"id": "s1", "matches": "roof & tower=1"}]}
        read = await client.call_tool("get-station", {"station": "s 7"})
        assert read.structured_content == {"id": "s%207", "name": "Roof"}
        added = await client.call_tool("add-station", {"name": 'Tower "A" {{name}}'})
        assert added.structured_content == {"id": "s9"}
    assert [json.loads(request.body) for request in api.requests if request.body] == [{"name": 'Tower "A" {{name}}'}]
    sent = [f"{request.method} {request.target}" for request in api.requests]
    assert sent == ["GET /v1/stations?$q=roof%20%26%20tower%3D1", "GET /v1/stations/s%207", "POST /v1/stations"]
    assert [request.headers.get("authorization") for request in api.requests] == ["Bearer weather-secret"] * 3


@pytest.mark.parametrize(
    "arguments", ["../admin", "..", ".", "a/b", "a?b=1", "a#b", "a%2Fb", "a\\b", "a\nb", "x" * 5000]
)
async def test_users_capability_file_rejects_path_traversal(api: Loopback, tmp_path: Path, arguments: str) -> None:
    async with connect(capabilities=[write_capability_file(tmp_path, api.origin)]) as client:
        result = await client.call_tool("get-station", {"station": arguments})
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "InvalidArguments"
    assert api.requests == []


async def test_missing_credential_of_a_users_file_is_named_in_the_hint(
    api: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_WEATHER_KEY")
    async with connect(capabilities=[write_capability_file(tmp_path, api.origin)]) as client:
        result = await client.call_tool("find-stations", {"word": "x"})
    assert result.structured_content is not None
    assert "MY_WEATHER_KEY" in result.structured_content["error"]["hint"]
    assert api.requests == []


BROKEN = {
    "unknown-key": ('description: "Read one', 'summary: "Read one'),
    "unresolved-call": ("call: weather.get-station", "call: weather.get-tower"),
    "slot-without-value": ("with: {{id: stations.station}}", "with: {{}}"),
    "unique-tool": ("      find-stations:\n        description", "      list-itwins:\n        description"),
    "duplicate-key": ("namespace: weather\n", "namespace: weather\n    namespace: weather\n"),
    "alias": ("namespace: weather\n", "namespace: &a weather\n    description: *a\n"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_broken_capability_file_stops_the_start_with_its_line(kind: str, tmp_path: Path) -> None:
    good, bad = BROKEN[kind]
    assert good in FILE
    file = tmp_path / "stations.yaml"
    file.write_text(FILE.replace(good, bad).format(origin="http://127.0.0.1:1"))
    with pytest.raises(CapabilityError) as caught:
        async with connect(capabilities=[file]):
            raise AssertionError("it was served")
    problem = caught.value.problems[0]
    assert problem.file == str(file)
    assert problem.line > 1
    assert problem.rule and problem.message
