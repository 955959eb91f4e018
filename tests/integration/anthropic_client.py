"""The real SDK against a stand-in, and the requests that its tests send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anthropic import AsyncAnthropic, DefaultAioHttpClient

from sandbox.anthropic import StandIn

MODEL = "claude-haiku-4-5-20251001"

_STRING = {"type": "string"}
_STRINGS = {"type": "array", "items": _STRING}


def object_of(**properties: Any) -> dict[str, Any]:
    """A schema as the API wants it."""
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


def list_of(**properties: Any) -> dict[str, Any]:
    """A list of such objects."""
    return {"type": "array", "items": object_of(**properties)}


FACTS_SCHEMA = object_of(
    preferences=_STRINGS,
    projects=list_of(name=_STRING, description=_STRING, details=_STRING),
    dates=list_of(event=_STRING, date=_STRING),
    beliefs=_STRINGS,
    decisions=list_of(decision=_STRING, context=_STRING),
)

CONVERSATIONS = """<conversation title="Night trains" date="2025-03-01">
# Night trains

User: I prefer window seats on long trains. Could you plan the trip?
My flight home is on 12 May, from Lyon.
Assistant: Of course. I love night trains too.
User: I'm working on a novel called "The Salt Road" about my grandmother. It has twelve chapters so far.
I decided to write by hand because it slows me down. I believe good stories need silence.
</conversation>"""


def asking(text: str = CONVERSATIONS, schema: dict[str, Any] | None = FACTS_SCHEMA, **changes: Any) -> dict[str, Any]:
    """The parameters of a messages request."""
    params: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 2_000,
        "system": "Read the conversations.",
        "messages": [{"role": "user", "content": text}],
    }
    if schema is not None:
        params["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return params | changes


def text_in(message: Any) -> str:
    """The text of an answer that is one block of text."""
    (block,) = message.content
    assert block.type == "text"
    return str(block.text)


def client_of(url: str, api_key: str = "sk-test", **options: Any) -> AsyncAnthropic:
    """The SDK as the service uses it."""
    options = {"max_retries": 0, "timeout": 10.0} | options
    return AsyncAnthropic(api_key=api_key, base_url=url, http_client=DefaultAioHttpClient(), **options)


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[StandIn, AsyncAnthropic]]:
    """A stand-in and a client of it, both closed at the end."""
    async with StandIn(**options) as stand_in, client_of(stand_in.url) as client:
        yield stand_in, client
