"""The operator's handbook: every page that it shows is there and has the words that it quotes.

``make screenshots`` does the same and writes the pictures anew.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from bench.addresses import Landmarks, find_landmarks
from bench.history import make_history
from bench.lived import TENANT, beat, settle_in
from tests.browser.handbook import IMAGES, SHOTS, quoted
from tests.browser.operating import set_up

from holdfast.client import Client
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

EVENTS = 20_000

NAMES = 4
"""Handlers that counters are made for: the table is in the picture."""

VIEW = {"width": 1200, "height": 760}

WAIT_MS = 30_000

SETTLED = 'main[data-topic] [data-live-switch][data-state="live"], main:not([data-topic]) h1'
"""What is there once a page does not say any more that it is about to follow."""


@pytest.fixture(scope="module")
def past(server_folder: Path) -> Iterator[tuple[Stack, Landmarks]]:
    """A stack whose history nothing moves any more: there is neither processor nor maintenance."""
    with Stack(server_folder / uuid4().hex, held=("processor", "maintenance", "scheduler")) as stack:

        def run(statements: str) -> str:
            return stack.postgres.execute(statements, database="holdfast")

        make_history(run, EVENTS)
        settle_in(run, names=NAMES)
        beat(run, nodes=2)
        with Client(stack.ingest_url, stack.create_key(TENANT, name="ann")) as client:
            set_up(run, client)
        yield stack, find_landmarks(run)


@pytest.fixture(scope="module")
def page(chromium: Any, past: tuple[Stack, Landmarks]) -> Iterator[Any]:
    """An administrator at the console, in light."""
    stack, _ = past
    context = chromium.new_context(viewport=VIEW, color_scheme="light")
    opened = context.new_page()
    opened.goto(stack.console_url)
    opened.get_by_label("API key").fill(stack.create_key(TENANT, name="ann"))
    opened.get_by_role("button", name="Sign in").click()
    opened.get_by_role("navigation", name="Main").wait_for(timeout=WAIT_MS)
    yield opened
    context.close()


@pytest.mark.parametrize("name", SHOTS)
def test_a_page_of_the_handbook_has_the_words_that_it_quotes(
    past: tuple[Stack, Landmarks], page: Any, name: str, request: pytest.FixtureRequest
) -> None:
    stack, marks = past
    answer = page.goto(f"{stack.console_url}{SHOTS[name](marks)}")
    page.locator("main h1").first.wait_for(timeout=WAIT_MS)
    page.locator(SETTLED).first.wait_for(timeout=WAIT_MS)

    assert answer.status == 200
    said = " ".join(page.locator("body").inner_text().casefold().split())
    assert [words for words in quoted(name) if words.casefold() not in said] == [], said
    if request.config.getoption("--screenshots", default=False):
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"{name}.png")
