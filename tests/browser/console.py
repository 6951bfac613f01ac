"""What tests of the console's pages share: signing in, looking at a screen, moving by keyboard."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.local.stack import Stack
from holdfast.storage.database import Database
from holdfast.storage.keys import create_key

__all__ = [
    "BETWEEN",
    "HEIGHT",
    "HOSTILE",
    "Open",
    "WAIT_MS",
    "WIDTHS",
    "database_of",
    "held",
    "look_at",
    "made_key",
    "sign_in",
    "until",
    "violations",
    "wide",
]

WAIT_MS = 30_000
WIDTHS = {"phone": 390, "desk": 1280}
BETWEEN = (600, 720, 830, 840, 955, 965, 1080, 1090, 1200)
"""Where nothing may stick out either: on both sides of each turn that the style takes."""

HEIGHT = 844

HOSTILE = '<script>document.title="taken"</script><img src=x onerror="document.title=\'taken\'">'

Open = Callable[..., Any]


@contextmanager
def database_of(stack: Stack) -> Iterator[Database]:
    database = Database(stack.database_url, application_name="test", pool_size=1)
    try:
        yield database
    finally:
        database.close()


def made_key(stack: Stack, tenant: str, *scopes: str, name: str = "browser") -> str:
    with database_of(stack) as database, database.transaction() as session:
        return create_key(session, tenant=tenant, name=name, scopes=scopes)


@contextmanager
def held(stack: Stack, service: str) -> Iterator[None]:
    """A service is away meanwhile."""
    stack.hold(service)
    try:
        yield
    finally:
        stack.resume(service)


def sign_in(page: Any, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Main").wait_for(timeout=WAIT_MS)


def violations(page: Any) -> list[str]:
    """What axe-core has against the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"], "iframes": False}).response["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]} {each['nodes'][0]['failureSummary']}"
        for each in found
    ]


def wide(page: Any, widths: Iterable[int], name: str) -> list[str]:
    """Where the page sticks out, at these widths; it is left at the first of them."""
    first, *_ = widths = tuple(widths)
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        reaches = page.evaluate("document.documentElement.scrollWidth")
        found += [f"{name} reaches {reaches} of {width}"] if reaches > width else []
    page.set_viewport_size({"width": first, "height": HEIGHT})
    return found


def look_at(page: Any, addresses: Mapping[str, str], *, width: str, theme: str, folder: Path) -> list[str]:
    """Open each of these pages and keep a picture of it; what axe-core has against it fails the test.

    Returns:
        Where one of them sticks out. On a desk in light the widths between are tried too.
    """
    widths = (WIDTHS[width], *(BETWEEN if width == "desk" and theme == "light" else ()))
    found: list[str] = []
    for name, address in addresses.items():
        page.goto(address)
        page.locator("main h1, main h2").first.wait_for(timeout=WAIT_MS)
        page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=True)
        assert violations(page) == [], name
        found += wide(page, widths, name)
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    return found


def until(page: Any, is_there: Callable[[], bool], key: str = "Tab") -> None:
    """Press a key until the focus is there; it has to show wherever it is."""
    for _ in range(60):
        if is_there():
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
        page.keyboard.press(key)
    pytest.fail(f"not reached by {key}; the focus is at {page.evaluate('document.activeElement.outerHTML')[:200]}")
