"""Addresses of a database: what libpq understands works, and what is wrong is told without secrets."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text

from holdfast.domain.errors import ConfigurationError, DatabaseUnavailable, DatabaseUnsuitable, HoldfastError
from holdfast.local.servers import Postgres, free_port
from holdfast.storage.address import parse_address
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade
from holdfast.storage.schema import check_revision

MakeDatabase = Callable[..., Database]

SECRET = "pa ss/w:rd@%"


@pytest.fixture
def make_database() -> Iterator[MakeDatabase]:
    with contextlib.ExitStack() as opened:

        def make(url: str, **options: Any) -> Database:
            database = Database(url, application_name="test", pool_size=1, **options)
            opened.callback(database.close)
            return database

        yield make


def asked(database: Database, statement: str) -> Any:
    with database.transaction() as session:
        return session.scalar(text(statement))


def told(call: Callable[[], object]) -> str:
    """Everything that an error shows, its causes included."""
    with pytest.raises(HoldfastError) as caught:
        call()
    return str(caught.value) + "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
@pytest.mark.parametrize("around", ["", "\n", "  \r\n"])
def test_schemes_and_white_space_around_an_address(
    make_database: MakeDatabase, postgres: Postgres, scheme: str, around: str
) -> None:
    make_database(postgres.url().replace("postgresql", scheme) + around).ping()


@pytest.mark.parametrize(
    "url",
    [
        "", "mysql://u:s3cret@h/d", "not an address with s3cret", "postgresql+asyncpg://u:s3cret@h/d", "u:s3cret@h/d",
        "postgresql://u:s3cret%zz@h/d", "postgresql://u:s3cret@h/d?nonsense=s3cret", "postgresql://u:s3 cret@h/d",
        "postgresql://u:s3cret@[::1/d",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    said = told(lambda: parse_address(url))

    assert "HOLDFAST_DATABASE_URL" in said
    assert "postgresql://user:password@host:5432/name" in said
    assert "s3" not in said.replace(__file__, "")


def test_of_two_hosts_the_one_that_answers_is_used(make_database: MakeDatabase, postgres: Postgres) -> None:
    url = postgres.url().replace("127.0.0.1:", f"127.0.0.1:{free_port()},127.0.0.1:")

    assert asked(make_database(url), "SELECT inet_server_port()") == postgres.port


def test_of_two_hosts_the_one_that_takes_writes_is_used(
    make_database: MakeDatabase, own_postgres: Postgres, postgres: Postgres
) -> None:
    own_postgres.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    own_postgres.execute(f"ALTER ROLE postgres PASSWORD '{postgres.password}'", database="template1")
    url = postgres.url().replace("127.0.0.1:", f"127.0.0.1:{own_postgres.port},127.0.0.1:")

    database = make_database(f"{url}?target_session_attrs=read-write")

    assert asked(database, "SELECT inet_server_port()") == postgres.port


def test_a_search_path_of_the_address_counts(make_database: MakeDatabase, postgres: Postgres) -> None:
    database = make_database(f"{postgres.url()}?options=-csearch_path%3Dpg_catalog&connect_timeout=7")

    assert asked(database, "SHOW search_path") == "pg_catalog"


@pytest.mark.parametrize("spelling", ["?host={folder}&port={port}", "{quoted}:{port}"])
def test_a_unix_socket(
    make_database: MakeDatabase, own_postgres: Postgres, tmp_path_factory: Any, spelling: str
) -> None:
    folder = tmp_path_factory.mktemp("s")
    folder.chmod(0o777)
    own_postgres.execute(f"ALTER SYSTEM SET unix_socket_directories = '{folder}'")
    own_postgres.stop()
    own_postgres.allow("unix_socket_directories")
    own_postgres.start()
    where = spelling.format(folder=folder, port=own_postgres.port, quoted=quote(str(folder), safe=""))
    host, _, query = where.partition("?")
    url = f"postgresql://postgres:{own_postgres.password}@{host}/postgres" + (f"?{query}" if query else "")

    assert asked(make_database(url), "SELECT inet_server_addr() IS NULL") is True


def test_ipv6(make_database: MakeDatabase, own_postgres: Postgres) -> None:
    own_postgres.execute("ALTER SYSTEM SET listen_addresses = '127.0.0.1,::1'")
    own_postgres.stop()
    own_postgres.allow("listen_addresses")
    own_postgres.start()

    database = make_database(own_postgres.url().replace("127.0.0.1", "[::1]"))

    assert asked(database, "SELECT host(inet_server_addr())") == "::1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url, server: url.replace(server.password, quote(SECRET, safe="")), "password authentication failed"),
        (lambda url, _: url.removesuffix("postgres") + "nowhere", 'database "nowhere" does not exist'),
        (lambda url, _: url.replace("127.0.0.1", "no-such-host.invalid"), "could not translate host name"),
        (lambda url, server: url.replace(str(server.port), str(free_port())), "Connection refused"),
        (lambda url, _: url + "?sslmode=require", "server does not support SSL"),
        (lambda url, _: url.replace("postgres:", "nobody:"), 'password authentication failed for user "nobody"'),
    ],
)
def test_the_servers_own_reason_is_told_without_the_password(
    make_database: MakeDatabase, postgres: Postgres, change: Any, reason: str
) -> None:
    database = make_database(change(postgres.url(), postgres))

    said = told(database.ping)

    assert reason in said
    assert "check HOLDFAST_DATABASE_URL" in said
    for secret in (SECRET, quote(SECRET, safe=""), postgres.password):
        assert secret not in said


def test_an_address_shown_has_no_password() -> None:
    assert "s3cret" not in str(parse_address("postgresql://u:s3cret@h1,h2/d"))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_event_is_refused(
    make_database: MakeDatabase, postgres: Postgres, encoding: str
) -> None:
    name = f"enc_{encoding.lower()}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    try:
        database = make_database(postgres.url(name))
        with pytest.raises(DatabaseUnsuitable, match=f"encoding is {encoding}.*ENCODING 'UTF8'"):
            upgrade(postgres.url(name))
        with pytest.raises(DatabaseUnsuitable), database.transaction() as session:
            check_revision(session)
        assert asked(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_configuration_error_is_no_outage() -> None:
    with pytest.raises(ConfigurationError):
        Database("mysql://h/d", application_name="test")
    assert not issubclass(ConfigurationError, DatabaseUnavailable)
