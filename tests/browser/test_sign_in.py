"""Signing in with OpenID Connect in a browser, at a provider that is another site than the console."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.contract.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, running_provider

from holdfast.client import Client
from holdfast.local.servers import free_port
from holdfast.local.stack import Ports, Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WAIT_MS = 30_000

Tab = Any


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with running_provider("localhost") as made:
        yield made


@pytest.fixture(scope="module")
def stack(server_folder: Path, provider: OidcProvider) -> Iterator[Stack]:
    """A stack whose console knows the provider."""
    port = free_port()
    settings = {
        "CONSOLE_URL": f"http://127.0.0.1:{port}", "OIDC_ISSUER": provider.issuer, "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET": CLIENT_SECRET, "OIDC_TENANT": "demo", "OIDC_ROLES": "ops:operator,support:viewer",
    }  # fmt: skip
    named = {f"HOLDFAST_{name}": value for name, value in settings.items()}
    with Stack(server_folder / uuid4().hex, ports=Ports(ingest=port), settings=named) as made:
        yield made


def come_in(tab: Tab, provider: OidcProvider, name: str, group: str) -> None:
    provider.person = {"sub": f"{name}-1", "email": f"{name}@example.com", "groups": [group]}
    tab.page.get_by_role("link", name=re.compile("^Sign in with localhost:")).click()
    tab.page.get_by_role("link", name="Sign in as ann").click(timeout=WAIT_MS)


def dead_event(client: Client) -> str:
    sent = client.send({"type": "com.example.nobody", "source": "/test", "data": {}})
    client.wait(sent.event_id, timeout_seconds=60)
    return sent.event_id


def test_a_viewer_and_an_operator_come_in_act_and_go(
    stack: Stack, provider: OidcProvider, client: Client, open_tab: Callable[..., Tab]
) -> None:
    event_id = dead_event(client)
    viewer, operator = open_tab(), open_tab()
    for tab, name, group in ((viewer, "vic", "support"), (operator, "ann", "ops")):
        tab.page.goto(f"{stack.console_url}events/{event_id}")
        come_in(tab, provider, name, group)
        tab.page.wait_for_url(f"**/console/events/{event_id}", timeout=WAIT_MS)
        tab.page.get_by_role("navigation", name="Main").wait_for(timeout=WAIT_MS)

    assert viewer.page.locator("#replay-button").count() == 0
    operator.page.locator("#replay-button").click()
    operator.page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    operator.page.get_by_text("The event is queued again").wait_for(timeout=WAIT_MS)
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    [entry] = httpx.get(
        f"{stack.ingest_url}/v1/audit", params={"event_id": event_id, "action": "replay"}, headers=headers
    ).json()["items"]
    assert entry["actor"] == {"kind": "oidc", "id": "oidc:ann-1", "name": "ann@example.com"}

    operator.page.get_by_role("button", name=re.compile("demo")).click()
    operator.page.get_by_text("ann@example.com").first.wait_for(timeout=WAIT_MS)
    operator.page.get_by_role("button", name="Sign out").click()
    operator.page.get_by_text("You are signed out").wait_for(timeout=WAIT_MS)
    operator.page.goto(f"{stack.console_url}events")
    assert operator.page.get_by_role("link", name=re.compile("^Sign in with")).count() == 1
    assert viewer.errors == []
    assert operator.errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_door_is_readable_and_axe_finds_nothing(
    stack: Stack, provider: OidcProvider, open_tab: Callable[..., Tab], tmp_path: Path, theme: str, width: int
) -> None:
    tab = open_tab(bypass_csp=True, width=width, color_scheme=theme)
    tab.page.goto(stack.console_url)
    found = {"door": look_at(tab, tmp_path / "door.png")}
    come_in(tab, provider, "nobody", "a-group-without-a-role")
    tab.page.get_by_role("heading", name="You may not come in yet").wait_for(timeout=WAIT_MS)
    tab.page.get_by_text("a-group-without-a-role").wait_for(timeout=WAIT_MS)
    found["no role"] = look_at(tab, tmp_path / "no-role.png")

    assert found == {"door": [], "no role": []}


def look_at(tab: Tab, picture: Path) -> list[str]:
    """What is wrong with a page: what axe-core finds, and a page wider than its window."""
    from axe_playwright_python.sync_playwright import Axe

    tab.page.screenshot(path=picture, full_page=True)
    result = Axe().run(tab.page, options={"resultTypes": ["violations"], "iframes": False}).response
    is_too_wide = tab.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return [each["id"] for each in result["violations"]] + ["too wide"] * is_too_wide
