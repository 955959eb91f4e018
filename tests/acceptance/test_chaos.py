"""Workers killed at random moments under load; `make chaos` is the long form."""

from __future__ import annotations

import random
import sys

import pytest

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.conftest import a_world
from tests.chaos.storm import Plan, blow
from tests.chaos.verdict import Verdict, judge

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def verdict(kafka: KafkaServer, postgres: PostgresServer, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """Eight kills over three workers."""
    folder = tmp_path_factory.mktemp("chaos")
    seed = random.SystemRandom().randrange(10_000)
    plan = Plan(kills=8, users=8, workers=3, seed=seed, mean_life_seconds=0.8, open_events=8)
    with StandInServer(folder / "anthropic", arguments=("--latency-seconds", "0.1")) as stand_in:
        world = a_world(kafka, postgres, stand_in, migrated, folder)
        try:
            found = judge(blow(world, plan))
        finally:
            world.close()
    sys.stdout.write(found.figures())  # pytest shows it, and with it the seed, beside a failure
    return found


@pytest.mark.guarantee("G5")
def test_random_kills_make_no_event_come_twice(verdict: Verdict) -> None:
    assert verdict.duplicates == []


@pytest.mark.guarantee("G1")
def test_random_kills_lose_no_event(verdict: Verdict) -> None:
    assert verdict.losses == []


@pytest.mark.guarantee("G4")
def test_random_kills_leave_no_mixture_of_sections(verdict: Verdict) -> None:
    assert verdict.mixtures == []


@pytest.mark.guarantee("G5")
def test_random_kills_leave_no_version_out_and_none_twice(verdict: Verdict) -> None:
    assert verdict.versions == []


@pytest.mark.guarantee("G8")
def test_random_kills_make_nobody_pay_again_for_what_was_recorded(verdict: Verdict) -> None:
    assert verdict.bought_needlessly == []
