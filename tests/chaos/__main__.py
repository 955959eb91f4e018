"""`python -m tests.chaos`: a worker killed at every crash point, workers killed at random, a replay; 1 if anything went wrong."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.crashes import crashes
from tests.chaos.replay import ReplayPlan, replay_through
from tests.chaos.servers import MakeWorld, worlds
from tests.chaos.stories import EVERY_POINT
from tests.chaos.storm import Plan, blow
from tests.chaos.verdict import judge

LATENCY_SECONDS = 0.25


def say(line: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="random kills; 0: none")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--life", type=float, default=5.0, help="seconds that a worker lives on average, once it is up")
    parser.add_argument("--without-points", action="store_true", help="leave the crash points out (they take 3 minutes)")
    parser.add_argument("--replay-users", type=int, default=2_000, help="users of the replay whose budget ends; 0: none")
    return parser.parse_args()


def every_point(make_world: MakeWorld, folder: Path) -> int:
    """Kill a worker at each crash point, and say how many of them left something wrong."""
    wrong = 0
    with crashes(make_world, folder, EVERY_POINT) as found:
        for (story, point), crash in found.items():
            faults = crash.result().wrong() if crash.exception() is None else [str(crash.exception())]
            wrong += bool(faults)
            say(f"{story.name:10} {point!s:32} {'; '.join(faults) or 'well'}")
    say(f"{len(EVERY_POINT)} crash points, {wrong} with something wrong\n")
    return wrong


def at_random(make_world: MakeWorld, folder: Path, plan: Plan) -> int:
    """Kill workers at random, print the figures, and say how much was wrong."""
    say(f"seed {plan.seed}: {plan.kills} kills, {plan.users} users, {plan.workers} workers")
    world = make_world(folder)
    try:
        verdict = judge(blow(world, plan, say))
    finally:
        world.close()
    say(verdict.figures())
    faults = [*verdict.wrong(), *verdict.slow()]
    for fault in faults:
        say(f"WRONG: {fault}")
    return len(faults)


def a_replay(make_world: MakeWorld, folder: Path, plan: ReplayPlan) -> int:
    """Kill a replay's command and a worker, print the figures, and say how much was wrong."""
    world = make_world(folder)
    try:
        found = replay_through(world, plan, say)
    finally:
        world.close()
    say(found.figures())
    for fault in found.wrong():
        say(f"WRONG: {fault}")
    return len(found.wrong())


def main() -> int:
    given = arguments()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # of topics that were made a moment ago
    seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
    plan = Plan(given.kills, given.users, given.workers, seed, given.life, open_events=given.users)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="full-pass-chaos-") as name, worlds(Path(name), LATENCY_SECONDS) as make_world:
        if not given.without_points:
            wrong += every_point(make_world, Path(name) / "points")
        if plan.kills:
            wrong += at_random(make_world, Path(name) / "random", plan)
        if given.replay_users:
            wrong += a_replay(make_world, Path(name) / "replay", ReplayPlan(given.replay_users, seed))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
