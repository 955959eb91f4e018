"""What is wrong after a storm, and the figures that it prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.acceptance.topics import OUTPUTS
from tests.chaos.crash import sha256_of
from tests.chaos.journal import Recovery, recoveries
from tests.chaos.storm import COLUMNS, LEASE_SECONDS, Ask, Storm, words_of

ROOM_SECONDS = LEASE_SECONDS + 1
_ENDS = ("v2-completed", "v2-failed")


@dataclass(frozen=True)
class Verdict:
    """The figures, and everything that is wrong."""

    storm: Storm
    duplicates: list[str]
    losses: list[str]
    mixtures: list[str]
    versions: list[str]
    asked_again: int
    bought_needlessly: list[str]
    taken_over: list[Recovery]

    def slow(self) -> list[str]:
        """Whether runs waited too long although another worker had room for them."""
        p99 = percentile(self._with_room(), 0.99)
        return [f"p99 of recovery with a free slot is {p99:.1f} s, at most {ROOM_SECONDS:.0f} s expected"] * (p99 > ROOM_SECONDS)

    def wrong(self) -> list[str]:
        """What must not be, apart from slowness."""
        return [*self.duplicates, *self.losses, *self.mixtures, *self.versions, *self.bought_needlessly]

    def _with_room(self) -> list[float]:
        return [each.seconds for each in self.taken_over if each.had_room]

    def figures(self) -> str:
        """For people."""
        storm, stages = self.storm, Counter(each.stage for each in self.taken_over)
        ended = Counter("completed" if run["status"] == "completed" else run["error_code"] for run in storm.runs)
        every = [each.seconds for each in self.taken_over]
        lines = {
            "seed": storm.plan.seed,
            "kills": f"{storm.kills} over {storm.plan.workers} workers in {storm.seconds:.0f} s",
            "users": storm.plan.users,
            "events": f"{len(storm.published)}, delivered {storm.deliveries} times; ended {_counted(ended)}",
            "runs cut off": f"{len(every)} ({_counted(stages)})",
            "attempts": f"at most {max(run['attempt'] for run in storm.runs)} of a run",
            "duplicates": len(self.duplicates),
            "losses": len(self.losses),
            "mixtures": len(self.mixtures),
            "wrong versions": len(self.versions),
            "calls bought": f"{len(storm.asks)}, {self.asked_again} of them twice (in flight at a kill)",
            "bought needlessly": len(self.bought_needlessly),
            "recovery": f"p50 {percentile(every, 0.5):.1f} s, p99 {percentile(every, 0.99):.1f} s",
            "with a free slot": f"p50 {percentile(self._with_room(), 0.5):.1f} s, p99 {percentile(self._with_room(), 0.99):.1f} s"
            f" of {len(self._with_room())}",
        }
        return "\n".join(f"{name:18} {value}" for name, value in lines.items())


def judge(storm: Storm) -> Verdict:
    """Look at everything that is left."""
    taken_over = recoveries(storm.lives, LEASE_SECONDS, storm.plan.concurrency)
    again, needlessly = _bought(storm)
    return Verdict(storm, _duplicates(storm), _losses(storm), _mixtures(storm), _versions(storm), again, needlessly, taken_over)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that so large a share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _counted(counter: Counter[Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def _topic(name: str) -> str:
    return next(output for output in OUTPUTS if name.endswith(output))


def _duplicates(storm: Storm) -> list[str]:
    """Events that a `read_committed` reader sees more than once, and keys with more than one end."""
    ids = Counter(seen.headers["ce_id"] for seen in storm.seen)
    found = [f"event {ce_id.decode()} is there {times} times" for ce_id, times in ids.items() if times > 1]
    kinds: Counter[tuple[str, str, str]] = Counter()
    for seen in storm.seen:
        kind = "end" if _topic(seen.topic) in _ENDS else "MEMORY"
        kinds[seen.data["user_id"], seen.data["idempotency_key"], kind] += 1
    found += [f"{kind} of {key} of {user} is there {times} times" for (user, key, kind), times in kinds.items() if times > 1]
    rows = Counter((str(run["user_id"]), run["idempotency_key"]) for run in storm.runs)
    return found + [f"{times} runs of {key}" for key, times in rows.items() if times > 1]


def _losses(storm: Storm) -> list[str]:
    """Events without an end, ends without their event, events of a run that are missing."""
    ended = {(seen.data["user_id"], seen.data["idempotency_key"]) for seen in storm.seen if _topic(seen.topic) in _ENDS}
    found = [f"no end of {key}" for key in storm.published.keys() - ended]
    remembered = {seen.data["run_id"] for seen in storm.seen if _topic(seen.topic) == "memory-saved"}
    for run in storm.runs:
        if (run["memory_saved_at"] is not None) != (str(run["run_id"]) in remembered):
            found.append(f"memory-saved of run {run['run_id']} does not go with its MEMORY")
        if run["status"] == "failed" and run["error_code"] != "superseded":
            found.append(f"run {run['run_id']} failed: {run['error_code']} ({run['error_detail']})")
    return found + ["events are left in the outbox"] * (storm.unpublished > 0)


def _mixtures(storm: Storm) -> list[str]:
    """Sections or soulprints of more than one export, seen at any moment; a soulprint that was never announced."""
    found = [f"a reader saw sections of {set(state)}" for state in storm.states if len(set(state)) != 1 or " " in state[0]]
    announced = {seen.data["user_id"]: seen.data for seen in _by_version(storm) if _topic(seen.topic) == "v2-completed"}
    for profile in storm.profiles:
        last = announced.get(str(profile["user_id"]))
        if last is None:
            continue
        if len({words_of(profile[name]) for name in COLUMNS}) != 1:
            found.append(f"the profile of {profile['user_id']} is a mixture")
        if sha256_of(profile["soulprint_text"]) != last["soulprint_sha256"]:
            found.append(f"the soulprint of {profile['user_id']} is not the one announced last")
    return found


def _by_version(storm: Storm) -> list[Any]:
    changes = [seen for seen in storm.seen if _topic(seen.topic) != "v2-failed"]
    return sorted(changes, key=lambda seen: int(seen.data["profile_version"]))


def _versions(storm: Storm) -> list[str]:
    """Each change of a profile has a version of its own, without gaps, and MEMORY is announced before the sections."""
    of_user: dict[str, list[Any]] = {}
    for seen in _by_version(storm):
        of_user.setdefault(seen.data["user_id"], []).append(seen)
    found = []
    for profile in storm.profiles:
        changes = of_user.get(str(profile["user_id"]), [])
        versions = [seen.data["profile_version"] for seen in changes]
        if versions != list(range(1, (profile["profile_version"] or 0) + 1)):
            found.append(f"{profile['user_id']} is at {profile['profile_version']}, announced were {versions}")
        remembered: set[str] = set()
        for seen in changes:
            if _topic(seen.topic) == "memory-saved":
                remembered.add(seen.data["run_id"])
            elif seen.data["run_id"] not in remembered:
                found.append(f"sections before MEMORY in run {seen.data['run_id']}")
    return found


def _bought(storm: Storm) -> tuple[int, list[str]]:
    """How many calls were made again, and those among them that no kill of the run's holder explains.

    An answer that was recorded and bought again is recorded again: then the run's own count is above its different requests.
    """
    runs = {storm.published.get((str(run["user_id"]), run["idempotency_key"]), ""): run for run in storm.runs}
    cut_off = [(hold.run_id, life.died_at) for life in storm.lives for hold in life.holds if hold.cut_off]
    asks: dict[str, list[Ask]] = {}
    for ask in storm.asks:
        asks.setdefault(ask.digest, []).append(ask)
    different = Counter(same[0].word for same in asks.values())
    found = [
        f"run {run['run_id']} recorded {run['model_calls']} answers to {different[word]} requests"
        for word, run in runs.items()
        if run["model_calls"] > different[word] or (run["status"] == "completed" and run["model_calls"] < different[word])
    ]
    again = 0
    for same in asks.values():
        kills = [died_at for run_id, died_at in cut_off if run_id == str(runs[same[0].word]["run_id"])]
        again += len(same) - 1
        found += _without_a_kill(same, kills)
    return again, found


def _without_a_kill(same: Sequence[Ask], kills: Sequence[float]) -> list[str]:
    return [
        f"a request about {first.word} was asked again with no kill in between"
        for first, second in pairwise(same)
        if not any(first.at <= died_at <= second.at for died_at in kills)
    ]
