"""Running a negative control."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from .broken import Control, break_copy
from .plan import draw_plan
from .run import Soak, Verdict

__all__ = ["run_control"]

FAULT_SECONDS = 60.0
SETTLE_SECONDS = 20.0
"""Shorter than in a real run: what a control must find is there by then."""


def run_control(control: Control, *, seed: int, folder: Path, say: Callable[[str], None] = lambda _: None) -> Verdict:
    """Run a stack of the broken copy under the control's faults."""
    with tempfile.TemporaryDirectory(prefix="holdfast-broken-") as copy:
        soak = Soak(
            seed,
            FAULT_SECONDS,
            draw_plan(seed, FAULT_SECONDS, control.mix),
            folder,
            settle_seconds=SETTLE_SECONDS,
            python_path=str(break_copy(control, Path(copy))),
            sabotage=control.sabotage,
            say=say,
        )
        return soak.run()
