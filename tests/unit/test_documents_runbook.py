"""The runbook has a place for whatever an operator is woken by."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from consumer.app import PARTS
from consumer.errors import InvalidReason
from consumer.postgres import database
from schemas.events import ErrorCode

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "consumer").rglob("*.py")))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
# Wherever a part's name is told to readiness: Health's own methods, `_tell`, `supervise`, and what `reasons` adds.
_TOLD = re.compile(r'(?:\.(?:un)?well|\.expect|\bsupervise)\(\s*"(\w+)"|\b_tell\([\w.]+, "(\w+)"|\breasons\["(\w+)"\]')
_ERRORS_OF_PARTS = {"KafkaTrouble", "TopicsMissing", "WebhookUnavailable", "DatabaseUnavailable", "OperatorTrouble"}
_OF_COMMANDS = {
    "publishing.py",
    "reading.py",
    "redriving.py",
    "replaying.py",
    "topics.py",
}  # what they fail with is a command's one line
_NOT_SHOWN = {
    "PostgreSQL was away while the run was under way": "of a run that is handed back",
    "the producer was given up": "to whoever waits for an acknowledgement of it",
    "Kafka stopped answering ()": "of 'dead-letters list'",
    "PostgreSQL at DATABASE_URL ": "the words behind it are told apart below",
}


def section(title: str) -> str:
    """What stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line.strip("|").split(" | ") for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[1:]]


def parts_of_readiness() -> list[str]:
    told = {name for match in _TOLD.finditer(SOURCE) for name in match.groups() if name}
    return sorted(told | set(PARTS))


def anchors(document: Path) -> set[str]:
    """The headings of a document as links name them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("code", ErrorCode)
def test_each_error_code_has_a_row_that_says_what_it_means_what_the_user_has_and_what_to_do(code: ErrorCode) -> None:
    (row,) = [row for row in rows("How a run failed") if row[0] == f"`{code}`"]
    assert len(row) == 4
    assert all(row)


def test_the_table_of_error_codes_has_no_code_that_is_none() -> None:
    assert {row[0].strip("`") for row in rows("How a run failed")} == set(ErrorCode)


def test_the_parts_of_readiness_are_found_in_the_code() -> None:
    """The test below would say nothing if it looked for nothing."""
    assert {"database", "kafka", "model", "budget", "exports", "retention", *PARTS} <= set(parts_of_readiness())


@pytest.mark.parametrize("part", parts_of_readiness())
def test_each_part_that_can_be_unready_has_a_row(part: str) -> None:
    assert [row for row in rows("Not ready") if row[0] == f"`{part}`" and all(row) and len(row) == 3]


def test_a_reason_that_the_runbook_quotes_is_one_that_the_code_gives() -> None:
    """A reason is looked up by its words, so they have to be the same."""
    quoted = [words for row in rows("Not ready") for words in re.findall(r"\*([^*]+)\*", row[1])]
    assert len(quoted) > 30
    # A reason may be written in two pieces of text, one below the other.
    code = re.sub(r'"\s*\n\s*f?"', "", SOURCE)
    assert [words for words in quoted if words not in code] == []


def reasons_in_code() -> Iterator[str]:
    """The words of each error that a part of the worker can fail with, without what is filled in."""
    for path in sorted((ROOT / "consumer").rglob("*.py")):
        if path.name in _OF_COMMANDS or path.parent.name == "commands":
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _ERRORS_OF_PARTS:
                words = "".join(_words(each) for each in call.args)
                if len(words) > 3:
                    yield words


def _words(node: ast.AST) -> str:
    """The constant text in an expression."""
    texts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return "".join(text for text in texts if isinstance(text, str))


def test_every_reason_that_a_part_gives_is_quoted() -> None:
    """A new way to be unready comes with a line in the runbook."""
    quoted = [words for row in rows("Not ready") for words in re.findall(r"\*([^*]+)\*", row[1])]
    reasons = [*(reason for reason in reasons_in_code() if reason not in _NOT_SHOWN), *database._WORDS.values()]
    assert len(reasons) > 25
    assert [reason for reason in reasons if not any(words in reason for words in quoted)] == []


def test_each_reason_of_a_dead_letter_has_a_place() -> None:
    assert {name for row in rows("Dead letters") for name in re.findall(r"`(\w+)`", row[0])} == set(InvalidReason)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_rule_that_wakes_somebody_leads_to_a_section(rule: dict[str, dict[str, str]]) -> None:
    document, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert document == "docs/runbook.md"
    assert anchor in anchors(ROOT / document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_into_a_document_leads_to_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        there = (document.parent / target) if target else document
        assert anchor in anchors(there), f"{target}#{anchor}"
