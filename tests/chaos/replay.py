"""A replay of many users whose budget ends in the middle, with the command and a worker killed, and a second start.

The ledger knows every user as one whose run has completed, so that the replay's runs are the only ones that buy.
"""

from __future__ import annotations

import json
import random
import string
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.acceptance.topics import OUTPUTS
from tests.acceptance.worker import FULL_PASS, Worker, until
from tests.acceptance.world import User, World, user_text
from tests.chaos.calls import digest
from tests.chaos.storm import WORD, export_about

PATIENCE_SECONDS = 3_600
_FIRST_PAGE = 1_000
_SPENT = Decimal("0.5")
_PRIOR = """
    INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent, status, finished_at,
                                model_calls, input_tokens, output_tokens, cost_usd)
    SELECT gen_random_uuid(), user_id, 'key', '2026-11-20T12:00:00Z',
           jsonb_build_object('user_id', user_id, 'storage_path', path, 'completed_at', '2026-11-20T12:00:00Z'),
           $4, 'completed', now(), 3, 3000, 600, $3
    FROM unnest($1::uuid[], $2::text[]) AS known (user_id, path)
"""
_HELD = """
    INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, generation, completed_at, event, traceparent)
    SELECT gen_random_uuid(), user_id, idempotency_key, 1000000, completed_at, event, traceparent
    FROM full_pass_runs WHERE generation = 0 ORDER BY user_id DESC LIMIT 1
"""
_TRACE = f"00-{'1' * 32}-{'2' * 16}-00"


@dataclass(frozen=True)
class ReplayPlan:
    """How large. The seed decides what the exports say; what a death hits is up to the machine."""

    users: int
    seed: int
    workers: int = 2
    run_concurrency: int = 16
    model_concurrency: int = 16

    def settings(self) -> dict[str, str]:
        """The workers' settings."""
        return {
            "FULL_PASS_RUN_CONCURRENCY": str(self.run_concurrency),
            "FULL_PASS_MODEL_CONCURRENCY": str(self.model_concurrency),
            "FULL_PASS_LEASE_SECONDS": "4",
            "FULL_PASS_POLL_SECONDS": "",  # the default
        }


@dataclass
class Replayed:
    """What came of it. Dollars are those of the ledger."""

    plan: ReplayPlan
    budget_usd: Decimal = Decimal(0)
    in_flight_usd: Decimal = Decimal(0)
    spent_at_stop_usd: Decimal = Decimal(0)
    spent_usd: Decimal = Decimal(0)
    completed_at_stop: int = 0
    held_at_stop: int = 0
    duplicates: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    calls: int = 0
    asked_again: int = 0
    seconds: float = 0.0

    def wrong(self) -> list[str]:
        """Everything that must not be."""
        most = self.budget_usd + self.in_flight_usd
        found = [*self.duplicates, *self.losses, *self.others]
        if self.spent_at_stop_usd > most:
            found.append(f"${self.spent_at_stop_usd:.4f} were spent where ${most:.4f} were the most")
        if not 0 < self.completed_at_stop < self.plan.users:
            found.append(f"the budget did not end in the middle: {self.completed_at_stop} runs had completed")
        if self.asked_again > self.plan.model_concurrency:
            found.append(
                f"{self.asked_again} calls were bought twice, where a worker has {self.plan.model_concurrency} in flight"
            )
        return found

    def figures(self) -> str:
        """For people."""
        stopped = f"stopped at ${self.spent_at_stop_usd:.4f}, {self.completed_at_stop} completed, {self.held_at_stop} held"
        return (
            f"replay of {self.plan.users} users in {self.seconds:.0f} s: command and a worker killed, started again\n"
            f"  budget ${self.budget_usd:.4f} (${self.in_flight_usd:.4f} in flight at most): {stopped}\n"
            f"  then resumed to ${self.spent_usd:.4f}; duplicates {len(self.duplicates)}, losses {len(self.losses)}, "
            f"calls {self.calls}, bought twice {self.asked_again}\n"
        )


def replay_through(world: World, plan: ReplayPlan, say: Callable[[str], None]) -> Replayed:
    """Begin, kill, start again, stop at the budget, resume; and look at what came of it."""
    found, began = Replayed(plan), time.monotonic()
    world.settings.update(plan.settings())
    each_usd = _cost_of_one(world)
    users = _users(world, plan, each_usd)
    found.budget_usd = round(_SPENT * plan.users * each_usd, 6)
    found.in_flight_usd = plan.workers * plan.model_concurrency * each_usd
    command = ["replay", "--yes", "--json", "--max-cost-usd", str(found.budget_usd)]
    workers = [world.worker() for _ in range(plan.workers)]
    _kill_while_filling(world, command, plan)
    say("killed the command while it filled")
    second = _started(world, *command, log=world.folder / "second.log")
    until(lambda: _ended(world) >= plan.users // 10, PATIENCE_SECONDS, "a tenth of the runs had ended")
    workers[0].kill()
    say(f"killed a worker after {_ended(world)} runs")
    workers[0] = world.worker()
    _stopped_at_budget(second, world, found)
    say(f"the budget is spent: {found.completed_at_stop} completed, {found.held_at_stop} held")
    resumed = _started(
        world, "replay", "resume", "1", "--max-cost-usd", str(10 * found.budget_usd), log=world.folder / "third.log"
    )
    if resumed.wait(PATIENCE_SECONDS) != 0:
        found.others.append(f"'replay resume' ended with {resumed.returncode}")
    until(lambda: not world.rows("SELECT FROM full_pass_outbox WHERE published_at IS NULL"), 60, "every event was published")
    _stop(workers, found)
    _judge(world, users, found)
    found.seconds = time.monotonic() - began
    return found


def _cost_of_one(world: World) -> Decimal:
    """What a run of such an export costs, by one that a worker carries."""
    user = world.a_user(export_about("craft" + "q" * 14))
    with world.worker() as worker:
        world.publish(user)
        run = world.until_ended(user)
        assert run["status"] == "completed", run["error_detail"]
        worker.stop()
    world.execute("DELETE FROM full_pass_runs")
    world.execute("DELETE FROM full_pass_outbox")
    return Decimal(run["cost_usd"])


def _users(world: World, plan: ReplayPlan, each_usd: Decimal) -> list[User]:
    """Users with profile rows, exports and a completed run."""
    chance = random.Random(plan.seed)
    users = [world.a_user() for _ in range(plan.users)]
    for user in users:
        world.store(user.path, export_about("craft" + "".join(chance.choices(string.ascii_lowercase, k=14))))
    world.execute(_PRIOR, [user.uuid for user in users], [user.path for user in users], each_usd, _TRACE)
    return users


def _started(world: World, *arguments: str, log: Path) -> subprocess.Popen[str]:
    with log.open("w") as stderr, log.with_suffix(".stdout").open("w") as stdout:
        return subprocess.Popen(
            [FULL_PASS, *arguments], env=world.environment(), cwd=world.folder, text=True, stdout=stdout, stderr=stderr
        )


def _kill_while_filling(world: World, command: Sequence[str], plan: ReplayPlan) -> None:
    """A key of the last page is held by a transaction: the pages before it are there when the command dies, that one is not."""
    whole_pages = (plan.users - 1) // _FIRST_PAGE * _FIRST_PAGE
    with world.holding(_HELD):
        first = _started(world, *command, log=world.folder / "first.log")
        until(lambda: world.rows("SELECT FROM full_pass_replays"), 120, "the replay was begun")
        made = "SELECT FROM full_pass_runs WHERE generation = 1"
        until(lambda: len(world.rows(made)) >= whole_pages, 120, "the first pages were made")
        first.kill()
        first.wait(10)


def _ended(world: World) -> int:
    return len(world.rows("SELECT FROM full_pass_runs WHERE generation = 1 AND finished_at IS NOT NULL"))


def _stopped_at_budget(command: subprocess.Popen[str], world: World, found: Replayed) -> None:
    if command.wait(PATIENCE_SECONDS) != 1:
        found.others.append(f"the command did not stop at its budget: it ended with {command.returncode}")
        return
    said = json.loads((world.folder / "second.stdout").read_text())
    if said["state"] != "budget_spent" or "what follows is its rest" not in (world.folder / "second.log").read_text():
        found.others.append(f"the second start said {said['state']}, and not that it continues the first")
    found.completed_at_stop, found.held_at_stop = said["completed"], said["held"]
    found.spent_at_stop_usd = Decimal(str(said["cost_usd"]))


def _stop(workers: Sequence[Worker], found: Replayed) -> None:
    for worker in workers:
        if (status := worker.stop()) != 0:
            found.others.append(f"a worker ended with {status}")


def _judge(world: World, users: Sequence[User], found: Replayed) -> None:
    runs = world.rows("SELECT * FROM full_pass_runs WHERE generation > 0")
    replayed = Counter(run["user_id"] for run in runs)
    found.duplicates += [f"{user_id} was replayed {times} times" for user_id, times in replayed.items() if times > 1]
    found.losses += [f"{user.id} was not replayed" for user in users if not replayed[user.uuid]]
    found.losses += [
        f"run {run['run_id']} is {run['status']}: {run['error_code']}" for run in runs if run["status"] != "completed"
    ]
    for topic in OUTPUTS[:2]:
        seen = Counter(each.data["run_id"] for each in world.read(topic))
        found.duplicates += [f"{topic} of run {run_id} {times} times" for run_id, times in seen.items() if times > 1]
        found.losses += [f"no {topic} of run {run['run_id']}" for run in runs if not seen[str(run["run_id"])]]
    [row] = world.rows(
        "SELECT *, (SELECT sum(cost_usd) FROM full_pass_runs WHERE generation = 1) AS of_runs FROM full_pass_replays"
    )
    found.spent_usd = row["cost_usd"]
    if row["cost_usd"] != row["of_runs"]:
        found.others.append(f"the replay counted ${row['cost_usd']} where its runs cost ${row['of_runs']}")
    if row["passed_over"]:
        found.others.append(f"{row['passed_over']} keys were passed over")
    times = Counter(digest(request) for request in _asked(world))
    found.calls, found.asked_again = times.total(), times.total() - len(times)


def _asked(world: World) -> list[dict[str, Any]]:
    """The calls about the replay's exports, but for those that the stand-in's rate limit refused, which cost nothing."""
    asked = [request for request in world.asked() if request["outcome"]["status"] != 429]
    return [request for request in asked if WORD.search(user_text(request)) and "q" * 14 not in user_text(request)]
