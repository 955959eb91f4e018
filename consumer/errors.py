"""Everything that can stop a run, a message or a command, as one tree.

::

    FullPassError
    ├── ConfigurationError        the command can't start: wrong or missing settings (exit status 2)
    ├── CommandError              the command failed: one readable line (exit status 1)
    ├── InvalidMessage            no run can be made of a message: it becomes a dead letter
    └── RunError                  a run stops here; the executor turns it into what the ledger says
        ├── TransientError        try again later, the ledger knows when
        │   ├── Outage            the model API, the store or PostgreSQL is away: costs no failure
        │   │   └── OperatorTrouble   an outage that only an operator can end, and that never gives up
        │   ├── NotThereYet       profile or export not found inside the grace: costs no failure
        │   └── PassingFailure    costs a failure, such as coverage too low for a passing reason
        ├── FinalError            the run ends with a code that people can search for
        │   └── Superseded        a newer run of the user has saved its MEMORY
        └── LostLease             another holder has the run: stop quietly, write nothing

Every message says what was expected, what came and what to do, without a word of the user's content: `detail` is
published in `v2-failed` and stands in logs (guarantee G9).
"""

from __future__ import annotations

from enum import StrEnum

from schemas.events import ErrorCode

DETAIL_MAX_CHARS = 500


class FullPassError(Exception):
    """The root of every error that this service raises on purpose."""


class ConfigurationError(FullPassError):
    """A setting is missing or wrong; the message names the variable, never its value."""


class CommandError(FullPassError):
    """A command could not do what it was asked; the message is the one line that its user reads."""


class InvalidReason(StrEnum):
    """Why no run can be made of a message: the header `dead_letter_reason`, and a metric's label."""

    NO_VALUE = "no_value"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    NOT_A_CLOUDEVENT = "not_a_cloudevent"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    STORAGE_PATH_INVALID = "storage_path_invalid"
    STORAGE_PATH_NOT_ALLOWED = "storage_path_not_allowed"
    COMPLETED_AT_IN_FUTURE = "completed_at_in_future"
    REFUSED_BY_DATABASE = "refused_by_database"
    UNREADABLE_BATCH = "unreadable_batch"


class InvalidMessage(FullPassError):
    """A message that no run can be made of. `detail` names the field, never what it held."""

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RunError(FullPassError):
    """A run stops. `code` is one of the contract's codes, `detail` at most 500 characters without user content."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail[:DETAIL_MAX_CHARS]


class TransientError(RunError):
    """The run can be tried again later."""


class Outage(TransientError):
    """Something that every run needs is away; waiting costs the run no failure.

    `retry_after_seconds` is when whoever is away may be asked again, if that is known.
    """

    def __init__(self, code: ErrorCode, detail: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(code, detail)
        self.retry_after_seconds = retry_after_seconds


class OperatorTrouble(Outage):
    """An outage that an operator has to end (refused key, empty account, missing model); runs wait for it forever."""


class NotThereYet(TransientError):
    """Profile or export not found. Final once `NOT_FOUND_GRACE_SECONDS` have passed since the run was accepted."""


class PassingFailure(TransientError):
    """An attempt failed for a reason that may pass; counts a failure."""


class FinalError(RunError):
    """Waiting can't make it better: the run ends now with this code."""


class Superseded(FinalError):
    """A newer run of the same user has saved its MEMORY; this one ends without a further model call (guarantee G7)."""

    def __init__(self, detail: str = "a newer run of this user has saved its MEMORY") -> None:
        super().__init__(ErrorCode.SUPERSEDED, detail)


class LostLease(RunError):
    """The run is no longer this worker's, or has ended. Stop, and write nothing (guarantee G6)."""

    def __init__(self, detail: str = "the run has another holder or has ended") -> None:
        super().__init__(ErrorCode.INTERNAL, detail)
