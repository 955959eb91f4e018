"""Which kind of question a request is, told by its schema alone, and the answer made from the request's own text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sandbox.anthropic.facts import facts_in
from sandbox.anthropic.fitting import ABSENT, Words, fit
from sandbox.anthropic.reduction import Facts, facts_object, memory_of, reduce_facts
from sandbox.anthropic.sections import sections_of
from sandbox.anthropic.speech import has_speech, sentences, sentences_of_user

_SENTENCES_OF_AN_ANSWER = 3


class Kind(StrEnum):
    """What a request asks for; the values of `match.kind` and of the record."""

    FACTS = "facts"
    REDUCTION = "reduction"
    MEMORY = "memory"
    SECTIONS = "sections"
    OTHER = "other"
    COUNT_TOKENS = "count_tokens"
    BATCH = "batch"
    BATCH_STATUS = "batch_status"
    MODELS = "models"


@dataclass(frozen=True, slots=True)
class Question:
    """A messages request as the answer sees it. `given` are the facts that stand in it as JSON."""

    kind: Kind
    text: str
    schema: dict[str, Any] | None
    max_tokens: int
    given: Facts | None


def question_of(params: Any) -> Question:
    """Read a messages request of any shape; what can't be read is of the kind `other` and without text."""
    params = params if isinstance(params, dict) else {}
    schema = _schema_of(params)
    properties = schema.get("properties") if schema else None
    text = text_of_user(params)
    max_tokens = params.get("max_tokens")
    budget = max_tokens if isinstance(max_tokens, int) else 0
    if isinstance(properties, dict) and "preferences" in properties:
        given = None if has_speech(text) else facts_object(text)
        return Question(Kind.FACTS if given is None else Kind.REDUCTION, text, schema, budget, given)
    if isinstance(properties, dict) and "soul" in properties:
        return Question(Kind.SECTIONS, text, schema, budget, None)
    given = facts_object(text) if schema is None else None
    return Question(Kind.OTHER if given is None else Kind.MEMORY, text, schema, budget, given)


def _schema_of(params: dict[str, Any]) -> dict[str, Any] | None:
    config = params.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    return schema if isinstance(schema, dict) else None


def text_of_user(params: dict[str, Any]) -> str:
    """The text of the user's messages, in order."""
    messages = params.get("messages")
    turns = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    return "\n\n".join(text_of(turn.get("content")) for turn in turns if turn.get("role") == "user")


def text_of(content: Any) -> str:
    """The text of a message's content or of a system prompt: a string, or blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str))


def answer_to(question: Question) -> str:
    """The whole answer, before any limit on its tokens."""
    if question.kind is Kind.MEMORY and question.given is not None:
        return memory_of(question.given, question.max_tokens)
    if question.schema is None:
        return " ".join(_own_sentences(question.text)[:_SENTENCES_OF_AN_ANSWER])
    candidate = _candidate(question)
    lacking = not isinstance(candidate, dict) or not set(question.schema.get("properties", {})) <= set(candidate)
    words = Words(_own_sentences(question.text) if lacking or question.kind is Kind.SECTIONS else ())
    return json.dumps(fit(candidate, question.schema, words), ensure_ascii=False)


def _candidate(question: Question) -> Any:
    if question.kind is Kind.REDUCTION and question.given is not None:
        return reduce_facts(question.given)
    if question.kind is Kind.FACTS:
        return facts_in(question.text)
    if question.kind is Kind.SECTIONS:
        return sections_of(question.text)
    return ABSENT


def _own_sentences(text: str) -> list[str]:
    return list(sentences_of_user(text)) or sentences(text)
