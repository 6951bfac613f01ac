"""Stacks that hostile clients meet."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.stacks import Replica, chaos_stack, replica

from holdfast.local.stack import Stack


@pytest.fixture(scope="session")
def hostile_stack(server_folder: Path) -> Iterator[Stack]:
    """A stack for the tests of one ``xdist_group``; each leaves it as it is."""
    with chaos_stack(server_folder) as stack:
        yield stack


@pytest.fixture
def launch(hostile_stack: Stack) -> Iterator[Callable[..., Replica]]:
    """Start one more process of a service: its name, then settings without ``HOLDFAST_``."""
    with ExitStack() as running:
        yield lambda service_name, **settings: running.enter_context(replica(hostile_stack, service_name, **settings))
