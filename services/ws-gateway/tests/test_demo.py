"""The demo without an ingest behind it: what is served and with which headers, and who is refused, and why.

What it does with one is in ``tests/e2e/test_demo.py``, what the page shows in ``tests/browser/test_demo.py``.
"""

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from holdfast.domain.errors import ConfigurationError
from holdfast.gateway.demo.allowance import Allowance
from holdfast.gateway.demo.answers import Refusal
from holdfast.gateway.demo.ingest import Ingest
from holdfast.local.servers import free_port

CLIENT = Path(__file__).parents[3] / "libs" / "client-js" / "holdfast-live.js"


EVENT = "01a223cf-83fd-7d3a-99e6-28d98f865a27"
VISITOR = {"Cookie": f"holdfast_demo={'0123456789abcdef' * 2}"}
JSON = {"Content-Type": "application/json"}
BEANS = '{"goods": "beans"}'


def post(address: Any, path: str, body: str = "{}", **headers: str) -> tuple[int, dict[str, Any], Message]:
    """Status, JSON body and headers of an answer, whatever its status."""
    host = address.http.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        sent = JSON | VISITOR | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, sent)
        answer = connection.getresponse()
        is_json = "json" in answer.headers.get_content_type()
        return answer.status, json.loads(answer.read()) if is_json else {}, answer.headers


def get(url: str) -> tuple[int, Message, bytes]:
    with contextlib.closing(urllib.request.urlopen(url, timeout=10)) as answer:  # noqa: S310 (loopback)
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("name", ["holdfast-live.js", "follow.js", "event-stream.js"])
def test_the_page_s_client_is_the_published_one(name: str) -> None:
    served = (files("holdfast.gateway") / "demo_page" / name).read_bytes()

    assert served == CLIENT.with_name(name).read_bytes(), f"copy libs/client-js/{name} into demo_page"


@pytest.mark.parametrize("path", ["/demo/", "/demo/demo.js", "/demo/orders"])
def test_nothing_is_served_unless_it_is_asked_for(serve: Callable[..., Any], path: str) -> None:
    address = serve()

    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{address.http}{path}")
    refused.value.close()

    assert refused.value.code == 404


@pytest.mark.parametrize("path", ["/demo/session", "/demo/orders", f"/demo/orders/{EVENT}/replay"])
def test_nothing_is_ordered_unless_it_is_asked_for(serve: Callable[..., Any], path: str) -> None:
    assert post(serve(), path)[0] == 404


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/demo", "text/html"),
        ("/demo/", "text/html"),
        ("/demo/demo.js", "text/javascript"),
        ("/demo/holdfast-live.js", "text/javascript"),
        ("/demo/demo.css", "text/css"),
        ("/demo/favicon.svg", "image/svg+xml"),
    ],
)
def test_each_file_comes_with_its_type_and_a_strict_policy(
    serve: Callable[..., Any], path: str, media_type: str
) -> None:
    address = serve(gateway_demo=True)

    status, headers, body = get(f"{address.http}{path}")

    assert (status, headers.get_content_type()) == (200, media_type)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert body


def test_the_page_has_neither_scripts_nor_styles_within(serve: Callable[..., Any]) -> None:
    _, _, page = get(f"{serve(gateway_demo=True).http}/demo/")

    assert b'<script type="module" src="demo.js"></script>' in page
    assert b"<style" not in page
    assert b"style=" not in page


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/demo/session", "/demo/orders", f"/demo/orders/{EVENT}/replay"])
def test_another_page_orders_nothing_even_one_that_may_watch(
    serve: Callable[..., Any], path: str, headers: dict[str, str]
) -> None:
    address = serve(gateway_demo=True, allowed_origins=["*"])

    status, problem, _ = post(address, path, BEANS, **headers)

    assert (status, problem["code"]) == (403, "cross_origin")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_orders_nothing(serve: Callable[..., Any], kind: str) -> None:
    status, problem, _ = post(serve(gateway_demo=True), "/demo/orders", BEANS, Content_Type=kind)

    assert (status, problem["code"]) == (415, "unsupported_format")


@pytest.mark.parametrize("cookie", ["", "holdfast_demo=", "holdfast_demo=me", f"holdfast_demo={'A' * 32}"])
def test_who_has_no_session_orders_nothing(serve: Callable[..., Any], cookie: str) -> None:
    status, problem, _ = post(serve(gateway_demo=True), "/demo/orders", BEANS, Cookie=cookie)

    assert (status, problem["code"]) == (401, "no_session")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 400, "invalid_order"),
        ("[]", 400, "invalid_order"),
        ("null", 400, "invalid_order"),
        ("{}", 400, "invalid_order"),
        ('{"goods": "yacht"}', 400, "invalid_order"),
        ('{"goods": ["beans"]}', 400, "invalid_order"),
        ("[" * 200, 400, "invalid_order"),
        ('{"goods": "beans", "more": "' + "x" * 256 + '"}', 413, "too_large"),
    ],
)
def test_an_order_is_one_of_the_goods_and_short(serve: Callable[..., Any], body: str, status: int, code: str) -> None:
    answered, problem, _ = post(serve(gateway_demo=True), "/demo/orders", body)

    assert (answered, problem["code"]) == (status, code)


def test_the_shop_is_closed_without_a_key_and_says_what_it_lacks(serve: Callable[..., Any], tmp_path: Path) -> None:
    for file, word in ((None, "set HOLDFAST_GATEWAY_DEMO_KEY_FILE"), (tmp_path / "none", "not open yet")):
        status, problem, _ = post(serve(gateway_demo=True, gateway_demo_key_file=file), "/demo/session")

        assert (status, problem["code"]) == (503, "no_demo_key")
        assert word in problem["detail"]
        assert str(tmp_path) not in problem["detail"]


def test_ingest_that_is_away_is_told_to_come_back_to(serve: Callable[..., Any], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hf_a-key")
    address = serve(
        gateway_demo=True, gateway_demo_key_file=key, gateway_demo_ingest_url=f"http://127.0.0.1:{free_port()}"
    )

    status, problem, headers = post(address, "/demo/session")

    assert (status, problem["code"], headers["Retry-After"]) == (503, "ingest_unavailable", "2")
    assert "hf_a-key" not in str(problem)


def test_orders_are_bounded_for_all_visitors_together(serve: Callable[..., Any]) -> None:
    address = serve(gateway_demo=True)

    answers = [post(address, "/demo/orders", BEANS, Cookie=f"holdfast_demo={number:032x}") for number in range(30)]

    refused = [(problem["code"], int(headers["Retry-After"])) for status, problem, headers in answers if status == 429]
    assert refused
    assert set(refused) == {("too_many_requests", 1)}


def test_an_allowance_fills_up_again_and_no_further_than_its_burst() -> None:
    seconds = [0.0]
    allowance = Allowance(per_second=2, burst=3, now=lambda: seconds[0])

    def taken() -> int:
        count = 0
        with contextlib.suppress(Refusal):
            while True:
                allowance.take()
                count += 1
        return count

    assert taken() == 3
    seconds[0] = 0.5
    assert taken() == 1
    seconds[0] = 100
    assert taken() == 3


@pytest.mark.parametrize("url", ["", "here:8080", "ftp://here", "http://", "http://u:p@here", "http://here:x"])
def test_an_address_of_ingest_that_is_none_stops_the_gateway_and_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like http") as refused:
        Ingest(url, None)

    assert "here" not in str(refused.value)
