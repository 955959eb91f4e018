"""The trace of a run: below its completion event's, to an OTLP collector, without a word of the user's."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.acceptance.exports import a_small_export
from tests.acceptance.test_observing import bad
from tests.acceptance.worker import until
from tests.acceptance.world import TRACE, World

STAGES = {"reading", "facts", "memory", "sections"}


class Collector(ThreadingHTTPServer):
    """Takes what OTLP over HTTP brings."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    def spans(self) -> list[Span]:
        """All spans that arrived."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def a_collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


@pytest.mark.guarantee("G9")
def test_a_run_is_a_span_of_its_events_trace_with_stages_and_calls_and_no_word_of_the_users(world: World) -> None:
    canary = f"Wendehals{uuid.uuid4().hex[:12]}"
    well, failing = world.a_user(a_small_export(canary)), world.a_user(a_small_export(f"{canary}Failing"))
    world.script(
        {
            "match": {"kind": "sections", "contains": f"{canary}Failing"},
            "times": 2,
            "fault": {"kind": "text", "text": bad(canary)},
        }
    )
    with a_collector() as collector:
        where = f"http://127.0.0.1:{collector.server_address[1]}"
        with world.worker(OTEL_EXPORTER_OTLP_ENDPOINT=where, OTEL_BSP_SCHEDULE_DELAY="100") as worker:
            for user in (well, failing):
                world.publish(user)
            runs = {user: world.until_ended(user) for user in (well, failing)}
            until(lambda: [span.name for span in collector.spans()].count("full_pass") == 2, what="both runs were traced")
            assert worker.stop() == 0
        spans = collector.spans()
        assert {span.trace_id.hex() for span in spans} == {TRACE}
        roots = {attributes(span)["full_pass.run_id"]: span for span in spans if span.name == "full_pass"}
        for run in runs.values():
            root = roots[str(run["run_id"])]
            assert root.parent_span_id.hex() == run["traceparent"].split("-")[2]
            stages = {span.name: span for span in spans if span.parent_span_id == root.span_id}
            assert set(stages) == STAGES
            calls = [span for span in spans if span.parent_span_id == stages["memory"].span_id]
            assert [span.name for span in calls] == ["chat claude-haiku-4-5-20251001"]
            assert int(attributes(calls[0])["gen_ai.usage.input_tokens"]) > 0
        assert roots[str(runs[well]["run_id"])].status.code == Status.STATUS_CODE_UNSET
        failed = roots[str(runs[failing]["run_id"])].status
        assert (failed.code, failed.message) == (Status.STATUS_CODE_ERROR, "model_output_invalid")
        everything = b"".join(collector.bodies)
        assert canary.encode() not in everything
        assert b"sk-test-never-printed" not in everything
        assert well.id.encode() not in everything


def attributes(span: Span) -> dict[str, str]:
    """The attributes of a span as text."""
    return {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}


def test_a_collector_that_is_away_holds_nothing_up(world: World) -> None:
    user = world.a_user(a_small_export("cryptomeria"))
    away = "http://127.0.0.1:9"
    with world.worker(OTEL_EXPORTER_OTLP_ENDPOINT=away, OTEL_EXPORTER_OTLP_TIMEOUT="1") as worker:
        world.publish(user)
        assert world.until_ended(user)["status"] == "completed"
        assert worker.stop(10) == 0
