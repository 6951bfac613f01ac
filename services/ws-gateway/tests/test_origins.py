"""Which pages may connect: one reading of one setting, whatever they connect with."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from websockets.exceptions import ConnectionClosed

from holdfast.domain.errors import ConfigurationError
from holdfast.gateway.clients.origins import Origins

SAME: dict[str, tuple[str, str]] = {
    "as it is": ("https://app.example.com", "https://app.example.com"),
    "a slash at the end": ("https://app.example.com/", "https://app.example.com"),
    "upper case": ("HTTPS://App.Example.COM", "https://app.example.com"),
    "the default port of https": ("https://app.example.com:443", "https://app.example.com"),
    "the default port of http": ("http://app.example.com:80/", "http://app.example.com"),
    "another port": ("https://app.example.com:8443", "https://app.example.com:8443"),
    "white space": (" https://app.example.com ", "https://app.example.com"),
    "Unicode": ("https://bücher.example", "https://xn--bcher-kva.example"),
    "Unicode in upper case": ("https://BÜCHER.example:443", "https://xn--bcher-kva.example"),
    "a letter that old rules replace": ("https://straße.example", "https://xn--strae-oqa.example"),
    "punycode": ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example"),
    "IPv6": ("http://[::1]:3000", "http://[::1]:3000"),
    "IPv4": ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
    "an underscore": ("https://my_app.example", "https://my_app.example"),
    "an app": ("capacitor://localhost", "capacitor://localhost"),
    "an extension": ("chrome-extension://abcdef", "chrome-extension://abcdef"),
}
"""Setting, and what a browser sends."""

OTHERS = [
    "https://elsewhere.example", "http://app.example.com", "https://app.example.com:8444", "https://app.example.com.evil",
    "https://app.example.com@evil.example", "null", "", "https://", "file://",
]  # fmt: skip


def headers(**values: str) -> Headers:
    return Headers({name: value for name, value in values.items() if value is not None})


@pytest.mark.parametrize("name", SAME)
def test_an_allowed_origin_is_what_a_browser_makes_of_it(name: str) -> None:
    setting, sent = SAME[name]

    assert Origins([setting]).admit(headers(origin=sent, host="live.example.com"))
    assert not Origins([setting]).admit(headers(origin="https://elsewhere.example", host="live.example.com"))


@pytest.mark.parametrize("origin", OTHERS)
def test_another_origin_is_not_admitted(origin: str) -> None:
    assert not Origins(["https://app.example.com"]).admit(headers(origin=origin, host="live.example.com"))
    assert Origins(["https://app.example.com", "*"]).admit(headers(origin=origin, host="live.example.com"))


@pytest.mark.parametrize(
    ("origin", "host", "is_admitted"),
    [
        ("https://live.example.com", "live.example.com", True),
        ("https://live.example.com", "live.example.com:443", True),
        ("https://live.example.com", "LIVE.example.com", True),
        ("http://live.example.com:8090", "live.example.com:8090", True),
        ("https://live.example.com:8443", "live.example.com", False),
        ("https://example.com", "live.example.com", False),
        ("null", "", False),
        ("https://a", "a/b", False),
    ],
)
def test_pages_of_the_gateway_s_own_host_may_connect(origin: str, host: str, is_admitted: bool) -> None:
    assert Origins([]).admit(headers(origin=origin, host=host)) is is_admitted


def test_what_names_no_origin_is_no_browser() -> None:
    assert Origins([]).admit(headers(host="live.example.com"))


WRONG = [
    "", "app.example.com", "https://", "https://app.example.com/path", "https://*.example.com", "https://app.example.com?a",
    "https://user@app.example.com", "https://app.example.com:", "https://app.example.com:x", "https://app.example.com:65536",
    "https://app.example.com:0", "https://app.example.com//", "null", "**", "https://a b", "https://a,https://b", "//a",
    "https:a", "https://[::1", "https://\u2024.example", "https://a.example:999999999",
]  # fmt: skip


@pytest.mark.parametrize("setting", WRONG)
def test_a_setting_that_is_no_origin_is_told_at_the_start(setting: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"HOLDFAST_ALLOWED_ORIGINS: .* is no origin; it has to be like https://"
    ):
        Origins(["https://app.example.com", setting])


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    Origins([]).admit(headers(origin=text.encode("ascii", "replace").decode(), host="h"))
    try:
        origins = Origins([text])
    except ConfigurationError:
        return
    assert text.strip() == "*" or origins.admit(headers(origin=text.strip().removesuffix("/"), host="h"))


def test_the_process_does_not_start_with_a_wrong_origin() -> None:
    settings = {
        "HOLDFAST_LIVE_TOKEN_SECRET": "s" * 32, "HOLDFAST_GATEWAY_PORT": "0",
        "HOLDFAST_ALLOWED_ORIGINS": '["https://*.example.com"]',
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "holdfast.gateway"], env=os.environ | settings, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 78
    assert done.stderr.startswith("HOLDFAST_ALLOWED_ORIGINS: 'https://*.example.com' is no origin")
    assert "Traceback" not in done.stderr


def preflight(address: Any, origin: str) -> str | None:
    """The origin that a browser is told it may read with."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    request = urllib.request.Request(  # noqa: S310
        f"{address.http}/v1/live/tickets", method="OPTIONS", headers={"Origin": origin} | asked
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return str(answer.headers["Access-Control-Allow-Origin"])
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.headers["Access-Control-Allow-Origin"]


def post(address: Any, origin: str, token: str) -> tuple[int, str | None]:
    request = urllib.request.Request(  # noqa: S310
        f"{address.http}/v1/live/tickets", method="POST", headers={"Origin": origin, "Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers["Access-Control-Allow-Origin"]


def websocket(open_live: Any, address: Any, origin: str, token: str) -> str | int:
    client = open_live(address, origin=origin)
    try:
        client.send(type="hello", v=1, token=token)
        return str(json.loads(client.connection.recv(timeout=10))["type"])
    except ConnectionClosed:
        return int(client.connection.close_code)


@pytest.mark.parametrize(
    ("allowed", "origin", "is_admitted"),
    [
        (["https://app.example.com/"], "https://app.example.com", True),
        (["https://APP.example.com:443"], "https://app.example.com", True),
        (["https://app.example.com"], "https://App.Example.com:443", True),
        (["https://bücher.example"], "https://xn--bcher-kva.example", True),
        (["*"], "https://anything.example", True),
        (["*"], "null", True),
        ([], "OWN", True),
        ([], "https://app.example.com", False),
        (["https://app.example.com"], "null", False),
        (["https://app.example.com"], "http://app.example.com", False),
    ],
)
def test_websockets_streams_and_cors_agree(
    serve: Callable[..., Any], open_live: Any, tenant: Any, allowed: list[str], origin: str, is_admitted: bool
) -> None:
    address = serve(allowed_origins=allowed)
    origin = address.http if origin == "OWN" else origin

    told = (
        websocket(open_live, address, origin, tenant.token()),
        post(address, origin, tenant.token()),
        preflight(address, origin),
    )

    assert told == (("welcome", (201, origin), origin) if is_admitted else (4502, (403, None), None))
