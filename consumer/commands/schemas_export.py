"""`full-pass schemas`: the contract as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consumer.commands.output import AsJson, print_json
from consumer.errors import CommandError
from schemas.documents import documents

app = typer.Typer(help="The contract of the events.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `export` a command of its own, also while it is the only one."""


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


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror}") from None
