"""The process: how it starts, how it is asked about, how it ends."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from holdfast.local.process import log_lines
from holdfast.local.servers import Valkey


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_sigterm_lets_clients_go_in_good_order(
    start_gateway: Callable[..., Any], valkey: Valkey, gateway: Any, join: Any, tenant: Any
) -> None:
    leaving = start_gateway(valkey.url())
    clients = [join(leaving, tenant.token(), tenant.topic) for _ in range(20)]
    starts = [client.take("subscribed")["pos"] for client in clients]

    leaving.process.send_signal(signal.SIGTERM)

    for client in clients:
        assert client.take("reconnect")["after_ms"] >= 0
        assert client.close_code() == 4001
    assert leaving.process.wait(10) == 0
    tenant.publish(1)
    again = join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: starts[0]})
    assert again.take("update")["event"]["version"] == 1


def test_a_client_that_does_not_read_does_not_hold_up_the_end(
    start_gateway: Callable[..., Any], valkey: Valkey, open_live: Any, tenant: Any
) -> None:
    leaving = start_gateway(valkey.url())
    stuck = open_live(leaving, max_queue=1)
    stuck.send(type="hello", v=1, token=tenant.token(), topics=[tenant.topic])
    stuck.take("welcome")
    stuck.take("subscribed")
    for version in range(1, 15):
        tenant.publish(version, detail={"filler": "x" * 60_000})

    leaving.process.send_signal(signal.SIGTERM)

    assert leaving.process.wait(20) == 0


def test_health_on_both_ports_and_metrics_on_their_own(
    start_gateway: Callable[..., Any], own_valkey: Valkey, eventually: Callable[..., Any]
) -> None:
    gateway = start_gateway(own_valkey.url())
    for address in (gateway.http, gateway.metrics):
        assert get(f"{address}/livez")[0] == 200
        assert get(f"{address}/readyz")[0] == 200
    assert "holdfast_live_connections 0.0" in get(f"{gateway.metrics}/metrics")[1]

    own_valkey.kill()

    eventually(lambda: get(f"{gateway.http}/readyz")[0] == 503, message="not ready without Redis")
    assert json.loads(get(f"{gateway.metrics}/readyz")[1])["checks"] == {"redis": "RedisUnavailable"}
    assert get(f"{gateway.http}/livez")[0] == 200


def test_it_starts_without_redis_and_waits_for_it(
    own_valkey: Valkey,
    tmp_path: Any,
    eventually: Callable[..., Any],
    tend_revocations: Callable[[str], None],
    gateway: Any,
    join: Any,
    tenant: Any,
) -> None:
    own_valkey.kill()
    tend_revocations(own_valkey.url())
    waiting = type(gateway)(own_valkey.url(), tmp_path / "waiting.log")
    try:
        eventually(lambda: get_or_none(f"{waiting.http}/readyz") == 503, message="up, and not ready")
        own_valkey.start()
        eventually(waiting.is_ready, message="ready once Redis is there")
        assert join(waiting, tenant.token())
    finally:
        waiting.stop()


def get_or_none(url: str) -> int | None:
    try:
        return get(url)[0]
    except urllib.error.URLError:
        return None


def test_a_missing_secret_is_named(valkey: Valkey) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}

    done = subprocess.run(
        [sys.executable, "-m", "holdfast.gateway"],
        env=environment | {"HOLDFAST_REDIS_URL": valkey.url()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 78
    assert "HOLDFAST_LIVE_TOKEN_SECRET" in done.stderr


def test_logs_are_json_and_name_neither_token_nor_query(
    start_gateway: Callable[..., Any], valkey: Valkey, open_live: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    gateway = start_gateway(valkey.url(), HOLDFAST_LOG_LEVEL="debug")
    gateway.live += "?token=a-token-in-the-wrong-place"
    token = tenant.token()
    client = open_live(gateway)
    client.send(type="hello", v=1, token=token, topics=[tenant.topic])
    client.take("welcome")
    client.connection.close()

    told = {"started", "client connected", "client disconnected"}
    eventually(lambda: told <= {line["message"] for line in log_lines(gateway.log)}, message="logged")
    assert "a-token-in-the-wrong-place" not in gateway.log.read_text()
    assert token not in gateway.log.read_text()
