"""The soak itself: a short run with one fault of most kinds, and the negative controls."""

from pathlib import Path

import pytest

from .broken import CONTROLS, Change, Control, break_copy
from .control import run_control
from .history import load_history
from .plan import Fault, Kind, Mix
from .run import SETTINGS, Soak
from .strangers import AT_GATEWAY, AT_INGEST, EACH

PLAN = [
    Fault(0.1, Kind.ODD_DEFAULTS, "defaults", seconds=3.0),
    Fault(0.2, Kind.HOSTILE_FRAMES, "ws-gateway", seconds=4.5),
    Fault(0.2, Kind.HOSTILE_REQUESTS, "ingest", seconds=4.5),
    Fault(0.5, Kind.KILL, "processor", 0.9),
    Fault(1.0, Kind.KILL_REDIS, "redis", seconds=0.3),
    Fault(1.5, Kind.KILL, "ingest", 0.9),
    Fault(2.0, Kind.CRASH_POSTGRES, "postgres", seconds=0.3),
    Fault(2.5, Kind.KILL, "ws-gateway"),
    Fault(3.5, Kind.REQUEUE, "postgres"),
    Fault(4.0, Kind.FLUSH_REDIS, "redis"),
]


@pytest.mark.soak
def test_a_few_faults_under_load_break_no_promise(tmp_path: Path) -> None:
    settings = SETTINGS | {"HOLDFAST_PROCESSOR_PROCESSES": "1"}  # starting a process costs seconds of a busy machine

    verdict = Soak(1, 5.0, PLAN, tmp_path, tenants=(), settings=settings).run()

    assert verdict.violations == []
    assert verdict.figures["faults"] + verdict.figures["spared"] == len(PLAN)
    assert verdict.figures["kills"] >= 2  # of PostgreSQL and Redis, which nothing spares
    settled = sum(verdict.figures[state] for state in ("processed", "dead", "discarded"))
    assert verdict.figures["stored"] == settled >= verdict.figures["accepted"] > 0
    assert verdict.figures["live_updates"] > verdict.figures["accepted"]
    hits = {fault["kind"]: fault["hit"] for fault in load_history(tmp_path).faults}
    assert hits["odd-defaults"]["ended"] > 0
    assert hits["hostile-frames"]["opened"] > EACH * len(AT_GATEWAY), "the gateway cut some, and they came back"
    assert hits["hostile-requests"]["opened"] >= EACH * len(AT_INGEST)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("missing", CONTROLS)
def test_the_checker_notices_what_is_missing(missing: str, tmp_path: Path) -> None:
    control = CONTROLS[missing]

    verdict = run_control(control, seed=1, folder=tmp_path)

    assert control.is_caught_by(verdict.violations), verdict.figures


@pytest.mark.parametrize("missing", CONTROLS)
def test_a_control_breaks_a_copy_that_python_can_read(missing: str, tmp_path: Path) -> None:
    break_copy(CONTROLS[missing], tmp_path)

    for file in tmp_path.rglob("*.py"):
        compile(file.read_text(), file, "exec")


def test_a_control_that_no_longer_fits_the_code_says_so(tmp_path: Path) -> None:
    stale = Change("libs/common/src/holdfast/storage/lifecycle.py", "this was never there", "")

    with pytest.raises(ValueError, match="0 places"):
        break_copy(Control((stale,), Mix(1.0, {}, {}), frozenset()), tmp_path)
