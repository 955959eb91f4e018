"""Scripted faults: rules that tests post, and the one place that decides which request meets which fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ERRORS = frozenset({"status", "credit"})
ON_THE_WIRE = frozenset({"reset", "hang", "truncated_body", "html", "garbage"})
IN_THE_ANSWER = frozenset({"max_tokens", "refusal", "invalid_json", "wrong_schema", "text", "stream_error"})
OF_A_BATCH_ITEM = frozenset({"batch_result"})
ONLY_SLOW = frozenset({"latency"})

OF_A_REQUEST = ERRORS | ON_THE_WIRE | IN_THE_ANSWER | ONLY_SLOW
OF_AN_ITEM = ERRORS | IN_THE_ANSWER | OF_A_BATCH_ITEM

RESULTS = ("succeeded", "errored", "expired", "canceled")
_CUTS = ("body", "json")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens instead of a plain answer; each field belongs to the kinds that name it.

    `status`, `message`, `error_type`: of `status`, `stream_error` and an errored `batch_result`.
    `headers` go with any answer, over its own. `seconds`: of `latency`, and an extra wait before any other kind.
    `text`: of `text`. `result`: of `batch_result`; `succeeded` holds even when the batch is cancelled.
    `cut`: of `truncated_body`: `body` breaks the promise of Content-Length, `json` keeps it with half of the JSON.
    """

    kind: str
    status: int = 0
    message: str | None = None
    error_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    text: str = ""
    result: str = "errored"
    cut: str = "body"

    def __post_init__(self) -> None:
        if self.kind not in OF_A_REQUEST | OF_AN_ITEM:
            raise ValueError(f"fault.kind is {self.kind!r}; one of {', '.join(sorted(OF_A_REQUEST | OF_AN_ITEM))} is expected")
        if self.kind == "status" and not 400 <= self.status <= 599:
            raise ValueError(f"fault.status is {self.status}; a fault of the kind 'status' needs one from 400 to 599")
        if self.result not in RESULTS:
            raise ValueError(f"fault.result is {self.result!r}; one of {', '.join(RESULTS)} is expected")
        if self.cut not in _CUTS:
            raise ValueError(f"fault.cut is {self.cut!r}; one of {', '.join(_CUTS)} is expected")


@dataclass(slots=True)
class Rule:
    """A fault for the requests that match: after the first `skip` of them, `times` times, or for ever."""

    fault: Fault
    kind: str | None = None
    contains: str | None = None
    model: str | None = None
    times: int | None = None
    skip: int = 0

    def matches(self, kind: str, text: str, model: str) -> bool:
        """Whether everything that the rule names is so."""
        return (
            self.kind in (None, kind)
            and (self.model is None or self.model == model)
            and (self.contains is None or self.contains in text)
        )


class Script:
    """The rules in the order in which they were posted; the first that matches and has something left decides."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, rules: Any) -> int:
        """Append rules given as JSON and say how many.

        Raises:
            ValueError: naming what is wrong; then no rule was added.
        """
        if not isinstance(rules, list):
            raise ValueError("a script is a JSON list of rules")  # noqa: TRY004  (one error for every unreadable script)
        parsed = [_rule(rule) for rule in rules]
        self._rules.extend(parsed)
        return len(parsed)

    def clear(self) -> None:
        """Forget every rule."""
        self._rules.clear()

    def take(self, kind: str, text: str, model: str, among: frozenset[str]) -> Fault | None:
        """The fault that this request meets, counted against its rule; only kinds `among` those that it can show."""
        for rule in self._rules:
            if rule.times == 0 or rule.fault.kind not in among or not rule.matches(kind, text, model):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.times is not None:
                rule.times -= 1
            return rule.fault
        return None


def _rule(value: Any) -> Rule:
    try:
        match = value.get("match", {})
        fault = Fault(**value["fault"])
        unknown = (set(value) - {"match", "times", "skip", "fault"}) | (set(match) - {"kind", "contains", "model"})
        rule = Rule(fault, times=value.get("times", 1), skip=value.get("skip", 0), **match)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a rule is {{match, times, skip, fault: {{kind, …}}}}; this one can't be read: {error}") from None
    if unknown:
        raise ValueError(f"a rule has no {', '.join(sorted(unknown))}")
    return rule
