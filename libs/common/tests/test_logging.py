"""Logs: every line parses and says who wrote it, and every event is in the catalogue."""

import ast
import contextlib
import ctypes
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.runtime.telemetry import Log, Metrics

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for folder in ("libs", "services") for path in (ROOT / folder).glob("*/src/holdfast/**/*.py"))

PROGRAM = """
import logging, structlog
from holdfast.runtime import logging as ours
ours.configure(
    service="test", version="1.2", log_format={log_format!r}, level={level!r}, with_error_texts={with_error_texts!r}
)
log = ours.get("a.module")
{body}
"""


@pytest.fixture
def logged(run_python: RunPython) -> Callable[..., list[dict[str, Any]]]:
    """The lines of a process that logs and does ``body``."""

    def run(body: str, *, level: str = "info", with_error_texts: bool = False) -> list[dict[str, Any]]:
        program = PROGRAM.format(body=body, log_format="json", level=level, with_error_texts=with_error_texts)
        done = run_python("-c", program)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_a_line_says_when_what_where_and_who(logged: Callable[..., list[dict[str, Any]]]) -> None:
    [line] = logged('log.bind(event_id="e").info("started", handlers={"a": [1]}, text="ü\\n")')

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "message": "started", "level": "info", "logger": "a.module", "service.name": "test", "service.version": "1.2",
        "event_id": "e", "handlers": {"a": [1]}, "text": "ü\n",
    }  # fmt: skip


def test_an_exception_has_a_type_and_a_stack(logged: Callable[..., list[dict[str, Any]]]) -> None:
    body = 'try:\n    {}["k"]\nexcept KeyError as exc:\n    log.exception("one")\n    log.warning("two", exc_info=exc)'

    lines = logged(body)

    assert [(line["level"], line["message"], line["error.type"]) for line in lines] == [
        ("error", "one", "KeyError"),
        ("warning", "two", "KeyError"),
    ]
    assert all("Traceback" in line["error.stack"] and "exc_info" not in line for line in lines)


def test_a_library_s_line_has_the_same_shape(logged: Callable[..., list[dict[str, Any]]]) -> None:
    body = 'try:\n    1/0\nexcept ZeroDivisionError:\n    logging.getLogger("some.library").exception("%s of %d", "one", 2)'

    [line] = logged(body)

    assert (line["message"], line["logger"], line["service.name"]) == ("one of 2", "some.library", "test")
    assert line["error.type"] == "ZeroDivisionError"


def test_what_is_bound_to_a_request_is_on_all_its_lines(logged: Callable[..., list[dict[str, Any]]]) -> None:
    body = 'structlog.contextvars.bind_contextvars(request_id="r")\nlog.info("one")\nlogging.getLogger("l").info("two")'

    assert [line["request_id"] for line in logged(body)] == ["r", "r"]


def test_lines_below_the_level_are_not_written(logged: Callable[..., list[dict[str, Any]]]) -> None:
    body = 'log.debug("no")\nlog.info("no")\nlog.warning("yes")\nlogging.getLogger("alembic").info("no")'

    assert [line["message"] for line in logged(body, level="warning")] == ["yes"]


def test_anything_that_json_does_not_know_is_still_a_line(logged: Callable[..., list[dict[str, Any]]]) -> None:
    [line] = logged('log.info("one", where=object, raw=b"\\xff", many={1, 2})')

    assert line["message"] == "one"


RAISING = """
def charge(card):
    raise ValueError(f"invalid card {card}")
try:
    charge("4111-s3cret")
except ValueError:
    log.exception("one")
    logging.getLogger("some.library").exception("two")
"""


def test_an_exception_is_logged_by_its_frames_and_without_its_text(
    logged: Callable[..., list[dict[str, Any]]]
) -> None:  # fmt: skip
    lines = logged(RAISING)

    assert [line["error.type"] for line in lines] == ["ValueError", "ValueError"]
    assert all("in charge" in line["error.stack"] for line in lines)
    assert "s3cret" not in str(lines)


def test_an_operator_may_have_the_texts_of_exceptions_logged(logged: Callable[..., list[dict[str, Any]]]) -> None:
    assert all("4111-s3cret" in line["error.stack"] for line in logged(RAISING, with_error_texts=True))


OWN = """
from holdfast.domain.errors import ConfigurationError
try:
    raise ConfigurationError("set X to 1")
except ConfigurationError:
    log.exception("one")
"""

LONG = """
try:
    raise ValueError("x" * 5_000_000)
except ValueError:
    log.exception("one")
"""


def test_what_holdfast_says_itself_is_always_logged(logged: Callable[..., list[dict[str, Any]]]) -> None:
    [line] = logged(OWN)

    assert "ConfigurationError: set X to 1" in line["error.stack"]


def test_an_exception_of_any_size_is_a_line_of_a_bounded_length(logged: Callable[..., list[dict[str, Any]]]) -> None:
    [line] = logged(LONG, with_error_texts=True)

    assert len(str(line)) < 25_000


@pytest.mark.parametrize("with_error_texts", [False, True])
def test_a_person_gets_readable_lines(run_python: RunPython, with_error_texts: bool) -> None:
    body = 'log.info("started", a=1)' + RAISING
    program = PROGRAM.format(body=body, log_format="console", level="info", with_error_texts=with_error_texts)

    done = run_python("-c", program)

    assert "started" in done.stdout
    assert "{" not in done.stdout
    assert "in charge\n" in done.stdout
    assert ("4111-s3cret" in done.stdout) == with_error_texts


def log_calls() -> Iterator[tuple[str, ast.expr]]:
    """Where a logger is called, and its first argument."""
    methods = {"debug", "info", "warning", "error", "exception", "critical"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods
            if is_call and "log" in ast.unparse(node.func.value).split(".")[0].lower():  # type: ignore[attr-defined]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]  # type: ignore[attr-defined]


def names_used(catalogue: str) -> set[str]:
    """``X`` of every ``<catalogue>.X`` in the sources."""
    return {
        node.attr
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == catalogue
    }


PASSED_ON = {
    "services/maintenance/src/holdfast/maintenance/duties.py",
    "libs/common/src/holdfast/messaging/announce.py",
    "services/maintenance/src/holdfast/maintenance/summary.py",
}
"""Here the event is a parameter, whose callers name it from the catalogue."""


def test_every_event_that_is_logged_is_in_the_catalogue() -> None:
    calls = list(log_calls())
    strangers = [
        f"{place} {ast.unparse(event)}"
        for place, event in calls
        if not ast.unparse(event).startswith("Log.") and place.partition(":")[0] not in PASSED_ON
    ]

    assert strangers == []
    assert len(calls) > 30, "the sources were read"


@pytest.mark.parametrize("catalogue", [Log, Metrics])
def test_the_catalogue_has_nothing_that_nobody_uses(catalogue: type) -> None:
    entries = {name for name in vars(catalogue) if not name.startswith("_")}
    used = names_used(catalogue.__name__)

    assert entries - used == set()
    assert used - entries == set()


class Ended(BaseException):
    """Raised in a thread whose time is up."""


@pytest.mark.usefixtures("log_text")
def test_a_thread_that_is_ended_while_it_waits_to_log_leaves_the_lock_free(eventually: Eventually) -> None:
    """Otherwise no other thread of the process logs ever again, and with that none works."""
    handler = next(each for each in logging.getLogger().handlers if type(each).__module__ == "holdfast.runtime.logging")
    assert handler.lock is not None

    def log() -> None:
        with contextlib.suppress(Ended):
            handler.handle(logging.makeLogRecord({"msg": "a line"}))

    thread = threading.Thread(target=log)
    with handler.lock:
        thread.start()
        eventually(lambda: sys._current_frames()[thread.ident or 0].f_code.co_name in ("handle", "acquire"))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Ended))
    thread.join(30)

    is_free = handler.lock.acquire(timeout=5)
    handler.createLock()  # whatever became of this one, the process must be able to end
    assert is_free
