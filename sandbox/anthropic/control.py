"""Talks to the control interface of a stand-in of which only the address is known."""

from __future__ import annotations

from typing import Any

import aiohttp


class StandInControl:
    """Scripts a stand-in and reads its record over HTTP; one short connection a call, so there is nothing to close."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def script(self, rules: list[dict[str, Any]]) -> None:
        """Append rules (see `sandbox.anthropic.script`).

        Raises:
            ValueError: naming what is wrong with a rule; then none was added.
        """
        await self._ask("POST", "script", json=rules)

    async def clear(self) -> None:
        """Forget script and record."""
        await self._ask("DELETE", "script")
        await self._ask("DELETE", "requests")

    async def clear_script(self) -> None:
        """Forget the rules alone."""
        await self._ask("DELETE", "script")

    async def requests(self, kind: str | None = None, *, after: int = 0, with_body: bool = True) -> list[dict[str, Any]]:
        """The requests in order, of one kind, with a number above `after`."""
        params = {"after": str(after), "body": str(int(with_body)), **({"kind": kind} if kind else {})}
        found: list[dict[str, Any]] = await self._ask("GET", "requests", params=params)
        return found

    async def summary(self) -> dict[str, Any]:
        """Counts by kind and outcome, and tokens."""
        found: dict[str, Any] = await self._ask("GET", "summary")
        return found

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self._url}/_stand_in/{path}", **options) as response,
        ):
            value = await response.json()
            if not response.ok:
                raise ValueError(value["error"])
            return value
