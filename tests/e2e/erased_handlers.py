"""Handlers that say what their events have wherever a handler can say something, for the test of what is left of it."""

import time
from typing import Any

from holdfast.processor import Backoff, Context, Handlers, Reject, Retry

handlers = Handlers()


@handlers.on("test.talks", name="talks", transactional=False, retry=Backoff(first=0, cap=0, attempts=3))
def talks(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Fails once with what it was told, then does a step, reports, emits an event and a group, and returns it."""
    said = data["said"]
    if ctx.attempt == 1:
        raise Retry(f"not at once, {said}")
    ctx.step("first", lambda: {"said": said})
    ctx.progress(0.5, f"half of {said}")
    ctx.emit("test.child", data, subject=ctx.event.subject, audience=ctx.event.audience)
    ctx.emit_group(
        [{"type": "test.child", "data": data, "subject": ctx.event.subject, "audience": ctx.event.audience}],
        then=("test.child", data),
        subject=ctx.event.subject,
        audience=ctx.event.audience,
    )
    return {"greeting": f"hello {said}"}


@handlers.on("test.child", name="child")
def child(data: dict[str, Any], ctx: Context) -> dict[str, Any]:  # noqa: ARG001
    """Returns what it was given."""
    return data


@handlers.on("test.broken", name="broken", retry=Backoff(first=0, cap=0, attempts=2))
def broken(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Fails with what it was told, and with an error about an error."""
    try:
        data[data["said"]]
    except KeyError as exc:
        raise ValueError(f"cannot read {data['said']}") from exc


@handlers.on("test.refused", name="refused")
def refused(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Rejects what it was told."""
    raise Reject(f"nobody wants {data['said']}", code="unwanted")


@handlers.on("test.endless", name="endless")
def endless(data: dict[str, Any], ctx: Context) -> None:
    """Until it is cancelled."""
    ctx.progress(0.1, f"waiting for {data['said']}")
    while True:
        time.sleep(0.01)
