"""Handlers whose events sleep, wait and make others, for the pages that show such events."""

from typing import Any

from sqlalchemy import text

from holdfast.processor import Concurrency, Context, Handlers, Rate

handlers = Handlers()

LOCK = 4711
"""The advisory lock that a test holds for as long as :func:`occupy` is to run."""

LONG = "a-handler-whose-name-was-chosen-by-somebody-who-likes-to-say-everything-in-the-name.of-the-handler-1"
"""As long as a name of a handler can be."""

HOSTILE = '<script>document.title="taken"</script><img src=x onerror="document.title=\'taken\'">'


@handlers.on("com.example.occupied", name="occupy", limit=Concurrency(1), pool="narrow", timeout=3600)
def occupy(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Runs alone, until the test lets go of the lock."""
    ctx.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


@handlers.on("com.example.rare", name=LONG, rate=Rate(1, per=86_400, key="/customer/account/number"), priority=9)
def rare(data: Any, ctx: Context) -> None:
    """Once a day."""


@handlers.on("com.example.order.placed", name="fulfil-order", transactional=False)
def fulfil(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Does two steps and sleeps."""
    ctx.step("charge", lambda: {"receipt": HOSTILE})
    ctx.step(HOSTILE, lambda: None)
    ctx.sleep("1 day", name="cool off")


@handlers.on("com.example.document.sent", name="scan-document")
def scan(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Makes a group, half of which is of a type that the test pauses."""
    members: list[dict[str, Any]] = [
        {"type": kind, "data": {}} for kind in ("com.example.page.scan", "com.example.page.held") * 2
    ]
    ctx.emit_group(members, then=("com.example.document.scanned", {}))


@handlers.on("com.example.page.*", name="scan-page")
def page(data: Any, ctx: Context) -> None:
    """Does nothing."""


@handlers.on("com.example.stale", name="index-document")
def index(data: Any, ctx: Context) -> None:
    """Does nothing."""
