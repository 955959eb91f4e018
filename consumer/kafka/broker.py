"""Whether Kafka is there: the question that readiness asks every second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumer.kafka.connection import KafkaTrouble, connection_options, started
from consumer.kafka.topics import TopicNames, missing_reason, missing_topics
from consumer.settings import Settings

ANSWER_SECONDS = 1.5


class BrokerProbe:
    """Asks the brokers for their topics, over one connection that is made anew after trouble.

    Used as a context manager, or closed by hand; one check at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._options = connection_options(settings)
        self._names = TopicNames(settings.topic_prefix)
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def check(self) -> str | None:
        """None when a broker answers within 1.5 s and all topics are there, else the reason, fit for readiness."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                missing = await missing_topics(await self._connected(), self._names)
        except KafkaTrouble as error:
            await self.close()
            return str(error)
        except (KafkaError, TimeoutError, OSError) as error:
            await self.close()
            return f"no Kafka broker answers at KAFKA_BOOTSTRAP_SERVERS ({type(error).__name__})"
        except asyncio.CancelledError:
            await self.close()
            raise
        return missing_reason(missing) if missing else None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    async def _connected(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(**self._options, request_timeout_ms=int(ANSWER_SECONDS * 1000))
            await started(self._admin, self._settings)
        return self._admin
