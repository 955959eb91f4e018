"""The webhook at FULL_PASS_ALERT_WEBHOOK_URL: signed, with a timeout, at most 30 calls a minute (design, way of the data, 7)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import deque

import aiohttp

from consumer.errors import FullPassError
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.settings import Settings, required

SIGNATURE_HEADER = "X-Full-Pass-Signature"
MOST_PER_MINUTE = 30
MINUTE_SECONDS = 60.0
_TIMEOUT_SECONDS = 10.0
_TRY_AGAIN = frozenset({408, 429})

_log = get_log("alerts")


class WebhookUnavailable(FullPassError):
    """The webhook at FULL_PASS_ALERT_WEBHOOK_URL can't be reached or fails; alerts wait in Kafka, runs go on."""


class Webhook:
    """Takes messages while there is room: calls count when they begin, also those that fail.

    `minute_seconds` is how long a call counts.
    """

    def __init__(self, settings: Settings, metrics: Metrics, minute_seconds: float = MINUTE_SECONDS) -> None:
        self._settings = settings
        self._metrics = metrics
        self._minute_seconds = minute_seconds
        self._called_at: deque[float] = deque(maxlen=MOST_PER_MINUTE)
        self.failing = False
        """Whether the last call failed in a way that passes."""

    @staticmethod
    def connections() -> aiohttp.ClientSession:
        """What `tell` calls over; to be closed by whoever asks for it."""
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS))

    @property
    def room_in_seconds(self) -> float:
        """How long until one more call fits into the minute; 0 while one does."""
        if len(self._called_at) < MOST_PER_MINUTE:
            return 0.0
        return max(0.0, self._called_at[0] + self._minute_seconds - asyncio.get_running_loop().time())

    async def tell(self, http: aiohttp.ClientSession, body: bytes, about: dict[str, str | int]) -> None:
        """Post a message. One that the webhook refuses for good is logged, with what it is `about`, and counts as told.

        Raises:
            WebhookUnavailable: when it can't be reached, or fails in a way that passes.
        """
        self._called_at.append(asyncio.get_running_loop().time())
        self.failing = True
        status = await self._post(http, body)
        if status >= 500 or status in _TRY_AGAIN:
            self._metrics.alerts_sent.labels("failed").inc()
            raise WebhookUnavailable(f"FULL_PASS_ALERT_WEBHOOK_URL answered {status}; the alert is sent again")
        self.failing = False
        if status >= 300:
            self._metrics.alerts_sent.labels("refused").inc()
            _log.warning("alert_refused", status=status, **about, hint="look at FULL_PASS_ALERT_WEBHOOK_URL")
            return
        self._metrics.alerts_sent.labels("sent").inc()

    async def _post(self, http: aiohttp.ClientSession, body: bytes) -> int:
        headers = {"Content-Type": "application/json"}
        if secret := self._settings.alert_webhook_secret:
            headers[SIGNATURE_HEADER] = signature(body, secret.get_secret_value())
        url = required(self._settings.alert_webhook_url, "FULL_PASS_ALERT_WEBHOOK_URL")
        try:
            async with http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._metrics.alerts_sent.labels("unreachable").inc()
            raise WebhookUnavailable(f"FULL_PASS_ALERT_WEBHOOK_URL can't be reached ({type(error).__name__})") from None


def signature(body: bytes, secret: str) -> str:
    """HMAC-SHA256 of the body, as the header holds it."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
