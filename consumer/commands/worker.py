"""`full-pass worker`."""

from __future__ import annotations

import asyncio
import gc
from typing import Annotated

import typer

from consumer.errors import ConfigurationError
from consumer.logs import configure_logs
from consumer.settings import Settings, load_settings

_LIST = "A comma-separated list of intake, executor, relay and alerts."


def worker(
    only: Annotated[str | None, typer.Option("--only", help=f"Run these parts alone. {_LIST}", metavar="PARTS")] = None,
    without: Annotated[str | None, typer.Option("--without", help=f"Run all parts but these. {_LIST}", metavar="PARTS")] = None,
) -> None:
    """Take completion events, carry runs, publish their events and send alerts, until SIGTERM.

    SIGTERM or Ctrl-C: stops taking work, finishes or hands back within FULL_PASS_SHUTDOWN_SECONDS, exits with 0. Alerts run where
    FULL_PASS_ALERT_WEBHOOK_URL is set.
    """
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    gc.disable()  # as in __main__: the SDK alone makes a hundred thousand objects
    from consumer.app import run_worker

    gc.enable()
    asyncio.run(run_worker(settings, chosen_parts(settings, only, without)))


def chosen_parts(settings: Settings, only: str | None, without: str | None) -> frozenset[str]:
    """The parts that the two options leave.

    Raises:
        ConfigurationError: for a part that doesn't exist, both options at once, or nothing left.
    """
    from consumer.app import PARTS

    if only is not None and without is not None:
        raise ConfigurationError("--only and --without exclude each other")
    if only is not None:
        return _named("--only", only)
    parts = set(PARTS) - (_named("--without", without) if without is not None else frozenset())
    if settings.alert_webhook_url is None:
        parts.discard("alerts")
    if not parts:
        raise ConfigurationError("--without leaves no part to run")
    return frozenset(parts)


def _named(option: str, text: str) -> frozenset[str]:
    from consumer.app import PARTS

    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    unknown = sorted(names - set(PARTS))
    if unknown or not names:
        raise ConfigurationError(f"{option}: there is no part {', '.join(unknown) or '(empty)'}; expected {', '.join(PARTS)}")
    return names
