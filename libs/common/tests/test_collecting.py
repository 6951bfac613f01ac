"""What threads leave behind is worked off once, together, and by one thread at a time."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.runtime.collecting import Collected


class Work:
    """Waits to be let go, and notes what it was given and by whom it was done."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self._busy = threading.Lock()

    def __call__(self, items: Sequence[int]) -> None:
        assert self._busy.acquire(blocking=False), "one thread at a time"
        self.groups.append(list(items))
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.gate.wait(10)
        self._busy.release()

    def done(self) -> list[int]:
        return [item for group in self.groups for item in group]


def test_one_that_comes_alone_is_done_in_its_own_thread() -> None:
    work = Work()
    work.gate.set()
    items = Collected("beside", work, most=4)

    items.leave(1)
    items.work_off()

    assert work.groups == [[1]]
    assert work.threads == [threading.current_thread().name]


@pytest.mark.parametrize("follow", [Collected.work_off, Collected.work_off_beside])
def test_what_is_left_meanwhile_is_done_together_beside(
    follow: Callable[[Collected[int]], None], eventually: Eventually
) -> None:
    work = Work()
    items = Collected("beside", work, most=4)
    with ThreadPoolExecutor(1) as pool:
        items.leave(0)
        first = pool.submit(items.work_off)
        assert work.begun.wait(10)
        for number in range(1, 7):
            items.leave(number)
            follow(items)  # waits for nobody
        work.gate.set()
        first.result(10)

    eventually(lambda: len(work.done()) == 7)
    assert work.groups == [[0], [1, 2, 3, 4], [5, 6]]
    assert work.threads[1:] == ["beside", "beside"], "the first thread had one part to do"


def test_no_item_is_forgotten_or_done_twice_whoever_leaves_it(eventually: Eventually) -> None:
    work = Work()
    work.gate.set()
    items = Collected("beside", work, most=3)

    def leave(number: int) -> None:
        items.leave(number)
        (items.work_off if number % 3 else items.work_off_beside)()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(2000)))

    eventually(lambda: len(work.done()) == 2000)
    assert sorted(work.done()) == list(range(2000))


def test_a_fault_of_ours_costs_the_items_of_its_call_alone(eventually: Eventually) -> None:
    done: list[int] = []

    def work(items: Sequence[int]) -> None:
        if 1 in items:
            raise RuntimeError("broken")
        done.extend(items)

    items = Collected("beside", work, most=1)
    for number in range(4):
        items.leave(number)
    items.work_off()

    eventually(lambda: done == [0, 2, 3])


WITHOUT_THREADS = """
import threading
from holdfast.runtime.collecting import Collected

done = threading.Event()
collected = Collected("test", lambda items: done.set(), most=10)
collected.leave(1)
before = threading.stack_size(1 << 46)  # more than any machine has
try:
    collected.work_off_beside()
except RuntimeError as exc:
    print(exc)
threading.stack_size(before)
collected.work_off_beside()
print(done.wait(30))
"""


def test_a_thread_that_could_not_be_started_is_started_by_the_next_call() -> None:
    # In a process of its own: Python 3.11 keeps the state of a thread that did not start, under the id of the thread that
    # wanted to start it, and no exception can be raised in that one any more (PyThreadState_SetAsyncExc).
    told = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True, check=True)

    assert told.stdout.splitlines() == ["can't start new thread", "True"]
