"""By which code or kind of error a span ends."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from consumer.errors import FinalError
from consumer.traces import Traces
from schemas.events import ErrorCode

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans_of(error: BaseException | None) -> list[ReadableSpan]:
    """The spans of a run, its stage and its call, the innermost first, when `error` leaves the call."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces = Traces(provider.get_tracer("test"), provider)
    with (
        pytest.raises(type(error)) if error is not None else nullcontext(),
        traces.run(TRACEPARENT, attempt=1),
        traces.span("facts"),
        traces.model_call("a-model", "facts"),
    ):
        if error is not None:
            raise error
    return list(exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (FinalError(ErrorCode.MODEL_REFUSED, "no words of anybody"), "model_refused"),
        (KeyError("a user's words"), "KeyError"),
        (asyncio.CancelledError(), "CancelledError"),
        (SystemExit(3), "SystemExit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_span_that_an_error_leaves_says_its_code_or_kind_and_lets_it_pass(error: BaseException, what: str) -> None:
    spans = spans_of(error)
    assert [span.name for span in spans] == ["chat a-model", "facts", "full_pass"]
    assert [(span.status.status_code, span.status.description) for span in spans] == [(StatusCode.ERROR, what)] * 3
    assert [event for span in spans for event in span.events] == []  # neither message nor traceback


def test_a_span_that_nothing_left_has_no_error() -> None:
    assert [span.status.status_code for span in spans_of(None)] == [StatusCode.UNSET] * 3
