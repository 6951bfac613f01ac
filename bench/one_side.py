"""One of the two checkouts that ``bench.beside`` measures: starts a stack and answers, for the name of a case, with a figure.

Run as a file, with the Python and in the folder of the checkout that is measured: that may be older than this file, and has
to have ``bench.cases`` and ``children_by_parent``.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # before "bench" is imported: that of the checkout


def main() -> None:
    """Say that it is ready, then for each line with a case's name: ``[figure, CPU seconds]``, as JSON.

    CPU seconds are those of the services and servers, of processes that were there from begin to end.
    """
    import bench
    from bench.cases import cases
    from holdfast.local.stack import Stack

    folder, here = Path(tempfile.mkdtemp(prefix="holdfast-bench-")), Path(next(iter(bench.__path__)))
    settings = {"HOLDFAST_HANDLERS": "handlers:handlers"}
    stack = Stack(folder, settings=settings, python_path=str(here), say=lambda _: None)
    try:
        stack.start()
        known = {case.name: case for case in cases(stack, seconds=float(sys.argv[1]))}
        _answer("ready")
        for line in sys.stdin:
            before = _cpu_seconds()
            figure = known[line.strip()].measure()
            after = _cpu_seconds()
            _answer([figure, sum(after[each] - before[each] for each in after.keys() & before.keys())])
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _cpu_seconds() -> dict[int, float]:
    """CPU time of each process below this one, itself left out: it makes the load. To the nanosecond, where ``bench.usage``
    counts hundredths of a second.
    """
    from holdfast.local.process import children_by_parent

    children, spent, todo = children_by_parent(), dict[int, float](), [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), ()):
            todo.append(pid)
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                threads = [each.read_text().split()[0] for each in Path(f"/proc/{pid}/task").glob("*/schedstat")]
                spent[pid] = sum(map(int, threads)) / 1e9
    return spent


if __name__ == "__main__":
    main()
