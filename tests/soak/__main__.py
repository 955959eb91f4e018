"""Carry many short runs and print what a worker takes: `python -m tests.soak --runs 20000`; 1 if anything grows.

Kafka, PostgreSQL, the stand-in for the model API and the worker are its own. Each line is a moment; at the end the medians of
the second and of the last quarter are compared. A run is that of a small export; the stand-in answers at once. Where it is
fast, runs pause until the minute is over: the stand-in tells of limits as the API does, and the worker heeds them. The tables
grow with the ledger, which keeps a row for each run; what a run adds has to stay the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.servers import worlds
from tests.soak.samples import judge
from tests.soak.soaking import StoodStill, odd_events, soak


def say(line: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--every-seconds", type=float, default=10, help="between two lines")
    parser.add_argument("--kept", type=Path, default=None, help="a new folder for logs and data, which stays")
    return parser.parse_args()


@contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """The one that was asked for, or one that goes."""
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="full-pass-soak-") as place:
            yield Path(place)


def main() -> int:
    """Soak, and say whether everything stayed flat."""
    chosen = arguments()
    with folder(chosen.kept) as place, worlds(place, latency_seconds=0) as make_world:
        world = make_world(place / "world")
        try:
            samples = soak(world, chosen.runs, chosen.every_seconds, say)
            odd = odd_events(world, chosen.runs)
        except StoodStill as error:
            say(f"stood still: {error}")
            return 1
        finally:
            world.close()
    lines, flat = judge(samples)
    for line in (*lines, *odd):
        say(line)
    say("flat" if flat and not odd else "NOT flat")
    return 0 if flat and not odd else 1


if __name__ == "__main__":
    sys.exit(main())
