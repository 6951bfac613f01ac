"""Schedules that handlers declare: checked where they stand, and stored when a processor starts."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.domain.errors import ConfigurationError, DatabaseUnavailable
from holdfast.domain.schedule import MAX_SCHEDULES, Missed, Overlap, ScheduleSpec
from holdfast.local.fixtures import Eventually
from holdfast.processor import Debounce, Handlers, Unique
from holdfast.processor.worker.declaring import Declaring
from holdfast.runtime.cron import next_tick
from holdfast.runtime.telemetry import Log
from holdfast.storage import schedules
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.schedules import Schedule

WHOLE: dict[str, Any] = {
    "cron": "0 7 * * mon-fri",
    "name": "daily-report",
    "tenant": "acme",
    "type": "com.acme.report.due",
}

PACKAGE = """
from typing import Any

from holdfast.processor import Context, Handlers, Unique

handlers = Handlers()
handlers.every(
    "0 7 * * mon-fri", tz="Europe/Istanbul", type="test.report", name="report", tenant="acme", data={"a": 1},
    unique=Unique(60),
)


@handlers.on("test.report", name="report")
def report(data: Any, ctx: Context) -> None: ...
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=2)
    yield made
    made.close()


def declared(**changes: Any) -> Handlers:
    handlers = Handlers()
    handlers.every(**(WHOLE | changes))
    return handlers


def stored(database: Database, name: str = "daily-report") -> Schedule | None:
    return database.call(schedules.find_schedule, name, tenant="acme")


def test_a_schedule_is_kept_as_it_is_declared_with_its_place() -> None:
    handlers = declared(
        tz="Europe/Istanbul", data={"b": 1.5, "a": None}, source="/s", subject="x", audience="u", missed="all",
        overlap="skip", debounce=Debounce(30, key="k"),
    )  # fmt: skip

    [found] = handlers.schedules

    assert found.tenant == "acme"
    assert found.spec == ScheduleSpec(
        name="daily-report", cron="0 7 * * mon-fri", timezone="Europe/Istanbul", type="com.acme.report.due", source="/s",
        subject="x", audience="u", data=b'{"a":null,"b":1.5}', missed=Missed.ALL, overlap=Overlap.SKIP,
        extensions={"debounceseconds": 30, "debouncekey": "k"},
    )  # fmt: skip
    assert found.place.startswith(f"{__file__}:")


def test_no_data_is_none_and_none_is_null() -> None:
    assert [each.spec.data for each in declared().schedules] == [None]
    assert [each.spec.data for each in declared(data=None).schedules] == [b"null"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cron": "0 7 * *"}, "cron is '0 7 * *', which has 4 fields; a schedule takes five fields"),
        ({"cron": "0 25 * * *"}, "cron is '0 25 * * *', which has a bad hour"),
        ({"cron": 7}, "cron takes a text, not 7"),
        ({"tz": "Europe/Istambul"}, "tz is 'Europe/Istambul', which is unknown; it is a name of the IANA"),
        ({"name": "daily report"}, "name is 'daily report'; it takes 1 to 100 ASCII letters"),
        ({"tenant": "a:b"}, "tenant is 'a:b'; it takes 1 to 63"),
        ({"type": ""}, "type is ''; it takes 1 to 1024 bytes"),
        ({"type": None}, "type takes a text, not None"),
        ({"source": ""}, "source is ''; it takes 1 to 1024 bytes"),
        ({"subject": 5}, "subject takes a text, not 5"),
        ({"audience": "x" * 256}, "it takes 1 to 255 bytes"),
        ({"missed": "none"}, 'missed is \'none\'; it takes one of "latest", "all", "skip"'),
        ({"overlap": True}, 'overlap is True; it takes one of "allow", "skip"'),
        ({"debounce": 30}, "debounce is a Debounce, such as Debounce(30, key=…); not 30"),
        ({"debounce": Debounce(30), "unique": Unique(60)}, "an event has debounce or unique, not both"),
        ({"data": {1, 2}}, "data cannot be written as JSON"),
        ({"data": float("nan")}, "data cannot be written as JSON"),
        ({"data": "\ud800"}, "data cannot be written as JSON"),
        ({"data": "x" * 262_143}, "data has 262145 bytes as JSON and may have 262144"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands_with_what_was_given(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        declared(**changes)

    assert str(refused.value).startswith(f"{__file__}:")
    assert told in str(refused.value)


def test_a_name_is_a_tenants_once_also_among_collections_that_are_put_together() -> None:
    handlers = declared()
    handlers.every(**(WHOLE | {"tenant": "other"}))
    with pytest.raises(ConfigurationError, match=r"named 'daily-report': .*:\d+ and .*:\d+; rename one"):
        handlers.every(**WHOLE)

    package = Handlers()
    package.include(handlers)
    assert [each.tenant for each in package.schedules] == ["acme", "other"]
    with pytest.raises(ConfigurationError, match="two schedules of the tenant 'acme'"):
        package.include(declared())


def test_a_tenant_has_so_many_schedules() -> None:
    handlers = Handlers()
    for number in range(MAX_SCHEDULES):
        handlers.every(**(WHOLE | {"name": f"s{number}"}))

    with pytest.raises(ConfigurationError, match="at most 1000 schedules"):
        handlers.every(**WHOLE)
    handlers.every(**(WHOLE | {"tenant": "other"}))


def test_declarations_are_stored_once_a_start_and_what_is_unchanged_is_left_alone(database: Database) -> None:
    declaring = Declaring(database, [*declared().schedules, *declared(name="other").schedules])

    with capture_logs() as logged:
        declaring.turn()
        declaring.turn()
        Declaring(database, declared().schedules).turn()
        Declaring(database, declared(cron="0 8 * * *").schedules).turn()

    lines = [line for line in logged if line["event"] == Log.SCHEDULES_DECLARED]
    assert [(line["created"], line["changed"], line["none"]) for line in lines] == [(2, 0, 0), (0, 0, 1), (0, 1, 0)]
    found = stored(database)
    assert found is not None
    assert (found.is_declared, found.created_by, found.spec.cron) == (True, "handlers", "0 8 * * *")
    assert stored(database, "other") is not None, "what is declared no more stays"


def test_a_pause_by_an_operator_survives_the_next_start(database: Database) -> None:
    Declaring(database, declared().schedules).turn()
    actor = Actor("acme", "abcdefghijkl")
    database.call(schedules.set_paused, actor, "daily-report", is_paused=True, next_tick=next_tick)

    Declaring(database, declared(cron="0 8 * * *").schedules).turn()

    found = stored(database)
    assert found is not None
    assert (found.is_paused, found.spec.cron) == (True, "0 8 * * *")


def test_an_outage_at_the_start_leaves_the_declarations_to_a_later_turn(database: Database, own_postgres: Any) -> None:
    away = Database(own_postgres.url(), application_name="test", pool_size=1)
    declaring = Declaring(away, declared().schedules)
    own_postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        declaring.turn()
    away.close()

    declaring._database = database
    declaring.turn()

    assert stored(database) is not None


def test_a_tenant_that_has_too_many_is_told_of_and_the_others_are_stored(database: Database) -> None:
    with database.transaction() as session:
        for number in range(MAX_SCHEDULES):
            spec = ScheduleSpec(name=f"s{number}", cron="0 0 * * *", type="x")
            schedules.put_schedule(session, Actor("acme", "k"), spec, next_tick=lambda *_: None)
    declaring = Declaring(database, [*declared().schedules, *declared(tenant="other").schedules])

    with capture_logs() as logged:
        declaring.turn()

    assert [line["schedule"] for line in logged if line["event"] == Log.SCHEDULE_NOT_DECLARED] == ["daily-report"]
    assert stored(database) is None
    assert database.call(schedules.find_schedule, "daily-report", tenant="other") is not None


def test_a_processor_stores_what_its_handlers_declare(
    launch: Callable[..., Any], tmp_path: Path, database: Database, eventually: Eventually
) -> None:
    (tmp_path / "reports.py").write_text(PACKAGE)

    launch(HANDLERS="reports:handlers")

    eventually(lambda: stored(database, "report") is not None, message="the schedule is stored")
    found = stored(database, "report")
    assert found is not None
    assert (found.spec.timezone, found.spec.data, found.is_declared) == ("Europe/Istanbul", b'{"a":1}', True)
    assert found.next_at == next_tick(found.spec, found.created_at)


@pytest.mark.parametrize(("old", "new", "status"), [("", "", 0), ("0 7 ", "0 27 ", 1)])
def test_schedules_are_checked_without_a_database(tmp_path: Path, old: str, new: str, status: int) -> None:
    (tmp_path / "reports.py").write_text(PACKAGE.replace(old, new) if old else PACKAGE)

    def check(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "holdfast.processor", "check", "reports:handlers", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = check()

    assert done.returncode == status
    if status:
        assert "reports.py:7: cron is '0 27 * * mon-fri', which has a bad hour" in done.stderr
        return
    assert done.stdout.splitlines()[-1].startswith("report  acme    0 7 * * mon-fri  Europe/Istanbul  test.report")
    [told] = json.loads(check("-o", "json").stdout)["schedules"]
    assert (told["name"], told["missed"], told["overlap"], told["uniqueseconds"]) == ("report", "latest", "allow", 60)
