"""Names that are made up, always the same for the same words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

FORBIDDEN = frozenset({"assistant", "helper", "ai", "bot", "buddy"})

_SYLLABLES = ("ka", "lo", "mi", "ren", "sa", "tor", "vi", "wen", "zu", "bel", "dor", "fa", "ga", "hol", "jun", "nia")
_HEAD_CHARS = 4


def creative_name(words: Sequence[str]) -> str:
    """A blend of the first two words, or of syllables that the words pick; never a forbidden name."""
    letters = [word for word in words if word.isalpha()]
    if len(letters) > 1:
        first, second = letters[0], letters[1]
        blend = (first[:_HEAD_CHARS] + second[len(second) // 2 :]).capitalize()
        if blend.casefold() not in FORBIDDEN and blend.casefold() not in letters:
            return blend
    digest = hashlib.sha256("\n".join(words).encode("utf-8", "replace")).digest()
    return "".join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest[:3]).capitalize()


def archetype(words: Sequence[str]) -> str:
    """Two of the words, or one made up to go with what there is: an archetype has two to four words."""
    chosen = [word.capitalize() for word in words[:2]]
    while len(chosen) < 2:
        chosen.append(creative_name((*words, str(len(chosen)))))
    return " ".join(chosen)
