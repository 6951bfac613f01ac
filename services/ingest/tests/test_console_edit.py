"""Replaying a processed event with other data, in a form that loses nothing of what was typed."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest

Put = Callable[..., str]
Api = Callable[..., Any]

MAX_EVENT_BYTES = 16 * 1024
"""As the fixtures have it."""

TYPED = '{\r\n  "amount": 1.50,\r\n  "note": "</textarea><script>alert(1)</script>"\r\n}'


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def form_of(page: str) -> str:
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert found is not None, page
    return html.unescape(found[1])


def sent(browser: Any, event_id: str, text: str, **values: str) -> Any:
    path = f"/console/events/{event_id}/edit"
    form = {"csrf": browser.token(), "request": browser.request_key(path), "data": text} | values
    fields = {name: (None, value) for name, value in form.items()}
    return browser.http.post(path, files=fields, headers={"Origin": browser.origin})


def test_a_processed_event_is_replayed_with_data_as_it_was_typed(operator: Any, put: Put, api: Api) -> None:
    event_id = put("processed", data={"amount": 1})
    assert f"/console/events/{event_id}/edit" in operator.get(f"/console/events/{event_id}").text
    assert form_of(operator.get(f"/console/events/{event_id}/edit").text) == '{\n  "amount": 1\n}'

    answer = sent(operator, event_id, TYPED)

    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].endswith("?notice=copied")
    copy_id = answer.headers["location"].partition("?")[0].rpartition("/")[2]
    copy = api("GET", f"/v1/events/{copy_id}").json()
    assert (copy["replay_of"], copy["state"]) == (event_id, "queued")
    payload = operator.get(f"/console/events/{copy_id}/payload")
    assert payload.text == TYPED.replace("\r\n", "\n"), "each digit as it was typed"
    [entry] = api("GET", "/v1/audit", params={"event_id": event_id}).json()["items"]
    assert (entry["action"], entry["detail"]["is_edited"]) == ("replay", True)


def test_the_same_form_twice_records_one_event(operator: Any, put: Put) -> None:
    event_id = put("processed", data={"amount": 1})
    key = operator.request_key(f"/console/events/{event_id}/edit")

    first, second = (sent(operator, event_id, "[2]", request=key) for _ in range(2))

    assert first.headers["location"].partition("?")[0] == second.headers["location"].partition("?")[0]
    assert second.headers["location"].endswith("?notice=repeated")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1,', "not JSON: Expecting property name"),
        ('{"a": 1, "a": 2}', "a name twice"),
        ("", "not JSON"),
        ("NaN", "NaN is not JSON"),
        ("[" * 101 + "]" * 101, "100 levels deep"),
    ],
)
def test_data_that_cannot_be_used_stays_in_the_form(operator: Any, put: Put, text: str, fault: str) -> None:
    event_id = put("processed", data={"amount": 1})

    answer = sent(operator, event_id, text)

    assert answer.status_code == 400
    assert fault in html.unescape(answer.text)
    assert form_of(answer.text) == text
    assert 'role="alert"' in answer.text


def test_other_events_are_not_edited(operator: Any, viewer: Any, put: Put) -> None:
    dead, long = put("dead"), put("processed", data="x" * 15_500)
    words = put("processed", data=None, data_base64="d29yZHM=", datacontenttype="text/plain")
    wide = put("processed", data=[1] * 3_000)
    faults = {
        dead: "a processed event is replayed with other data",
        long: f"up to {MAX_EVENT_BYTES - 1000} bytes",
        words: "takes JSON",
        wide: "takes JSON",
    }
    for event_id, fault in faults.items():
        assert event_id in (long, wide) or f"{event_id}/edit" not in operator.get(f"/console/events/{event_id}").text
        answer = operator.get(f"/console/events/{event_id}/edit")
        assert answer.status_code == 409
        assert fault in html.unescape(answer.text)
    processed = put("processed")
    assert viewer.get(f"/console/events/{processed}/edit").status_code == 403
    assert viewer.send(f"/console/events/{processed}/edit", {"data": "1"}).status_code == 403
    assert operator.get("/console/events/018f0000-0000-7000-8000-000000000000/edit").status_code == 404
