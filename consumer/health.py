"""Whether the worker is ready, and if not, why: one reason per part, set by whoever knows."""

from __future__ import annotations


class Health:
    """The readiness of a worker, part by part.

    A part that must be up before the worker is ready is declared with `expect`; it is not ready until `well` is called.
    Reasons are read by people at night: they say what is wrong, which setting or command mends it, and hold no secret.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def expect(self, part: str) -> None:
        """Count `part` as not ready until it says that it is well."""
        self._reasons.setdefault(part, "starting")

    def well(self, part: str) -> None:
        """`part` works."""
        self._reasons.pop(part, None)

    def unwell(self, part: str, reason: str) -> None:
        """`part` does not work because of `reason`."""
        self._reasons[part] = reason

    @property
    def ready(self) -> bool:
        """Whether every part is well."""
        return not self._reasons

    def reasons(self) -> dict[str, str]:
        """Part → reason, of the parts that are not well."""
        return dict(self._reasons)
