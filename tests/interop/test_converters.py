"""Agent frameworks that convert our tools for their models keep every tool and every property."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.interop import makers

pytestmark = pytest.mark.interop

CONVERTERS = ["openai-agents", "openai-agents strict", "langchain", "google-genai"]


@pytest.fixture(scope="module", params=["all", "dynamic"])
def converted(request: pytest.FixtureRequest, environment: dict[str, str]) -> dict[str, Any]:
    serve = [sys.executable, "-m", "itwin_mcp", "serve", "--sandbox", "--toolsets", request.param]
    command = [str(makers.converters()), str(makers.DRIVERS / "converters.py"), json.dumps(serve)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("converter", CONVERTERS)
def test_converters_keep_every_tool_and_property(converted: dict[str, Any], converter: str) -> None:
    published, tools = converted["published"], converted[converter]
    assert tools.keys() == published.keys()
    lost = {name: set(properties(schema)) - set(properties(tools[name])) for name, schema in published.items()}
    assert {name: names for name, names in lost.items() if names} == {}


def properties(schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield the path of every property in a schema, at every depth."""
    for name, child in (schema.get("properties") or {}).items():
        yield f"{where}.{name}"
        yield from properties(child, f"{where}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from properties(schema["items"], f"{where}[]")
