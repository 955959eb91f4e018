"""The five personality sections, each field chosen out of the user's own sentences and words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.anthropic.names import archetype, creative_name
from sandbox.anthropic.speech import sentences, sentences_of_user

_NOT_ENOUGH = "not enough data"
_LONGEST_CHARS = 200
_MOST_SENTENCES = 5_000
_SHORTEST_WORD = 4

_WORD = re.compile(r"[^\W\d_]{4,24}")
_SHORT_WORD = re.compile(r"[^\W\d_]{2,24}")
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_STOP_WORDS = frozenset(
    """about after again also always another because been before being between both came come could does doesn't doing
    done down each even every first from gave getting give goes going gone good have having here into just keep
    know last like little long look made make many maybe more most much must need never next only other over
    part people please quite really right said same should since some something still such take than thank
    thanks that their them then there these they thing things think this those through time today used user very
    want well went were what when where which while will with without would year years your yours yes prefer
    name love hate working feel help tell call called wants needs live moved started keep decided""".split()
)
_NAME = r"([A-Z][\w'’-]+(?: [A-Z][\w'’-]+)?)"


@dataclass(frozen=True, slots=True)
class Portrait:
    """What the fields are chosen from: the user's sentences in order, and their most frequent words first."""

    sentences: tuple[str, ...]
    words: tuple[str, ...]


def portrait_of(text: str) -> Portrait:
    """Read the user out of the text; where nobody speaks as the user, the whole text counts."""
    said = [sentence for sentence, _ in zip(sentences_of_user(text), range(_MOST_SENTENCES), strict=False)]
    said = said or sentences(text)[:_MOST_SENTENCES]
    joined = "\n".join(said)
    counted = Counter(word for word in _WORD.findall(joined.casefold()) if word not in _STOP_WORDS)
    words = [word for word, _ in counted.most_common(40)] or list(dict.fromkeys(_SHORT_WORD.findall(joined)))[:40]
    return Portrait(tuple(said), tuple(words))


def sections_of(text: str) -> dict[str, dict[str, Any]]:
    """A candidate for every field of the five sections, which `fit` then bends to the schema asked for."""
    portrait = portrait_of(text)
    used: set[str] = set()
    return {section: {name: choose(portrait, used) for name, choose in fields.items()} for section, fields in _SECTIONS.items()}


Choose = Callable[[Portrait, set[str]], Any]


def _sentence(cue: str) -> Choose:
    """The first sentence with the cue that no other field has taken."""
    pattern = re.compile(cue, re.IGNORECASE)

    def choose(portrait: Portrait, used: set[str]) -> str:
        found = next((said for said in portrait.sentences if said not in used and pattern.search(said)), None)
        if found is None:
            return _NOT_ENOUGH
        used.add(found)
        return _shortened(found)

    return choose


def _several(cue: str, least: int = 0, most: int = 7) -> Choose:
    """Up to `most` sentences with the cue; where they are fewer than `least`, the user's most frequent words join them."""
    pattern = re.compile(cue, re.IGNORECASE)

    def choose(portrait: Portrait, used: set[str]) -> list[str]:
        found: list[str] = []
        for said in portrait.sentences:
            if len(found) == most:
                break
            if said not in used and pattern.search(said):
                used.add(said)
                found.append(_shortened(said))
        fillers = (*portrait.words, *creative_names(portrait))
        spare = [filler for filler in fillers if filler not in found]
        return [*found, *spare[: max(0, least - len(found))]]

    return choose


def creative_names(portrait: Portrait) -> list[str]:
    """Made-up words for lists that have to hold something although the user hardly spoke."""
    return [creative_name((*portrait.words, str(number))) for number in range(7)]


def _named(*patterns: str) -> Choose:
    """The first group of the first pattern that any sentence holds."""
    compiled = [re.compile(pattern) for pattern in patterns]

    def choose(portrait: Portrait, used: set[str]) -> str:
        del used
        for pattern in compiled:
            for said in portrait.sentences:
                if found := pattern.search(said):
                    return _shortened(found.group(1).strip(" .,!"))
        return _NOT_ENOUGH

    return choose


def _shortened(sentence: str) -> str:
    if len(sentence) <= _LONGEST_CHARS:
        return sentence
    return sentence[:_LONGEST_CHARS].rsplit(" ", 1)[0]


def _interests(portrait: Portrait, used: set[str]) -> list[str]:
    del used
    return list(portrait.words[:6])


def _emoji(portrait: Portrait, used: set[str]) -> str:
    del used
    found = dict.fromkeys(emoji for said in portrait.sentences for emoji in _EMOJI.findall(said))
    return " ".join(list(found)[:5]) or _NOT_ENOUGH


_USER_NAME = (
    rf"\b[Mm]y name(?: is|['’]s) {_NAME}",
    rf"\b[Cc]all me {_NAME}",
    rf"\bI['’]m {_NAME}(?=[,.!]|$)",
    rf"\bI am {_NAME}(?=[,.!]|$)",
)

_SECTIONS: dict[str, dict[str, Choose]] = {
    "soul": {
        "communication_style": _sentence(r"\b(short|brief|concise|detail|explain|answers?|repl(y|ies)|to the point|direct)\b"),
        "personality_traits": _several(r"\bI(['’]m| am) (an?|very|quite|always|not|really|usually)\b", least=3, most=5),
        "tone_preferences": _sentence(r"\b(tone|polite|friendly|warm|blunt|formal|casual|kind)\b"),
        "boundaries": _sentence(r"\b(never|don['’]t|do not|stop|avoid|rather not)\b"),
        "humor_style": _sentence(r"\b(jok(e|es|ing)|fun|funny|humou?r|puns?|sarcas\w+|laugh\w*|haha|lol)\b"),
        "formality_level": _sentence(r"\b(formal|informal|casual|please|hey|thanks|thank you|hi)\b"),
        "emotional_patterns": _sentence(
            r"\b(feel\w*|worried|anxious|excited|happy|sad|stress\w*|tired|afraid|frustrat\w*|nervous|proud|overwhelmed)\b"
        ),
    },
    "identity": {
        "ai_name": lambda portrait, _: creative_name(portrait.words),
        "archetype": lambda portrait, _: archetype(portrait.words),
        "vibe": _sentence(r"\bI (really )?(love|enjoy|like)\b"),
        "emoji_style": _emoji,
        "signature_greeting": _sentence(r"^(hi|hey|hello|good (morning|evening|afternoon)|yo)\b"),
    },
    "user": {
        "name": _named(*_USER_NAME),
        "location": _named(
            rf"\bI(?:['’]m| am)? (?:live|living|based|moved|moving)(?: in| to) {_NAME}", rf"\bI(?:['’]m| am) from {_NAME}"
        ),
        "occupation": _named(
            r"\bI work as (an? [\w -]{2,40})",
            r"\bI work (?:at|for|in) ([\w '’&-]{2,40})",
            r"\bI(?:['’]m| am) (an? (?:[\w-]+ )?[\w-]+(?:er|or|ist|ian|nurse|student|chef))\b",
        ),
        "relationships": _several(
            r"\b[Mm]y (wife|husband|partner|girlfriend|boyfriend|daughter|son|kids?|children|mother|father|mom|mum|dad|sister|"
            r"brother|parents|friend|dog|cat|boss|grandm\w+|grandf\w+)\b",
            most=5,
        ),
        "interests": _interests,
        "life_context": _sentence(r"\b(mov(ed|ing)|liv(e|ing)|work(ing)?|study(ing)?|family|new job|retired|married)\b"),
        "preferred_address": _named(rf"\b[Cc]all me {_NAME}", *_USER_NAME),
    },
    "agents": {
        "response_style": _sentence(r"\b(prefer|keep it|give me|show me|just|in short|step by step)\b"),
        "behavioral_rules": _several(r"\b(always|please|prefer|remember)\b", least=3, most=7),
        "context_adaptation": _sentence(r"\b(when|if|depends|at work|at home|weekend)\b"),
        "memory_directives": _sentence(r"\b(remember|remind|don['’]t forget|as I (said|mentioned)|last time)\b"),
        "do_not": _several(r"\b(never|don['’]t|do not|no more|stop|hate)\b", most=5),
    },
    "tools": {
        "likely_usage": _several(r"\b(help me|can you|could you|write|plan|explain|how (do|can|should) I)\b", most=5),
        "capabilities_emphasis": lambda portrait, _: list(portrait.words[6:11]),
        "output_preferences": _sentence(r"\b(table|list|bullets?|markdown|code|format|summary|steps|email)\b"),
        "depth_preference": _sentence(r"\b(detail\w*|deep|depth|brief|short|simple|quick|thorough|example)\b"),
    },
}
