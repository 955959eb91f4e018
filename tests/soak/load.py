"""Users with an export and a profile, and their events, never many ahead of the worker."""

from __future__ import annotations

import json
import uuid

from tests.acceptance.exports import V1_SECTIONS, a_small_export
from tests.acceptance.world import World

COMPLETED_AT = "2026-11-20T12:00:00.000000Z"
AHEAD = 300
BATCH = 100


class Load:
    """Publishes `runs` events, each of another user, as fast as they are carried."""

    def __init__(self, world: World, runs: int) -> None:
        self._world = world
        self._left = runs
        self.published = 0
        self._path = "exports/everybody/e.json"
        world.store(self._path, a_small_export())

    def keep_ahead_of(self, ended: int) -> None:
        """Publish as many as are missing to the distance, in batches."""
        while self._left and self.published - ended <= AHEAD - BATCH:
            size = min(BATCH, self._left)
            users = [uuid.uuid4() for _ in range(size)]
            self._world.execute(
                "INSERT INTO user_profiles (user_id, soul_md, full_pass_status) SELECT unnest($1::uuid[]), $2, 'pending'",
                users, V1_SECTIONS["soul"],
            )  # fmt: skip
            self._world.produce([(str(user).encode(), self._event(user), []) for user in users])
            self._left -= size
            self.published += size

    def _event(self, user: uuid.UUID) -> bytes:
        return json.dumps({"user_id": str(user), "storage_path": self._path, "completed_at": COMPLETED_AT}).encode()
