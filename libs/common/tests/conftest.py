"""Servers that a test may stop, an empty database, and processes with settings of their own."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.local.services import environment

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop."""
    server = Postgres(tmp_path / "postgres", is_durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may stop."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database without a table."""
    name = f"empty_{uuid4().hex}"
    postgres.execute(f'CREATE DATABASE "{name}"')
    yield postgres.url(name)
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def closed_database_url() -> str:
    """The address of a PostgreSQL that is down."""
    return f"postgresql://user:s3cret@127.0.0.1:{free_port()}/name"


@pytest.fixture
def run_python() -> RunPython:
    """Run Python with arguments; keywords are settings without ``HOLDFAST_``. Returns status, output and errors."""

    def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        named = {f"HOLDFAST_{name}": value for name, value in settings.items()}
        return subprocess.run(
            [sys.executable, *arguments], env=environment(named), capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip

    return run
