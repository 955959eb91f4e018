"""What the stand-in takes for a schema, and that everything it makes fits."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from sandbox.anthropic.answers import Kind, answer_to, question_of
from sandbox.anthropic.fitting import ABSENT, Words, fit
from sandbox.anthropic.schema_rules import first_violation

STRING = {"type": "string"}


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({**object_of(a=STRING), "additionalProperties": True}, "additionalProperties"),
        ({"type": "object", "properties": {}, "required": []}, "additionalProperties"),
        ({**object_of(a=STRING, b=STRING), "required": ["a"]}, "missing: b"),
        (object_of(a={"type": "array", "items": {"type": "object"}}), "additionalProperties"),
        (object_of(a={"$ref": "#/$defs/A"}), "$ref"),
        ({**object_of(a=STRING), "$defs": {}}, "$defs"),
        (object_of(a={"type": "string", "maxLength": 3}), "maxLength"),
        (object_of(a={"type": "integer", "minimum": 3}), "minimum"),
        (object_of(a={"type": "array", "items": STRING, "minItems": 3}), "minItems"),
        (object_of(a={"type": "array", "items": STRING, "maxItems": 3}), "maxItems"),
        (object_of(a={"type": "text"}), "text"),
        (object_of(a={}), "None"),
        (object_of(a={"anyOf": [STRING, {"type": "object"}]}), "additionalProperties"),
        ("no schema", "dictionary"),
    ],
)
def test_a_schema_that_the_api_refuses_is_refused(schema: Any, says: str) -> None:
    assert says in str(first_violation(schema))


def test_a_schema_that_keeps_the_rules_is_taken() -> None:
    schema = object_of(
        a=STRING,
        b={"type": "array", "items": object_of(c={"type": "integer"}), "minItems": 1},
        d={"anyOf": [STRING, {"type": "null"}]},
        e={"enum": ["x", "y"]},
        f={"type": ["string", "null"]},
    )
    assert first_violation(schema) is None


def random_schema(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "anyOf"] + ["object", "array"] * (3 if depth < 3 else 0)
    kind = dice.choice(kinds)
    if kind == "object" or depth == 0:
        return object_of(**{f"p{n}": random_schema(dice, depth + 1) for n in range(dice.randint(0, 4))})
    if kind == "array":
        return {"type": "array", "items": random_schema(dice, depth + 1), "minItems": dice.randint(0, 1)}
    if kind == "enum":
        return {"enum": ["x", "y", 3, None]}
    if kind == "anyOf":
        return {"anyOf": [random_schema(dice, depth + 1), {"type": "null"}]}
    return {"type": kind}


@pytest.mark.parametrize("seed", [random.randrange(2**32)], ids=lambda seed: f"seed {seed}")
def test_whatever_it_makes_fits_the_schema(seed: int) -> None:
    dice = random.Random(seed)
    candidates = [
        ABSENT,
        None,
        "text",
        3,
        2.5,
        True,
        [],
        ["a", 1],
        {"p0": {"p1": [1]}, "p1": "x"},
        [{"p0": None}],
        {"p0": [], "p1": []},
    ]
    for _ in range(300):
        schema = random_schema(dice)
        assert first_violation(schema) is None
        for candidate in candidates:
            jsonschema.validate(fit(candidate, schema, Words(["One sentence.", "Another."])), schema)


def test_a_schema_of_no_known_kind_is_answered_with_sentences_of_the_text() -> None:
    params = {
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Rain fell. The river rose."}],
        "output_config": {"format": {"type": "json_schema", "schema": object_of(a=STRING, b=STRING)}},
    }
    question = question_of(params)
    assert question.kind is Kind.OTHER
    assert json.loads(answer_to(question)) == {"a": "Rain fell.", "b": "The river rose."}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("User: I like tea.", Kind.FACTS),
        ("nothing", Kind.FACTS),
        ('User: {"preferences": ["x"]}', Kind.FACTS),
        ('<facts>{"preferences": ["User: I like tea."]}</facts>', Kind.REDUCTION),
    ],
)
def test_facts_are_told_from_a_reduction_by_what_stands_in_the_message(text: str, kind: Kind) -> None:
    schema = object_of(preferences={"type": "array", "items": STRING})
    params = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    assert question_of(params).kind is kind


@pytest.mark.parametrize("params", [None, 3, [], {"messages": 3}, {"messages": [3]}, {"output_config": {"format": 3}}])
def test_a_request_of_any_shape_is_of_some_kind(params: Any) -> None:
    assert question_of(params).kind is Kind.OTHER
