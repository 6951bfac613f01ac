"""How a tenant stands, over HTTP and at the console, and who may change that: nobody with a key."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.contract.console import seen

from holdfast.storage import tenants
from holdfast.storage.audit import command_actor

Api = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def test_a_tenant_of_which_nothing_is_set_has_one_share(ingest: Any, api: Api) -> None:
    answer = api("GET", "/v1/tenant", key=ingest.key("events:read", tenant="plain"))

    assert answer.json() == {
        "name": "plain", "weight": 1, "waiting": 0,
        "backlog": {"limit_seconds": 900.0, "is_own": False, "oldest_due_seconds": 0.0}, "updated_at": None,
    }  # fmt: skip


def test_what_was_set_is_shown_with_what_waits(ingest: Any, api: Api, operator: Any, put: Callable[..., str]) -> None:
    put()
    actor = command_actor("acme", "command:ann@host")
    ingest.database.call(tenants.set_tenant, actor, weight=3, backlog_seconds=600.0)
    with ingest.database.transaction() as session:
        session.execute(text("INSERT INTO state_count VALUES ('acme', 'queued', 7), ('acme', 'failed', 2) "
                             "ON CONFLICT (tenant, state) DO UPDATE SET events = excluded.events"))  # fmt: skip

    found = api("GET", "/v1/tenant").json()

    assert (found["weight"], found["waiting"]) == (3, 9)
    assert (found["backlog"]["limit_seconds"], found["backlog"]["is_own"]) == (600.0, True)
    assert found["backlog"]["oldest_due_seconds"] > 0
    page = seen(operator.get("/console/tenant"))
    assert "weight 3" in page
    assert "Backlog 10 min" in page


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_no_key_sets_its_own_share(ingest: Any, api: Api, method: str) -> None:
    assert api(method, "/v1/tenant", key=ingest.key("admin"), json={"weight": 100}).status_code == 405
