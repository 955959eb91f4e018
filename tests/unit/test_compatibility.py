"""Which changes of the contract break somebody who was built against the last release."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.compatibility import breaking_changes, latest_release, read_contract
from schemas.documents import CONTRACT_VERSION, contract
from schemas.events import EVENTS, QuickPassCompleted, V2Completed, V2Failed
from schemas.examples import EXAMPLES

RELEASED = Path(__file__).parents[2] / "schemas" / "released"
INCOMING = frozenset({QuickPassCompleted.event_type})
Change = Callable[[dict[str, Any]], None]

SCHEMA: dict[str, Any] = {
    "$id": "urn:e:1",
    "type": "object",
    "required": ["text", "number"],
    "$defs": {"Inner": {"type": "object", "required": ["deep"], "properties": {"deep": {"type": "string"}}}},
    "properties": {
        "text": {"type": "string", "minLength": 2, "maxLength": 9, "pattern": "^a", "format": "uuid"},
        "number": {"type": "number", "minimum": 0},
        "whole": {"type": "integer"},
        "maybe": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
        "code": {"type": "string", "enum": ["a", "b"]},
        "list": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "inner": {"$ref": "#/$defs/Inner"},
    },
}


def change_of(path: str, value: Any = None) -> Change:
    """Set what lies at the path, or take it away where no value is given."""

    def change(schema: dict[str, Any]) -> None:
        *way, last = path.split("/")
        place: Any = schema
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


def changed(schema: dict[str, Any], *changes: Change) -> dict[str, Any]:
    new = copy.deepcopy(schema)
    for change in changes:
        change(new)
    return new


# What was changed → which field breaks an old publisher, and which an old reader; None where nobody is hurt.
CHANGES: dict[str, tuple[Change, str | None, str | None]] = {
    "nothing": (change_of("title", "other words"), None, None),
    "an optional field is added": (change_of("properties/more", {"type": "string"}), None, None),
    "a field is removed": (change_of("properties/whole"), "whole", "whole"),
    "a field becomes required": (change_of("required", ["text", "number", "whole"]), "whole", None),
    "a field becomes optional": (change_of("required", ["text"]), None, "number"),
    "a type changes": (change_of("properties/whole", {"type": "string"}), "whole", "whole"),
    "a type widens": (change_of("properties/whole", {"type": "number"}), None, "whole"),
    "a type narrows": (change_of("properties/number", {"type": "integer", "minimum": 0}), "number", None),
    "a type goes": (change_of("properties/whole", {"title": "any"}), None, "whole"),
    "a field becomes nullable": (change_of("properties/whole", {"type": ["integer", "null"]}), None, "whole"),
    "a field is null no more": (change_of("properties/maybe", {"type": "string", "maxLength": 5}), "maybe", None),
    "an alternative narrows": (change_of("properties/maybe/anyOf/0/maxLength", 4), "maybe", None),
    "an alternative widens": (change_of("properties/maybe/anyOf/0/maxLength"), None, "maybe"),
    "an enum value is added": (change_of("properties/code/enum", ["a", "b", "c"]), None, "code"),
    "an enum value is removed": (change_of("properties/code/enum", ["a"]), "code", None),
    "an enum becomes a constant": (change_of("properties/code", {"const": "a"}), "code", None),
    "an enum is given up": (change_of("properties/code/enum"), None, "code"),
    "a text becomes an enum": (change_of("properties/text/enum", ["aaa"]), "text", None),
    "a bound is tightened": (change_of("properties/text/maxLength", 8), "text", None),
    "a bound is loosened": (change_of("properties/text/maxLength", 10), None, "text"),
    "a lower bound is tightened": (change_of("properties/number/minimum", 1), "number", None),
    "a lower bound is loosened": (change_of("properties/number/minimum", -1), None, "number"),
    "a bound is added": (change_of("properties/whole/maximum", 7), "whole", None),
    "a bound is taken away": (change_of("properties/list/minItems"), None, "list"),
    "a pattern changes": (change_of("properties/text/pattern", "^b"), "text", "text"),
    "a pattern is added": (change_of("properties/code/pattern", "."), "code", None),
    "a format is taken away": (change_of("properties/text/format"), None, "text"),
    "a keyword that isn't known is added": (change_of("properties/inner/not", {}), "inner", None),
    "an item's type changes": (change_of("properties/list/items", {"type": "integer"}), "list[]", "list[]"),
    "items are described no more": (change_of("properties/list/items"), None, "list[]"),
    "a nested field is removed": (change_of("$defs/Inner/properties/deep"), "inner.deep", "inner.deep"),
    "a nested field becomes optional": (change_of("$defs/Inner/required"), None, "inner.deep"),
    "unknown fields are forbidden": (change_of("additionalProperties", False), "(all)", None),
}  # fmt: skip


def breaks(old: dict[str, Any], new: dict[str, Any], *, incoming: bool) -> list[str]:
    """The fields that break."""
    lines = breaking_changes(
        {"e": {"payload": old}}, {"e": {"payload": new}}, frozenset({"e"}) if incoming else frozenset()
    )  # fmt: skip
    return [line.split(": ")[1] for line in lines]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_breaks_publishers_or_readers_and_names_the_field(name: str) -> None:
    change, publishers, readers = CHANGES[name]
    new = changed(SCHEMA, change)
    assert breaks(SCHEMA, new, incoming=True) == ([publishers] if publishers else [])
    assert breaks(SCHEMA, new, incoming=False) == ([readers] if readers else [])


@pytest.mark.parametrize("name", [name for name, (_, *broken) in CHANGES.items() if broken.count(None) == 1])
def test_what_breaks_one_side_alone_breaks_the_other_when_it_is_taken_back(name: str) -> None:
    """Both directions are one comparison, seen from either end."""
    change, publishers, readers = CHANGES[name]
    new = changed(SCHEMA, change)
    assert breaks(new, SCHEMA, incoming=True) == ([readers] if readers else [])
    if name != "unknown fields are forbidden":
        assert breaks(new, SCHEMA, incoming=False) == ([publishers] if publishers else [])


def test_a_new_field_that_is_required_breaks_publishers_and_serves_readers() -> None:
    more = changed(SCHEMA, change_of("properties/more", {"type": "string"}), change_of("required", ["text", "number", "more"]))
    assert breaks(SCHEMA, more, incoming=True) == ["more"]
    assert breaks(SCHEMA, more, incoming=False) == []


def test_a_new_field_breaks_a_reader_whose_schema_took_no_others() -> None:
    closed = changed(SCHEMA, change_of("additionalProperties", False))
    more = changed(closed, change_of("properties/more", {"type": "string"}))
    assert breaks(closed, more, incoming=False) == ["(all)"]
    assert breaks(closed, more, incoming=True) == []
    assert breaks(closed, SCHEMA, incoming=False) == ["(all)"]


def test_several_breaks_are_all_told() -> None:
    new = changed(SCHEMA, change_of("properties/whole"), change_of("properties/code/enum", ["b", "c", "d"]))
    assert breaks(SCHEMA, new, incoming=False) == ["whole", "code", "code"]


def test_an_event_that_is_gone_breaks_and_one_that_is_new_does_not() -> None:
    one = {"payload": SCHEMA}
    assert breaking_changes({"e": one}, {"f": one}, frozenset()) == ["e: the event is gone"]
    assert breaking_changes({"e": one}, {"e": one, "f": one}, frozenset()) == []


def test_a_break_is_let_through_under_another_number() -> None:
    """It is how a break is announced: readers see it in `ce_dataschema` before they read the data."""
    new = changed(SCHEMA, change_of("properties/whole"), change_of("$id", "urn:e:2"))
    assert breaks(SCHEMA, new, incoming=False) == []


def test_the_contract_serves_whoever_was_built_against_the_last_release() -> None:
    version = latest_release(RELEASED)
    assert version is not None
    assert breaking_changes(read_contract(RELEASED / version), contract(), INCOMING) == []


def test_a_contract_that_takes_or_sends_anything_else_has_a_higher_version_than_the_last_release() -> None:
    """Whoever says that they were built against 1.0.0 means the same fields as everybody else who says so."""
    version = latest_release(RELEASED)
    assert version is not None
    as_numbers = [[int(part) for part in each.split(".")] for each in (version, CONTRACT_VERSION)]
    assert as_numbers[0] <= as_numbers[1]
    if version == CONTRACT_VERSION:
        released, everything = read_contract(RELEASED / version), frozenset(event.event_type for event in EVENTS)
        for incoming in (everything, frozenset[str]()):
            assert breaking_changes(released, contract(), incoming) == breaking_changes(contract(), released, incoming) == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_an_event_of_today_fits_the_schema_of_every_release(event: Any) -> None:
    """What the comparison promises, seen with a validator."""
    data = json.loads(EXAMPLES[event].model_dump_json(exclude_none=event is QuickPassCompleted))
    for folder in RELEASED.iterdir():
        Draft202012Validator(read_contract(folder)[event.event_type]["payload"]).validate(data)


def test_a_break_of_the_real_contract_is_told_with_event_and_field() -> None:
    new = json.loads(json.dumps(contract()))
    old = json.loads(json.dumps(contract()))
    del new[V2Completed.event_type]["payload"]["$defs"]["Usage"]["properties"]["cost_usd"]
    new[V2Failed.event_type]["payload"]["$defs"]["ErrorCode"]["enum"].append("tired")
    new[V2Failed.event_type]["headers"]["required"].remove("ce_id")
    new[QuickPassCompleted.event_type]["payload"]["required"].append("message_count")
    assert breaking_changes(old, new, INCOMING) == [
        "quick-pass-completed: message_count: was optional and is required (an old publisher may send what is refused now)",
        "v2-completed: usage.cost_usd: the field is gone (an old reader does not expect it)",
        "v2-failed: header ce_id: was required and is optional (an old reader does not expect it)",
        "v2-failed: error_code: the value 'tired' is new (an old reader does not expect it)",
    ]


def test_the_latest_release_is_the_highest_by_number(tmp_path: Path) -> None:
    assert latest_release(tmp_path / "nowhere") is latest_release(tmp_path) is None
    for name in ("1.9.0", "1.10.0", "notes", "1.2"):
        (tmp_path / name).mkdir()
    assert latest_release(tmp_path) == "1.10.0"


def test_a_release_that_is_no_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_contract(tmp_path)
    shutil.copytree(RELEASED / "1.0.0", tmp_path / "1.0.0")
    (tmp_path / "1.0.0" / "json" / "v2-failed.schema.json").unlink()
    with pytest.raises(FileNotFoundError):
        read_contract(tmp_path / "1.0.0")
