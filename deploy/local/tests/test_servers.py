"""PostgreSQL and Valkey from wheels: what they keep, and that they come back."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from holdfast.local.fixtures import Eventually
from holdfast.local.process import StartFailed
from holdfast.local.servers import Postgres, Server, Valkey, free_port


@pytest.fixture
def postgres(folder: Path) -> Iterator[Postgres]:
    server = Postgres(folder / "postgres", is_durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    server = Valkey(folder / "redis", is_persistent=True)
    server.start()
    yield server
    server.stop()


def command_lines(server: Server) -> str:
    """Of every process that this user may look at, as ``ps`` shows them."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_text(errors="replace"))
        except OSError:
            continue  # it has ended
    assert any(str(server.folder) in line for line in lines), "the server itself is not among them"
    return "\n".join(lines)


@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
def test_postgres_keeps_its_data_and_port(postgres: Postgres, end: str) -> None:
    postgres.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    address = postgres.url()

    getattr(postgres, end)()
    postgres.start()

    assert postgres.url() == address
    assert postgres.execute("SELECT answer FROM kept") == "42"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_valkey_keeps_its_data_and_port(valkey: Valkey, end: str, eventually: Eventually) -> None:
    valkey.execute("SET", "kept", "42")
    eventually(lambda: valkey.execute("WAITAOF", "1", "0", "1000")[0] == 1, message="not on disk")
    address = valkey.url()

    getattr(valkey, end)()
    valkey.start()

    assert valkey.url() == address
    assert valkey.execute("GET", "kept") == b"42"


def test_a_killed_postgres_starts_again_beside_no_backend_of_its_former_life(
    postgres: Postgres, eventually: Eventually
) -> None:
    def query() -> None:
        connection = psycopg2.connect(postgres.url())
        with contextlib.closing(connection), pytest.raises(psycopg2.OperationalError):
            connection.cursor().execute("SELECT count(*) FROM generate_series(1, 2000000000)")

    busy = threading.Thread(target=query)
    busy.start()
    active = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND pid <> pg_backend_pid()"
    backend = eventually(lambda: postgres.execute(active))

    postgres.kill()
    postgres.start()

    busy.join()
    assert not Path(f"/proc/{backend}").exists()
    assert postgres.execute(active) == ""


@pytest.mark.parametrize("server_type", [Postgres, Valkey])
def test_a_paused_server_is_stopped_within_seconds(folder: Path, server_type: type[Postgres] | type[Valkey]) -> None:
    server = server_type(folder / "server")
    server.start()
    server.send(signal.SIGSTOP)
    began = time.monotonic()

    server.stop()

    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{server.process.pid}").exists()


def test_an_interrupted_initdb_does_not_pass_for_a_database(folder: Path) -> None:
    left_behind = folder / "postgres" / "pg18.new"
    left_behind.mkdir(parents=True)
    (left_behind / "PG_VERSION").write_text("18\n")
    server = Postgres(folder / "postgres", is_durable=False)

    server.start()

    try:
        assert server.execute("SELECT 1") == "1"
    finally:
        server.stop()


def test_a_pid_file_whose_number_now_belongs_to_another_program_is_no_obstacle(postgres: Postgres) -> None:
    pid_file = postgres.folder / "pg18" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    postgres.kill()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    postgres.start()

    assert postgres.execute("SELECT 1") == "1"


def test_two_postgres_never_share_one_folder(postgres: Postgres) -> None:
    second = Postgres(postgres.folder, is_durable=False)

    with pytest.raises(StartFailed, match="lock file"):
        second.start()

    second.stop()
    assert postgres.execute("SELECT 1") == "1"


def test_the_password_is_asked_for_and_in_no_command_line(postgres: Postgres, valkey: Valkey) -> None:
    postgres.execute("SELECT 1")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.url().replace(postgres.password, "guessed"))

    assert postgres.password not in command_lines(postgres)
    assert valkey.password not in command_lines(valkey)


def test_servers_listen_on_loopback_alone(postgres: Postgres, valkey: Valkey) -> None:
    for port in (postgres.port, valkey.port):
        with socket.socket() as elsewhere:  # any other address of this machine is still to be had
            elsewhere.bind(("127.0.0.2", port))
    assert not list(Path("/tmp").glob(f".s.PGSQL.{postgres.port}*"))  # noqa: S108 (PostgreSQL's default)


def test_variables_for_other_postgres_clients_do_not_lead_astray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOST": "192.0.2.1", "PGPORT": "1", "PGDATA": "/nowhere", "PGOPTIONS": "-c bad=1"}.items():
        monkeypatch.setenv(name, value)

    with_server = Postgres(folder / "postgres", is_durable=False)
    with_server.start()

    try:
        assert with_server.execute("SELECT current_database()") == "postgres"
    finally:
        with_server.stop()


def test_a_taken_port_is_replaced_by_another() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        assert free_port(taken) != taken


def test_a_server_that_cannot_start_shows_the_end_of_its_log(folder: Path) -> None:
    server = Postgres(folder / "postgres", is_durable=False)
    server.start()
    server.stop()
    (folder / "postgres" / "pg18" / "postgresql.conf").write_text("no_such_setting = 1\n")

    with pytest.raises(StartFailed, match="no_such_setting"):
        server.start()


def test_a_port_that_was_given_is_not_given_again_soon() -> None:
    """It may still be free: seconds pass between finding a port and listening there."""
    given = [free_port() for _ in range(200)]

    assert len(set(given)) == 200
