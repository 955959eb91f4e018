"""A part that fails is started again, later each time, and readiness says why."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from consumer.app import Worker, supervise
from consumer.errors import CommandError, ConfigurationError
from consumer.postgres.database import Database
from tests.integration.test_app import NOWHERE, settings_for
from tests.unit.claude import virtual_time

pytestmark = pytest.mark.usefixtures("logged")


def a_worker() -> Worker:
    """What parts share, without anything behind it."""
    return Worker(settings_for(), Database(NOWHERE))


class Failing:
    """A part that fails so many times, and notes when it was started."""

    def __init__(self, times: int, error: Exception, lasting_seconds: float = 0) -> None:
        self.starts: list[float] = []
        self._times, self._error, self._lasting_seconds = times, error, lasting_seconds

    async def run(self, _stopping: asyncio.Event) -> None:
        self.starts.append(virtual_time.now())
        if len(self.starts) <= self._times:
            await asyncio.sleep(self._lasting_seconds)
            raise self._error


def test_a_part_that_fails_is_started_again_later_each_time_and_at_most_a_second_later() -> None:
    async def main() -> list[float]:
        part = Failing(6, CommandError("no"))
        worker = a_worker()
        await supervise("intake", part.run, worker, asyncio.Event())
        assert worker.metrics.registry.get_sample_value("full_pass_part_restarts_total", {"part": "intake"}) == 6
        return [after - before for before, after in zip(part.starts, part.starts[1:], strict=False)]

    assert virtual_time.run(main()) == pytest.approx([0.2, 0.4, 0.8, 1, 1, 1])


def test_a_part_that_went_well_for_a_while_is_started_again_soon() -> None:
    async def main() -> list[float]:
        part = Failing(4, CommandError("no"), lasting_seconds=60)
        await supervise("intake", part.run, a_worker(), asyncio.Event())
        return [after - before - 60 for before, after in zip(part.starts, part.starts[1:], strict=False)]

    assert virtual_time.run(main()) == pytest.approx([0.2] * 4)


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    ("error", "reason"),
    [(CommandError("the topic is missing"), "the topic is missing"), (ValueError("a diary"), "builtins.ValueError")],
)
def test_readiness_names_the_reason_and_only_our_own_errors_with_their_words(error: Exception, reason: str) -> None:
    async def main() -> None:
        worker, stopping = a_worker(), asyncio.Event()
        task = asyncio.ensure_future(supervise("relay", Failing(9, error).run, worker, stopping))
        await virtual_time.settle()
        assert worker.reasons() == {"relay": reason}
        stopping.set()
        await task

    virtual_time.run(main())


def test_a_mistake_in_the_configuration_is_not_tried_again() -> None:
    async def main() -> None:
        part = Failing(1, ConfigurationError("KAFKA_SSL_CAFILE"))
        with pytest.raises(ConfigurationError):
            await supervise("intake", part.run, a_worker(), asyncio.Event())
        assert len(part.starts) == 1

    virtual_time.run(main())


@pytest.mark.parametrize(("holding", "starts"), [(False, 1), (True, 2)])
def test_a_part_that_is_told_to_stop_while_it_waits_is_started_again_only_to_hand_back_what_it_holds(
    holding: bool, starts: int
) -> None:
    async def main() -> None:
        part, stopping = Failing(9, CommandError("PostgreSQL is away")), asyncio.Event()
        task = asyncio.ensure_future(supervise("executor", part.run, a_worker(), stopping, holding=holding))
        await virtual_time.settle()
        stopping.set()
        await task
        assert part.starts == [0] * starts

    virtual_time.run(main())


def test_a_part_that_leaves_its_task_counted_as_cancelled_is_started_again_in_one_that_is_not() -> None:
    """A task group of an early Python 3.11 does so when a child fails. Then the wait before the next start would end the part."""
    counts: list[int] = []

    async def failing_once(_stopping: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        if len(counts) == 1:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            raise CommandError("no")

    virtual_time.run(supervise("intake", failing_once, a_worker(), asyncio.Event()))
    assert counts == [0, 0]
