"""How a read is stopped from outside, also while it waits for a store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_LETTING_GO_SECONDS = 0.05


class ReadStopped(Exception):
    """The read was stopped; nobody waits for what it would have returned."""


class Stop:
    """Set by whoever doesn't want the read any more; looked at by the thread that reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._interrupt: Callable[[], object] | None = None

    def set(self) -> None:
        """Interrupt what the thread waits for, and let it begin nothing more. From any thread; never blocks."""
        with self._lock:
            self._stopped = True
            if self._interrupt is not None:
                self._interrupt()

    def check(self) -> None:
        """Go on, unless the read was stopped.

        Raises:
            ReadStopped: when it was.
        """
        if self._stopped:
            raise ReadStopped

    def wait_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What a store answers. Blocks; the event loop is its own, since only there a wait can be interrupted.

        Raises:
            ReadStopped: as soon as the read is stopped; the request is dropped.
        """
        return asyncio.run(self._interruptible(ask))

    async def _interruptible(self, ask: Callable[[], Awaitable[T]]) -> T:
        with self._lock:
            self.check()
            answer = asyncio.ensure_future(ask())
            self._interrupt = partial(asyncio.get_running_loop().call_soon_threadsafe, answer.cancel)
        try:
            return await answer
        except asyncio.CancelledError:
            # obstore drops the request in a thread of its own, where nobody sees it: if the process ended before, it would panic.
            await asyncio.sleep(_LETTING_GO_SECONDS)
            raise ReadStopped from None
        finally:
            with self._lock:
                self._interrupt = None
