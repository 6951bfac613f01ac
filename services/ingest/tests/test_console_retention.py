"""The page of retention: what is in force, and changing it."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.xdist_group("ingest-console-retention")  # one process for all of them


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text


def test_an_administrator_changes_a_rule_and_an_operator_only_sees_it(admin: Any, operator: Any) -> None:
    answer = admin.send("/console/retention/dead", {"keep": "days", "days": "90"})
    assert answer.status_code == 303
    changed = admin.get(answer.headers["location"])

    assert "The rule is changed" in changed.text
    seen = operator.get("/console/retention")
    assert seen.status_code == 200
    assert "90 days" in seen.text
    assert 'action="/console/retention/dead"' in changed.text
    assert '<form action="/console/retention' not in seen.text
    refused(operator.send("/console/retention/dead", {"keep": "forever"}), 403)

    admin.send("/console/retention/dead", {"keep": "default"})
    assert "90 days" not in operator.get("/console/retention").text


def test_erasures_say_what_they_are_of(visitor: Any, ingest: Any) -> None:
    tenant = f"t-{uuid4().hex[:12]}"
    admin = visitor("admin", tenant=tenant)
    key = {"Authorization": f"Bearer {ingest.key('admin', tenant=tenant)}"}
    for body in ({"subject": "user-42"}, {"everything": True}):
        assert httpx.post(f"{ingest.url}/v1/erasures", json=body, headers=key).status_code == 202

    shown = admin.get("/console/retention").text

    assert '<td class="main">Everything<' in shown
    assert ">A subject, <" in shown


@pytest.mark.parametrize("days", ["", "0", "-1", "x", "36501", "9" * 500, "٣"])
def test_a_wrong_number_of_days_is_refused(admin: Any, days: str) -> None:
    refused(admin.send("/console/retention/dead", {"keep": "days", "days": days}), 400)


def test_there_is_no_rule_for_open_events(admin: Any) -> None:
    refused(admin.send("/console/retention/queued", {"keep": "forever"}), 404)
