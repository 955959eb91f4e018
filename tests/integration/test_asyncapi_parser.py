"""The AsyncAPI document as the official parser reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.asyncapi_parser import Parsed, parse

SCHEMAS = Path(__file__).parents[2] / "schemas"
NEWER_IS_OUT = "asyncapi-latest-version"


# File, what stands there, what shall stand there instead, and a word of what the parser says to that.
WRONG = {
    "no such action": ("asyncapi.yaml", "action: send", "action: sends", "action"),
    "no such file": ("asyncapi.yaml", "./json/v2-failed.schema.json", "./json/nowhere.json", "v2-failed"),
    "no such bound": ("json/v2-failed.schema.json", '"minimum": 0', '"minimum": "none"', "minimum"),
}


def damaged(folder: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of the contract with one thing wrong."""
    shutil.copytree(SCHEMAS / "json", folder / "json")
    shutil.copy(SCHEMAS / "asyncapi.yaml", folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert right in text
    (folder / file).write_text(text.replace(right, wrong), encoding="utf-8")
    return folder / "asyncapi.yaml"


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parsed]:
    """What the parser says of the contract and of the damaged copies."""
    documents = {"the contract": SCHEMAS / "asyncapi.yaml"}
    documents |= {name: damaged(tmp_path_factory.mktemp("wrong"), *change[:3]) for name, change in WRONG.items()}
    return dict(zip(documents, parse(list(documents.values())), strict=True))


def test_the_official_parser_takes_the_document_with_its_schemas_and_an_example_of_each_message(
    parsed: dict[str, Parsed],
) -> None:
    found = parsed["the contract"]
    assert {each["code"] for each in found.diagnostics} <= {NEWER_IS_OUT}
    assert {each["name"]: each["examples"] for each in found.messages} == {
        "quick-pass-completed": 1, "memory-saved": 1, "v2-completed": 1, "v2-failed": 1
    }  # fmt: skip
    assert "error_code" in {field for each in found.messages for field in each["fields"]}
    assert sorted(found.sent) == ["memory-saved", "v2-completed", "v2-failed"]


@pytest.mark.parametrize("name", WRONG)
def test_it_refuses_a_document_that_is_wrong(parsed: dict[str, Parsed], name: str) -> None:
    """Else its consent would be worth nothing."""
    assert WRONG[name][3] in " ".join(parsed[name].errors)
