"""When Redis is asked, and when it is left alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.domain.errors import BrokerUnavailable, LiveWindowUnavailable
from holdfast.local.fixtures import Eventually
from holdfast.runtime.breaker import Breaker


class Server:
    """Counts who asks, and answers or does not."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = BrokerUnavailable("no answer")

    def ask(self) -> None:
        self.asked += 1
        if self.failure:
            raise self.failure


def test_after_three_failures_it_is_left_alone() -> None:
    breaker, server = Breaker(failures=3, pause_seconds=60), Server()

    done = [breaker.call(server.ask) for _ in range(10)]

    assert not any(done)
    assert server.asked == 3


def test_failures_with_a_success_between_them_do_not_add_up() -> None:
    breaker, server = Breaker(failures=2, pause_seconds=60), Server()

    for failure in (BrokerUnavailable(), None, LiveWindowUnavailable(), None, BrokerUnavailable(), None):
        server.failure = failure
        assert breaker.call(server.ask) is (failure is None)

    assert server.asked == 6


def test_after_the_pause_one_caller_looks_and_the_others_do_not_wait_for_it() -> None:
    breaker, server = Breaker(failures=1, pause_seconds=1.0), Server()
    breaker.call(server.ask)
    is_looking, may_answer = threading.Event(), threading.Event()

    def look() -> None:
        is_looking.set()
        assert may_answer.wait(10)

    with ThreadPoolExecutor(1) as pool:
        while not is_looking.wait(0.01):
            pool.submit(breaker.call, look)  # refused until the pause is over
        others = [breaker.call(server.ask) for _ in range(5)]
        may_answer.set()

    assert others == [False] * 5
    assert server.asked == 1


def test_once_it_answers_everybody_asks_again(eventually: Eventually) -> None:
    breaker, server = Breaker(failures=1, pause_seconds=0.05), Server()
    breaker.call(server.ask)
    server.failure = None

    eventually(lambda: breaker.call(server.ask))

    assert all(breaker.call(server.ask) for _ in range(5))


def test_a_fault_of_our_own_is_not_taken_for_redis() -> None:
    breaker, server = Breaker(failures=1, pause_seconds=60), Server()
    server.failure = KeyError("a bug")

    with pytest.raises(KeyError):
        breaker.call(server.ask)

    server.failure = None
    assert breaker.call(server.ask)
