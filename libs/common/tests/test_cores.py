"""Cores that a process may use."""

import os
import subprocess
import sys

import pytest

from holdfast.runtime.cores import quota_of, usable_cores


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("200000 100000\n", 2.0), ("50000 100000", 0.5), ("", None), ("1 0", None), ("-1", None)],
)
def test_a_containers_quota_is_read(text: str, cores: float | None) -> None:
    assert quota_of(text) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are bound to cores on Linux")
def test_a_process_that_is_bound_to_a_core_has_one() -> None:
    first = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, [{first}]);"
        " from holdfast.runtime.cores import usable_cores; print(usable_cores())"
    )

    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert told.stdout == "1\n"
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
