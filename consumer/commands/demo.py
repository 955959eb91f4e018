"""`full-pass demo`. What it takes is imported when it is run: no other command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consumer.commands.output import AsJson


def demo(
    export: Annotated[Path | None, typer.Option("--export", help="Your own export: conversations.json or the ZIP.")] = None,
    real: Annotated[bool, typer.Option("--real", help="Use the real API with ANTHROPIC_API_KEY; asks before it spends.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Spend without asking.")] = False,
    attached: Annotated[
        bool, typer.Option("--attached", help="Use the servers and the worker of the environment; start and end nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the main job on a sample export in a sandbox of its own, and clean up afterwards, also after Ctrl-C.

    With --attached nothing is started or ended: the event goes to the Kafka that KAFKA_BOOTSTRAP_SERVERS names.

    Needs nothing but Python: Kafka, PostgreSQL and Redis come from packages (once, about a minute). The model is a stand-in that
    answers from the export's own sentences, unless --real. It ends in the chat service: the prompt that was cached
    before the event, and the fresh one after it.
    """
    from consumer.commands.demo_run import run_demo

    run_demo(export, real=real, yes=yes, attached=attached, quiet=as_json)
