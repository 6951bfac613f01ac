"""The demo page: served where it is asked for, with headers that let nothing else in, and the client as it is published."""

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).parents[3] / "libs" / "client-js" / "holdfast-live.js"


def get(url: str) -> tuple[int, Message, bytes]:
    with contextlib.closing(urllib.request.urlopen(url, timeout=10)) as answer:  # noqa: S310 (loopback)
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("name", ["holdfast-live.js", "follow.js", "event-stream.js"])
def test_the_page_s_client_is_the_published_one(name: str) -> None:
    served = (files("holdfast.gateway") / "demo_page" / name).read_bytes()

    assert served == CLIENT.with_name(name).read_bytes(), f"copy libs/client-js/{name} into demo_page"


def test_nothing_is_served_unless_it_is_asked_for(serve: Callable[..., Any]) -> None:
    address = serve()

    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{address.http}/demo/")
    refused.value.close()

    assert refused.value.code == 404


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
