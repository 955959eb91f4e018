"""Many model calls of one run at once, their results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from consumer.errors import FinalError, LostLease, OperatorTrouble, Outage, RunError

# Bounds what a run holds in memory. How many calls are really made at once is Pace's to say.
IN_FLIGHT = 64
# Of errors that came up together, the first of these kinds decides.
_KINDS = (LostLease, FinalError, OperatorTrouble, Outage, RunError)

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: AsyncGenerator[Item, None], ask: Callable[[Item], Awaitable[Result]], take: Callable[[Result], None]
) -> None:
    """Ask for each item, at most 64 at once, and take the results in the order of the items.

    When an error of the run comes up, no more are asked for, and those in flight come to their end: each answer that is
    recorded is one that the next attempt need not buy.

    Raises:
        RunError: of all that came up, the one that decides most.
    """
    calls = _Calls(ask, take)
    async with asyncio.TaskGroup() as tasks, aclosing(items):
        try:
            async for item in items:
                if calls.errors:
                    break
                await calls.start(item, tasks)
        except RunError as error:
            calls.errors.append(error)
        await calls.take_all_but(0)
    if calls.errors:
        raise min(calls.errors, key=_rank)


class _Calls(Generic[Item, Result]):
    """The calls in flight, and the errors that came up so far."""

    def __init__(self, ask: Callable[[Item], Awaitable[Result]], take: Callable[[Result], None]) -> None:
        self._ask = ask
        self._take = take
        self._in_flight: deque[asyncio.Task[Result | RunError]] = deque()
        self.errors: list[RunError] = []

    async def start(self, item: Item, tasks: asyncio.TaskGroup) -> None:
        """Begin a call, as soon as there is room for one."""
        await self.take_all_but(IN_FLIGHT - 1)
        self._in_flight.append(tasks.create_task(self._asked(item)))

    async def take_all_but(self, most: int) -> None:
        """Take the results of the oldest calls until no more than that are in flight."""
        while len(self._in_flight) > most:
            result = await self._in_flight.popleft()
            if not isinstance(result, RunError):
                self._take(result)

    async def _asked(self, item: Item) -> Result | RunError:
        try:
            return await self._ask(item)
        except RunError as error:
            self.errors.append(error)
            return error


def _rank(error: RunError) -> int:
    return next(rank for rank, kind in enumerate(_KINDS) if isinstance(error, kind))
