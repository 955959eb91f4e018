"""`python -m sandbox.anthropic`: the stand-in as a process; prints where it listens and ends on SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from sandbox.anthropic.server import StandIn


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.anthropic", description="Stand-in for the Anthropic API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-seconds", type=float, default=0.0, help="how long a message takes to its first byte")
    parser.add_argument("--batch-seconds", type=float, default=0.2, help="how long a batch takes to its end")
    parser.add_argument("--keep-requests", type=int, default=None, help="record only so many of the newest requests")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stand_in = StandIn(
        host=arguments.host,
        port=arguments.port,
        latency_seconds=arguments.latency_seconds,
        batch_seconds=arguments.batch_seconds,
        keep_requests=arguments.keep_requests,
    )
    async with stand_in:
        sys.stdout.write(f"listening on {stand_in.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
