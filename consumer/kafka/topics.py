"""The five topics (design, "Interfaces that stay stable"): their names, making them, and whether they are there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from consumer.errors import CommandError
from consumer.kafka.connection import KafkaTrouble, admin_client
from consumer.settings import Settings
from schemas.events import MemorySaved, QuickPassCompleted, V2Completed, V2Failed

ROOM_FOR_DEAD_LETTER_HEADERS_BYTES = 64 * 1024
BROKERS_DEFAULT = -1
_DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
_LISTED_WITHIN_SECONDS = 15.0
_AGAIN_SECONDS = 0.05


class TopicsMissing(KafkaTrouble):
    """A topic that the service reads or writes isn't there, or our user may not see it. `full-pass topics create` makes it."""


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Topic names are the event names after the prefix; dead letters have the input's name and a suffix."""

    prefix: str = ""

    def of(self, event_type: str) -> str:
        """The topic of an event type."""
        return f"{self.prefix}{event_type}"

    @property
    def completed(self) -> str:
        """The only input."""
        return self.of(QuickPassCompleted.event_type)

    @property
    def dead_letters(self) -> str:
        """Messages of the input that no run can be made of."""
        return f"{self.completed}-dead-letters"

    @property
    def failed(self) -> str:
        """What alerts are made of."""
        return self.of(V2Failed.event_type)

    @property
    def memory_saved(self) -> str:
        """Also the topic whose partition 0 carries the relay's committed offset."""
        return self.of(MemorySaved.event_type)

    def all(self) -> tuple[str, ...]:
        """All five, inputs first."""
        return (self.completed, self.dead_letters, self.memory_saved, self.of(V2Completed.event_type), self.failed)


class Topics:
    """The topics of one environment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.names = TopicNames(settings.topic_prefix)

    async def create(
        self, partitions: int = 6, replication_factor: int = BROKERS_DEFAULT, retention_ms: int | None = None
    ) -> tuple[str, ...]:
        """Make the topics that are missing and leave the others alone; returns the names of those made.

        `replication_factor` -1 is the broker's default, as is a `retention_ms` of None; -1 keeps records for ever. The
        dead-letter topic takes 64 KiB more a message than the input, for the headers that a dead letter gains.

        Raises:
            CommandError: when the broker refuses a topic, with its reason.
            KafkaTrouble: when the brokers can't be reached.
        """
        common = {} if retention_ms is None else {"retention.ms": str(retention_ms)}
        names = [name for name in self.names.all() if name != self.names.dead_letters]
        async with admin_client(self._settings) as admin:
            try:
                made = await _create(admin, names, partitions, replication_factor, common)
                limit = await _max_message_bytes(admin, self.names.completed) + ROOM_FOR_DEAD_LETTER_HEADERS_BYTES
                letters = {**common, "max.message.bytes": str(limit)}
                made += await _create(admin, [self.names.dead_letters], partitions, replication_factor, letters)
            except (KafkaError, TimeoutError) as error:
                raise KafkaTrouble(f"Kafka did not make the topics ({type(error).__name__})") from error
        return tuple(name for name in self.names.all() if name in made)

    async def missing(self) -> tuple[str, ...]:
        """The names of the topics that aren't there.

        Raises:
            KafkaTrouble: when the brokers can't be reached.
        """
        async with admin_client(self._settings) as admin:
            return await missing_topics(admin, self.names)

    async def require(self, *names: str) -> None:
        """Make sure that all topics, or these, are there before a client names one: naming it may create it, with one partition.

        Raises:
            TopicsMissing: naming those that aren't there.
            KafkaTrouble: when the brokers can't be reached.
        """
        needed = names or self.names.all()
        if missing := tuple(name for name in await self.missing() if name in needed):
            raise TopicsMissing(missing_reason(missing))


def missing_reason(missing: tuple[str, ...]) -> str:
    """What an operator reads when topics aren't there."""
    return f"topics missing, or not visible to our Kafka user: {', '.join(missing)}. Run 'full-pass topics create'"


async def missing_topics(admin: AIOKafkaAdminClient, names: TopicNames) -> tuple[str, ...]:
    """The topics that a broker doesn't list. All are listed, since asking for one by name may create it.

    Raises:
        KafkaTrouble: when no broker answers.
    """
    try:
        there = set(await admin.list_topics())
    except (KafkaError, TimeoutError, OSError) as error:
        raise KafkaTrouble(f"no Kafka broker answers at KAFKA_BOOTSTRAP_SERVERS ({type(error).__name__})") from error
    return tuple(name for name in names.all() if name not in there)


async def _create(
    admin: AIOKafkaAdminClient, names: list[str], partitions: int, replication_factor: int, configs: dict[str, str]
) -> list[str]:
    there = set(await admin.list_topics())
    by_default: dict[int, list[int]] | None = (
        {} if replication_factor == BROKERS_DEFAULT else None
    )  # the client takes -1 only beside an assignment
    wanted = [NewTopic(name, partitions, replication_factor, by_default, configs) for name in names if name not in there]
    if not wanted:
        return []
    made = []
    for name, code, *message in (await admin.create_topics(wanted)).topic_errors:
        error = for_code(code)
        if error is NoError:
            made.append(name)
        elif error is not TopicAlreadyExistsError:
            raise CommandError(f"Kafka refused topic {name}: {(message[0] if message else None) or error.__name__}")
    await _until_listed(admin, set(names))
    return made


async def _until_listed(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Brokers hear of a new topic a moment after it was made; who starts right afterwards should find it."""
    async with asyncio.timeout(_LISTED_WITHIN_SECONDS):
        while True:
            if names <= set(await admin.list_topics()):
                return
            await asyncio.sleep(_AGAIN_SECONDS)


async def _max_message_bytes(admin: AIOKafkaAdminClient, topic: str) -> int:
    """The largest message that the topic takes; Kafka's default where our user may not know."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": None})
    ((code, _message, _type, _name, entries),) = (await admin.describe_configs([resource]))[0].resources
    error = for_code(code)
    if error in {TopicAuthorizationFailedError, ClusterAuthorizationFailedError}:
        return _DEFAULT_MAX_MESSAGE_BYTES
    if error is not NoError:
        raise error
    return int(entries[0][1])
