"""Put on a worker's path as `sitecustomize`: a process of nobody's, in `/`, without a home, that can write to TMPDIR alone.

A container's manners, for machines without Docker. Where the tests run as root it gives up being root, and keeps at most the
right to read: a checkout may lie below a folder that only root may enter. Everywhere, opening for writing elsewhere fails as a
read-only file system makes it fail.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = frozenset("os.mkdir os.rename os.remove os.rmdir os.symlink os.link os.truncate os.chmod os.chown".split())
_READ_EVERYTHING = 2  # CAP_DAC_READ_SEARCH


def _refuse_writes(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if not (arguments[2] or 0) & _WRITES:
            return
    elif event not in _CHANGES:
        return
    path = arguments[0]
    if isinstance(path, str | bytes) and not os.fsdecode(path).startswith((os.environ["TMPDIR"], "/dev/")):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))


def can_become_nobody() -> bool:
    """Whether a process that is root's can be nobody's and still read Python and this checkout."""
    if os.geteuid() != 0:
        return False
    with Path("/proc/self/status").open(encoding="utf-8") as status:
        allowed = next((int(line.split()[1], 16) for line in status if line.startswith("CapPrm:")), 0)
    places = [Path(place).resolve() for place in (sys.base_prefix, sys.prefix, *sys.path) if place]
    open_to_all = all(each.stat().st_mode & 0o001 for place in places if place.is_dir() for each in (place, *place.parents))
    return bool(allowed >> _READ_EVERYTHING & 1) or open_to_all


def _become_nobody(unprivileged: Path) -> None:
    names: dict[str, Any] = {"__name__": "unprivileged"}
    exec(compile(unprivileged.read_text(encoding="utf-8"), str(unprivileged), "exec"), names)
    names["_CAP_DAC_OVERRIDE"] = _READ_EVERYTHING
    names["become_nobody"]()


if "READ_ONLY_WORKER" in os.environ:
    os.environ.pop("HOME", None)
    os.chdir("/")
    if sys.platform == "linux" and can_become_nobody():
        _become_nobody(Path(os.environ["READ_ONLY_WORKER"]))
    sys.addaudithook(_refuse_writes)
