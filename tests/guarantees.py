"""Write into `docs/guarantees.md` which tests name which guarantee: `python -m tests.guarantees`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"
_HEADING = "## The tests that name them\n"


def marked() -> dict[str, list[tuple[str, str]]]:
    """File and name of each test that is marked with a guarantee, by guarantee."""
    found: dict[str, list[tuple[str, str]]] = {f"G{number}": [] for number in range(1, 12)}
    for path in sorted(TESTS.rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for guarantee in _guarantees(function):
                    found[guarantee].append((path.relative_to(TESTS.parent).as_posix(), function.name))
    return found


def _guarantees(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.guarantee":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def listed() -> str:
    """The section of the page that is written by this program."""
    sections = []
    for guarantee, tests in marked().items():
        lines = [f"- {_as_sentence(name)} ([{path.rsplit('/', 1)[-1]}](../{path}))" for path, name in tests]
        sections.append(f"### {guarantee}\n\n" + "\n".join(lines) + "\n")
    return _HEADING + "\n" + "\n".join(sections)


def _as_sentence(name: str) -> str:
    return re.sub("_", " ", name.removeprefix("test_"))


def page() -> str:
    """The page as it should be."""
    return PAGE.read_text(encoding="utf-8").partition(_HEADING)[0] + listed()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
