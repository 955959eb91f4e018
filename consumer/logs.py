"""Structured logs: JSON for machines, readable lines on a terminal.

`run_id`, `user_id` and `stage` are bound by the executor as context variables, so every line of a run carries them.
User content is never an argument of a log call (guarantee G9); exceptions are logged by type and place.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

Log = structlog.stdlib.BoundLogger


def configure_logs(level: str, log_format: Literal["json", "console"] | None, libraries: str = "WARNING") -> None:
    """Send all logs to stderr: ours from `level` on, those of the libraries from `libraries` on."""
    console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _code_but_no_content,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=libraries, force=True)


def _code_but_no_content(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Turn `exc_info` into types and places.

    An exception's own text may quote what it choked on (a driver quotes the row, a parser the document), so only the
    text of our own errors is kept, which is written to be published. asyncio quotes it in its message, from the second line on.
    """
    if getattr(event.get("_record"), "name", None) == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = describe(error)
        event["traceback"] = places(error)
    return event


def describe(error: BaseException) -> str:
    """The error's type, and its text if it is one of our own."""
    if type(error).__module__.startswith("consumer."):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__module__}.{type(error).__name__}"


def places(error: BaseException) -> list[str]:
    """`file:line function` of each frame, outermost first, followed by the causes and the members of groups."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename.rsplit('/site-packages/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            found += [f"in group: {describe(member)}", *places(member)]
    if error.__cause__ is not None:
        found += [f"caused by: {describe(error.__cause__)}", *places(error.__cause__)]
    return found


def get_log(room: str) -> Log:
    """A logger whose lines say which room they come from."""
    log: Log = structlog.get_logger(room=room)
    return log
