"""What the sandbox tells a person when a server can't be had."""

from __future__ import annotations


class SandboxError(Exception):
    """A local server could not be got, started or ended; the message says which, why, and what to do about it."""
