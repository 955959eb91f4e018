"""Facts out of conversations: the user's own sentences, told apart by what they begin to say about the user."""

from __future__ import annotations

import re
from typing import Any

from sandbox.anthropic.speech import messages_of_user, sentences

CATEGORIES = ("preferences", "projects", "dates", "beliefs", "decisions")
_NAME_WORDS = 6

_ADVERBS = (
    r"(?: (?:really|also|still|just|usually|much|actually|now|absolutely|only|currently|finally|firmly|honestly|"
    r"strongly|generally|sometimes|definitely|truly|do|been|recently|have|had))*"
)
_I = rf"\b(?:I|We|we)(?:['’](?:m|ve|re)| am| have| are)?{_ADVERBS}"
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December|"
    r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b"
)
_DAY = r"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)\b"

_FIRST_PERSON = re.compile(r"\b(?:I|[Mm]y|[Ww]e|[Oo]ur|[Pp]lease)\b")
_QUESTION = re.compile(
    r"(?:what|how|why|when|where|which|who|whose|should|can|could|do|does|did|is|are|am|would|will|may)\b", re.IGNORECASE
)
_DECISION = re.compile(
    rf"{_I} (?:decided|chose|chosen|settled on|going with|picked|opted|switched to|switching to|quit|gave up|"
    r"made up my mind|gone with|went with)\b"
)
_PROJECT = re.compile(
    rf"{_I} (?:working on|building|started|developing|creating|launched|launching|renovating|restoring|"
    r"(?:writing|planning|making|designing) (?:a|an|my|the|our))\b|"
    r"\b[Mm]y (?:side |pet |new |current )?(?:project|startup|app|novel|thesis|blog|business|podcast)\b"
)
_DATE = re.compile(
    rf"\b\d{{4}}-\d{{2}}-\d{{2}}\b|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? \d{{4}})?|"
    rf"\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? \d{{4}})?|\b(?:next|this|on) {_DAY}|"
    rf"\bin {_MONTH}(?: \d{{4}})?|\bnext (?:week|month|weekend|year|spring|summer|autumn|fall|winter)\b|"
    r"\btomorrow\b|\b[Bb]irthday\b|\b[Aa]nniversary\b"
)
_PREFERENCE = re.compile(
    rf"{_I} (?:prefer|like|love|hate|enjoy|dislike|adore|avoid|always|never|can['’]t stand|don['’]t (?:like|want|eat|drink)|"
    r"want(?! to (?:know|ask|understand|see)\b)|into|allergic|vegan|vegetarian|a fan of|not a fan)\b|"
    r"\b[Ii]['’]d rather\b|\b[Mm]y favou?rite\b|\b[Pp]lease (?:always|never|don['’]t)\b"
)
_BELIEF = re.compile(
    rf"{_I} (?:believe|think|value|feel that|convinced|care about|don['’]t (?:believe|think))\b|"
    r"\b[Ii]n my (?:opinion|view)\b|\bimportant to me\b|\bmatters? to me\b"
)
_QUOTED = re.compile(r"[\"“«`]([^\"”»`\n]{2,60})[\"”»`]")
_CAPITALISED = re.compile(r"(?<=[a-z,;:] )(?!I\b)([A-Z][\w+#-]*(?: [A-Z][\w+#-]*)*)")
_PHRASE_END = re.compile(r"[,.;:!?()–—]| (?:because|and|but|so|which|that|since|for|with)\b")
_BECAUSE = re.compile(r"\b(?:because|since|so that)\b.*", re.IGNORECASE | re.DOTALL)


def facts_in(text: str) -> dict[str, list[Any]]:
    """What the user says about themselves in the conversations of `text`: the five categories, every sentence verbatim."""
    facts: dict[str, list[Any]] = {category: [] for category in CATEGORIES}
    for message in messages_of_user(text):
        said = sentences(message)
        for sentence, following in zip(said, [*said[1:], ""], strict=True):
            _add(facts, sentence, following)
    return facts


def _add(facts: dict[str, list[Any]], sentence: str, following: str) -> None:
    """One sentence goes to the first category whose cue it holds; a question that only asks goes nowhere."""
    if not _FIRST_PERSON.search(sentence) or (sentence.endswith("?") and _QUESTION.match(sentence)):
        return
    if _DECISION.search(sentence):
        reason = _BECAUSE.search(sentence)
        facts["decisions"].append({"decision": sentence, "context": reason.group(0) if reason else following})
    elif cue := _PROJECT.search(sentence):
        name = _name_of_project(sentence, cue)
        facts["projects"].append({"name": name, "description": sentence, "details": following})
    elif date := _DATE.search(sentence):
        facts["dates"].append({"event": sentence, "date": date.group(0)})
    elif _PREFERENCE.search(sentence):
        facts["preferences"].append(sentence)
    elif _BELIEF.search(sentence):
        facts["beliefs"].append(sentence)


def _name_of_project(sentence: str, cue: re.Match[str]) -> str:
    """The quoted name, or else the capitalised one after the cue, or else the words that follow it."""
    if quoted := _QUOTED.search(sentence):
        return quoted.group(1)
    if capitalised := _CAPITALISED.search(sentence, max(cue.start() - 1, 0)):
        return capitalised.group(1)
    phrase = _PHRASE_END.split(sentence[cue.end() :], maxsplit=1)[0].split()
    return " ".join(phrase[:_NAME_WORDS]) or cue.group(0)
