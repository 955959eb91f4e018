"""Exports of every odd shape that sections 1 and 2 of the specification speak of, made by chance."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.unit.exports.spellings import Pairs, Spelling, Token

TEXTS = (
    *("Hello there. ", "a", "b.\nc", " padded\n", "", " ", "\n\t", "\u2003\u00a0", "\x1c\x1f", "\x85", "\u200b", "\ufeff"),
    *("\0", " \0 ", "\ud800", "a\udc00b", "\ud83d\ude00", "\U0001f600", '"', "\\", '\\"', "},{", '{"title": ', "]}", "é", "\x01"),
    *(
        "\u2028",
        "\x7f",
        "null",
        "e\u0301",
        "日本語。",
        " " * 5_001 + "x",
        "x" * 4_999 + "\0\0\0",
        "Some words. " * 20,
        "y " * 3_000,
        " " * 6_000,
    ),
)
NUMBERS = tuple(
    map(Token, ("NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", "1E+2", "0.5e-3", "9" * 400, "0." + "1" * 400))
)
SCALARS = (None, True, False, 0, 1, -1, 7, 1.5, -(2**63), 2**63, 2**64, 10**20, *NUMBERS, "", " ", "a", "b", "user", "all")
ROLES = (*("user", "assistant") * 6, "system", "tool", "User", "human", "")
RECIPIENTS = ("all", "bio", "", " ", "python", "All", "bio.x", None, True, 7, ["python"], {"a": 1})
CONTENT_TYPES = (
    *("text", "code", "multimodal_text", "thoughts", "reasoning_recap"),
    *("user_editable_context", "model_editable_context", "Thoughts", "tether_quote"),
)
NUMBERED_TIMES = (
    *(1714585031, 1714585031.25, 0, -5, 0.5, 86_400.5, 253_402_300_799, 253_402_300_800, 1714585031000, 10**30, -(10**400)),
    *("1714585031.25", " \n1714585031\t", "1e9", "-5", "0", "00012", "1e400", "1_000", "٣", "+7", ".5", "5.", "0x10", "20240102"),
)
NAMED_TIMES = (
    *("2024-05-01T10:20:30", "2024-05-01T10:20:30Z", "2024-05-01T10:20:30.123456+02:00", "2024-05-01 10:20", "2024-05-01"),
    *("2024-W18-3", "2024W183", "20240501T102030", "2024-05-01T10:20:30.123456789Z", " 2024-05-01T10:20:30Z ", "2024-05-01T10"),
    *("1969-12-31T23:59:59Z", "1970-01-01", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59+01:00", "0001-01-01T00:00+14:00"),
    *("2024-13-01", "2024-05-01T10:20:30 UTC", "yesterday", "nan", "inf", "-1e5", "2024-05-01T10:20:30,5Z"),
)
IDS = ("i", "i", "", " ", "a\0", "\ud800", 7, 0, -1, 2**70, True, False, 7.5, Token("-0"), Token("1e3"), None)
KEYS = ("a", "b", "c", "d", "root", "", "é", "mapping", 'q"', "\U0001f600")
HIDDEN, OWN = "is_visually_hidden_from_conversation", "is_user_system_message"


class OddExports:
    """Whatever is asked for, odd more often than not."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def documents(self) -> list[bytes]:
        """The files of an export: mostly one, and if they are several then arrays."""
        count = self._chance.choice([1, 1, 1, 1, 1, 2, 3])
        return [Spelling(self._chance).document(self._top() if count == 1 else self._elements()) for _ in range(count)]

    def _top(self) -> Any:
        kind = self._chance.randrange(10)
        if kind < 5:
            return self._elements()
        if kind < 8:
            return self._wrapped()
        return self.conversation() if kind < 9 else self._odd()

    def _elements(self) -> list[Any]:
        return [self.conversation() if self._often() else self._odd() for _ in range(self._chance.randrange(5))]

    def _wrapped(self) -> Any:
        around = [
            (name, self._odd())
            for name in self._some(("title", "user", "conversation", "Conversations", "version", "mapping"), 3)
        ]
        if self._seldom():
            around.append(("nested", {"conversations": [self.conversation()]}))
        around.insert(self._chance.randrange(len(around) + 1), ("conversations", self._perhaps(self._elements())))
        return Pairs(around)

    def conversation(self) -> Any:
        """An element of an export that mostly is a conversation."""
        makers = {"mapping": self._mapping, "messages": self._simplified, "chat_messages": self._claude}
        made: dict[str, Any] = {}
        for name in self._chance.choice([("mapping",)] * 4 + [("messages",), ("chat_messages",), tuple(makers)]):
            made[name] = self._perhaps(self._chance.choice([[], {}]) if self._chance.randrange(10) == 0 else makers[name]())
        keys = list(made["mapping"]) if isinstance(made.get("mapping"), dict) else []
        current = self._chance.choice(keys) if keys and self._chance.randrange(2) else self._chance.choice(["gone", None])
        made |= {"current_node": self._perhaps(current)}
        made |= {name: self._perhaps(self._chance.choice(TEXTS)) for name in self._some(("title", "name"), 2)}
        times = NUMBERED_TIMES + NAMED_TIMES
        made |= {
            name: self._perhaps(self._chance.choice(times)) for name in self._some(("create_time", "created_at", "createdAt"), 3)
        }
        made |= {name: self._perhaps(self._chance.choice(IDS)) for name in self._some(("id", "conversation_id", "uuid"), 3)}
        return self._doubled(made)

    def _mapping(self) -> dict[str, Any]:
        keys = self._some(KEYS, 7)
        links = self._tree(keys) if self._chance.randrange(2) else {key: self._links(keys) for key in keys}
        nodes = {key: self._perhaps(self._doubled(self._without({**links[key], "message": self._message()}))) for key in keys}
        return dict(self._some(tuple(nodes.items()), len(nodes), len(nodes)))

    def _tree(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Edits and regenerations: most nodes answer one that was there before."""
        links: dict[str, dict[str, Any]] = {}
        for place, key in enumerate(keys):
            before = [keys[place - 1], self._chance.choice(keys[: max(1, place)])] * 2
            parent = self._chance.choice([*before, None]) if place else None
            links[key] = {"parent": parent, "children": []}
            if parent is not None:
                links[parent]["children"].append(key)
        return {key: {name: self._perhaps(value) for name, value in each.items()} for key, each in links.items()}

    def _links(self, keys: list[str]) -> dict[str, Any]:
        """Cycles, missing parents, children twice, of others or of the wrong type."""
        some = [*keys, *keys, "gone", 7, None, ["a"]]
        listed = [self._chance.choice(some) for _ in range(self._chance.randrange(4))]
        return {"parent": self._chance.choice([*some, None]), "children": self._perhaps(listed)}

    def _message(self) -> Any:
        message: dict[str, Any] = {"author": self._perhaps({"role": self._perhaps(self._chance.choice(ROLES))})}
        message["content"] = self._content()
        if not self._often():
            message["recipient"] = self._chance.choice(RECIPIENTS)
        if self._seldom():
            message["metadata"] = self._perhaps({name: self._chance.choice([True, True, *SCALARS]) for name in (HIDDEN, OWN)})
        return self._perhaps(self._without(message))

    def _content(self) -> Any:
        parts = [self._part() for _ in range(self._chance.choice([0, 1, 1, 1, 2, 3, 3, 9]))]
        if self._seldom():
            return self._chance.choice([parts, self._chance.choice(TEXTS), self._odd()])
        content: dict[str, Any] = {"parts": self._perhaps(parts)}
        if self._seldom():
            content["text"] = self._perhaps(self._chance.choice(TEXTS))
        if not self._often():
            content["content_type"] = self._perhaps(self._chance.choice(CONTENT_TYPES))
        return self._doubled(content)

    def _part(self) -> Any:
        text = self._chance.choice(TEXTS)
        spoken = {"content_type": "audio_transcription", "text": self._perhaps(text)}
        return self._chance.choice([text, text, text, spoken, {"asset_pointer": text}, self._odd()])

    def _simplified(self) -> list[Any]:
        return [
            self._perhaps(
                self._without({
                    "role": self._perhaps(self._chance.choice(ROLES)),
                    "content": self._chance.choice([self._chance.choice(TEXTS), self._content()]),
                    "metadata": {HIDDEN: True, OWN: True},
                })
            )
            for _ in range(self._chance.randrange(5))
        ]  # fmt: skip

    def _claude(self) -> list[Any]:
        return [
            self._perhaps(
                self._without({
                    "sender": self._perhaps(self._chance.choice(["human", "assistant", "human", "assistant", "user", ""])),
                    "text": self._perhaps(self._chance.choice(TEXTS)),
                    "content": self._perhaps([self._block() for _ in range(self._chance.randrange(4))]),
                })
            )
            for _ in range(self._chance.randrange(5))
        ]  # fmt: skip

    def _block(self) -> Any:
        kind = self._chance.choice(["text", "text", "text", "thinking", "tool_use", 7])
        return self._perhaps(self._without({"type": kind, "text": self._perhaps(self._chance.choice(TEXTS))}))

    # Chance

    def _often(self) -> bool:
        return self._chance.randrange(4) > 0

    def _seldom(self) -> bool:
        return self._chance.randrange(6) == 0

    def _perhaps(self, value: Any) -> Any:
        """The value, or seldom one of any type."""
        return self._odd() if self._chance.randrange(24) == 0 else value

    def _without(self, members: dict[str, Any]) -> dict[str, Any]:
        """Without one of the members, seldom."""
        gone = self._chance.choice(sorted(members)) if self._chance.randrange(12) == 0 else None
        return {name: value for name, value in members.items() if name != gone}

    def _doubled(self, members: dict[str, Any]) -> Any:
        """With one of the names twice, seldom; the last one counts."""
        if not members or self._chance.randrange(12):
            return members
        again = (self._chance.choice(sorted(members)), self._odd())
        return Pairs(self._chance.choice([[again, *members.items()], [*members.items(), again]]))

    def _some(self, values: Any, most: int, least: int = 0) -> list[Any]:
        return self._chance.sample(list(values), self._chance.randrange(least, most + 1))

    def _odd(self, depth: int = 2) -> Any:
        kind = self._chance.randrange(6 if depth else 4)
        if kind < 4:
            return self._chance.choice(SCALARS if kind < 3 else TEXTS)
        inner = [self._odd(depth - 1) for _ in range(self._chance.randrange(4))]
        names = ("a", "message", "role", "text", "parts", "mapping", "messages", "conversations", "children", "content")
        return inner if kind == 4 else {self._chance.choice(names): each for each in inner}
