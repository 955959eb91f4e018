"""Traces: a span per run, per stage and per model call, told to an OTLP collector if OpenTelemetry's own variables name one.

A run's span hangs below the `traceparent` of its completion event. Spans hold ids, codes and counts, never content: neither the
message nor the traceback of an exception is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from opentelemetry.trace import NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from consumer.errors import RunError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Traces:
    """Begins spans, each below the one that is open in its task."""

    def __init__(self, tracer: Tracer, provider: TracerProvider | None = None) -> None:
        self._tracer = tracer
        self._provider = provider

    @classmethod
    def from_environment(cls) -> Self:
        """Spans go to `OTEL_EXPORTER_OTLP_ENDPOINT` (OTLP over HTTP); without it nothing is traced.

        The SDK heeds its other variables, such as `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER` and `OTEL_SERVICE_NAME`.
        """
        if not any(os.environ.get(name) for name in _ENDPOINTS):
            return cls.off()
        provider = _exporting()
        return cls(provider.get_tracer("consumer"), provider)

    @classmethod
    def off(cls) -> Self:
        """Spans that go nowhere and cost nothing."""
        return cls(NoOpTracer())

    @contextmanager
    def run(self, traceparent: str, **attributes: str | int) -> Iterator[Span]:
        """The span of a run, below what its completion event belongs to."""
        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        with (
            self._tracer.start_as_current_span(
                "full_pass",
                context=parent,
                kind=SpanKind.CONSUMER,
                attributes={f"full_pass.{name}": value for name, value in attributes.items()},
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _Told(span),
        ):
            yield span

    @contextmanager
    def span(self, name: str) -> Iterator[Span]:
        """The span of a part of what the task does."""
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span, _Told(span):
            yield span

    @contextmanager
    def model_call(self, model: str, kind: str) -> Iterator[Span]:
        """The span of one call, named as OpenTelemetry's conventions for generative models have it."""
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": model}
        with (
            self._tracer.start_as_current_span(
                f"chat {model}",
                kind=SpanKind.CLIENT,
                attributes={**attributes, "full_pass.request.kind": kind},
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _Told(span),
        ):
            yield span

    def close(self) -> None:
        """Send what was not sent yet. Blocks until the collector has answered, ten seconds by default."""
        if self._provider is not None:
            self._provider.shutdown()


def _exporting() -> TracerProvider:
    # Imported here, because a worker that traces nothing saves 20 MB without them.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "full-pass"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _Told:
    """Looks at what leaves the block, and says by which code or kind of error the span ended; it stops nothing."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        """Nothing to say yet."""

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if error is not None:
            what = error.code if isinstance(error, RunError) else type(error).__name__
            self._span.set_status(Status(StatusCode.ERROR, what))
