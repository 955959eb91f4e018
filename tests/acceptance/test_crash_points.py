"""A worker killed at one message on the wire, and what another worker makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.stand_in import StandInServer
from tests.acceptance.conftest import a_world
from tests.acceptance.world import World
from tests.chaos.crash import Crash
from tests.chaos.crashes import Case, crashes
from tests.chaos.stories import COMPLETED, SOME_POINTS

UNHARMED: Case = (COMPLETED, None)
NAMES = [f"{story.name}, {point}" for story, point in SOME_POINTS]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def crashed(
    kafka: KafkaServer, postgres: PostgresServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Case, Future[Crash]]]:
    """All crashes, which go on side by side while the first is looked at."""
    folder = tmp_path_factory.mktemp("crashes")
    with StandInServer(folder / "anthropic", arguments=("--latency-seconds", "0.1")) as stand_in:

        def make_world(own: Path) -> World:
            own.mkdir(parents=True)
            return a_world(kafka, postgres, stand_in, migrated, own)

        with crashes(make_world, folder, [*SOME_POINTS, UNHARMED]) as found:
            yield found


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G2")
@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("case", SOME_POINTS, ids=NAMES)
def test_a_run_whose_worker_was_killed_has_one_end_and_each_event_once(crashed: dict[Case, Future[Crash]], case: Case) -> None:
    assert crashed[case].result().wrong_events() == []


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("case", SOME_POINTS, ids=NAMES)
def test_whenever_a_worker_is_killed_a_profile_holds_the_sections_of_one_run(
    crashed: dict[Case, Future[Crash]], case: Case
) -> None:
    """Whoever reads the profile meanwhile sees no mixture either."""
    assert crashed[case].result().wrong_profile() == []


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("case", SOME_POINTS, ids=NAMES)
def test_after_a_kill_at_a_crash_point_only_calls_in_flight_are_bought_again(
    crashed: dict[Case, Future[Crash]], case: Case
) -> None:
    assert crashed[case].result().wrong_calls() == []


def test_every_commit_that_changes_something_is_a_crash_point_with_a_name(crashed: dict[Case, Future[Crash]]) -> None:
    """A step that somebody adds shows here, and has to be given a name, a line in the documents and its two moments."""
    unharmed = crashed[UNHARMED].result()
    assert unharmed.wrong() == []
    met = {step: unharmed.steps.count(step) for step in unharmed.steps}
    assert met.keys() <= COMPLETED.steps.keys()
    assert {step: times for step, times in COMPLETED.steps.items() if met.get(step, 0) < times} == {}
