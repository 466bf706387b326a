"""A user's own capability file for another API is served with ours, without any Python."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import anyio
import anyio.abc
import pytest

from itwin_mcp.errors import CapabilityError
from tests.conftest import connect

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


@dataclass
class Weather:
    """A tiny API on a loopback port that records its requests."""

    origin: str
    asked: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    bodies: list[object] = field(default_factory=list)


@asynccontextmanager
async def weather() -> AsyncIterator[Weather]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    api = Weather(f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}")

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            head, _, second = received.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
            while len(second) < int(headers.get("content-length", 0)):
                second += await stream.receive()
            method, target, _ = lines[0].split(" ")
            api.asked.append(f"{method} {target}")
            api.authorizations.append(headers.get("authorization", ""))
            if second:
                api.bodies.append(json.loads(second))
            if method == "POST":
                status, body = "201 Created", {"id": "s9"}
            elif urlsplit(target).path == "/v1/stations":
                word = dict(parse_qsl(urlsplit(target).query)).get("$q")
                status, body = "200 OK", {"items": [{"id": "s1", "matches": word}]}
            else:
                status, body = "200 OK", {"id": target.rpartition("/")[2], "name": "Roof"}
            content = json.dumps(body).encode()
            answer = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            await stream.send(answer.encode() + b"Connection: close\r\n\r\n" + content)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield api
        tasks.cancel_scope.cancel()


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Weather]:
    monkeypatch.setenv("MY_WEATHER_KEY", "weather-secret")
    async with weather() as api:
        yield api


def write_capability_file(folder: Path, origin: str) -> Path:
    file = folder / "stations.yaml"
    file.write_text(FILE.format(origin=origin))
    return file


@pytest.mark.parametrize("sandbox", [True, False])
async def test_users_capability_file_is_served_with_its_own_credential(
    api: Weather, tmp_path: Path, sandbox: bool, monkeypatch: pytest.MonkeyPatch
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
    assert api.bodies == [{"name": 'Tower "A" {{name}}'}]
    assert api.asked == ["GET /v1/stations?$q=roof%20%26%20tower%3D1", "GET /v1/stations/s%207", "POST /v1/stations"]
    assert api.authorizations == ["Bearer weather-secret"] * 3


@pytest.mark.parametrize(
    "arguments", ["../admin", "..", ".", "a/b", "a?b=1", "a#b", "a%2Fb", "a\\b", "a\nb", "x" * 5000]
)
async def test_users_capability_file_rejects_path_traversal(api: Weather, tmp_path: Path, arguments: str) -> None:
    async with connect(capabilities=[write_capability_file(tmp_path, api.origin)]) as client:
        result = await client.call_tool("get-station", {"station": arguments})
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "InvalidArguments"
    assert api.asked == []


async def test_missing_credential_of_a_users_file_is_named_in_the_hint(
    api: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_WEATHER_KEY")
    async with connect(capabilities=[write_capability_file(tmp_path, api.origin)]) as client:
        result = await client.call_tool("find-stations", {"word": "x"})
    assert result.structured_content is not None
    assert "MY_WEATHER_KEY" in result.structured_content["error"]["hint"]
    assert api.asked == []


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
