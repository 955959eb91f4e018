"""The sample's run as a test sees it after its end; all tests of the demo's path look at this one run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sandbox import sample
from tests.acceptance.topics import INPUT, Seen
from tests.acceptance.world import User, World, user_text


@dataclass(frozen=True)
class Passed:
    """The sample's run, after its end."""

    world: World
    user: User
    published: dict[str, Any]
    run: dict[str, Any]
    profile: dict[str, Any]
    events: list[Seen]

    @property
    def memory(self) -> str:
        """The MEMORY as it stands in the profile."""
        found: str = self.profile["memory_md"]
        return found


def take_the_sample_through(world: World, folder: Path) -> Passed:
    """Store the sample as ChatGPT sends it, publish its event with the command, and wait for the end."""
    info = sample.build_sample(folder / "export.zip")
    completed_at = f"{info.last_at + timedelta(hours=1):%Y-%m-%dT%H:%M:%S.%fZ}"
    user = world.a_user(info.path.read_bytes(), name="export.zip", completed_at=completed_at)
    publish = ("publish", "--user-id", user.id, "--storage-path", user.path, "--completed-at", user.completed_at)
    published = world.run(*publish, "--json").json
    run = world.until_ended(user)
    return Passed(world, user, published, run, world.profile(user), world.announced(user))


def header(seen: Seen, name: str) -> str:
    """A header as text."""
    return seen.headers[name].decode()


def trace_id(traceparent: str) -> str:
    """The trace of a W3C `traceparent`, which must be a whole one."""
    version, trace, span, flags = traceparent.split("-")
    assert (version, len(trace), len(span), len(flags)) == ("00", 32, 16, 2)
    return trace


def completion_event(passed: Passed) -> Seen:
    """The event that started the run, as it lies on the topic."""
    (seen,) = [seen for seen in passed.world.read(INPUT) if seen.key == passed.user.id.encode()]
    return seen


def answers(passed: Passed, kind: str) -> list[dict[str, Any]]:
    """The recorded answers of a kind, as the JSON that the model wrote."""
    rows = passed.world.rows("SELECT content FROM full_pass_model_calls WHERE user_id = $1 AND kind = $2", passed.user.uuid, kind)
    return [json.loads("".join(block["text"] for block in json.loads(row["content"]))) for row in rows]


def bought_by(passed: Passed) -> list[dict[str, Any]]:
    """What the model API was asked between the run's start and end."""
    began, ended = (passed.run[name].isoformat() for name in ("started_at", "finished_at"))
    return [each for each in passed.world.asked() if began <= each["at"] <= ended]


def sampled(passed: Passed) -> int:
    """How many conversations stand in the request for the sections."""
    (request,) = [each for each in bought_by(passed) if each["kind"] == "sections"]
    block, _, memory = user_text(request).partition("\n\n## MEMORY (verified facts about this user)\n")
    assert memory == passed.memory
    assert len(block) <= 600_000
    return f"\n\n{block}".count('\n\n=== Conversation: "')


def visible_shapes() -> int:
    """The odd elements with a visible message. Two of them have the same id, so they show as one less."""
    nothing = ("no conversation:", "a mapping of a root alone", "messages that are hidden")
    return sum(not name.startswith(nothing) for name in sample.shapes())
