"""One user's runs in the hands of several workers, taken a step at a time in any order, and what must hold after each step.

A hand carries its run as `full_pass` does: begin, save MEMORY unless it is there, save the sections; or it fails, hands the run
back, or goes silent. A hand whose run was taken over goes on all the same: it must write nothing. Between steps come new
events, retries, replays, another writer, a profile row that is deleted and made anew, and `users forget`.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from consumer.errors import CommandError, FinalError, LostLease, NotThereYet
from consumer.postgres.claiming import REPLAY_PRIORITY
from consumer.postgres.forgetting import Forgetting
from consumer.postgres.retrying import retry_run
from consumer.postgres.runs import Claim
from schemas.events import SECTION_NAMES, ErrorCode
from tests.integration.postgres_world import World, new_run

DOCUMENTS = ("memory_md", *(f"{name}_md" for name in SECTION_NAMES), "soulprint_text")
KEYS = {"a": 0, "b": 1, "c": 1, "d": 2, "e": 3}
"""Idempotency keys and when their events were completed; two at one time."""
_AHEAD_SECONDS = 30 * 365 * 86_400  # later than any `users forget` of a test


@dataclass(frozen=True)
class State:
    """What the database says."""

    profile: dict[str, Any] | None
    runs: dict[UUID, dict[str, Any]]
    events: list[dict[str, Any]]

    @property
    def version(self) -> int:
        """The profile's, 0 without one."""
        return int(self.profile["profile_version"]) if self.profile else 0

    @property
    def documents(self) -> tuple[Any, ...]:
        """MEMORY, sections and soulprint as they stand in the profile."""
        return tuple(self.profile[name] for name in DOCUMENTS) if self.profile else ()


@dataclass
class Hand:
    """A worker with a run: its claim, and how far it has come."""

    claim: Claim
    begun: bool = False
    memory: str | None = None


@dataclass
class Story:
    """What happens to one user. Each step is a method; `number` chooses among what there is."""

    world: World
    user: UUID = field(default_factory=uuid4)
    hands: list[Hand] = field(default_factory=list)
    contents: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    ours: bool = True
    """Whether the version that the profile has now is one that the ledger knows, not another writer's."""

    # -- steps ------------------------------------------------------------------------------------------------------------

    async def accept(self, number: int) -> None:
        """An event is delivered, perhaps again."""
        key = sorted(KEYS)[number % len(KEYS)]
        await self.world.ledger.accept([new_run(self.user, key, seconds=_AHEAD_SECONDS + KEYS[key])])

    async def replay(self, number: int) -> None:
        """A replay of it, before or behind live traffic."""
        key = sorted(KEYS)[number % len(KEYS)]
        generation = await self.world.value("SELECT nextval('full_pass_generation_seq')")
        run = new_run(
            self.user, key, seconds=_AHEAD_SECONDS + KEYS[key], generation=generation, priority=REPLAY_PRIORITY * (number % 2)
        )
        await self.world.ledger.accept([run])

    async def retry(self, number: int) -> None:
        """`runs retry` of any run."""
        runs = sorted((await self.state()).runs)
        if runs:
            try:
                await retry_run(self.world.database, runs[number % len(runs)])
            except CommandError:
                return  # it is under way, completed, or open already

    async def claim(self, _number: int) -> None:
        """An executor looks for a run."""
        await self.world.sql("UPDATE full_pass_runs SET due_at = now() WHERE status = 'pending'")
        # A lease so short that a server that was started just now lets it expire; then one that ends when a step says so.
        claim = await self.world.ledger.claim(0.001, (), expired_count=True, suspects=True)
        if claim is not None:
            await self.world.sql(
                "UPDATE full_pass_runs SET lease_until = now() + interval '1 h' WHERE run_id = :id", id=claim.run_id
            )
            self.hands.append(Hand(claim))

    async def fall_silent(self, _number: int) -> None:
        """Whoever holds a run is silent for longer than the lease."""
        await self.world.sql("UPDATE full_pass_runs SET lease_until = now() - interval '1 s' WHERE status = 'running'")

    def take(self, number: int) -> Hand | None:
        """A hand, which does nothing else until it is put down again."""
        return self.hands.pop(number % len(self.hands)) if self.hands else None

    async def go_on(self, number: int) -> None:
        """The next thing that a hand does, and what the executor makes of how it ends."""
        if (hand := self.take(number)) is None:
            return
        try:
            await self._next(hand)
        except LostLease:
            return
        except (FinalError, NotThereYet) as error:
            await self._end(hand, error.code)

    async def _next(self, hand: Hand) -> None:
        profiles, claim = self.world.profiles, hand.claim
        if not hand.begun:
            hand.memory, hand.begun = await profiles.begin(claim), True
        elif hand.memory is None:
            memory = f"MEMORY of {claim.run_id} {claim.attempt}"
            await profiles.save_memory(claim, memory, 3, 1.0)
            hand.memory, self.ours = memory, True
        else:
            sections = {name: {"of": f"{claim.run_id} {claim.attempt}"} for name in SECTION_NAMES}
            soulprint = json.dumps({"of": f"{claim.run_id} {claim.attempt}"})
            await profiles.save_sections(claim, sections, soulprint, conversations_sampled=1, model="claude")
            self.ours = True
            return
        self.hands.append(hand)

    async def fail(self, number: int) -> None:
        """A hand ends its run."""
        codes = (ErrorCode.INTERNAL, ErrorCode.MODEL_REFUSED, ErrorCode.EXPORT_EMPTY)
        if (hand := self.take(number)) is not None:
            await self._end(hand, codes[number % 3])

    async def _end(self, hand: Hand, code: ErrorCode) -> None:
        with suppress(LostLease):
            await self.world.profiles.end_failed(hand.claim, code, "why")

    async def hand_back(self, number: int) -> None:
        """A hand gives its run back, and counts a failure."""
        if (hand := self.take(number)) is not None:
            await self.world.ledger.put_back_failed(hand.claim, "internal", "why", 0)

    async def write_beside(self, number: int) -> None:
        """Another writer, as it should be: it adds 1 in the statement that changes something.

        In a row made anew it can't know what readers have seen: that is this service's to mend, with its next save.
        """
        if (await self.state()).version < max(self.contents, default=0):
            return
        change = ("memory_md = 'theirs ' || profile_version, ", "")[number % 2]
        statement = f"UPDATE user_profiles SET {change} profile_version = profile_version + 1 WHERE user_id = :id"
        await self.world.sql(statement, id=self.user)
        self.ours = False

    async def make_anew(self, _number: int) -> None:
        """The application deletes the row and makes another. What it had added itself the ledger can't know."""
        if self.ours:
            await self.world.sql("DELETE FROM user_profiles WHERE user_id = :id", id=self.user)
            await self.world.sql("INSERT INTO user_profiles (user_id) VALUES (:id)", id=self.user)

    async def delete(self, _number: int) -> None:
        """The application deletes the row."""
        if self.ours:
            await self.world.sql("DELETE FROM user_profiles WHERE user_id = :id", id=self.user)

    async def forget(self, number: int) -> None:
        """`users forget`, with the profile or without."""
        await Forgetting(self.world.database).forget(self.user, profile=number % 2 == 0)
        self.ours = True

    # -- looking ----------------------------------------------------------------------------------------------------------

    async def state(self) -> State:
        """The database as this moment finds it."""
        async with self.world.database.transaction() as transaction:
            profiles, runs, events = [
                (await transaction.execute(text(f"SELECT * FROM {table}"), {"id": self.user})).mappings().all()
                for table in (
                    "user_profiles WHERE user_id = :id",
                    "full_pass_runs WHERE user_id = :id",
                    "full_pass_outbox WHERE user_id = :id ORDER BY id",
                )
            ]
        told = [{**json.loads(row["data"]), "type": row["event_type"]} for row in events]
        return State(dict(profiles[0]) if profiles else None, {row["run_id"]: dict(row) for row in runs}, told)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
