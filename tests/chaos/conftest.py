"""A stack for breaking, and what its tests look at. A module that needs a stack of its own overrides ``stack``."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.chaos.distant import Distant, distant_processor, pause, wake
from tests.chaos.invariant import violations
from tests.chaos.producers import Producers
from tests.chaos.proxy import Proxy
from tests.chaos.stacks import LEASE_SECONDS, Replica, Rows, chaos_stack, fill, replica, ring

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack


@pytest.fixture(scope="session")
def stack(server_folder: Path) -> Iterator[Stack]:
    """A stack for the tests of one ``xdist_group``; each leaves it as it found it."""
    with chaos_stack(server_folder) as stack:
        yield stack


@pytest.fixture
def rows(stack: Stack) -> Iterator[Rows]:
    with contextlib.closing(Rows(stack.database_url)) as rows:
        yield rows


@pytest.fixture
def producers(stack: Stack) -> Producers:
    return Producers(stack.ingest_url, stack.api_key)


@pytest.fixture
def launch(stack: Stack) -> Iterator[Callable[..., Replica]]:
    """Start one more process of a service: its name, then settings without ``HOLDFAST_``."""
    with contextlib.ExitStack() as running:
        yield lambda service_name, **settings: running.enter_context(replica(stack, service_name, **settings))


@pytest.fixture
def proxy() -> Iterator[Callable[[int], Proxy]]:
    """Start a proxy before a server's port."""
    with contextlib.ExitStack() as running:
        yield lambda port: running.enter_context(Proxy(port))


@pytest.fixture
def no_processor(stack: Stack) -> Iterator[None]:
    """The stack's own processor is down until the test resumes it."""
    stack.hold("processor")
    yield
    stack.resume("processor")


@pytest.fixture
def paused_processor(stack: Stack) -> Iterator[None]:
    """The stack's own processor is paused until the test wakes it."""
    pause(stack.services["processor"])
    yield
    wake(stack.services["processor"])


@pytest.fixture(scope="session")
def distant_processors(stack: Stack) -> Iterator[Callable[[], Distant]]:
    """The distant processor; another one when that was killed."""
    with contextlib.ExitStack() as running:
        started: list[Distant] = []

        def current() -> Distant:
            if not started or not started[-1].is_running:
                started.append(running.enter_context(distant_processor(stack)))
            return started[-1]

        yield current


@pytest.fixture
def distant(
    stack: Stack,
    distant_processors: Callable[[], Distant],
    paused_processor: None,  # noqa: ARG001
    rows: Rows,
    eventually: Eventually,
) -> Iterator[Distant]:
    """The distant processor, alone until the test wakes the stack's own one."""
    distant = distant_processors()
    distant.wake()
    [probe] = fill(stack.database_url, 1, "chaos.plain")
    ring(stack, [probe])  # Redis may have been away while it was paused
    eventually(lambda: rows.state(probe) == "processed", message="the distant processor works")
    yield distant
    distant.reconnect()
    distant.pause()


@pytest.fixture
def assert_invariant(stack: Stack, producers: Producers) -> Callable[[], None]:
    """Fail when the database breaks the invariant, over all events so far."""

    def check() -> None:
        assert violations(stack.database_url, accepted=producers.accepted, lease_seconds=LEASE_SECONDS) == {}

    return check
