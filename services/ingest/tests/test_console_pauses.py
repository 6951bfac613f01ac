"""Pauses at the console: shown to everybody, made and ended by those who may."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from tests.contract.console import audited, hidden, seen

from holdfast.domain.declared import DeclaredHandler
from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.pauses import PauseKind
from holdfast.storage import nodes, pauses
from holdfast.storage.audit import Actor
from holdfast.storage.nodes import Identity

HOSTILE = "<script>alert(1)</script>"

Visitor = Callable[..., Any]

CHARGE = DeclaredHandler("charge-order", 7, "gpu", Concurrency(5, key="/account"), Rate(100, per=60))


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


@pytest.fixture(autouse=True)
def _nothing_is_paused(ingest: Any) -> Iterator[None]:
    yield
    with ingest.database.transaction() as session:
        session.execute(text("DELETE FROM pause"))


@pytest.fixture(autouse=True)
def _processor(ingest: Any) -> Iterator[None]:
    """It has just spoken."""
    who = Identity(
        uuid4().hex[:12], "processor", "box", 10, "1.0", "worker-0", 11, slots=8, types=("test.*",),
        handlers=(CHARGE, DeclaredHandler("plain")),
    )  # fmt: skip
    ingest.database.call(nodes.enter, who, is_drained=False)
    yield
    ingest.database.call(nodes.leave, who)


def stored(ingest: Any) -> list[tuple[str, str, str | None]]:
    return [(each.kind, each.name, each.note) for each in ingest.database.call(pauses.list_pauses, "acme")]


def test_handlers_show_what_they_declare_and_what_waits_for_them(
    ingest: Any, operator: Any, put: Callable[..., str], visitor: Visitor
) -> None:
    waiting, running = put(), put()
    with ingest.database.transaction() as session:
        session.execute(
            text("UPDATE processing_state SET waits_in = 'limit:charge-order:acme/7', unserved_type = '', "
                 "waiting_since = now() WHERE event_id = :id"), {"id": waiting},
        )  # fmt: skip
        session.execute(
            text("UPDATE processing_state SET held_limit = 'limit:charge-order:acme/7', state = 'processing', "
                 "lease_token = gen_random_uuid(), lease_owner = 'w', lease_expires_at = now() + interval '1 h' "
                 "WHERE event_id = :id"), {"id": running},
        )  # fmt: skip

    said = seen(operator.get("/console/handlers"), "declared")

    assert "charge-order priority 7 · pool gpu 5 at once for each /account 100 in 1 min 1 1" in said
    assert "plain priority 5 · pool default none — —" in said
    assert "charge-order" not in visitor("events:read").get("/console/handlers").text


def test_an_administrator_pauses_a_handler_and_resumes_it(ingest: Any, admin: Any) -> None:
    fields = hidden(admin.get("/console/handlers").text, "/console/pauses")
    assert fields["csrf"]

    made = admin.send("/console/pauses", {"kind": "handler", "name": "charge-order", "note": f"why{HOSTILE}"})

    assert (made.status_code, made.headers["location"]) == (303, "/console/handlers?notice=paused#pauses")
    assert stored(ingest) == [("handler", "charge-order", f"why{HOSTILE}")]
    page = admin.get("/console/handlers")
    assert "charge-order Paused priority 7 · pool gpu paused by test" in seen(page, "declared")
    assert "<script>alert" not in page.text
    overview = admin.get("/console/?window=hour")
    assert HOSTILE not in overview.text
    [paused] = ingest.database.call(pauses.list_pauses, "acme")
    again = admin.send("/console/pauses", {"kind": "handler", "name": "charge-order"})
    assert again.headers["location"].startswith("/console/handlers?notice=paused_before")
    assert admin.send(f"/console/pauses/{paused.id}/resume").headers["location"].endswith("?notice=resumed#pauses")
    assert stored(ingest) == []
    assert admin.send(f"/console/pauses/{paused.id}/resume").status_code == 404
    assert audited(ingest, "name", "charge-order") == ["pause", "resume"]


def test_the_overview_says_what_is_paused(ingest: Any, operator: Any, put: Callable[..., str]) -> None:
    put()
    with ingest.database.transaction() as session:
        pauses.pause(session, Actor("acme", "k", "ann"), PauseKind.TENANT, "acme", note_text="they asked")
        pauses.pause(session, Actor("other", "k", "eve"), PauseKind.TYPE, "secret.type")

    said = seen(operator.get("/console/"), "attention")

    assert "Your tenant is paused: ann paused it" in said
    assert "(they asked)" in said
    assert "secret.type" not in said


def test_operators_pause_what_is_their_tenants_and_no_handler(ingest: Any, operator: Any) -> None:
    page = operator.get("/console/handlers").text
    assert 'value="handler"' not in page
    for kind in ("handler", "pool"):
        assert operator.send("/console/pauses", {"kind": kind, "name": "charge-order"}).status_code == 403
    assert stored(ingest) == []

    assert operator.send("/console/pauses", {"kind": "type", "name": "com.acme.x", "note": ""}).status_code == 303
    assert operator.send("/console/pauses", {"kind": "tenant", "name": "other"}).status_code == 303
    assert sorted(stored(ingest)) == [("tenant", "acme", None), ("type", "com.acme.x", None)]
    with ingest.database.transaction() as session:
        shared, _ = pauses.pause(session, Actor("acme", "k"), PauseKind.HANDLER, "charge-order")
        theirs, _ = pauses.pause(session, Actor("other", "k"), PauseKind.TYPE, "com.acme.x")
    assert f"/pauses/{shared.id}/resume" not in operator.get("/console/handlers").text
    assert operator.send(f"/console/pauses/{shared.id}/resume").status_code == 403
    assert operator.send(f"/console/pauses/{theirs.id}/resume").status_code == 404


def test_a_viewer_sees_what_is_paused_and_pauses_nothing(ingest: Any, visitor: Visitor) -> None:
    with ingest.database.transaction() as session:
        paused, _ = pauses.pause(session, Actor("acme", "k", "ann"), PauseKind.TYPE, "com.acme.x")
    viewer = visitor("events:read")

    page = viewer.get("/console/handlers")

    assert "com.acme.x type ann" in seen(page, "pauses")
    assert "/console/pauses" not in page.text
    assert viewer.send("/console/pauses", {"kind": "type", "name": "com.acme.y"}).status_code == 403
    assert viewer.send(f"/console/pauses/{paused.id}/resume").status_code == 403
    assert len(stored(ingest)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "node", "name": "x"},
        {"kind": "type", "name": ""},
        {"kind": "handler", "name": "a b"},
        {"kind": "type", "name": "x", "note": "x" * 201},
        {"kind": "type", "name": "x", "note": "a\x00b"},
    ],
)
def test_what_cannot_be_paused_is_said(ingest: Any, admin: Any, wrong: dict[str, str]) -> None:
    assert admin.send("/console/pauses", wrong).status_code == 400
    assert stored(ingest) == []


def test_a_form_that_is_not_ours_pauses_nothing(ingest: Any, admin: Any) -> None:
    answer = admin.send("/console/pauses", {"kind": "handler", "name": "charge-order", "csrf": "x"})

    assert answer.status_code == 403
    assert stored(ingest) == []
