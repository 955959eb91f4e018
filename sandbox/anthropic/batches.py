"""Message Batches: accepted at once, ended after a delay, their results scripted item by item.

A batch ends when somebody looks at it after its time, so nothing runs in the background.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.anthropic.answers import question_of
from sandbox.anthropic.calls import Call
from sandbox.anthropic.failures import ApiError
from sandbox.anthropic.journal import Entry, Journal
from sandbox.anthropic.messages import message_to, raise_scripted
from sandbox.anthropic.script import OF_AN_ITEM, RESULTS, Fault, Script

MOST_REQUESTS = 100_000
_LIFETIME = timedelta(hours=24)
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ITEMS_A_BREATH = 20


@dataclass(slots=True)
class Batch:
    """One batch. Times are wall-clock for the client and `time.monotonic()` for us."""

    id: str
    requests: list[dict[str, Any]]
    origin: str
    ends: float
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    cancelled_at: datetime | None = None
    ended_at: datetime | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def status(self) -> str:
        """`in_progress`, `canceling` or `ended`."""
        if self.ended_at:
            return "ended"
        return "canceling" if self.cancelled_at else "in_progress"

    def to_json(self) -> dict[str, Any]:
        """The batch as the API shows it; counts of results stay zero until it has ended."""
        counts = Counter(result["result"]["type"] for result in self.results) if self.ended_at else Counter[str]()
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status,
            "request_counts": {
                "processing": 0 if self.ended_at else len(self.requests),
                **{result: counts[result] for result in RESULTS},
            },
            "created_at": self.created_at.isoformat(),
            "expires_at": (self.created_at + _LIFETIME).isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "cancel_initiated_at": self.cancelled_at.isoformat() if self.cancelled_at else None,
            "archived_at": None,
            "results_url": f"{self.origin}/v1/messages/batches/{self.id}/results" if self.ended_at else None,
        }


def check_requests(body: Any) -> list[dict[str, Any]]:
    """The requests of a new batch. Their parameters are looked at only when they are answered, as the API does.

    Raises:
        ApiError: 400, what is wrong with the list or a `custom_id`.
    """
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list):
        raise ApiError(400, "requests: Field required")
    if not 1 <= len(requests) <= MOST_REQUESTS:
        raise ApiError(400, f"requests: from 1 to {MOST_REQUESTS} requests are allowed, {len(requests)} were sent")
    seen: set[str] = set()
    for index, request in enumerate(requests):
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
            raise ApiError(400, f"requests.{index}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if custom_id in seen:
            raise ApiError(400, f"requests.{index}.custom_id: duplicate custom_id {custom_id}")
        if "params" not in request:
            raise ApiError(400, f"requests.{index}.params: Field required")
        seen.add(custom_id)
    return requests


class Batches:
    """All batches, newest first in lists."""

    def __init__(self, script: Script, journal: Journal, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._script = script
        self._journal = journal
        self._seconds = seconds
        self._clock = clock
        self._batches: dict[str, Batch] = {}

    def create(self, call: Call) -> dict[str, Any]:
        """Accept a batch."""
        batch_id = f"msgbatch_01{secrets.token_hex(11)}"
        batch = Batch(batch_id, check_requests(call.body), call.origin, self._clock() + self._seconds)
        self._batches[batch_id] = batch
        return batch.to_json()

    async def find(self, call: Call) -> Batch:
        """The batch that the path names, ended if its time has come.

        Raises:
            ApiError: 404, there is none.
        """
        batch = self._batches.get(call.path["id"])
        if batch is None:
            raise ApiError(404, f"Batch {call.path['id']} not found")
        await self._settle(batch)
        return batch

    async def newest_first(self) -> list[dict[str, Any]]:
        """Every batch as the API shows it."""
        batches = list(self._batches.values())[::-1]
        for batch in batches:
            await self._settle(batch)
        return [batch.to_json() for batch in batches]

    async def cancel(self, call: Call) -> dict[str, Any]:
        """Begin to cancel: what has no scripted result will be canceled once the batch ends."""
        batch = await self.find(call)
        if batch.ended_at:
            raise ApiError(400, f"Batch {batch.id} has already ended and can't be canceled")
        batch.cancelled_at = batch.cancelled_at or datetime.now(UTC)
        return batch.to_json()

    async def delete(self, call: Call) -> dict[str, Any]:
        """Forget a batch that has ended."""
        batch = await self.find(call)
        if not batch.ended_at:
            raise ApiError(400, f"Batch {batch.id} is still in progress. Cancel it first, or wait until it has ended.")
        del self._batches[batch.id]
        return {"id": batch.id, "type": "message_batch_deleted"}

    async def results(self, call: Call) -> list[bytes]:
        """The results as JSON lines."""
        batch = await self.find(call)
        if not batch.ended_at:
            raise ApiError(404, f"Batch {batch.id} has no available results until it has ended")
        return [f"{json.dumps(result, ensure_ascii=False)}\n".encode() for result in batch.results]

    async def _settle(self, batch: Batch) -> None:
        """Answer every request of a batch whose time has come, a few at a time so that others are served between."""
        if batch.ended_at or self._clock() < batch.ends:
            return
        async with batch.settling:
            for index in range(len(batch.results), len(batch.requests)):
                request = batch.requests[index]
                batch.results.append({"custom_id": request["custom_id"], "result": self._result(batch, request)})
                if index % _ITEMS_A_BREATH == 0:
                    await asyncio.sleep(0)
            batch.ended_at = batch.ended_at or datetime.now(UTC)

    def _result(self, batch: Batch, request: dict[str, Any]) -> dict[str, Any]:
        params = request["params"]
        question = question_of(params)
        entry = self._journal.begin("BATCH", f"/v1/messages/batches/{batch.id}", {})
        entry.kind, entry.body, entry.batch_id, entry.custom_id = question.kind, params, batch.id, request["custom_id"]
        entry.request_id = f"req_01{secrets.token_hex(11)}"
        model = str(params.get("model")) if isinstance(params, dict) else ""
        fault = self._script.take(question.kind, question.text, model, OF_AN_ITEM)
        entry.fault = fault.kind if fault else None
        result = self._outcome(batch, params, fault, entry)
        entry.completed = True
        return result

    def _outcome(self, batch: Batch, params: Any, fault: Fault | None, entry: Entry) -> dict[str, Any]:
        scripted = fault.result if fault and fault.kind == "batch_result" else None
        outcome = scripted or ("canceled" if batch.cancelled_at else "succeeded")
        if outcome in {"expired", "canceled"}:
            return {"type": outcome}
        try:
            raise_scripted(fault)
            asked = Call(params, {}, {}, batch.origin, entry.request_id).asked
        except ApiError as error:
            entry.status = error.status
            return {"type": "errored", "error": error.body(entry.request_id)}
        message = message_to(asked, fault, tier="batch")
        entry.status, entry.input_tokens = 200, message["usage"]["input_tokens"]
        entry.output_tokens = message["usage"]["output_tokens"]
        return {"type": "succeeded", "message": message}
