"""What each endpoint of the API checks and answers; the server around them does credentials, faults and the record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sandbox.anthropic.answers import Kind, text_of_user
from sandbox.anthropic.batches import Batches, check_requests
from sandbox.anthropic.calls import Call, Reply, json_reply
from sandbox.anthropic.catalogue import MODELS, model_named, page_of
from sandbox.anthropic.checks import check_params, input_tokens_of
from sandbox.anthropic.intake import BATCH_BYTES, MESSAGE_BYTES
from sandbox.anthropic.messages import events_of, message_to
from sandbox.anthropic.script import Fault


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path. `check` raises what the API refuses, before any fault is spent on the request."""

    method: str
    path: str
    kind: Callable[[Call], Kind]
    check: Callable[[Call], object]
    answer: Callable[[Call, Fault | None], Awaitable[Reply]]
    most_bytes: int = MESSAGE_BYTES

    def text(self, call: Call) -> str:
        """What `match.contains` looks at: the text of the user's messages; in a batch, of all its requests."""
        if isinstance(call.body, dict) and isinstance(call.body.get("requests"), list):
            params = (item.get("params") for item in call.body["requests"] if isinstance(item, dict))
            return "\n\n".join(text_of_user(each) for each in params if isinstance(each, dict))
        return call.question.text


def endpoints(batches: Batches) -> list[Endpoint]:
    """The API."""
    return [
        Endpoint("POST", "/v1/messages", lambda call: call.question.kind, lambda call: call.asked, _message),
        Endpoint("POST", "/v1/messages/count_tokens", _always(Kind.COUNT_TOKENS), _check_count, _count_tokens),
        *_of_batches(batches),
        Endpoint("GET", "/v1/models", _always(Kind.MODELS), _nothing, _models),
        Endpoint("GET", "/v1/models/{id}", _always(Kind.MODELS), _nothing, _model),
    ]


def _always(kind: Kind) -> Callable[[Call], Kind]:
    return lambda _call: kind


def _nothing(_call: Call) -> None:
    """Nothing to refuse."""


async def _message(call: Call, fault: Fault | None) -> Reply:
    message = message_to(call.asked, fault)
    bill = message["usage"]["input_tokens"], message["usage"]["output_tokens"]
    if not call.body.get("stream"):
        return json_reply(message, input_tokens=bill[0], output_tokens=bill[1])
    events = events_of(message, fault, call.request_id)
    return Reply(content_type="text/event-stream", pieces=events, input_tokens=bill[0], output_tokens=bill[1])


def _check_count(call: Call) -> None:
    check_params(call.body, counting=True)


async def _count_tokens(call: Call, _fault: Fault | None) -> Reply:
    return json_reply({"input_tokens": input_tokens_of(call.body)})


async def _models(call: Call, _fault: Fault | None) -> Reply:
    return json_reply(page_of([model.to_json() for model in MODELS], call.query))


async def _model(call: Call, _fault: Fault | None) -> Reply:
    return json_reply(model_named(call.path["id"]).to_json())


def _of_batches(batches: Batches) -> list[Endpoint]:
    async def create(call: Call, _fault: Fault | None) -> Reply:
        return json_reply(batches.create(call))

    async def retrieve(call: Call, _fault: Fault | None) -> Reply:
        return json_reply((await batches.find(call)).to_json())

    async def listed(call: Call, _fault: Fault | None) -> Reply:
        return json_reply(page_of(await batches.newest_first(), call.query))

    async def results(call: Call, _fault: Fault | None) -> Reply:
        return Reply(content_type="application/x-jsonl", pieces=iter(await batches.results(call)))

    async def cancel(call: Call, _fault: Fault | None) -> Reply:
        return json_reply(await batches.cancel(call))

    async def delete(call: Call, _fault: Fault | None) -> Reply:
        return json_reply(await batches.delete(call))

    def check(call: Call) -> Any:
        return check_requests(call.body)

    path = "/v1/messages/batches"
    status = _always(Kind.BATCH_STATUS)
    return [
        Endpoint("POST", path, _always(Kind.BATCH), check, create, BATCH_BYTES),
        Endpoint("GET", path, status, _nothing, listed),
        Endpoint("GET", f"{path}/{{id}}", status, _nothing, retrieve),
        Endpoint("GET", f"{path}/{{id}}/results", status, _nothing, results),
        Endpoint("POST", f"{path}/{{id}}/cancel", status, _nothing, cancel),
        Endpoint("DELETE", f"{path}/{{id}}", status, _nothing, delete),
    ]
