"""The demo in front of a real ingest: what a visitor gets, what it does not get, and where the key stays."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml

from holdfast.client import Client
from holdfast.local.stack import DEMO_SCOPES, Stack
from holdfast.storage.database import Database
from holdfast.storage.keys import list_keys

SOURCE = "/demo/shop"
COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


class Visitor:
    """A browser at the demo: keeps its cookie, and every byte that it was sent."""

    def __init__(self, stack: Stack) -> None:
        self._host = stack.demo_url.removeprefix("http://").partition("/")[0]
        self.cookie = ""
        self.received = b""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._host, timeout=20)
        headers = {"Content-Type": "application/json", "Origin": f"http://{self._host}", "Cookie": self.cookie}
        connection.request(method, f"/demo/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        self.received += str(answer.headers).encode() + content
        if cookie := answer.headers["Set-Cookie"]:
            self.cookie = cookie.partition(";")[0]
            self.set_cookie = cookie
        connection.close()
        return answer.status, json.loads(content)

    def order(self, goods: str) -> dict[str, Any]:
        status, placed = self.ask("POST", "orders", {"goods": goods})
        assert status == 202, placed
        return placed


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    return shared_stack


@pytest.fixture
def own(stack: Stack) -> Iterator[Client]:
    with Client(stack.ingest_url, stack.api_key) as client:
        yield client


def visit(stack: Stack) -> tuple[Visitor, dict[str, Any]]:
    visitor = Visitor(stack)
    status, session = visitor.ask("POST", "session", {})
    assert status == 200, session
    return visitor, session


def test_a_session_is_a_short_token_for_the_visitor_s_own_audience(stack: Stack) -> None:
    visitor, session = visit(stack)

    claims = jwt.decode(session["token"], options={"verify_signature": False})
    assert claims["topics"] == [session["topic"]]
    assert session["topic"].startswith("audience:demo-")
    assert claims["exp"] - claims["iat"] == 300
    assert session["lease_seconds"] == 30
    assert "HttpOnly" in visitor.set_cookie
    assert "samesite=strict" in visitor.set_cookie.lower()
    assert visitor.cookie.partition("=")[2] not in json.dumps(session), "the cookie's secret is not the audience"


def test_a_visitor_keeps_its_audience_and_two_have_two(stack: Stack) -> None:
    visitor, session = visit(stack)

    assert visitor.ask("POST", "session", {})[1]["topic"] == session["topic"]
    assert visit(stack)[1]["topic"] != session["topic"]


def test_an_order_is_an_event_of_which_the_visitor_has_chosen_the_goods_alone(stack: Stack, own: Client) -> None:
    visitor, session = visit(stack)

    placed = visitor.order("unicorn")

    event = own.get(placed["id"], include=["data"]).raw["event"]
    assert (event["type"], event["source"]) == ("shop.unicorn.ordered", SOURCE)
    assert event["subject"] == f"unicorn/{placed['number']}"
    assert event["audience"] == session["topic"].removeprefix("audience:")
    assert event["data"] == {"order": placed["number"], "item": "unicorn", "seconds": 1}
    assert own.wait(placed["id"], timeout_seconds=60).state == "dead"


def test_a_visitor_lists_and_replays_its_own_orders_and_no_others(stack: Stack, own: Client) -> None:
    (visitor, _), (other, _) = visit(stack), visit(stack)
    placed = visitor.order("unicorn")
    own.wait(placed["id"], timeout_seconds=60)

    [listed] = visitor.ask("GET", "orders")[1]["items"]
    assert (listed["id"], listed["goods"], listed["state"]) == (placed["id"], "unicorn", "dead")
    assert listed["detail"]["error"]["type"] == "out_of_stock"
    assert other.ask("GET", "orders") == (200, {"items": []})
    assert other.ask("POST", f"orders/{placed['id']}/replay", {})[0] == 404

    status, replayed = visitor.ask("POST", f"orders/{placed['id']}/replay", {})

    assert (status, replayed["state"]) == (202, "queued")
    assert own.wait(placed["id"], timeout_seconds=60).version == 6


def test_an_event_that_is_no_order_is_not_replayed_though_it_has_the_visitor_s_audience(
    stack: Stack, own: Client
) -> None:
    visitor, session = visit(stack)
    audience = session["topic"].removeprefix("audience:")
    sent = own.send({"type": "com.acme.unknown", "source": "/elsewhere", "audience": audience, "data": 1})
    assert own.wait(sent.event_id, timeout_seconds=60).state == "dead"

    for event_id in (sent.event_id, "no-event", "..", "01a223cf-83fd-7d3a-99e6-28d98f865a27"):
        assert visitor.ask("POST", f"orders/{event_id}/replay", {})[0] == 404


def test_what_ingest_refuses_is_told_with_its_reason(stack: Stack) -> None:
    visitor, _ = visit(stack)
    placed = visitor.order("machine")

    status, problem = visitor.ask("POST", f"orders/{placed['id']}/replay", {})

    assert (status, problem["code"]) in [(409, "event_queued"), (409, "event_processing")]
    assert "cannot be replayed" in problem["detail"]


def test_the_key_is_in_no_answer_and_in_no_log(stack: Stack) -> None:
    key = (stack.folder / "demo-key").read_text()
    secret = key.split("_", 2)[2]  # which may have an underscore of its own
    assert (stack.folder / "demo-key").stat().st_mode & 0o077 == 0

    visitor, _ = visit(stack)
    visitor.order("beans")
    visitor.ask("GET", "orders")
    visitor.ask("POST", "orders", {"goods": "nothing"})
    visitor.ask("POST", "orders/none/replay", {})

    assert len(secret) > 20
    assert secret.encode() not in visitor.received
    assert not [log.name for log in Path(stack.logs).iterdir() if secret in log.read_text()]


def test_compose_makes_the_key_at_each_start_and_revokes_the_one_before(database_url: str, tmp_path: Path) -> None:
    [_, flags, script] = yaml.safe_load(COMPOSE.read_text())["services"]["demo-key"]["command"]
    script = script.replace("/var/lib/holdfast", str(tmp_path)).replace("$$", "$")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = []
    for _ in range(2):
        subprocess.run(
            ["sh", flags, script], env=os.environ | {"HOLDFAST_DATABASE_URL": database_url, "PATH": path}, check=True
        )
        made.append((tmp_path / "demo-key").read_text().strip())

    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        keys = {key.key_id: key for key in list_keys(session, tenant="demo")}
    database.close()
    old, new = (keys[key.split("_")[1]] for key in made)
    assert (old.revoked_at is None, new.revoked_at is None) == (False, True)
    assert set(new.scopes) == set(DEMO_SCOPES)
    assert new.expires_at is not None
    assert (tmp_path / "demo-key").stat().st_mode & 0o077 == 0
