"""`full-pass schemas`: the contract as files, and held against the one that was released last."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from consumer.commands.output import AsJson, print_json
from consumer.errors import CommandError
from schemas.compatibility import Contract, breaking_changes, latest_release, read_contract
from schemas.documents import contract, documents
from schemas.events import QuickPassCompleted

app = typer.Typer(help="The contract of the events.", no_args_is_help=True)


@app.command()
def export(
    folder: Annotated[Path, typer.Option("--to", help="The folder to write to.", file_okay=False)] = Path("schemas"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file differs from the models.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the JSON Schema of each event and the AsyncAPI document."""
    files = {folder / name: text for name, text in documents().items()}
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise CommandError(f"{stale[0]} is not what the models say; run 'full-pass schemas export'")
    if not check:
        for path in stale:
            _write(path, files[path])
    if as_json:
        print_json({"files": [str(path) for path in files], "written": [] if check else [str(path) for path in stale]})
    else:
        typer.echo(f"{len(files)} files in {folder}, {'all' if check else len(files) - len(stale)} up to date before")


@app.command()
def compare(
    released: Annotated[
        Path, typer.Option("--with", help="Released contracts: a folder per version. The latest counts.", file_okay=False)
    ] = Path("schemas/released"),
    as_json: AsJson = False,
) -> None:
    """Hold the contract against the last released one.

    It fails where a publisher that was built against that could be refused, or a reader not be served, and names the field.
    """
    version = latest_release(released)
    if version is None:
        raise CommandError(f"{released} holds no released contract; 'full-pass schemas export --to' writes one")
    broken = breaking_changes(_read(released / version), contract(), frozenset({QuickPassCompleted.event_type}))
    if as_json:
        print_json({"released": version, "breaking": broken})
    if broken:
        raise CommandError(f"the contract breaks with {version}: {'; '.join(broken)}")
    if not as_json:
        typer.echo(f"the contract serves whoever was built against {version}")


def _read(folder: Path) -> Contract:
    try:
        return read_contract(folder)
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CommandError(
            f"{folder} holds no contract as 'full-pass schemas export' writes it ({type(error).__name__})"
        ) from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror}") from None
