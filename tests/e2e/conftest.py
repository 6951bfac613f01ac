"""The stack that most tests use, and small things that all of them need."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.client import Client
from holdfast.local.pooler import PgBouncer
from holdfast.local.stack import Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pgbouncer", action="store_true", help="let the services reach PostgreSQL through PgBouncer")


@pytest.fixture(scope="session")
def pooler(request: pytest.FixtureRequest) -> type[PgBouncer] | None:
    """What stands between the services and PostgreSQL."""
    return PgBouncer if request.config.getoption("--pgbouncer", default=False) else None


@pytest.fixture(scope="session")
def shared_stack(server_folder: Path, pooler: type[PgBouncer] | None) -> Iterator[Stack]:
    """A stack for all tests that only use one."""
    with Stack(server_folder / uuid4().hex, pooler=pooler) as stack:
        yield stack


@pytest.fixture(scope="session")
def e2e_stack(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Addresses of a running stack: that of the ``stack.json`` named by ``HOLDFAST_E2E_STACK``, else one of our own."""
    if path := os.environ.get("HOLDFAST_E2E_STACK"):
        described: dict[str, Any] = json.loads(Path(path).read_text())
        return described
    own: dict[str, Any] = request.getfixturevalue("shared_stack").describe()
    return own


@pytest.fixture
def client(e2e_stack: dict[str, Any]) -> Iterator[Client]:
    with Client(e2e_stack["ingest_url"], e2e_stack["api_key"]) as client:
        yield client


@pytest.fixture
def push_event() -> Callable[..., dict[str, Any]]:
    """Makes GitHub push events, each on a repository of its own."""

    def make(**attributes: Any) -> dict[str, Any]:
        unique = uuid4().hex
        return {
            "specversion": "1.0",
            "id": unique,
            "type": "com.github.push",
            "source": f"https://github.com/acme/{unique}",
            "subject": "refs/heads/main",
            "datacontenttype": "application/json",
            "data": {"ref": "refs/heads/main", "repository": {"full_name": f"acme/{unique}"}},
        } | attributes

    return make
