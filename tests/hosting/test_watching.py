"""Metrics and traces: few label values, nothing per caller, and no secrets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from itwin_mcp.hosting.telemetry import build_tracer_provider, export_spans
from tests.hosting.issuer import rsa, token
from tests.hosting.served import serve
from tests.sandbox_process import free_port

pytestmark = pytest.mark.anyio

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def collect_spans(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> Iterator[InMemorySpanExporter]:
    """Collect the spans that are recorded during the block."""
    exporter = InMemorySpanExporter()
    provider = build_tracer_provider(SimpleSpanProcessor(exporter), names)
    # OpenTelemetry allows one provider per process, so each test replaces the tracers instead.
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    monkeypatch.setattr("mcp.shared._otel._tracer", provider.get_tracer("mcp-python-sdk"))
    monkeypatch.setattr("itwin_mcp.hosting.telemetry._tracer", provider.get_tracer("itwin-mcp"))
    yield exporter
    provider.shutdown()


async def test_metrics_count_calls_requests_and_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    environment = {"ITWIN_MCP_METRICS_PORT": str(port), "ITWIN_MCP_CALLER_RATE_PER_MINUTE": "80"}
    async with serve(monkeypatch, environment) as served:
        async with served.http(token(sub="canary-subject")) as http:
            assert (await served.call(http, "list-itwins", limit=1)).status_code == 200
            await served.call(http, "list-itwins", limit="canary-argument")
            for number in range(3):
                await served.call(http, f"canary-tool-{number}")
            await served.post(http, "tools/list")
            await served.call(http, "get-itwin", iTwinId="00000000-0000-4000-8000-000000000000")
            statuses = [(await served.post(http, "tools/list")).status_code for _ in range(3)]
            assert statuses == [200, 429, 429]
        for bearer in (token(rsa("evil"), {"kid": "one"}), token(iat=1, exp=2), "garbage-canary"):
            async with served.http(bearer) as http:
                await served.post(http, "tools/list")
        async with httpx2.AsyncClient(trust_env=False) as scraper:
            text = (await scraper.get(f"http://127.0.0.1:{port}/metrics")).text
        async with served.http() as http:
            assert (await http.get("/metrics")).status_code == 404, "metrics are not served on the port of callers"
    lines = set(text.splitlines())
    for line in (
        'itwin_mcp_calls_total{outcome="ok",tool="list-itwins"} 1.0',
        'itwin_mcp_calls_total{outcome="error",tool="list-itwins"} 1.0',
        'itwin_mcp_calls_total{outcome="error",tool="get-itwin"} 1.0',
        'itwin_mcp_calls_total{outcome="protocol-error",tool="unknown"} 3.0',
        'itwin_mcp_call_seconds_count{tool="list-itwins"} 2.0',
        'itwin_mcp_upstream_requests_total{method="GET",status="200"} 2.0',
        'itwin_mcp_upstream_requests_total{method="POST",status="200"} 1.0',
        'itwin_mcp_upstream_requests_total{method="GET",status="404"} 1.0',
        'itwin_mcp_limited_total{reason="caller-rate"} 2.0',
        'itwin_mcp_tokens_refused_total{reason="signature"} 1.0',
        'itwin_mcp_tokens_refused_total{reason="expired"} 1.0',
        'itwin_mcp_tokens_refused_total{reason="malformed"} 1.0',
        "itwin_mcp_requests_under_way 0.0",
    ):
        assert line in lines, text
    assert "canary" not in text
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(trust_env=False) as scraper:
            await scraper.get(f"http://127.0.0.1:{port}/metrics")


async def test_call_is_traced_to_the_platform_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = token(jti="canary-token", sub="canary-subject", client_id="canary-application")
    async with serve(monkeypatch) as served:
        catalog = served.runtime.catalog
        with collect_spans(monkeypatch, {*catalog.tools, *catalog.prompts}) as exporter:
            async with served.http(bearer) as http:
                params = {"name": "list-itwins", "arguments": {"search": "canary-argument", "limit": 3}}
                answer = await served.post(http, "tools/call", {"traceparent": PARENT}, **params)
                assert answer.json()["result"]["isError"] is False
                await served.call(http, "canary-tool")

                def fail(*_: Any) -> Any:
                    raise RuntimeError("canary-exception")

                monkeypatch.setattr("itwin_mcp.server.resources.Resources._match", fail)
                answer = await served.post(http, "resources/read", uri="itwin://itwins/canary-resource")
                assert answer.json()["error"]["code"] == -32603
        finished = exporter.get_finished_spans()
    call_span = next(span for span in finished if span.name == "tools/call list-itwins")
    upstream = next(span for span in finished if span.name == "upstream GET")
    assert call_span.parent is not None
    assert format(call_span.context.trace_id, "032x") == PARENT.split("-")[1]
    assert format(call_span.parent.span_id, "016x") == PARENT.split("-")[2]
    assert upstream.parent is not None and upstream.parent.span_id == call_span.context.span_id
    assert dict(upstream.attributes or {}).keys() == {
        "http.request.method",
        "itwin.correlation_id",
        "http.response.status_code",
    }
    assert (call_span.attributes or {})["itwin.correlation_id"] == (upstream.attributes or {})["itwin.correlation_id"]
    assert {span.name for span in finished} >= {"tools/call unknown", "resources/read"}
    for span in finished:
        assert bearer not in span.to_json()
        assert "canary" not in span.to_json().replace("Unknown tool: canary-tool", ""), span.to_json()


async def test_span_names_and_attributes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with collect_spans(monkeypatch, set()) as exporter:
        from mcp.shared import _otel

        with _otel.otel_span("ping", kind=trace.SpanKind.SERVER, attributes={"jsonrpc.request.id": "x" * 10_000}):
            pass
    assert len(str((exporter.get_finished_spans()[0].attributes or {})["jsonrpc.request.id"])) == 256


def test_spans_are_exported_only_if_configured() -> None:
    before = trace.get_tracer_provider()
    for environment in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}):
        with export_spans(environment, set()):
            assert trace.get_tracer_provider() is before


async def test_metrics_without_the_extra_are_refused_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from itwin_mcp.errors import SettingsError

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "itwin_mcp.hosting.metrics", raising=False)
    with pytest.raises(SettingsError, match=r"itwin-mcp\[metrics\]"):
        async with serve(monkeypatch, {"ITWIN_MCP_METRICS_PORT": str(free_port())}):
            pass
