"""The limit of requests per minute (`--rate-limit`)."""

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from itwin_mcp.sandbox import Sandbox
from tests.sandbox.conftest import ORIGIN, Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox.open(clock=clock, rate_limit=2) as opened:
        yield opened


async def test_request_above_the_rate_limit_is_429_with_headers(http: httpx2.AsyncClient, clock: Clock) -> None:
    assert [(await http.get("/itwins")).status_code for _ in range(2)] == [200, 200]
    clock.forward(20)
    refused = await http.post("/itwins/exports", json={})
    assert refused.status_code == 429
    assert refused.json() == {
        "error": {
            "code": "RateLimitExceeded",
            "message": "The client sent more requests than allowed by this API for the current tier of the client.",
        }
    }
    assert refused.headers["retry-after"] == "40"
    limited = {name: value for name, value in refused.headers.items() if name.startswith("itwinplatform-ratelimited-")}
    assert limited == {
        "itwinplatform-ratelimited-tier": "Community",
        "itwinplatform-ratelimited-api": "itwins",
        "itwinplatform-ratelimited-operation": "create-export",
        "itwinplatform-ratelimited-application": "native-itwin-sandbox",
    }
    clock.forward(40)
    assert (await http.get("/itwins")).status_code == 200


async def test_rate_limit_counts_each_application(http: httpx2.AsyncClient, sandbox: Sandbox) -> None:
    for _ in range(3):
        answer = await http.get("/itwins")
    assert answer.status_code == 429
    token = {"Authorization": f"Bearer {sandbox.token('service-meridian-design-sync')}"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(sandbox.app), base_url=ORIGIN) as service:
        assert (await service.get("/itwins", headers=token)).status_code == 200
        assert (await service.get("/.well-known/openid-configuration")).status_code == 200


@pytest.mark.slow
def test_rate_limit_option_limits_a_served_sandbox() -> None:
    arguments = [sys.executable, "-m", "itwin_mcp", "sandbox", "--json", "--rate-limit", "1"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            headers = {"Authorization": f"Bearer {started['token']}"}
            with httpx2.Client(base_url=started["url"], headers=headers, trust_env=False) as client:
                assert [client.get("/itwins/recents").status_code for _ in range(2)] == [200, 429]
        finally:
            process.terminate()
