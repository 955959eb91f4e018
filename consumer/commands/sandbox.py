"""`full-pass sandbox`: everything that the service needs, on this machine, from Python packages alone."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import typer

from consumer.commands.database import opened
from consumer.commands.output import AsJson, print_json, say
from consumer.errors import CommandError, ConfigurationError
from consumer.kafka.topics import Topics
from consumer.postgres import migrating
from consumer.postgres.seeding import seed_profile
from consumer.settings import Settings, load_settings, required

if TYPE_CHECKING:
    from sandbox.servers import Sandbox

app = typer.Typer(help="Local Kafka, PostgreSQL and a stand-in for the Anthropic API.", no_args_is_help=True)
Folder = Annotated[Path, typer.Option("--dir", help="Where the sandbox keeps its data.", file_okay=False)]
BUCKET = "exports"
_OF_SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "ANTHROPIC_BASE_URL")


@dataclass(frozen=True)
class Seeded:
    """What was put where, and with it the event that starts its run."""

    user_id: UUID
    storage_path: str

    @property
    def publish_line(self) -> str:
        """The command that publishes the event."""
        return f"full-pass publish --user-id {self.user_id} --storage-path {shlex.quote(self.storage_path)}"


@app.command()
def up(folder: Folder = Path(".sandbox"), as_json: AsJson = False) -> None:
    """Start what the environment doesn't name already, with topics and tables, and print the environment to paste.

    eval "$(full-pass sandbox up)" does it in one go. Called again, it starts what has stopped and prints the same.
    """
    environment = bring_up(opened_sandbox(folder))
    if taken := [name for name in _OF_SERVERS if os.environ.get(name) and name not in environment]:
        say(f"{', '.join(taken)} of this shell name other servers, so none are started in their place; unset what should be")
    if as_json:
        print_json(environment)
        return
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def down(
    folder: Folder = Path(".sandbox"),
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove all data, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """End the servers; their data stays for the next `up` unless it is wiped."""
    sandbox = opened_sandbox(folder)
    with readable_errors():
        sandbox.wipe() if wipe else sandbox.down()
    if as_json:
        print_json({"folder": str(folder), "wiped": wipe})


@app.command()
def seed(
    export: Annotated[
        Path | None, typer.Argument(help="A ChatGPT export: conversations.json or the ZIP. The sample if absent.")
    ] = None,
    user_id: Annotated[UUID | None, typer.Option(help="The user; a new one if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put an export into the store and a profile row into the database, and print the line that publishes its event."""
    seeded = asyncio.run(seed_export(load_settings(), export, user_id or uuid4()))
    if as_json:
        print_json({"user_id": seeded.user_id, "storage_path": seeded.storage_path, "publish": seeded.publish_line})
    else:
        say("the export is in the store and its user has a profile row; this starts the run:")
        typer.echo(seeded.publish_line)


def opened_sandbox(folder: Path, **options: Any) -> Sandbox:
    """The sandbox in this folder.

    Raises:
        ConfigurationError: when the extra is not installed.
    """
    try:
        from sandbox.servers import Sandbox
    except ImportError:
        raise ConfigurationError("the sandbox is an extra: install full-pass-consumer[sandbox], or run 'make install'") from None
    return Sandbox(folder, progress=say, **options)


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the sandbox says of its servers, as a command's one line."""
    from sandbox.errors import SandboxError

    try:
        yield
    except SandboxError as error:
        raise CommandError(str(error)) from None


def bring_up(sandbox: Sandbox) -> dict[str, str]:
    """Start the servers, and make topics and tables in those that are the sandbox's own; returns the environment."""
    with readable_errors():
        environment = sandbox.up()
    os.environ.update(environment)
    settings = load_settings()
    asyncio.run(_prepare(settings, environment))
    return environment


async def _prepare(settings: Settings, environment: dict[str, str]) -> None:
    if "KAFKA_BOOTSTRAP_SERVERS" in environment:
        await Topics(settings).create()
    if "DATABASE_URL" in environment:
        async with opened(settings) as database:
            await migrating.upgrade(database)


async def seed_export(settings: Settings, export: Path | None, user_id: UUID) -> Seeded:
    """Put the export (default: the sample, with the sections that a quick pass made of it) in store and database."""
    from sandbox import sample

    if export is not None and not export.is_file():  # noqa: ASYNC240 - a command has nothing else to do meanwhile
        raise CommandError(f"there is no file {export}; expected conversations.json or the ZIP of an export")
    name = "conversations.json" if export is None else export.name
    seeded = Seeded(user_id, f"{BUCKET}/{user_id}/{name}")
    target = _store_folder(settings) / seeded.storage_path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if export is None:
            sample.build_sample(target)
        else:
            shutil.copyfile(export, target)
    except OSError as error:
        raise CommandError(f"can't write to the store at EXPORT_STORE_URL: {error.strerror}") from None
    async with opened(settings) as database:
        await seed_profile(database, user_id, sample.quick_pass_sections() if export is None else {})
    return seeded


def _store_folder(settings: Settings) -> Path:
    parts = urlsplit(required(settings.export_store_url, "EXPORT_STORE_URL"))
    if parts.scheme != "file":
        raise CommandError(
            "'sandbox seed' writes to a store in a folder alone (EXPORT_STORE_URL=file:///…); upload the export yourself"
        )
    return Path(unquote(parts.path))
