"""The Messages API on the wire: one call, and what came of it.

The SDK is asked for the raw response. It takes any JSON for a message, raises the JSON parser's own error for a body that
was cut, and returns HTML as a string; here an answer is a message of the right shape or it is trouble.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, TypeVar

import httpx2
from anthropic import APIConnectionError, APIStatusError, APITimeoutError, AsyncAnthropic, DefaultAioHttpClient

from consumer.claude import trouble
from consumer.claude.models import model_of, unfit
from consumer.claude.rate_limits import Allowance, allowance
from consumer.claude.requests import Request
from consumer.claude.trouble import Trouble
from consumer.errors import ConfigurationError
from consumer.settings import Settings, required

_CONNECT_SECONDS = 10.0
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Message:
    """A billed answer. `content` is the JSON text of its content blocks, as they came.

    `input_tokens` includes what was written to or read from a prompt cache. `allowance` is what the rate limits leave, if they
    were named.
    """

    content: str
    stop_reason: str | None
    input_tokens: int
    output_tokens: int
    allowance: Allowance | None = None


@dataclass(frozen=True, slots=True)
class _Answered:
    body: bytes
    headers: Mapping[str, str]


class NotAMessage(ValueError):
    """What came with status 200 is no message; says which part was missing, never what was there."""


class Api:
    """The SDK's client for one worker. Every way that a call can fail without fault of its request is a `Trouble`."""

    def __init__(self, settings: Settings) -> None:
        """Open no connection yet.

        Raises:
            ConfigurationError: ANTHROPIC_API_KEY is missing or can't be a header's value, ANTHROPIC_BASE_URL is no address, or
                FULL_PASS_MODEL is known to lack what is needed.
        """
        key = str(required(settings.anthropic_api_key, "ANTHROPIC_API_KEY"))
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError("ANTHROPIC_API_KEY holds characters that no key has: expected printable ASCII.")
        # ANTHROPIC_LOG=debug in the environment would have the SDK log every request whole (guarantee G9).
        logging.getLogger("anthropic").setLevel(logging.WARNING)
        url = settings.anthropic_base_url
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigurationError("ANTHROPIC_BASE_URL: expected an address that begins with https:// or http://")
        self.model = settings.model
        known = model_of(settings.model)
        if known is not None and (lack := unfit(known)) is not None:
            raise ConfigurationError(f"FULL_PASS_MODEL: the model {settings.model!r} can't be used: {lack}")
        self._place = "" if url is None else " at ANTHROPIC_BASE_URL"
        self._deadline_seconds = settings.model_timeout_seconds
        # One connection more than calls: the probe must not wait for calls that hang.
        limits = httpx2.Limits(max_connections=settings.model_concurrency + 1)
        self._client = AsyncAnthropic(
            api_key=key,
            base_url=url,
            max_retries=0,
            # Said here, the environment can't switch on spans that hold requests and answers (guarantee G9).
            open_telemetry={"traces": False},
            timeout=httpx2.Timeout(self._deadline_seconds, connect=min(_CONNECT_SECONDS, self._deadline_seconds)),
            http_client=DefaultAioHttpClient(limits=limits),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def create(self, request: Request) -> Message | Trouble:
        """Buy an answer.

        Raises:
            FinalError: `model_rejected`.
        """
        answer = await self._post(self._client.messages.with_raw_response.create, request.body(self.model))
        if isinstance(answer, Trouble):
            return answer
        message = _read(answer.body, to_message)
        if isinstance(message, Trouble):
            return message
        return replace(message, allowance=allowance(answer.headers, message.input_tokens, message.output_tokens))

    async def count_tokens(self, request: Request) -> int | Trouble:
        """How many input tokens the request would have; costs nothing.

        Raises:
            FinalError: `model_rejected`.
        """
        body = {name: value for name, value in request.body(self.model).items() if name != "max_tokens"}
        answer = await self._post(self._client.messages.with_raw_response.count_tokens, body)
        return answer if isinstance(answer, Trouble) else _read(answer.body, _to_count)

    async def _post(self, method: Any, body: dict[str, Any]) -> _Answered | Trouble:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                response = await method(**body)
                answered = _Answered(await response.read(), response.headers)
        except (APITimeoutError, TimeoutError):
            return Trouble(f"the model API did not answer within {self._deadline_seconds:g} s", "timeout", slow=True)
        except APIStatusError as error:
            return trouble.of_status(error, self.model)
        except APIConnectionError as error:
            # The cause's own text names the address, which may hold credentials; its type says enough.
            kind = type(error.__cause__).__name__ if error.__cause__ is not None else "no cause named"
            return Trouble(f"the connection to the model API{self._place} failed ({kind})", "connection")
        return answered


def _read(body: bytes, read: Callable[[Any], Read]) -> Read | Trouble:
    """Parse a body that came with a status of success."""
    try:
        return read(json.loads(body))
    except NotAMessage as error:
        missing = str(error)
    except (ValueError, RecursionError):
        missing = "it is not JSON"
    return Trouble(f"the model API answered with success and something else than expected: {missing}", "no_message")


def to_message(body: Any) -> Message:
    """The message that the API's JSON holds.

    Raises:
        NotAMessage: naming the part that is missing.
    """
    if not isinstance(body, dict) or body.get("type") != "message":
        raise NotAMessage("its type is not 'message'")
    blocks, usage, stop_reason = body.get("content"), body.get("usage"), body.get("stop_reason")
    if not isinstance(blocks, list) or not all(_is_block(block) for block in blocks):
        raise NotAMessage("it has no list of content blocks")
    if not isinstance(usage, dict) or not (_is_count(usage.get("input_tokens")) and _is_count(usage.get("output_tokens"))):
        raise NotAMessage("it has no usage")
    if not isinstance(stop_reason, str | None):
        raise NotAMessage("its stop_reason is no text")
    cached = [usage.get(f"cache_{part}_input_tokens") for part in ("creation", "read")]
    return Message(
        content=_to_storable_json(blocks),
        stop_reason=stop_reason,
        input_tokens=usage["input_tokens"] + sum(count for count in cached if _is_count(count)),
        output_tokens=usage["output_tokens"],
    )


def to_text(content: str) -> str:
    """The text blocks of a message's content, joined; thinking and other blocks are left out.

    U+0000 and lone surrogates, which PostgreSQL takes in no text, become U+FFFD.
    """
    text = "".join(block["text"] for block in json.loads(content) if block["type"] == "text")
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _to_storable_json(blocks: list[Any]) -> str:
    """Compact, with lone surrogates kept as escapes."""
    readable = json.dumps(blocks, ensure_ascii=False, separators=(",", ":"))
    return json.dumps(blocks, separators=(",", ":")) if _UNSTORABLE.search(readable) else readable


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    return block["type"] != "text" or isinstance(block.get("text"), str)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _to_count(body: Any) -> int:
    if not isinstance(body, dict) or not _is_count(body.get("input_tokens")):
        raise NotAMessage("it has no input_tokens")
    return int(body["input_tokens"])
