"""PgBouncer between the services and PostgreSQL, in transaction mode, as many installations have it. For tests."""

import shutil
import signal
import socket
from pathlib import Path

from holdfast.local.process import StartFailed
from holdfast.local.servers import Postgres, Server

__all__ = ["PgBouncer"]

POOL_SIZE = 20
"""Server connections for each database and user. Fewer than the services' pools together, so that they are shared."""

_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


class PgBouncer(Server):
    """Debian's pgbouncer (or any on the path) before a :class:`Postgres`.

    Raises:
        StartFailed: there is none.
    """

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        super().__init__("pgbouncer", folder, port=0, stop_signal=signal.SIGINT, is_unrooted=True)
        found = shutil.which("pgbouncer") or next(
            filter(None, (shutil.which("pgbouncer", path=at) for at in _FOLDERS)), None
        )
        if found is None:
            raise StartFailed("there is no pgbouncer on this machine: apt-get install pgbouncer")
        self._program = found
        self._postgres = postgres

    def url(self, database: str) -> str:
        """``postgresql://`` address of a database by way of the pooler."""
        return self._postgres.url(database).replace(f":{self._postgres.port}/", f":{self.port}/")

    def command(self) -> list[str]:
        return [self._program, str(self.folder / "pgbouncer.ini")]

    def prepare(self) -> None:
        users = self.folder / "users.txt"
        users.write_text(f'"postgres" "{self._postgres.password}"\n')
        (self.folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._postgres.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 1000\n"
            "server_login_retry = 1\n"
            "query_wait_timeout = 5\n"  # otherwise two minutes: a request waits as long while PostgreSQL is away
        )

    def is_answering(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
