"""A real Chromium. Run by ``make test-browser``."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.browser.console import HEIGHT, Open, sign_in

from holdfast.client import Client
from holdfast.local.stack import Stack

NAMES = ("chromium", "chromium-browser", "google-chrome")
WITHOUT_CHROMIUM = f"none of {', '.join(NAMES)} is on the path; install one: apt-get install chromium"
WITHOUT_PLAYWRIGHT = "playwright is missing; 'make test-browser' installs it"


class Tab:
    """A page in a browser profile of its own, and what its console said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="write the pictures of the operator's handbook anew")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser of this machine. Where there is none the tests fail: skipped, nobody would miss them."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.fail(WITHOUT_CHROMIUM)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail(WITHOUT_PLAYWRIGHT)
    with sync_playwright() as playwright:
        # Containers have neither the privileges for its sandbox nor much /dev/shm.
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """Open a tab that shares nothing with others. ``bypass_csp`` lets a test wait for conditions within the page; other
    options are those of Playwright's ``new_context``."""
    contexts = []

    def open_one(*, bypass_csp: bool = False, width: int = 1200, **options: Any) -> Tab:
        contexts.append(
            chromium.new_context(viewport={"width": width, "height": 800}, bypass_csp=bypass_csp, **options)
        )
        return Tab(contexts[-1].new_page())

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def open_console(chromium: Any, stack: Stack) -> Iterator[Open]:
    """A page at the console in a profile of its own; signed in unless the key is empty."""
    contexts = []

    def open_one(
        *,
        width: int = 1280,
        theme: str = "light",
        key: str | None = None,
        script: bool = True,
        bypass_csp: bool = False,
    ) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": HEIGHT},
            color_scheme=theme,
            java_script_enabled=script,
            bypass_csp=bypass_csp,
        )
        contexts.append(context)
        page = context.new_page()
        page.said = []
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("console", lambda said: page.said.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(stack.console_url)
        if key != "":
            sign_in(page, key or stack.api_key)
        return page

    yield open_one
    for context in contexts:
        context.close()


def open_idle_page(page: Any, stack: Stack) -> None:
    """The demo without its own script, beside the published client: what a test's own script begins with."""
    page.route("**/demo.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.goto(stack.demo_url)


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    """A stack for a module's tests, which may break it."""
    with Stack(server_folder / uuid4().hex) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.ingest_url, stack.api_key) as client:
        yield client


@pytest.fixture
def send(client: Client) -> Callable[[str], str]:
    """Send an event for an audience; returns its id."""

    def send_one(audience: str) -> str:
        repository = {"full_name": f"acme/{uuid4().hex}"}
        return client.send({
            "type": "com.github.push", "source": "/test", "audience": audience,
            "data": {"ref": "refs/heads/main", "repository": repository},
        }).event_id  # fmt: skip

    return send_one
