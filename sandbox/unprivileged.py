"""Runs a program as the user `nobody`: PostgreSQL refuses to run as root.

Run by root as `python unprivileged.py PROGRAM ARGUMENT…`. On Linux the program keeps the one capability of passing by file
permissions, so that it finds itself and its data below folders that only root may enter (such as /root or a container's
checkout), and no folder has to be opened to everybody.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys

_PR_SET_SECUREBITS = 28
# Without it access(2), by which PostgreSQL's programs look for each other, leaves capabilities out for everybody but root.
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def become_nobody() -> None:
    """Change user and group for good."""
    account = pwd.getpwnam("nobody")
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    if libc is not None:
        _keep_passing_by_permissions(libc)


def _keep_passing_by_permissions(libc: ctypes.CDLL) -> None:
    """Where the system refuses (a container without the capability), the program has to do without."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << _CAP_DAC_OVERRIDE
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if libc.capset(header, effective_permitted_inheritable) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    become_nobody()
    os.execv(sys.argv[1], sys.argv[1:])
