"""What administrators do with keys at the console, and the page of the tenant."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.contract.console import audited, hidden, seen

from holdfast.storage.counting import count_page

HOSTILE = "<script>alert(1)</script>"

Put = Callable[..., str]
Visitor = Callable[..., Any]


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {
        "HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough",
        "HOLDFAST_BACKLOG_LIMIT_SECONDS": "7200",
    }


def made(answer: httpx.Response) -> str:
    """The key on the page that shows it."""
    assert answer.status_code == 201, answer.text
    found = re.search(r'id="secret"[^>]*>(hf_[a-z0-9]{12}_[\w-]{43})</pre>', answer.text)
    assert found is not None
    return found[1]


def new_key(admin: Any, **values: Any) -> httpx.Response:
    sent = hidden(admin.get("/console/keys/new").text, "/console/keys")
    answer: httpx.Response = admin.send(
        "/console/keys", sent | {"name": "shop", "scopes": ["events:read"], "expires": "86400"} | values
    )
    return answer


def test_a_key_is_made_shown_once_and_works(ingest: Any, admin: Any, visitor: Visitor) -> None:
    sent = hidden(admin.get("/console/keys/new").text, "/console/keys")
    values = sent | {"name": f"shop{HOSTILE}", "scopes": ["events:read", "operate"], "expires": "86400"}

    answer = admin.send("/console/keys", values)

    key = made(answer)
    secret = key.split("_", 2)[2]
    assert answer.headers["cache-control"] == "no-store"
    assert not any(secret in f"{name}: {value}" for name, value in answer.headers.items())
    assert visitor().sign_in(key).status_code == 303
    there = f"/console/keys/{key.split('_')[1]}"
    for path in ("/console/keys", there, "/console/audit"):
        page = admin.get(path).text
        assert secret not in page, path
        assert "<script>alert" not in page
    assert secret not in ingest.log.read_text()
    assert audited(ingest, "key_id", key.split("_")[1]) == ["create_key"]
    again = admin.send("/console/keys", values)
    assert (again.status_code, again.headers["location"]) == (303, f"{there}?notice=key_made_before")
    assert f'href="{there}"' in admin.get("/console/audit?action=create_key").text


@pytest.mark.parametrize(
    ("values", "fault"),
    [({"name": ""}, "name"), ({"name": "a\nb"}, "name"), ({"name": "x" * 101}, "name"), ({"scopes": []}, "scopes"),
     ({"scopes": ["root"]}, "scopes"), ({"expires": "0"}, "expires_in_seconds"), ({"expires": "soon"}, "expires_in_seconds"),
     ({"expires": str(10**12)}, "expires_in_seconds")],
)  # fmt: skip
def test_a_key_that_cannot_be_is_told_so_beside_the_form(admin: Any, values: dict[str, Any], fault: str) -> None:
    answer = new_key(admin, **values)

    assert answer.status_code == 400
    assert f"<li>{fault}" in answer.text
    assert 'action="/console/keys"' in answer.text


def test_a_key_without_end_is_made(admin: Any) -> None:
    there = f"/console/keys/{made(new_key(admin, expires='')).split('_')[1]}"

    assert "ends never" in seen(admin.get(there))


def test_a_key_is_rotated_and_the_old_one_stays_good_for_the_overlap(admin: Any, visitor: Visitor) -> None:
    old = made(new_key(admin, expires=""))
    there = f"/console/keys/{old.split('_')[1]}"
    sent = hidden(admin.get(there).text, f"{there}/rotate") | {"overlap": "3600"}

    answer = admin.send(f"{there}/rotate", sent)

    key = made(answer)
    new = f"/console/keys/{key.split('_')[1]}"
    assert "is good until" in answer.text
    assert visitor().sign_in(old).status_code == 303
    assert visitor().sign_in(key).status_code == 303
    page = admin.get(there).text
    assert f'href="{new}"' in page
    assert "/rotate" not in page
    assert admin.send(f"{there}/rotate", sent).headers["location"] == f"{new}?notice=key_made_before"
    assert (
        admin.send(f"{there}/rotate", sent | {"request": uuid4().hex}).headers["location"]
        == f"{new}?notice=key_replaced"
    )
    assert admin.send(f"{there}/rotate", {"request": "k", "overlap": "-1"}).status_code == 400
    assert f'href="{there}"' in admin.get("/console/audit?action=rotate_key").text


def test_a_key_is_revoked_and_opens_nothing(admin: Any, visitor: Visitor, eventually: Any) -> None:
    key = made(new_key(admin))
    there = f"/console/keys/{key.split('_')[1]}"

    answer = admin.send(f"{there}/revoke")

    assert answer.headers["location"] == f"{there}?notice=key_revoked"
    assert "Revoked" in seen(admin.get(there))
    assert "/revoke" not in admin.get(there).text
    eventually(lambda: visitor().sign_in(key).status_code == 401, timeout_seconds=10, message="the key still opens")
    assert (
        admin.send(f"{there}/rotate", {"request": "k", "overlap": "0"}).headers["location"]
        == f"{there}?notice=key_ended"
    )


def test_the_last_administrator_is_revoked_only_when_that_is_confirmed(ingest: Any, visitor: Visitor) -> None:
    last = visitor("admin", tenant="lonely")
    [key_id] = re.findall(r'<tr id="k-(\w{12})"', last.get("/console/keys").text)
    there = f"/console/keys/{key_id}"

    answer = last.send(f"{there}/revoke")

    assert answer.status_code == 409
    assert "is the last key with admin" in seen(answer)
    assert "Active" in seen(last.get(there))
    done = last.send(f"{there}/revoke", {"force": "yes"})
    assert done.headers["location"] == "/console/sign-in?notice=key_own_revoked"
    assert "holdfast_console=;" in done.headers["set-cookie"]
    assert audited(ingest, "key_id", key_id) == ["create_key", "revoke_key"]


def test_keys_are_for_administrators_of_their_tenant(operator: Any, admin: Any, visitor: Visitor) -> None:
    key_id = made(new_key(admin)).split("_")[1]
    there, values = f"/console/keys/{key_id}", {"request": "k", "overlap": "0", "name": "x", "scopes": ["admin"]}
    assert operator.get(there).status_code == 403
    assert operator.get("/console/keys/new").status_code == 403
    for path in ("/console/keys", f"{there}/rotate", f"{there}/revoke"):
        assert operator.send(path, values).status_code == 403, path
    stranger = visitor("admin", tenant="stranger")
    assert stranger.get(there).status_code == 404
    for path in (f"{there}/rotate", f"{there}/revoke"):
        assert stranger.send(path, values).status_code == 404, path
    for name in ("x", "ABCDEFGHIJKL", "000000000000"):
        assert admin.get(f"/console/keys/{name}").status_code == 404
    assert "Active" in seen(admin.get(there))


def test_the_tenant_page_says_how_it_stands(ingest: Any, visitor: Visitor, admin: Any, put: Put) -> None:
    put("dead")
    put("processed")
    for _ in range(3):  # the cursor's two snapshots, and what came between
        while ingest.database.call(count_page, limit=10_000):
            pass

    said = seen(admin.get("/console/tenant"))

    assert re.search(r"Dead letters [1-9]\d* wait for a decision", said), said
    assert re.search(r"last hour [1-9]\d* [1-9]\d* [1-9]\d* [1-9]", said), said
    assert re.search(r"last 90 days [1-9]", said)
    assert re.search(r"keys [1-9]\d* active keys?", said)
    assert "Backlog 2 h" in said
    assert "16.0 KiB" in said
    viewer = seen(visitor("events:read", tenant="newcomer").get("/console/tenant"))
    assert "active key" not in viewer
    assert "Dead letters 0 wait" in viewer
