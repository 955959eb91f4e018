"""One environment as an operator has it: topics, a database, a store, a model API; and what a test asks of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from sandbox.anthropic import StandInControl
from tests.acceptance.exports import V1_SECTIONS
from tests.acceptance.reference import derived_key
from tests.acceptance.topics import INPUT, LETTERS, OUTPUTS, Seen, Sent, create_topics, produce, read
from tests.acceptance.worker import FULL_PASS, Worker, until

Result = TypeVar("Result")

TRACE = "0af7651916cd43dd8448eb211c80319c"
_OURS = ("FULL_PASS_", "KAFKA_", "DATABASE_URL", "EXPORT_STORE_URL", "ANTHROPIC_")
_COMMAND_SECONDS = 60


@dataclass(frozen=True)
class User:
    """Somebody whose quick pass is done."""

    id: str
    path: str
    completed_at: str

    @property
    def uuid(self) -> uuid.UUID:
        """The id as the database has it."""
        return uuid.UUID(self.id)

    @property
    def key(self) -> str:
        """The idempotency key that follows from the other three."""
        return derived_key(self.id, self.path, self.completed_at)

    @property
    def event(self) -> dict[str, Any]:
        """The data of the completion event."""
        return {"user_id": self.id, "storage_path": self.path, "completed_at": self.completed_at}


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as the one JSON document that it must be."""
        assert self.status == 0, self.err
        return json.loads(self.out)


@dataclass
class World:
    """Topics and a database of their own on the session's servers. `close` ends whatever is left of it."""

    bootstrap_servers: str
    database_url: str
    stand_in_url: str
    prefix: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    _connection: asyncpg.Connection | None = None

    # -- environment and processes ---------------------------------------------------------------------------------------

    def environment(self, **changes: str) -> dict[str, str]:
        """What is exported in the shell that starts commands; patience is short, so that tests are."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        ours = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "DATABASE_URL": self.database_url,
            "EXPORT_STORE_URL": (self.folder / "store").as_uri(),
            "ANTHROPIC_API_KEY": "sk-test-never-printed",
            "ANTHROPIC_BASE_URL": self.stand_in_url,
            "FULL_PASS_TOPIC_PREFIX": self.prefix,
            "FULL_PASS_CONSUMER_GROUP": f"{self.prefix}group",
            "FULL_PASS_HTTP_PORT": "0",
            "FULL_PASS_LEASE_SECONDS": "2",
            "FULL_PASS_POLL_SECONDS": "0.1",
            "FULL_PASS_RETRY_BACKOFF_SECONDS": "0.1",
            "FULL_PASS_NOT_FOUND_GRACE_SECONDS": "4",
        }
        return {**inherited, **ours, **self.settings, **changes}

    def worker(self, *arguments: str, **changes: str) -> Worker:
        """Start a worker; a block with it ends it."""
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        self.workers.append(Worker(self.environment(**changes), log, arguments))
        return self.workers[-1]

    def run(self, *arguments: str, **changes: str) -> Said:
        """Run a command to its end."""
        done = subprocess.run(
            [FULL_PASS, *arguments], env=self.environment(**changes), cwd=self.folder,
            capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        """End workers and connections."""
        for worker in self.workers:
            worker.kill()
        if self._connection is not None:
            self._await(self._connection.close())
        self._runner.close()

    def _await(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(coroutine)

    # -- users and events -------------------------------------------------------------------------------------------------

    def a_user(
        self, export: Any = None, *, profile: bool = True, completed_at: str = "2026-11-20T12:00:00.000000Z", name: str = "e.json"
    ) -> User:
        """A user with a profile row as a quick pass leaves it, and with an export (JSON, or bytes as they are) in the store."""
        user_id = str(uuid.uuid4())
        user = User(user_id, f"exports/{user_id}/{name}", completed_at)
        if export is not None:
            self.store(user.path, export)
        if profile:
            self.insert_profile(user)
        return user

    def store(self, path: str, export: Any) -> None:
        """Put an export into the store, at once."""
        place = self.folder / "store" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        written = place.with_name(f"{place.name}.part")
        written.write_bytes(export if isinstance(export, bytes) else json.dumps(export).encode())
        written.replace(place)

    def insert_profile(self, user: User) -> None:
        """The profile row that the application commits after a quick pass."""
        self.execute(
            "INSERT INTO user_profiles (user_id, soul_md, identity_md, user_md, agents_md, tools_md, full_pass_status) "
            "VALUES ($1, $2, $3, $4, $5, $6, 'pending')",
            user.uuid, *V1_SECTIONS.values(),
        )  # fmt: skip

    def publish(self, user: User, **changes: Any) -> None:
        """Publish the user's completion event as an upstream service does."""
        value = json.dumps({**user.event, **changes}).encode()
        self.produce([(user.id.encode(), value, [("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())])])

    def produce(self, records: Sequence[Sent]) -> None:
        """Put records (key, value, headers) on the input topic."""
        self._await(produce(self.bootstrap_servers, self.prefix + INPUT, records))

    # -- Kafka ------------------------------------------------------------------------------------------------------------

    def create_topics(self, partitions: int = 2) -> None:
        """The five topics, as an administrator makes them who doesn't use our command."""
        self._await(
            create_topics(self.bootstrap_servers, [self.prefix + name for name in (INPUT, LETTERS, *OUTPUTS)], partitions)
        )

    def read(self, *topics: str) -> list[Seen]:
        """Everything that lies on these topics (names without the prefix) now, in the order given."""
        return self._await(read(self.bootstrap_servers, [self.prefix + topic for topic in topics]))

    def announced(self, user: User) -> list[Seen]:
        """The user's events: memory-saved, then v2-completed, then v2-failed."""
        return [seen for seen in self.read(*OUTPUTS) if seen.data["user_id"] == user.id]

    def names_of(self, user: User) -> list[str]:
        """Which events the user's are, as `read_committed` shows them."""
        return [seen.topic.removeprefix(self.prefix) for seen in self.announced(user)]

    # -- PostgreSQL -------------------------------------------------------------------------------------------------------

    def rows(self, question: str, *values: Any) -> list[dict[str, Any]]:
        """What the database answers."""
        return [dict(row) for row in self._await(self._fetch(question, values))]

    def execute(self, statement: str, *values: Any) -> None:
        """Change something in the database."""
        self._await(self._fetch(statement, values))

    async def _fetch(self, question: str, values: Sequence[Any]) -> list[asyncpg.Record]:
        if self._connection is None:
            self._connection = await asyncpg.connect(self.database_url)
        return list(await self._connection.fetch(question, *values))

    @contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """Keep a transaction open that has done this, for the length of the block."""
        connection = self._await(asyncpg.connect(self.database_url))
        try:
            self._await(connection.execute(f"BEGIN; {statement}"))
            yield
        finally:
            self._await(connection.close())

    def reconnect(self) -> None:
        """Forget a connection to a server that was killed."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def runs(self, user: User) -> list[dict[str, Any]]:
        """The user's runs, oldest generation first."""
        return self.rows("SELECT * FROM full_pass_runs WHERE user_id = $1 ORDER BY generation, created_at", user.uuid)

    def profile(self, user: User) -> dict[str, Any]:
        """The user's profile row."""
        (row,) = self.rows("SELECT * FROM user_profiles WHERE user_id = $1", user.uuid)
        return row

    def chunks(self, user: User) -> list[dict[str, Any]]:
        """The user's chunks, oldest conversation first."""
        return self.rows(
            "SELECT * FROM conversation_chunks WHERE user_id = $1 ORDER BY created_at, conversation_id, chunk_index, content",
            user.uuid,
        )

    def until_ended(self, user: User, runs: int = 1, seconds: float = 40) -> dict[str, Any]:
        """Wait until so many of the user's runs, and no others, have ended and their events are in Kafka; the last one's row."""

        def ended() -> list[dict[str, Any]]:
            found = self.runs(user)
            done = len(found) == runs and all(row["status"] in {"completed", "failed"} for row in found)
            waiting = self.rows("SELECT FROM full_pass_outbox WHERE user_id = $1 AND published_at IS NULL", user.uuid)
            return found if done and not waiting else []

        until(ended, seconds, f"{runs} run(s) of the user had ended")
        return self.runs(user)[-1]

    def until_stage(self, user: User, stage: str) -> None:
        """Wait until the ledger says that the user's run is in this stage."""
        until(lambda: [row for row in self.runs(user) if (row["status"], row["stage"]) == ("running", stage)], what=f"in {stage}")

    # -- the model API ----------------------------------------------------------------------------------------------------

    def script(self, *rules: dict[str, Any]) -> None:
        """Let the model API misbehave from now on."""
        self._await(StandInControl(self.stand_in_url).script(list(rules)))

    def clear_script(self) -> None:
        """Let it behave again."""
        self._await(StandInControl(self.stand_in_url).clear_script())

    def asked(self, containing: str = "", kind: str | None = None) -> list[dict[str, Any]]:
        """The messages that the model API was asked, in order, whose text contains something."""
        requests = self._await(StandInControl(self.stand_in_url).requests(kind))
        return [each for each in requests if each["path"] == "/v1/messages" and containing in user_text(each)]


def user_text(request: dict[str, Any]) -> str:
    """What the user message of a recorded request says."""
    ((message,),) = [request["body"]["messages"]]
    content = message["content"]
    return content if isinstance(content, str) else "".join(block["text"] for block in content)
