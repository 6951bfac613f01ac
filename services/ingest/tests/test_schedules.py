"""Schedules over HTTP: made, shown, paused, run and deleted, with every refusal."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.domain.schedule import MAX_SCHEDULES, ScheduleSpec
from holdfast.messaging.live import topic_keys
from holdfast.runtime.cron import next_tick
from holdfast.storage import schedules
from holdfast.storage.audit import Actor, AuditFilter, handlers_actor, list_audit

from .conftest import MAX_EVENT_BYTES

pytestmark = pytest.mark.xdist_group("ingest-schedules")  # one process for all of them

Api = Callable[..., httpx.Response]

BODY: dict[str, Any] = {"cron": "0 7 * * mon-fri", "timezone": "Europe/Istanbul", "type": "com.acme.report.due"}


@pytest.fixture
def name() -> str:
    return f"s-{uuid4().hex[:12]}"


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def made(api: Api, name: str, **changes: Any) -> dict[str, Any]:
    answer = api("PUT", f"/v1/schedules/{name}", json=BODY | changes)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def actions(ingest: Any, name: str) -> list[str]:
    page = ingest.database.call(list_audit, AuditFilter(), tenant="acme", limit=200)
    return [entry.action for entry in reversed(page.items) if entry.detail.get("schedule") == name]


def test_a_schedule_is_made_and_shown_with_its_next_ticks(ingest: Any, api: Api, name: str) -> None:
    answer = api("PUT", f"/v1/schedules/{name}", json=BODY | {"subject": "s", "audience": "u"})

    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/schedules/{name}")
    shown = answer.json()
    assert shown == api("GET", f"/v1/schedules/{name}").json()
    expected = BODY | {
        "name": name, "words": "At 07:00 on Monday through Friday", "source": f"/holdfast/schedules/{name}", "subject": "s",
        "audience": "u", "missed": "latest", "overlap": "allow", "paused": False, "declared": False, "last_at": None,
        "last_event_id": None, "skipped": 0, "failures": 0, "last_error": None, "links": {"self": f"/v1/schedules/{name}"},
    }  # fmt: skip
    assert {key: shown[key] for key in expected} == expected
    ticks = [datetime.fromisoformat(each) for each in shown["next"]]
    assert len(set(ticks)) == 5
    assert all((tick.hour, tick.weekday() < 5, tick > datetime.now(UTC)) == (4, True, True) for tick in ticks)
    assert shown["next_at"] == shown["next"][0]
    assert actions(ingest, name) == ["create_schedule"]


def test_data_is_kept_as_it_was_sent(api: Api, name: str) -> None:
    content = b'{"data": {"b": 1.10,  "a": 1e2}, "cron": "0 7 * * *", "type": "t"}'

    answer = api("PUT", f"/v1/schedules/{name}", content=content)

    assert answer.status_code == 201
    assert b'{"b": 1.10,  "a": 1e2}' in answer.content
    assert b'{"b": 1.10,  "a": 1e2}' in api("GET", f"/v1/schedules/{name}").content
    assert "data" not in api("GET", "/v1/schedules?limit=200").json()["items"][0]


@pytest.mark.parametrize(("sent", "shown"), [({}, "absent"), ({"data": None}, None), ({"data": []}, [])])
def test_no_data_is_not_null(api: Api, name: str, sent: dict[str, Any], shown: Any) -> None:
    made(api, name, **sent)

    assert api("GET", f"/v1/schedules/{name}").json().get("data", "absent") == shown


def test_putting_it_again_replaces_it_whole(ingest: Any, api: Api, name: str) -> None:
    made(api, name, subject="s", data=1, missed="all", overlap="skip")
    again = api(
        "PUT", f"/v1/schedules/{name}", json=BODY | {"subject": "s", "data": 1, "missed": "all", "overlap": "skip"}
    )
    assert again.status_code == 200

    replaced = api("PUT", f"/v1/schedules/{name}", json=BODY | {"cron": " 30  8 * * * "})

    assert replaced.status_code == 200
    found = replaced.json()
    assert (found["cron"], found["subject"], found["missed"], found["overlap"]) == (
        "30 8 * * *",
        None,
        "latest",
        "allow",
    )
    assert "data" not in found
    assert found["next_at"].endswith("T05:30:00Z")
    assert actions(ingest, name) == ["create_schedule", "change_schedule"]


@pytest.mark.parametrize(
    ("changes", "pointer", "told"),
    [
        ({"cron": "0 7 * *"}, "/cron", "has 4 fields; a schedule takes five fields"),
        ({"cron": "0 24 * * *"}, "/cron", "has a bad hour; a schedule takes five fields"),
        ({"cron": 7}, "/cron", "valid string: five fields"),
        ({"timezone": "Mars/Olympus"}, "/timezone", "is unknown; it is a name of the IANA time zone database"),
        ({"type": ""}, "/type", "takes 1 to 1024 bytes"),
        ({"type": None}, "/type", "valid string"),
        ({"source": "x" * 1025}, "/source", "takes 1 to 1024 bytes"),
        ({"subject": "\x07"}, "/subject", "without control characters"),
        ({"audience": "u*"}, "/audience", "no '*'"),
        ({"missed": "none"}, "/missed", "latest, all or skip"),
        ({"overlap": True}, "/overlap", "allow or skip"),
        ({"tz": "UTC"}, "/tz", "not permitted"),
        ({"debounceseconds": 0}, "/debounceseconds", "from 1 to 86400, such as 30; not 0"),
        ({"debounceseconds": 30, "debouncemaxseconds": 29}, "/debouncemaxseconds", "at least debounceseconds"),
        ({"debouncekey": "k"}, "/debouncekey", "send debounceseconds too"),
        ({"uniqueseconds": 60, "uniquekey": 7}, "/uniquekey", "is a string; not 7"),
        ({"debounceseconds": 30, "uniqueseconds": 60}, "/uniqueseconds", "not both"),
    ],
)
def test_what_is_wrong_is_told_with_what_was_received(
    api: Api, name: str, changes: dict[str, Any], pointer: str, told: str
) -> None:
    answer = api("PUT", f"/v1/schedules/{name}", json=BODY | changes)

    assert refused(answer) == (400, "invalid_request")
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["received"]) == (pointer, repr(changes[pointer[1:]])[:80])
    assert told in error["detail"]
    assert refused(api("GET", f"/v1/schedules/{name}")) == (404, "not_found")


def test_every_fault_is_told_at_once(api: Api, name: str) -> None:
    answer = api("PUT", f"/v1/schedules/{name}", json={"cron": "x", "timezone": "UTC", "type": "", "subject": ""})

    assert {error["pointer"] for error in answer.json()["errors"]} == {"/cron", "/type", "/subject"}


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"cron": "0 7 * * *", "type": "t", "data": {"a": 1, "a": 2}}', 400, "duplicate_name"),
        (b'{"cron": "0 7 * * *", "type": "t", "data": 1e999}', 400, "number_out_of_range"),
        (b'{"cron": "0 7 * * *", "type": "t", "data": "\\ud800"}', 400, "invalid_request"),
        (b'{"cron": "0 7 * * *", "type": "t", "data": ' + b"[" * 101 + b"]" * 101 + b"}", 400, "too_deep"),
        (b'{"cron": "0 7 * * *", "type": "t", "data": "' + b"x" * MAX_EVENT_BYTES + b'"}', 413, "too_large"),
    ],
)
def test_a_body_that_is_none_is_refused(api: Api, name: str, content: bytes, status: int, code: str) -> None:
    assert refused(api("PUT", f"/v1/schedules/{name}", content=content)) == (status, code)


@pytest.mark.parametrize("name", ["a%20b", "-a", "ä", "x" * 101, "a%0a"])
def test_a_name_that_no_schedule_has_is_refused_and_is_nobodys(api: Api, name: str) -> None:
    answer = api("PUT", f"/v1/schedules/{name}", json=BODY)

    assert refused(answer) == (400, "invalid_name")
    assert "1 to 100 ASCII letters" in answer.json()["detail"]
    assert refused(api("GET", f"/v1/schedules/{name}")) == (404, "not_found")


EVERYTHING = [
    ("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rest"), EVERYTHING)
def test_schedules_are_for_operators_of_their_tenant(
    ingest: Any, api: Api, key: str, name: str, method: str, rest: str
) -> None:
    made(api, name)
    path = f"/v1/schedules/{name}{rest}"
    body = {"json": BODY} if method == "PUT" else {}

    assert refused(api(method, path, key="hf_x", **body)) == (401, "unauthorized")
    assert refused(api(method, path, key=key, **body)) == (403, "forbidden")
    assert refused(api("GET", "/v1/schedules", key=key)) == (403, "forbidden")
    stranger = ingest.key("operate", tenant="other")
    answer = api(method, path, key=stranger, **body)
    assert (answer.status_code == 201) if method == "PUT" else (refused(answer) == (404, "not_found"))
    assert api("GET", f"/v1/schedules/{name}").json()["paused"] is False


@pytest.mark.parametrize(("method", "rest"), [each for each in EVERYTHING if each[0] in ("DELETE", "POST")])
def test_requests_that_take_no_body_refuse_one_and_what_is_not_there_is_not_found(
    api: Api, name: str, method: str, rest: str
) -> None:
    assert refused(api(method, f"/v1/schedules/{name}{rest}", json={"a": 1})) == (400, "invalid_request")
    assert refused(api(method, f"/v1/schedules/{name}{rest}")) == (404, "not_found")


def test_a_pause_and_its_end_are_made_once_and_audited(ingest: Any, api: Api, name: str) -> None:
    made(api, name)

    for rest, is_paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = api("POST", f"/v1/schedules/{name}/{rest}", json={})
        assert (answer.status_code, answer.json()["paused"]) == (200, is_paused)

    assert actions(ingest, name) == ["create_schedule", "pause_schedule", "resume_schedule"]


def test_a_schedule_that_cannot_be_followed_any_more_is_shown_and_says_what_helps(
    ingest: Any, api: Api, name: str
) -> None:
    made(api, name)
    api("POST", f"/v1/schedules/{name}/pause")
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE schedule SET timezone = 'Mars/Olympus' WHERE name = :name"), {"name": name})

    shown = api("GET", f"/v1/schedules/{name}").json()
    assert (shown["words"], shown["next"]) == (None, [shown["next_at"]])
    assert name in api("GET", "/v1/schedules?limit=200").text
    answer = api("POST", f"/v1/schedules/{name}/resume")
    assert refused(answer) == (409, "schedule_invalid")
    assert "its timezone is unknown" in answer.json()["detail"]
    assert api("PUT", f"/v1/schedules/{name}", json=BODY).status_code == 200


def test_running_it_records_its_event_once_for_a_key_and_leaves_its_ticks_alone(
    ingest: Any, api: Api, name: str
) -> None:
    before = made(api, name, data={"a": 1}, subject="s")
    once = {"Idempotency-Key": "run-1", "X-Request-Id": "request-1"}

    first, again, another = (api("POST", f"/v1/schedules/{name}/run", headers=headers) for headers in (once, once, {}))

    assert [each.status_code for each in (first, again, another)] == [202, 202, 202]
    assert first.headers["Location"] == f"/v1/events/{first.json()['event_id']}"
    assert (first.json()["duplicate"], first.json()["enqueued"], again.json()["duplicate"]) == (False, True, True)
    assert again.json()["event_id"] == first.json()["event_id"] != another.json()["event_id"]
    event = api("GET", f"{first.headers['Location']}?include=data", key=ingest.key()).json()
    assert (event["event"]["id"], event["event"]["source"]) == ("run:run-1", f"/holdfast/schedules/{name}")
    assert (event["event"]["subject"], event["event"]["data"], event["request_id"]) == ("s", {"a": 1}, "request-1")
    after = api("GET", f"/v1/schedules/{name}").json()
    assert (after["next_at"], after["last_event_id"]) == (before["next_at"], None)
    assert actions(ingest, name) == ["create_schedule", "run_schedule", "run_schedule"]

    api("PUT", f"/v1/schedules/{name}", json=BODY | {"data": {"a": 2}})
    assert refused(api("POST", f"/v1/schedules/{name}/run", headers=once)) == (422, "id_conflict")
    assert refused(api("POST", f"/v1/schedules/{name}/run", headers={"Idempotency-Key": "a b"})) == (
        400, "invalid_idempotency_key",
    )  # fmt: skip


def test_a_paused_schedule_can_be_run(api: Api, name: str) -> None:
    made(api, name)
    api("POST", f"/v1/schedules/{name}/pause")

    assert api("POST", f"/v1/schedules/{name}/run").json()["enqueued"] is True


def test_a_window_is_kept_and_shown_and_replaced_whole(ingest: Any, api: Api, name: str) -> None:
    window = {"debounceseconds": 600, "debouncekey": "k", "debouncemaxseconds": 900}
    nothing = {"uniqueseconds": None, "uniquekey": None}

    shown = made(api, name, **window)

    assert {key: shown[key] for key in (*window, *nothing)} == window | nothing
    assert api("GET", f"/v1/schedules/{name}").json() == shown
    changed = api("PUT", f"/v1/schedules/{name}", json=BODY | {"uniqueseconds": 60}).json()
    assert {key: changed[key] for key in (*window, *nothing)} == dict.fromkeys(window) | {
        "uniqueseconds": 60,
        "uniquekey": None,
    }
    assert actions(ingest, name) == ["create_schedule", "change_schedule"]


def test_one_with_a_window_is_run_into_it(ingest: Any, api: Api, live: Any, name: str) -> None:
    made(api, name, debounceseconds=600, type=f"last.{name}")
    first, last = (api("POST", f"/v1/schedules/{name}/run").json() for _ in range(2))

    assert [(each["state"], each["enqueued"], "deliver_at" in each) for each in (first, last)] == [
        ("queued", False, True)
    ] * 2
    replaced = api("GET", f"/v1/events/{first['event_id']}?include=timeline").json()
    assert replaced["state"] == "discarded"
    assert replaced["timeline"][-1]["detail"] == {"reason": "superseded", "superseded_by": last["event_id"]}
    entries: Any = live.xrange(topic_keys("acme", f"event:{first['event_id']}").stream)
    assert [json.loads(fields[b"u"])["state"] for _, fields in entries] == ["queued", "discarded"], "it is told live"

    api("PUT", f"/v1/schedules/{name}", json=BODY | {"uniqueseconds": 60, "type": f"first.{name}"})
    first, again = (api("POST", f"/v1/schedules/{name}/run").json() for _ in range(2))

    assert (first["duplicate"], first["enqueued"]) == (False, True)
    assert (again["duplicate"], again["enqueued"], again["event_id"]) == (True, False, first["event_id"])
    assert "unique_until" in again
    assert actions(ingest, name).count("run_schedule") == 3, "the duplicate changed nothing"


def test_deleting_answers_with_what_it_was(ingest: Any, api: Api, name: str) -> None:
    schedule = made(api, name, data=[1])

    answer = api("DELETE", f"/v1/schedules/{name}")

    assert (answer.status_code, answer.json()) == (200, schedule)
    assert refused(api("GET", f"/v1/schedules/{name}")) == (404, "not_found")
    assert refused(api("DELETE", f"/v1/schedules/{name}")) == (404, "not_found")
    assert actions(ingest, name) == ["create_schedule", "delete_schedule"]


def test_what_handlers_declare_is_paused_and_run_and_deleted_and_not_changed(ingest: Any, api: Api, name: str) -> None:
    spec = ScheduleSpec(name=name, cron="0 7 * * *", type="t")
    ingest.database.call(
        schedules.put_schedule, handlers_actor("acme"), spec, next_tick=next_tick, is_declared=True
    )  # fmt: skip

    answer = api("PUT", f"/v1/schedules/{name}", json=BODY)
    assert refused(answer) == (409, "schedule_declared")
    assert "change it where they do" in answer.json()["detail"]
    assert api("POST", f"/v1/schedules/{name}/pause").json()["declared"] is True
    assert api("POST", f"/v1/schedules/{name}/run").status_code == 202
    assert api("DELETE", f"/v1/schedules/{name}").json()["created_by"] == "handlers"


def test_a_list_has_every_schedule_of_the_tenant_page_by_page(ingest: Any, api: Api) -> None:
    key = ingest.key("operate", tenant="lists")
    names = [f"s{number}" for number in range(5)]
    for each in reversed(names):
        assert api("PUT", f"/v1/schedules/{each}", json=BODY, key=key).status_code == 201

    found, cursor = [], ""
    while cursor is not None:
        page = api("GET", f"/v1/schedules?limit=2&cursor={cursor}", key=key).json()
        found += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]

    assert found == names
    assert refused(api("GET", "/v1/schedules?limit=0", key=key)) == (400, "invalid_request")
    assert refused(api("GET", "/v1/schedules?paused=1", key=key)) == (400, "invalid_request")


def test_a_tenant_has_so_many_schedules(ingest: Any, api: Api) -> None:
    key, spec = ingest.key("operate", tenant="full"), ScheduleSpec(name="x", cron="0 7 * * *", type="t")
    with ingest.database.transaction() as session:
        schedules.put_schedule(session, Actor("full", "k"), spec, next_tick=next_tick)
        session.execute(
            text(
                "INSERT INTO schedule (id, tenant, name, cron, timezone, type, created_by)"
                " SELECT gen_random_uuid(), tenant, 'x' || n, cron, timezone, type, created_by"
                " FROM schedule, generate_series(2, :most) n WHERE tenant = 'full'"
            ),
            {"most": MAX_SCHEDULES},
        )

    answer = api("PUT", "/v1/schedules/another", json=BODY, key=key)

    assert refused(answer) == (422, "too_many_schedules")
    assert "at most 1000 schedules; delete one" in answer.json()["detail"]
    assert api("PUT", "/v1/schedules/x", json=BODY, key=key).status_code == 200
