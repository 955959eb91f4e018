"""Ends a server when the process that started it is gone, however that went: by SIGKILL too.

Run as `python leash.py PID STARTED_AT` with a pipe as standard input. A byte means "let go"; the end of the pipe means
that its holder is gone. A pipe and not PR_SET_PDEATHSIG, because that follows the *thread* that started the server and
exists on Linux alone.
"""

from __future__ import annotations

import contextlib
import sys

import psutil


def main() -> None:
    """Wait for either word, and kill the server if it is still the one that was meant."""
    pid, started_at = int(sys.argv[1]), float(sys.argv[2])
    if sys.stdin.buffer.read(1):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        server = psutil.Process(pid)
        if abs(server.create_time() - started_at) < 1:
            children = server.children(recursive=True)
            server.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


if __name__ == "__main__":
    main()
