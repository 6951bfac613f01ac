"""Recorded deliveries become CloudEvents."""

import json
from typing import Any

import pytest

from github_activity.webhooks import cloudevents


def convert(event: str, action: str | None, payload: dict[str, Any]) -> dict[str, Any]:
    [made] = cloudevents([json.dumps({"event": event, "action": action, "payload": payload})])
    return made


def test_attributes_come_from_the_payload() -> None:
    repository = {"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"}

    made = convert("pull_request", "opened", {"repository": repository, "pull_request": {"number": 7}})

    assert (made["type"], made["source"]) == ("com.github.pull_request.opened", "https://github.com/acme/shop")
    assert (made["subject"], made["audience"]) == ("7", "repo-acme-shop")


def test_without_a_repository_the_organization_is_the_source() -> None:
    made = convert("organization", "member_added", {"organization": {"login": "acme"}})

    assert made["source"] == "https://github.com/acme"
    assert "audience" not in made
    assert "subject" not in made


def test_without_either_it_is_github() -> None:
    assert convert("ping", None, {})["source"] == "https://github.com"
    assert convert("ping", None, {})["type"] == "com.github.ping"


def test_a_file_gives_the_same_identities_each_time_and_equal_lines_differ() -> None:
    lines = [json.dumps({"event": "ping", "action": None, "payload": {}})] * 2

    first, second = list(cloudevents(lines)), list(cloudevents(lines))

    assert first == second
    assert first[0]["id"] != first[1]["id"]


@pytest.mark.parametrize("line", ["{", "[]", '{"event": "push"}', '{"event": "push", "payload": []}'])
def test_a_broken_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(cloudevents(['{"event": "ping", "payload": {}}', line]))
