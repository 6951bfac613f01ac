"""A real Chromium. Run by ``make test-browser``."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
def open_tab(chromium: Any) -> Iterator[Callable[[], Tab]]:
    """Open a tab that shares nothing with others."""
    contexts = []

    def open_one() -> Tab:
        contexts.append(chromium.new_context(viewport={"width": 1200, "height": 800}))
        return Tab(contexts[-1].new_page())

    yield open_one
    for context in contexts:
        context.close()
