"""What stands in README, .env.example and docker-compose.yml is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from consumer.commands import app
from consumer.settings import Settings, is_secret, variable_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIELDS = {variable_of(name, field): field for name, field in Settings.model_fields.items()}
NEEDED = {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "EXPORT_STORE_URL", "ANTHROPIC_API_KEY"}


def env_example() -> dict[str, tuple[str, bool]]:
    """Variable → its value and whether it is commented out."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line) for line in lines]
    return {match[2]: (match[3], bool(match[1])) for match in found if match}


def test_env_example_lists_every_setting_and_nothing_else() -> None:
    assert env_example().keys() == FIELDS.keys()


@pytest.mark.parametrize("variable", FIELDS)
def test_env_example_shows_the_default(variable: str) -> None:
    value, commented = env_example()[variable]
    assert commented == (variable not in NEEDED)
    default = FIELDS[variable].default
    assert value == ("" if default is None else f"{default:g}" if isinstance(default, float) else str(default))


@pytest.mark.parametrize("variable", FIELDS)
def test_env_example_explains_the_setting_as_the_settings_class_does(variable: str) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    explanation = re.search(rf"^# (.*)\n#?{variable}=", text, re.MULTILINE)
    assert explanation is not None
    assert explanation[1].startswith(str(FIELDS[variable].description))
    assert ("also as a file" in explanation[1]) == is_secret(FIELDS[variable])


def commands() -> list[str]:
    """Every command line with `full-pass` in code of the documents."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for code in re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
            lines = "\n".join(code).splitlines()
            found += [
                match[1].strip() for line in lines for match in [re.search(r"\bfull-pass ([a-z][^\")&;#]*)", line)] if match
            ]
    return sorted(set(found))


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_documents_exists_with_its_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)
    context = click.Context(command)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name} in {line}"
        command = found
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_of_a_document_exists(document: Path) -> None:
    named = set(
        re.findall(r"\b(?:FULL_PASS|KAFKA|ANTHROPIC)_[A-Z_]+[A-Z]\b|\bDATABASE_URL\b", document.read_text(encoding="utf-8"))
    )
    known = FIELDS.keys() | {f"{variable}_FILE" for variable, field in FIELDS.items() if is_secret(field)}
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert "://" in target or (document.parent / target).exists(), target
