"""A stack of real processes: what is killed comes back, and ``stack.json`` says the truth about it."""

import json
import os
import signal
import stat
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.local.servers import free_port
from holdfast.local.services import is_ready
from holdfast.local.stack import Ports, Stack

pytestmark = pytest.mark.xdist_group("local-stack")

SERVERS = {"postgres", "redis"}
SERVICES = {"ingest", "processor", "maintenance", "scheduler", "ws-gateway"}

SAID: list[str] = []


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    with Stack(server_folder / "local-stack", say=SAID.append) as stack:
        yield stack


def described(stack: Stack) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((stack.folder / "stack.json").read_text())
    return content


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_stack_json_says_where_everything_is_to_its_owner_alone(stack: Stack) -> None:
    content = described(stack)

    assert set(content) == {
        "ingest_url", "live_url", "demo_url", "console_url", "api_key", "database_url", "redis_url", "broker_url", "metrics",
        "pids",
    }  # fmt: skip
    assert content["live_url"].endswith("/v1/live")
    assert stat.S_IMODE((stack.folder / "stack.json").stat().st_mode) == 0o600
    assert is_ready(content["ingest_url"])


def test_every_process_runs_and_is_named_main_process_first(stack: Stack) -> None:
    pids = described(stack)["pids"]

    assert set(pids) == SERVERS | SERVICES
    assert all(is_alive(pid) for listed in pids.values() for pid in listed)
    assert pids["postgres"] == [stack.postgres.process.pid]
    assert b"holdfast.ingest" in Path(f"/proc/{pids['ingest'][0]}/cmdline").read_bytes()
    assert len(pids["processor"]) > 1


def test_metrics_addresses_answer(stack: Stack) -> None:
    metrics = described(stack)["metrics"]

    assert SERVICES - {"scheduler"} == set(metrics)
    for url in metrics.values():
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (an address of our own)
            assert b"# HELP" in answer.read()


@pytest.mark.parametrize("name", ["scheduler", "ws-gateway", "ingest", "processor", "maintenance"])
def test_a_killed_service_comes_back_and_stack_json_follows(stack: Stack, name: str, eventually: Eventually) -> None:
    before = described(stack)["pids"][name]
    SAID.clear()

    os.kill(before[0], signal.SIGKILL)

    def has_followed() -> bool:
        now = described(stack)["pids"][name]
        return len(now) >= len(before) and not set(now) & set(before) and all(map(is_alive, now))

    eventually(has_followed, timeout_seconds=30, message=f"{name} did not come back")
    assert not any(map(is_alive, before))
    assert any(line.startswith(f"{name} ended; starting it again") for line in SAID)


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_a_killed_server_comes_back_on_its_port(stack: Stack, name: str, eventually: Eventually) -> None:
    before = described(stack)
    stack.postgres.execute(f"CREATE TABLE kept_over_{name}()", database="holdfast")

    os.kill(before["pids"][name][0], signal.SIGKILL)

    server = stack.postgres if name == "postgres" else stack.redis
    eventually(
        lambda: described(stack)["pids"][name] not in ([], before["pids"][name]) and server.is_answering(),
        timeout_seconds=30,
        message=f"{name} did not come back",
    )
    after = described(stack)
    assert (after["database_url"], after["redis_url"]) == (before["database_url"], before["redis_url"])
    stack.postgres.execute(f"SELECT * FROM kept_over_{name}", database="holdfast")  # noqa: S608
    eventually(lambda: is_ready(after["ingest_url"]), timeout_seconds=30)


def test_a_held_service_stays_down_until_it_is_resumed(stack: Stack, eventually: Eventually) -> None:
    SAID.clear()

    stack.hold("scheduler")

    eventually(lambda: described(stack)["pids"]["scheduler"] == [])
    os.kill(described(stack)["pids"]["ws-gateway"][0], signal.SIGKILL)
    eventually(lambda: any(line.startswith("ws-gateway ended") for line in SAID))
    eventually(lambda: len(described(stack)["pids"]["ws-gateway"]) > 0, timeout_seconds=30)
    assert described(stack)["pids"]["scheduler"] == []

    stack.resume("scheduler")
    assert len(described(stack)["pids"]["scheduler"]) > 0


def test_threads_that_write_stack_json_at_once_do_not_take_it_from_each_other(stack: Stack) -> None:
    with ThreadPoolExecutor(4) as threads:
        for resumed in [threads.submit(stack.resume, "scheduler") for _ in range(100)]:
            resumed.result()

    assert len(described(stack)["pids"]["scheduler"]) > 0


def test_two_stacks_about_to_start_do_not_take_the_same_ports(folder: Path) -> None:
    wished = Ports(postgres=free_port(), redis=free_port(), ingest=free_port(), gateway=free_port())
    said: list[str] = []
    first = Stack(folder / "first", ports=wished)
    second = Stack(folder / "second", ports=wished, say=said.append)

    first_port, second_port = first.postgres.port, second.postgres.port
    first.stop()
    second.stop()
    third = Stack(folder / "third", ports=wished)
    third.stop()

    assert first_port == wished.postgres
    assert second_port != wished.postgres
    assert len(said) == 4
    assert third.postgres.port == wished.postgres


def test_what_killed_services_left_in_their_temporary_folder_is_gone_after_a_stop(folder: Path) -> None:
    stack = Stack(folder / "stack")
    left = folder / "stack" / "tmp" / "left"
    left.parent.mkdir()
    left.touch()

    stack.stop()

    assert not left.exists()
