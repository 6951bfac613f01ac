"""The conformance suite of the bell: what ingest, processor and maintenance rely on, whatever broker carries it.

A further broker adds a :class:`Broker` to ``BROKERS`` and passes every test here.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import pytest

from holdfast.domain.errors import BrokerUnavailable
from holdfast.domain.event import Doorbell
from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Valkey
from holdfast.messaging.bell import Bell, Listener, Rung
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.doorbell import QUEUE, SUSPECT_QUEUE

TIMEOUT_SECONDS = 1.0


class Broker(Protocol):
    """A server that the suite may start, stop, freeze and thaw (SIGSTOP, SIGCONT)."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def send(self, signal_number: int) -> None: ...
    def url(self) -> str: ...


BROKERS: dict[str, Callable[[Path], Broker]] = {"redis": Valkey}


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    server = BROKERS[request.param](tmp_path / "broker")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def open_one(broker: Broker) -> Iterator[Callable[..., Bell]]:
    with ExitStack() as opened:

        def make(*, is_consumer: bool = False) -> Bell:
            bell = open_bell(broker.url(), timeout_seconds=TIMEOUT_SECONDS, is_consumer=is_consumer)
            opened.callback(bell.close)
            return bell

        yield make


class Places:
    """The room of a listener: a semaphore that is taken as a whole."""

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self._changed = threading.Condition()

    def take(self, timeout_seconds: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self.free, timeout_seconds)
            taken, self.free = self.free, 0
        return taken

    def give_back(self, count: int) -> None:
        with self._changed:
            self.free += count
            self._changed.notify_all()


class Heard:
    """A listener with room for ``places`` doorbells, and what it heard. Its doorbells are not done while ``gate`` is shut."""

    def __init__(self, bell: Bell, *, queue: str = QUEUE, places: int = 4) -> None:
        self.doorbells: list[tuple[UUID, int]] = []
        self.running = 0
        self.most_at_once = 0
        self.finished = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.room = Places(places)
        self._lock = threading.Lock()
        self.listener: Listener = bell.consume(queue, room=self.room, answer=self._answer)
        self.listener.start()

    def _answer(self, rung: Sequence[Rung]) -> None:
        with self._lock:
            self.doorbells += [(each.event_id, each.version) for each in rung]
            self.running += len(rung)
            self.most_at_once = max(self.most_at_once, self.running)
        if self.failure:
            with self._lock:
                self.running -= len(rung)
                self.finished += len(rung)
            raise self.failure
        for each in rung:
            threading.Thread(target=self._finish, args=[each], daemon=True).start()

    def _finish(self, rung: Rung) -> None:
        self.gate.wait(20)
        with self._lock:
            self.running -= 1
            self.finished += 1
        rung.done()


@pytest.fixture
def hear(open_one: Callable[..., Bell]) -> Iterator[Callable[..., Heard]]:
    listening: list[Heard] = []

    def one(queue: str = QUEUE, *, places: int = 4) -> Heard:
        listening.append(Heard(open_one(is_consumer=True), queue=queue, places=places))
        return listening[-1]

    yield one
    for each in listening:
        each.gate.set()
        each.listener.stop(timeout_seconds=5)


def doorbells(count: int, *, is_suspect: bool = False) -> list[Doorbell]:
    return [Doorbell(uuid4(), number, is_suspect) for number in range(1, count + 1)]


def asks(bell: Bell) -> list[Callable[[], None]]:
    """Everything that a bell may be asked and that needs its broker at once."""
    return [partial(bell.ring, doorbells(1)), bell.ping]


def pairs(rung: list[Doorbell]) -> Counter[tuple[UUID, int]]:
    return Counter((each.event_id, each.version) for each in rung)


def test_every_doorbell_is_answered_with_its_event_and_version(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    rung = doorbells(1200)
    open_one().ring(rung)

    heard = hear()

    eventually(lambda: len(heard.doorbells) >= len(rung))
    assert Counter(heard.doorbells) == pairs(rung)


def test_suspects_are_heard_on_their_own_queue_alone(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    plain, suspects = doorbells(5), doorbells(5, is_suspect=True)
    bell, heard, heard_suspects = open_one(), hear(), hear(SUSPECT_QUEUE, places=1)

    bell.ring([*plain, *suspects])

    eventually(lambda: len(heard.doorbells) + len(heard_suspects.doorbells) == 10)
    assert Counter(heard.doorbells) == pairs(plain)
    assert Counter(heard_suspects.doorbells) == pairs(suspects)


def test_ringing_for_nobody_needs_no_broker(open_one: Callable[..., Bell], broker: Broker) -> None:
    bell = open_one()
    broker.stop()

    bell.ring([])


def test_a_broker_that_is_down_is_told_in_the_houses_own_words(open_one: Callable[..., Bell], broker: Broker) -> None:
    bell = open_one()
    bell.ring(doorbells(1))
    broker.stop()

    for ask in asks(bell):
        with pytest.raises(BrokerUnavailable):
            ask()


def test_a_broker_that_hangs_is_told_within_the_timeout(open_one: Callable[..., Bell], broker: Broker) -> None:
    bell = open_one()
    bell.ring(doorbells(1))
    broker.send(signal.SIGSTOP)
    try:
        for ask in asks(bell):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                ask()
            assert time.monotonic() - began < 5 * TIMEOUT_SECONDS
    finally:
        broker.send(signal.SIGCONT)


def test_a_ping_is_heard_by_nobody(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    bell, heard = open_one(), hear()
    for _ in range(5):
        bell.ping()

    bell.ring(doorbells(1))

    eventually(lambda: heard.doorbells)
    assert len(heard.doorbells) == 1


def test_an_answer_that_raises_neither_ends_the_listener_nor_comes_again(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    bell, heard, rung = open_one(), hear(places=1), doorbells(3)
    heard.failure = RuntimeError("an answer failed")

    bell.ring(rung)

    eventually(lambda: heard.finished == 3)
    heard.failure = None
    last = doorbells(1)
    bell.ring(last)
    eventually(lambda: heard.finished == 4)
    assert Counter(heard.doorbells) == pairs([*rung, *last])
    assert heard.listener.is_alive


def test_doorbells_of_a_moment_are_answered_at_once(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    rung = doorbells(60)
    open_one().ring(rung)

    heard = hear(places=60)

    eventually(lambda: heard.finished == 60)
    assert heard.most_at_once > 1


def test_no_more_doorbells_are_taken_than_there_is_room_for(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    bell, heard = open_one(), hear(places=3)
    heard.gate.clear()
    bell.ring(doorbells(20))
    eventually(lambda: heard.running == 3)

    heard.gate.set()

    eventually(lambda: heard.finished == 20)
    assert heard.most_at_once == 3
    eventually(lambda: heard.room.free in (0, 3), message="all places are given back, or wait with the listener")


def test_a_busy_listener_leaves_doorbells_to_others(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    bell, busy = open_one(), hear(places=2)
    busy.gate.clear()
    bell.ring(doorbells(50))
    eventually(lambda: busy.running == 2)

    idle = hear()

    eventually(lambda: idle.finished > 30)


def test_stopping_waits_for_answers_that_run_and_hands_back_the_rest(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    bell, first, rung = open_one(), hear(places=1), doorbells(6)
    first.gate.clear()
    bell.ring(rung)
    eventually(lambda: first.running == 1)

    stopping = threading.Thread(target=first.listener.stop, kwargs={"timeout_seconds": 10})
    stopping.start()
    first.gate.set()
    stopping.join(15)

    assert not stopping.is_alive()
    assert first.running == 0
    assert first.finished == len(first.doorbells)
    other = hear()
    eventually(lambda: len({*first.doorbells, *other.doorbells}) == 6)


def test_a_listener_hears_again_when_its_broker_is_back(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], broker: Broker, eventually: Eventually
) -> None:
    bell, heard = open_one(), hear()
    bell.ring(doorbells(1))
    eventually(lambda: len(heard.doorbells) == 1)
    broker.stop()
    assert heard.listener.is_alive
    broker.start()

    bell.ring(doorbells(1))

    eventually(lambda: len(heard.doorbells) == 2, timeout_seconds=15)


def test_a_bell_may_be_closed_again(open_one: Callable[..., Bell]) -> None:
    bell = open_one()
    bell.ping()

    bell.close()
    bell.close()


def test_an_idle_listener_stops_at_once_however_rarely_it_looks(
    open_one: Callable[..., Bell], hear: Callable[..., Heard], eventually: Eventually
) -> None:
    bell, idle, rung = open_one(), hear(), doorbells(1)
    bell.ring(rung)
    eventually(lambda: idle.finished == 1)
    began = time.monotonic()

    idle.listener.stop(timeout_seconds=10)

    assert time.monotonic() - began < 5, "of the ten that it may take"
    assert not idle.listener.is_alive
