"""Health over HTTP."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from holdfast.local.fixtures import Eventually
from holdfast.local.servers import free_port
from holdfast.runtime import health
from holdfast.runtime.health import Check, readiness, serve_health
from holdfast.runtime.telemetry import Log, Metrics


def fine() -> None:
    """A probe that finds its dependency."""


def missing() -> None:
    raise ConnectionError("at s3cret.host")


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


@pytest.mark.parametrize(
    ("checks", "status", "http_status"),
    [
        ({}, "ok", 200),
        ({"database": Check(fine), "live": Check(fine, is_optional=True)}, "ok", 200),
        ({"database": Check(fine), "live": Check(missing, is_optional=True)}, "degraded", 200),
        ({"database": Check(missing), "live": Check(fine, is_optional=True)}, "unavailable", 503),
        ({"database": Check(missing), "live": Check(missing, is_optional=True)}, "unavailable", 503),
    ],
)
def test_a_service_is_ready_without_what_it_can_do_without(
    checks: dict[str, Check], status: str, http_status: int
) -> None:
    answer = readiness(checks)

    assert (answer.status, answer.http_status) == (status, http_status)


def test_readiness_says_which_one_is_missing_and_no_more_than_the_error_s_type() -> None:
    body = readiness({"database": Check(fine), "live": Check(missing, is_optional=True)}).body()

    assert json.loads(body) == {"status": "degraded", "checks": {"database": "ok", "live": "ConnectionError"}}


@pytest.fixture
def served() -> Callable[..., str]:
    def serve(checks: dict[str, Check], is_alive: Callable[[], bool] = lambda: True) -> str:
        port = free_port()
        serve_health("127.0.0.1", port, checks, is_alive=is_alive)
        return f"http://127.0.0.1:{port}"

    return serve


def test_liveness_touches_no_dependency(served: Callable[..., str]) -> None:
    url = served({"database": Check(missing)})

    assert get(f"{url}/livez") == (200, '{"status": "ok"}')
    status, body = get(f"{url}/readyz?verbose")
    assert (status, json.loads(body)["status"]) == (503, "unavailable")


def test_a_process_whose_threads_are_gone_is_not_alive(served: Callable[..., str]) -> None:
    assert get(f"{served({}, lambda: False)}/livez") == (503, '{"status": "dead"}')


def test_metrics_are_prometheus_s_text(served: Callable[..., str]) -> None:
    Metrics.redispatched.inc(3)

    status, body = get(f"{served({})}/metrics")

    assert status == 200
    assert "# TYPE holdfast_events_redispatched_total counter" in body


def test_another_path_is_not_found_and_says_what_there_is(served: Callable[..., str]) -> None:
    status, body = get(f"{served({})}/nothing")

    assert status == 404
    assert json.loads(body)["paths"] == ["/metrics", "/livez", "/readyz"]


def test_a_taken_port_is_logged_and_no_reason_to_stop(served: Callable[..., str]) -> None:
    port = int(served({}).rpartition(":")[2])

    with capture_logs() as logged:
        serve_health("127.0.0.1", port, {})

    assert [(line["event"], line["port"]) for line in logged] == [(Log.METRICS_PORT_TAKEN, port)]


def test_a_port_that_was_taken_is_served_as_soon_as_it_is_free(
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(health, "RETRY_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        serve_health("127.0.0.1", port, {})

    def is_alive() -> bool:
        with contextlib.suppress(OSError):
            return get(f"http://127.0.0.1:{port}/livez")[0] == 200
        return False

    eventually(is_alive)


def test_port_zero_serves_nothing() -> None:
    with capture_logs() as logged:
        serve_health("127.0.0.1", 0, {})

    assert logged == []


def test_500_idle_sockets_hold_neither_threads_nor_answers(served: Callable[..., str]) -> None:
    url = served({})
    port = int(url.rpartition(":")[2])
    before = threading.active_count()
    with contextlib.ExitStack() as idle:
        for _ in range(500):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)).sendall(b"G")

        assert [get(f"{url}{path}")[0] for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        assert threading.active_count() - before < 10


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_health_is_served_on_ipv6(host: str) -> None:
    port = free_port()
    serve_health(host, port, {})

    assert get(f"http://[::1]:{port}/livez")[0] == 200


def test_a_probe_that_hangs_holds_one_thread_up_and_no_answer_for_long(served: Callable[..., str]) -> None:
    calls, release = [], threading.Event()

    def hang() -> None:
        calls.append(1)
        release.wait(30)

    url = served({"database": Check(hang)})
    try:
        began = time.monotonic()
        answers = [get(f"{url}/readyz") for _ in range(5)]
        assert time.monotonic() - began < 5
    finally:
        release.set()

    assert {status for status, _ in answers} == {503}
    assert json.loads(answers[0][1])["checks"] == {"database": "TimeoutError"}
    assert len(calls) == 1


@pytest.mark.parametrize(("sent", "status"), [(b"nonsense\r\n\r\n", b"400"), (b"POST /livez HTTP/1.1\r\n\r\n", b"405")])
def test_what_health_cannot_read_is_refused(served: Callable[..., str], sent: bytes, status: bytes) -> None:
    port = int(served({}).rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(sent)

        assert status in connection.recv(4096)
