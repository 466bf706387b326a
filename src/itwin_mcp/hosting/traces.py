"""OpenTelemetry: the SDK's spans and ours go where the `OTEL_*` variables say, with the extra `otel`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

ASKED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
LONGEST_ATTRIBUTE = 256
_NAMED_BY_CLIENTS = ("tools/call ", "prompts/get ")


@contextmanager
def exported(environment: Mapping[str, str], names: Collection[str]) -> Iterator[None]:
    """Send spans while the block runs, if the environment names where to; `names` are our tools and prompts."""
    asked = next((name for name in ASKED_BY if environment.get(name)), None)
    if asked is None or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("%s is set, but no spans are sent: install itwin-mcp with its extra `otel`", asked)
        yield
        return
    service = environment.get("OTEL_SERVICE_NAME") or "itwin-mcp"
    provider = tracer_provider(BatchSpanProcessor(OTLPSpanExporter()), names, service)
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def tracer_provider(processor: Any, names: Collection[str], service: str = "itwin-mcp") -> TracerProvider:
    """A provider whose spans have few names and short attributes, whatever clients send."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Span, SpanLimits, SpanProcessor, TracerProvider

    class FewNames(SpanProcessor):
        """The SDK puts the name that a client sends into a span's name, known or not."""

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            method = next((one for one in _NAMED_BY_CLIENTS if span.name.startswith(one)), None)
            if method is not None and span.name.removeprefix(method) not in names:
                span.update_name(f"{method}unknown")
                for attribute in ("gen_ai.tool.name", "gen_ai.prompt.name"):
                    if attribute in (span.attributes or {}):
                        span.set_attribute(attribute, "unknown")

    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        span_limits=SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE),
    )
    provider.add_span_processor(FewNames())
    provider.add_span_processor(processor)
    return provider
