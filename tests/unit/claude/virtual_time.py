"""An event loop whose clock jumps to the next thing that happens, so that an hour of backoff takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class NothingWillHappen(AssertionError):
    """Everybody waits for everybody: no timer is set and no file descriptor is watched."""


class _Jumping(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingWillHappen
            self.jumped_seconds += max(timeout, 0.0)
        return ready


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped_seconds


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end, in virtual time from 0."""
    with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
        return runner.run(main)


def now() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything run that can run without time going by."""
    for _ in range(20):
        await asyncio.sleep(0)
