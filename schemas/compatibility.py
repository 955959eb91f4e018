"""Whether the contract still serves those who were built against a released version of it.

Of an event that comes in, whatever an old publisher may send has to be taken: the new schema accepts all that the old one did. Of
an event that is sent, whatever the service may send has to fit an old reader: the old schema accepts all that the new one allows.
In both directions a field that disappears is a break, though unknown fields are allowed: somebody fills it, or reads it.

An enum value that is added to an event that is sent is a break too: a reader made from the schema refuses it, and so does one
that has written out its cases. A break is let through where the event's `$id` has another number: `ce_dataschema` tells readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Schema = Mapping[str, Any]
Message = Mapping[str, Schema]
"""The two parts of an event's message, `headers` and `payload`, each as JSON Schema."""
Contract = Mapping[str, Message]
"""Event name → its message."""

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_ANNOTATIONS = frozenset("$schema $id $defs $comment title description default examples deprecated readOnly writeOnly".split())
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_WALKED = frozenset("type anyOf $ref enum const properties required additionalProperties items".split())


def read_contract(folder: Path) -> Contract:
    """The messages of the AsyncAPI document in a folder, with the JSON Schemas beside it.

    Raises:
        OSError: when a file isn't there.
        yaml.YAMLError, KeyError: when it is not the document that `schemas.documents` writes.
    """
    document = yaml.safe_load((folder / "asyncapi.yaml").read_text(encoding="utf-8"))
    messages: dict[str, Schema] = document["components"]["messages"]
    return {
        name: {"headers": message["headers"], "payload": yaml.safe_load((folder / message["payload"]["$ref"]).read_text("utf-8"))}
        for name, message in messages.items()
    }  # JSON is YAML


def latest_release(folder: Path) -> str | None:
    """The highest version that has a folder in there, by number; None where nothing was released yet."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    versions = [name for name in names if _VERSION.fullmatch(name)]
    return max(versions, key=lambda version: [int(part) for part in version.split(".")], default=None)


def breaking_changes(old: Contract, new: Contract, incoming: frozenset[str]) -> list[str]:
    """A line for each break: the event, the field and what became of it. `incoming` names the events that come in."""
    found = []
    for event, message in old.items():
        if event not in new:
            found.append(f"{event}: the event is gone")
        elif message["payload"].get("$id") == new[event]["payload"].get("$id"):
            for part, schema in message.items():
                where = f"{event}: header " if part == "headers" else f"{event}: "
                pair = _Pair(event in incoming, schema, new[event][part])
                found += [where + problem for problem in pair.problems(schema, new[event][part], "")]
    return found


class _Pair:
    """An old schema and a new one, walked together. What one side allows, the demanding side has to accept."""

    def __init__(self, incoming: bool, old: Schema, new: Schema) -> None:
        self._incoming = incoming
        self._old = old
        self._new = new

    def problems(self, old: Schema, new: Schema, field: str) -> Iterator[str]:
        """What breaks below one field (empty for the whole), as `field: what became of it`."""
        olds, news = list(_alternatives(old, self._old)), list(_alternatives(new, self._new))
        if len(olds) == len(news) == 1:
            yield from self._of_one(olds[0], news[0], field)
            return
        demanding = news if self._incoming else olds
        for allowed in olds if self._incoming else news:
            misfits = [list(self._of_one(*self._ordered(allowed, each), field)) for each in demanding]
            if all(misfits):
                same_type = [found for found, each in zip(misfits, demanding, strict=True) if _types(each) == _types(allowed)]
                yield from min(same_type, key=len) if same_type else [self._said(field, f"{_name(allowed)} {self._no_longer()}")]

    def _ordered(self, allowed: Schema, demanding: Schema) -> tuple[Schema, Schema]:
        return (allowed, demanding) if self._incoming else (demanding, allowed)

    def _of_one(self, old: Schema, new: Schema, field: str) -> Iterator[str]:
        allowed, demanding = (old, new) if self._incoming else (new, old)
        if not _fits_type(allowed, demanding):
            yield self._said(field, f"was {_name(old)} and is {_name(new)}")
            return
        yield from self._values(allowed, demanding, field)
        yield from self._limits(old, new, field)
        yield from self._fields(old, new, field)
        if "items" in old or "items" in new:
            yield from self.problems(old.get("items", {}), new.get("items", {}), f"{field}[]")

    def _values(self, allowed: Schema, demanding: Schema, field: str) -> Iterator[str]:
        """Enums and constants."""
        accepted, possible = _listed(demanding), _listed(allowed)
        if accepted is None:
            return
        if possible is None:
            yield self._said(field, "was free and is an enum" if self._incoming else "was an enum and is free")
            return
        for value in possible:
            if value not in accepted:
                yield self._said(field, f"the value {value!r} {self._no_longer()}")

    def _limits(self, old: Schema, new: Schema, field: str) -> Iterator[str]:
        """Bounds may only move one way; a pattern, a format or a keyword that isn't known here may only come or go one way."""
        allowed, demanding = (old, new) if self._incoming else (new, old)
        for keyword in sorted({*demanding} - _ANNOTATIONS - _WALKED):
            limit, other = demanding[keyword], allowed.get(keyword)
            kept = other == limit or (
                other is not None
                and ((keyword in _AT_LEAST and other >= limit) or (keyword in _AT_MOST and other <= limit))
            )  # fmt: skip
            if not kept:
                yield self._said(field, f"{keyword} was {_text(old, keyword)} and is {_text(new, keyword)}")

    def _fields(self, old: Schema, new: Schema, field: str) -> Iterator[str]:
        had, has = old.get("properties", {}), new.get("properties", {})
        required_before, required_now = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in had.items():
            path = f"{field}.{name}" if field else name
            if name not in has:
                yield self._said(path, "the field is gone")
                continue
            yield from self.problems(schema, has[name], path)
        for name in sorted(required_now - required_before if self._incoming else (required_before - required_now) & has.keys()):
            new_one = "is new and required" if name not in had else "was optional and is required"
            yield self._said(f"{field}.{name}" if field else name, new_one if self._incoming else "was required and is optional")
        yield from self._closed(old, new, field)

    def _closed(self, old: Schema, new: Schema, field: str) -> Iterator[str]:
        """What `additionalProperties` takes back."""
        if self._incoming and new.get("additionalProperties", True) not in (True, old.get("additionalProperties", True)):
            yield self._said(field, "unknown fields are no longer taken")
        if not self._incoming and old.get("additionalProperties", True) is not True:
            added = sorted(new.get("properties", {}).keys() - old.get("properties", {}).keys())
            if added or new.get("additionalProperties", True) != old["additionalProperties"]:
                yield self._said(field, f"fields were closed, and now there may be {', '.join(added) or 'others'}")

    def _no_longer(self) -> str:
        return "is no longer taken" if self._incoming else "is new"

    def _said(self, field: str, what: str) -> str:
        hurt = "an old publisher may send what is refused now" if self._incoming else "an old reader does not expect it"
        return f"{field or '(all)'}: {what} ({hurt})"


def _alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """The schema with references resolved, `anyOf` and lists of types taken apart."""
    while "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        for each in schema["anyOf"]:
            yield from _alternatives({**rest, **each}, root)
    elif isinstance(schema.get("type"), list):
        for each in schema["type"]:
            yield {**schema, "type": each}
    else:
        yield schema


def _types(schema: Schema) -> str | None:
    found: str | None = schema.get("type")
    return found


def _fits_type(allowed: Schema, demanding: Schema) -> bool:
    wanted, found = _types(demanding), _types(allowed)
    return wanted in {None, found} or (wanted, found) == ("number", "integer") or (found is None and _listed(allowed) is not None)


def _listed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _name(schema: Schema) -> str:
    return _types(schema) or "anything"


def _text(schema: Schema, keyword: str) -> str:
    return str(schema[keyword]) if keyword in schema else "absent"
