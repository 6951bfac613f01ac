"""The console's pages over a million events: what the statements read that their functions run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from bench.addresses import PAGES, Landmarks, addresses, find_landmarks
from bench.lived import TENANT
from flask.testing import FlaskClient
from tests.history.plans import explained

from holdfast.ingest import console
from holdfast.ingest.http.app import Application, create_app
from holdfast.ingest.http.parts import EXTENSION, Parts
from holdfast.local.servers import Postgres, Valkey
from holdfast.runtime.settings import IngestSettings
from holdfast.storage.database import Database
from holdfast.storage.keys import create_key

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

BUFFERS = 6_000
"""Pages of 8 KiB that one statement may read, as for lists (``test_lists``)."""

MORE = {"overview": 45_000, "new_replay": 400_000}
"""Counting what is open (``test_overview``), and what a replay would have, which is 100,000 events at most."""


EMPTY = {"new_key"}
"""Forms about nothing that exists; who it is that asks is known from the page before."""


@dataclass(frozen=True, slots=True)
class Console:
    """The application in this process, somebody signed in, and what it reads."""

    client: FlaskClient
    database: Database
    marks: Landmarks


@pytest.fixture(scope="module")
def app(postgres: Postgres, valkey: Valkey, lived_in_name: str) -> Iterator[Application]:
    settings = IngestSettings.model_validate({
        "database_url": postgres.url(lived_in_name), "broker_url": valkey.url(0), "redis_url": valkey.url(1),
        "live_token_secret": "a secret of the history's tests, long enough",
        "console_secret": "another secret of the history's tests, long enough",
    })  # fmt: skip
    made = create_app(settings, rooms=[console.install])
    parts: Parts = made.extensions[EXTENSION]
    for part in (parts.copying, parts.looking, parts.used_keys, parts.traffic):
        part.stop()  # what they ask on their own is no page's
    yield made
    parts.close()


@pytest.fixture(scope="module")
def visit(app: Application, postgres: Postgres, lived_in_name: str) -> Console:
    database = app.extensions[EXTENSION].database
    key = database.call(create_key, tenant=TENANT, name="test", scopes=("admin",))
    client = app.test_client()
    token = re.search(r'<meta name="csrf" content="([^"]*)">', client.get("/console/sign-in").text)
    assert token is not None
    origin = {"Origin": "http://localhost"}
    assert client.post("/console/sign-in", data={"csrf": token[1], "key": key}, headers=origin).status_code == 303
    return Console(client, database, find_landmarks(lambda sql: postgres.execute(sql, database=lived_in_name)))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_no_large_table_from_end_to_end(visit: Console, page: str) -> None:
    for address in addresses(visit.marks):
        if address.page != page:
            continue
        with explained(visit.database) as plans:
            answer = visit.client.get(f"/console{address.path}")

        told = "\n\n".join(f"{plan.statement}\n{plan.text}" for plan in plans)
        assert answer.status_code in (200, 303), address.path
        assert plans or page in EMPTY or answer.status_code == 303, f"{address.path} asked nothing"
        assert [plan.scanned for plan in plans if plan.scanned] == [], f"{address.path}\n{told}"
        assert max((plan.buffers for plan in plans), default=0) <= MORE.get(page, BUFFERS), f"{address.path}\n{told}"
