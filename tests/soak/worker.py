"""The worker that is looked at, and the looking."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.acceptance.worker import Worker
from tests.acceptance.world import World
from tests.soak.samples import Sample
from tests.soak.watched_worker import TASKS_FILE

_ASKED = """
    SELECT (SELECT count(*) FROM full_pass_runs WHERE finished_at IS NOT NULL) AS runs,
           (SELECT count(*) FROM full_pass_runs WHERE status = 'pending') AS due,
           (SELECT count(*) FROM full_pass_outbox WHERE published_at IS NULL) AS unpublished,
           (SELECT count(*) FROM full_pass_model_calls) AS answers,
           (SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'full-pass' AND datname = current_database()) AS connections,
           (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
            WHERE application_name = 'full-pass' AND datname = current_database()) AS longest_transaction_seconds,
           (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
            WHERE relname LIKE 'full_pass%' AND relkind = 'r') AS own_bytes,
           pg_total_relation_size('conversation_chunks') AS chunk_bytes
"""


class WatchedWorker(Worker):
    """A worker whose tasks are counted. A world of its own: nobody else is connected to its database as the service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks = world.folder / "tasks"
        self._tasks.write_text("0", encoding="utf-8")
        environment = world.environment(**{TASKS_FILE: str(self._tasks)})
        self.log = world.folder / "worker.log"
        self.printed = self.log.with_suffix(".stdout")
        self._port = 0
        with self.log.open("w") as stderr, self.printed.open("w") as stdout:
            command = [sys.executable, "-m", "tests.soak.watched_worker"]
            root = Path(__file__).parents[2]
            self.process = subprocess.Popen(command, env=environment, cwd=root, stdout=stdout, stderr=stderr)
        self._seen = psutil.Process(self.process.pid)
        self._began_at = time.monotonic()

    def sample(self) -> Sample:
        """What it takes now."""
        (row,) = self._world.rows(_ASKED)
        return Sample(
            seconds=time.monotonic() - self._began_at,
            resident_bytes=self._seen.memory_info().rss,
            files=self._seen.num_fds(),
            tasks=int(self._tasks.read_text(encoding="utf-8")),
            **row,
        )
