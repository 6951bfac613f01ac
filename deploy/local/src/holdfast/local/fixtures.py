"""pytest fixtures: real servers, a database per test, and stacks of real processes.

A PostgreSQL and a Valkey start once per test process (so once per xdist worker) and end with it. A test gets its database
by cloning a migrated template, which takes some tens of milliseconds, and an emptied Valkey.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import uuid4

import pytest

from holdfast.local.servers import Postgres, Valkey
from holdfast.runtime import logging

if TYPE_CHECKING:
    from holdfast.local.stack import Stack

__all__ = ["Eventually", "StartStack", "clone_template"]

Answer = TypeVar("Answer")

TEMPLATE = "holdfast_template"

MOST_WRONG = 10
"""Lines that are shown of those that are wrong in a stack's logs."""


class Eventually(Protocol):
    """See the fixture ``eventually``."""

    def __call__(
        self, predicate: Callable[[], Answer], *, timeout_seconds: float = 30.0, message: str | None = None
    ) -> Answer:
        """Wait for a true answer."""


class StartStack(Protocol):
    """See the fixture ``start_stack``."""

    def __call__(self, **settings: str) -> "Stack":
        """Start the services with these ``HOLDFAST_*`` settings."""


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Ask again until the answer is true, and return it; fail with ``message`` when the deadline has passed.

    An assertion that fails in the predicate counts as "not yet".
    """

    def wait(predicate: Callable[[], Answer], *, timeout_seconds: float = 30.0, message: str | None = None) -> Answer:
        deadline = time.monotonic() + timeout_seconds
        while True:
            failure: AssertionError | None = None
            try:
                if answer := predicate():
                    return answer
            except AssertionError as exc:
                failure = exc
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_seconds} s: {message or failure or predicate}")
            time.sleep(0.02)

    return wait


@pytest.fixture
def log_text() -> Iterator[Callable[[], str]]:
    """What this process has logged since the test began: JSON lines, debug included.

    Every test that reads logs asks for this. A logger goes where the process was last told to log, which may have been by
    a test that ran before.
    """
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        logging.configure(service="test", version="0", log_format="json", level="debug")
    yield written.getvalue
    logging.configure(service="test", version="0", log_format="json")


@pytest.fixture(scope="session", autouse=True)
def lines_of_stacks() -> Iterator[None]:
    """Look through the logs of every stack that tests start, when it has stopped: see ``holdfast.local.lines``."""
    from holdfast.local.lines import wrong_lines
    from holdfast.local.stack import Stack

    def check(stack: Stack) -> None:
        if wrong := wrong_lines(stack.logs, secrets=stack.secrets()):
            told = "\n".join(wrong[:MOST_WRONG])
            raise AssertionError(f"{len(wrong)} lines of the stack's logs are wrong:\n{told}")

    Stack.on_stopped = check
    yield
    Stack.on_stopped = lambda _: None


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for servers' data, gone after the tests."""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL with a migrated template database. Shared: tests that stop a server start one of their own."""
    server = Postgres(server_folder / "shared", is_durable=False)
    server.start()
    try:
        _make_template(server)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    """A Valkey, shared like ``postgres``."""
    server = Valkey(server_folder / "shared")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A new migrated database."""
    name = clone_template(postgres)
    yield postgres.url(name)
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """An empty Valkey, database 0."""
    valkey.execute("FLUSHALL")
    return valkey.url(0)


@pytest.fixture
def start_stack(server_folder: Path) -> Iterator[StartStack]:
    """Start all services as processes of their own, with servers of their own. They end with the test."""
    with _starting(server_folder) as start:
        yield start


@pytest.fixture(scope="session")
def shared_stack(server_folder: Path) -> Iterator["Stack"]:
    """A stack for all tests that only use one; starting one takes some seconds. Do not break it."""
    with _starting(server_folder) as start:
        yield start()


@contextlib.contextmanager
def _starting(folder: Path) -> Iterator[StartStack]:
    from holdfast.local.stack import Stack

    with contextlib.ExitStack() as running:

        def start(**settings: str) -> Stack:
            return running.enter_context(Stack(folder / uuid4().hex, settings=settings))

        yield start


def clone_template(server: Postgres) -> str:
    """A new database like the migrated template; returns its name."""
    name = f"test_{uuid4().hex}"
    server.execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE} STRATEGY file_copy')
    return name


def _make_template(server: Postgres) -> None:
    from holdfast.storage.migrate import upgrade

    server.execute(f"CREATE DATABASE {TEMPLATE}")
    upgrade(server.url(TEMPLATE))
