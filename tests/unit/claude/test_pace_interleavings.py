"""Pace under random interleavings of calls, troubles, cancellations and probes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.claude.pace import Call, Pace
from consumer.claude.trouble import Trouble
from consumer.errors import Outage
from consumer.metrics import Metrics
from tests.unit.claude.virtual_time import NothingWillHappen, now, run, settle

PROBES_SUCCEED_AFTER_SECONDS = 400.0
OUTCOMES = {
    "success": None,
    "says nothing": None,
    "500": Trouble("status 500", "status_500"),
    "529": Trouble("status 529", "status_529", crowded=True),
    "429": Trouble("status 429", "status_429", 3.0, crowded=True),
    "far 429": Trouble("status 429", "status_429", 90.0, crowded=True),
    "timeout": Trouble("no answer", "timeout", slow=True),
    "401": Trouble("status 401", "status_401", operator=True),
}


@dataclass(frozen=True)
class Caller:
    """Asks at `start`, is answered after `seconds`, and may be cancelled; whole seconds, so that moments coincide."""

    run: int
    start: int
    seconds: int
    outcome: str
    cancelled_at: int | None


callers = st.lists(
    st.builds(
        Caller,
        run=st.integers(0, 3),
        start=st.integers(0, 12),
        seconds=st.integers(0, 15),
        outcome=st.sampled_from(sorted(OUTCOMES)),
        cancelled_at=st.none() | st.integers(0, 20),
    ),
    max_size=40,
)


@dataclass
class Watch:
    """What the API sees: who is in flight, and since when. Checks every arrival against what Pace allows then."""

    pace: Pace
    concurrency: int
    in_flight: dict[int, bool] = field(default_factory=dict)
    probe: UUID | None = None
    probing: int = 0
    asked: list[int] = field(default_factory=list)
    admitted_at: dict[int, float] = field(default_factory=dict)
    widest: tuple[float, int] = (0.0, 0)

    def arrive(self, number: int, run_id: UUID) -> None:
        self.admitted_at[number] = now()
        self.in_flight[number] = self.pace.is_open
        if self.pace.is_open:
            assert sum(self.in_flight.values()) <= max(self.pace.width, self.widest_now())
        else:
            assert run_id == self.probe
            self.probing += 1
            assert self.probing == 1
        assert len(self.in_flight) <= self.concurrency + 1

    def widest_now(self) -> int:
        """The width that a call was granted under may have been halved in the same moment, before the call began."""
        moment, width = self.widest
        return width if moment == now() else 0

    def note_width(self) -> None:
        self.widest = (now(), max(self.widest_now(), self.pace.width))

    def leave(self, number: int, *, was_probing: bool) -> None:
        self.probing -= was_probing
        del self.in_flight[number]


async def call(watch: Watch, number: int, caller: Caller) -> str:
    pace, run_id = watch.pace, UUID(int=caller.run)
    await asyncio.sleep(caller.start)
    watch.asked.append(number)
    try:
        async with pace.slot(run_id) as slot:
            was_probing = not pace.is_open
            watch.arrive(number, run_id)
            try:
                await asyncio.sleep(caller.seconds)
                watch.note_width()
                tell(pace, slot, caller.outcome)
                if not pace.is_open:
                    watch.in_flight = dict.fromkeys(watch.in_flight, False)
            finally:
                watch.leave(number, was_probing=was_probing)
    except Outage:
        return "refused"
    return "called"


def tell(pace: Pace, slot: Call, outcome: str) -> None:
    trouble = OUTCOMES[outcome]
    if trouble is not None:
        pace.troubled(slot, trouble)
    elif outcome == "success":
        pace.succeeded(slot)


async def executor(watch: Watch) -> None:
    """Claims a probe whenever it may, as the real one does. Late probes succeed, so that every story ends open."""
    pace = watch.pace
    for number in range(10_000, 20_000):
        with suppress(TimeoutError):
            async with asyncio.timeout(pace.reopens_in_seconds):
                await pace.wait_changed()
        if pace.claimable() != "probe":
            continue
        late = now() > PROBES_SUCCEED_AFTER_SECONDS
        watch.probe = UUID(int=number)
        pace.begin_probe(watch.probe)
        assert pace.claimable() == "none"
        outcome = "success" if late else ("500", "says nothing", "429", "success")[number % 4]
        await call(watch, number, Caller(number, 0, 1, outcome, None))
        pace.end_probe(watch.probe)


async def story(plan: list[Caller], concurrency: int) -> tuple[Watch, list[str]]:
    watch = Watch(Pace(concurrency, 5, Metrics()), concurrency)
    async with asyncio.TaskGroup() as group:
        probing = group.create_task(executor(watch))
        tasks = [group.create_task(call(watch, number, caller)) for number, caller in enumerate(plan)]
        for task, caller in zip(tasks, plan, strict=True):
            if caller.cancelled_at is not None:
                asyncio.get_running_loop().call_later(caller.cancelled_at, task.cancel)
        await asyncio.wait(tasks) if tasks else None
        while not watch.pace.is_open:
            await watch.pace.wait_changed()
        probing.cancel()
    return watch, ["cancelled" if task.cancelled() else task.result() for task in tasks]


@settings(max_examples=200, deadline=None)
@given(callers, st.integers(1, 6))
def test_no_interleaving_lets_more_calls_through_than_allowed_or_leaves_one_waiting(plan: list[Caller], concurrency: int) -> None:
    """At most `width` at once while open, the probe's one call while shut; every call ends; every slot comes back."""

    async def main() -> None:
        watch, ends = await story(plan, concurrency)
        assert len(ends) == len(plan)
        assert not watch.in_flight
        await every_slot_is_free(watch.pace, concurrency)

    run(main())


async def every_slot_is_free(pace: Pace, concurrency: int) -> None:
    """Successes widen it to the setting again, and then as many calls fit in at once, and not one more."""
    for _ in range(concurrency):
        async with pace.slot(UUID(int=0)) as slot:
            pace.succeeded(slot)
    assert pace.width == concurrency
    leave, inside = asyncio.Event(), 0

    async def occupy() -> None:
        nonlocal inside
        async with pace.slot(UUID(int=0)):
            inside += 1
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency + 1):
            group.create_task(occupy())
        await settle()
        assert inside == concurrency
        leave.set()


@settings(max_examples=200, deadline=None)
@given(callers, st.integers(1, 4))
def test_calls_pass_in_the_order_in_which_they_asked(plan: list[Caller], concurrency: int) -> None:
    calm = [Caller(c.run, c.start, c.seconds, "success", c.cancelled_at) for c in plan]

    async def main() -> None:
        watch, _ = await story(calm, concurrency)
        moments = [watch.admitted_at[number] for number in watch.asked if number in watch.admitted_at]
        assert moments == sorted(moments)

    run(main())


def test_a_slot_granted_in_the_moment_of_its_cancellation_comes_back() -> None:
    async def main() -> None:
        pace = Pace(1, 5, Metrics())
        async with asyncio.TaskGroup() as group:
            async with pace.slot(UUID(int=0)):
                waiter = group.create_task(call(Watch(pace, 1), 1, Caller(1, 0, 0, "success", None)))
                await settle()
            waiter.cancel()
        assert waiter.cancelled()
        async with asyncio.timeout(1), pace.slot(UUID(int=0)):
            pass

    run(main())


def test_the_virtual_clock_notices_that_everybody_waits_for_everybody() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with suppress(NothingWillHappen):
        run(main())
        raise AssertionError("expected NothingWillHappen")
