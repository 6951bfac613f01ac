"""Stacks whose spans and lines are looked at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.story.collector import Collector, collector

from holdfast.client import Client
from holdfast.local.stack import Stack

HERE = str(Path(__file__).parent)


@contextmanager
def story_stack(folder: Path, **settings: str) -> Iterator[Stack]:
    """A stack with the handlers of this folder."""
    defaults = {"HOLDFAST_HANDLERS": "story_handlers:handlers", "HOLDFAST_PROCESSOR_PROCESSES": "1"}
    with Stack(folder / uuid4().hex, settings=defaults | settings, python_path=HERE) as stack:
        yield stack


@pytest.fixture(scope="session")
def kept() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.fixture(scope="session")
def traced(server_folder: Path, kept: Collector) -> Iterator[Stack]:
    """All services at debug, exporting every span."""
    with story_stack(
        server_folder, HOLDFAST_OTLP_ENDPOINT=kept.url, HOLDFAST_LOG_LEVEL="debug", HOLDFAST_INGEST_PROCESSES="2"
    ) as stack:
        yield stack


@pytest.fixture
def client(traced: Stack) -> Iterator[Client]:
    with Client(traced.ingest_url, traced.api_key) as client:
        yield client


def post(stack: Stack, type_: str, data: Any, **headers: str) -> httpx.Response:
    """POST an event in structured mode; header names with underscores."""
    body = {"specversion": "1.0", "id": uuid4().hex, "source": "/story", "type": type_, "data": data}
    sent = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/cloudevents+json"}
    answer = httpx.post(
        f"{stack.ingest_url}/v1/events", json=body, timeout=30,
        headers=sent | {name.replace("_", "-"): value for name, value in headers.items()},
    )  # fmt: skip
    assert answer.status_code == 202, answer.text
    return answer


def post_batch(stack: Stack, type_: str, count: int) -> list[str]:
    """POST events in one request; their ids."""
    event = {"specversion": "1.0", "source": "/story", "type": type_, "data": {}}
    events = [event | {"id": uuid4().hex} for _ in range(count)]
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/cloudevents-batch+json"}
    answer = httpx.post(f"{stack.ingest_url}/v1/events", json=events, headers=headers, timeout=30)
    return [each["event_id"] for each in answer.json()["events"]]


@pytest.fixture
def send(traced: Stack) -> Callable[..., httpx.Response]:
    """POST an event to the stack that is traced."""
    return lambda type_, data=None, **headers: post(traced, type_, data or {}, **headers)
