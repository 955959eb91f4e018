"""A strict parser of the fence: what it can't read is no request of ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_OPENING = re.compile(r'<(?P<kind>[a-z]+)-(?P<code>[0-9a-f]{12})(?P<attributes>(?: [a-z]+="(?:[^"\\]|\\.)*")*)>\n')
_ATTRIBUTE = re.compile(r' ([a-z]+)=("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class Fence:
    """What stands between two tags, and what the first of them says of it."""

    kind: str
    attributes: dict[str, str]
    text: str


def fences_in(user: str) -> list[Fence]:
    """The fences that a user message consists of, separated by a blank line. All have one code, which stands nowhere else."""
    found, code, place = [], None, 0
    while True:
        opening = _OPENING.match(user, place)
        assert opening is not None, f"no fence begins at {place}"
        code = code or opening["code"]
        closing = f"\n</{opening['kind']}-{code}>"
        end = user.index(closing, opening.end() - 1)
        attributes = {name: json.loads(quoted) for name, quoted in _ATTRIBUTE.findall(opening["attributes"])}
        found.append(Fence(opening["kind"], attributes, user[opening.end() : end]))
        place = end + len(closing)
        if place == len(user):
            break
        assert user.startswith("\n\n", place), f"something stands behind the fence that ends at {place}"
        place += 2
    assert user.count(code) == 2 * len(found)
    return found
