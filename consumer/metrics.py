"""All metrics, declared in one place. Names begin with `full_pass_`; no label ever holds user content or an id."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from consumer.errors import InvalidReason
from schemas.events import ErrorCode

_STAGE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_CALL_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640)


class Metrics:
    """The metrics of one worker, in a registry of its own (so two workers in one test process don't meet)."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"full_pass_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"full_pass_{name}", text, labels, registry=registry)

        self.messages_taken = counter("messages_taken", "Completion events that became a run.")
        self.messages_repeated = counter("messages_repeated", "Completion events whose run the ledger knew already.")
        self.messages_dead_lettered = counter("messages_dead_lettered", "Messages that no run can be made of.", "reason")
        self.messages_missed = counter("messages_missed", "Messages that retention removed before they were read.")
        self.events_published = counter("events_published", "Events that reached Kafka.", "type")
        self.outbox_unpublished = gauge("outbox_unpublished", "Outbox rows that wait for the relay.")
        self.outbox_oldest_seconds = gauge("outbox_oldest_age_seconds", "Age of the oldest outbox row that waits.")
        self.runs_ended = counter("runs_ended", "Runs that reached their end.", "status", "code")
        self.runs_handed_back = counter("runs_handed_back", "Runs put back into the ledger for later.", "reason")
        self.runs_due = gauge("runs_due", "Runs that could start now.")
        self.runs_running = gauge("runs_running", "Runs with a lease, of all workers.")
        self.runs_oldest_due_seconds = gauge("runs_oldest_due_age_seconds", "How long the oldest due run has waited.")
        self.runs_live_oldest_due_seconds = gauge(
            "runs_live_oldest_due_age_seconds", "How long the oldest due run has waited that is no replay's."
        )
        self.leases_lost = counter("leases_lost", "Runs that another worker took over from this one.")
        self.conversations_skipped = counter("conversations_skipped", "Elements of exports that are no conversation.")
        self.stage_seconds = Histogram(
            "full_pass_stage_seconds", "Time spent in a stage.", ("stage",), registry=registry, buckets=_STAGE_BUCKETS
        )
        self.model_calls = counter(
            "model_calls", "Model calls; outcome is the stop reason, 'recorded' or an error.", "kind", "outcome"
        )
        self.model_call_seconds = Histogram(
            "full_pass_model_call_seconds", "Time of a call.", ("kind",), registry=registry, buckets=_CALL_BUCKETS
        )
        self.model_tokens = counter("model_tokens", "Tokens bought.", "direction")
        self.model_cost_usd = counter("model_cost_usd", "Dollars spent on calls with a known price.")
        self.pace_width = gauge("pace_width", "Model calls that this worker allows itself at once.")
        self.pace_open = gauge("pace_open", "1 while the worker may call the model API, 0 while it is shut.")
        self.alerts_sent = counter("alerts", "Webhook calls.", "outcome")
        self.part_restarts = counter("part_restarts", "Parts that failed and were started again.", "part")
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show what may be counted before it is: Prometheus sees no increase in a counter that is born at 1."""
        for reason in InvalidReason:
            self.messages_dead_lettered.labels(reason)
        for code in ErrorCode:
            self.runs_ended.labels("failed", code)
        self.runs_ended.labels("completed", "")
        for outcome in ("sent", "failed", "unreachable", "refused", "invalid"):
            self.alerts_sent.labels(outcome)

    def exposition(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)
