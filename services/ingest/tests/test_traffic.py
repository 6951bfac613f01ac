"""The line that says what came since the last one."""

import json
from collections.abc import Callable
from typing import Any

from holdfast.ingest.http.traffic import Traffic
from holdfast.local.fixtures import Eventually


def told(log_text: Callable[[], str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_text().splitlines()]


def test_what_came_is_summed_up_and_told_once(log_text: Callable[[], str], eventually: Eventually) -> None:
    traffic = Traffic(interval_seconds=0.05)
    for outcome, accepted, duplicates in (
        ("accepted", 5, 1),
        ("duplicate", 0, 1),
        ("id_conflict", 0, 0),
        ("backlog", 0, 0),
    ):
        traffic.note(outcome, accepted=accepted, duplicates=duplicates)
    lines: list[dict[str, Any]] = []

    traffic.start()

    def has_told() -> bool:
        lines[:] = told(log_text)
        return bool(lines)

    eventually(has_told)
    traffic.stop()
    [line] = told(log_text)
    assert (line["level"], line["accepted"], line["duplicates"], line["refused"]) == ("info", 5, 2, 2)
    assert line["refused_by_code"] == {"id_conflict": 1, "backlog": 1}


def test_nothing_is_told_while_nothing_comes(log_text: Callable[[], str]) -> None:
    traffic = Traffic(interval_seconds=0.01)

    traffic.start()
    traffic.stop()

    assert told(log_text) == []


def test_what_came_last_is_told_at_the_end(log_text: Callable[[], str]) -> None:
    traffic = Traffic(interval_seconds=60)
    traffic.start()

    traffic.note("accepted", accepted=1, duplicates=0)
    traffic.stop()

    assert [line["accepted"] for line in told(log_text)] == [1]
