"""How the stand-in counts tokens: close enough to bill, to limit and to cut by, and the same every time."""

from __future__ import annotations

import re

CHARS_PER_TOKEN = 4
OTHER_CHARS_PER_TOKEN = 2

_CJK = re.compile("[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_OTHER = re.compile("[\u0080-\U0010ffff]")


def count_tokens(text: str) -> int:
    """About four characters of ASCII a token, two of other scripts, one of Chinese, Japanese or Korean."""
    if text.isascii():
        return -(-len(text) // CHARS_PER_TOKEN)
    beyond = len(_OTHER.findall(text))
    cjk = len(_CJK.findall(text))
    quarters = len(text) - beyond + (beyond - cjk) * (CHARS_PER_TOKEN // OTHER_CHARS_PER_TOKEN) + cjk * CHARS_PER_TOKEN
    return -(-quarters // CHARS_PER_TOKEN)


def cut_to_tokens(text: str, tokens: int) -> str:
    """The longest beginning of `text` that counts at most `tokens`."""
    if count_tokens(text) <= tokens:
        return text
    low, high = 0, min(len(text), tokens * CHARS_PER_TOKEN)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[:middle]) <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]
