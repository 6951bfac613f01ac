"""The alert rules: checked and tried by promtool, each with its words, its runbook entry and its case."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.observability.shipped import FOLDER, ROOT, alerts, needs, recorded

RUNBOOK = "https://docs.example.com/docs/reliability/#"
SEVERITIES = {"critical", "warning", "info"}
CASES = sorted((FOLDER / "prometheus/tests").glob("*.yml"))


def promtool(*arguments: object) -> str:
    """What promtool says; a failure where it finds something wrong."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def runbook() -> set[str]:
    """Anchors of the runbook's entries, as the documentation's site makes them."""
    chapter = (ROOT / "docs/reliability.md").read_text().partition("\n## Runbook\n")[2]
    headings = re.findall(r"^### (.+)$", chapter, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def looks() -> Iterator[tuple[str, list[set[str]]]]:
    """Of each case: the alert that it is about, and the alerts that are to fire at each look."""
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            seen = [
                {name for sample in look["exp_samples"] for name in re.findall('alertname="(.+?)"', sample["labels"])}
                for look in case["promql_expr_test"]
            ]
            yield case["name"], seen


@needs("promtool")
def test_configuration_and_rules_are_valid() -> None:
    said = promtool("check", "config", FOLDER / "prometheus/prometheus.yml")

    assert f"{len(alerts())} rules found" in said
    assert f"{len(recorded())} rules found" in said


@needs("promtool")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_in_their_cases_and_only_then(path: Any) -> None:
    promtool("test", "rules", path)


def test_every_alert_has_a_case_in_which_it_fires_and_is_quiet_before() -> None:
    tried = {name for name, (calm, trouble) in looks() if name not in calm and name in trouble}

    assert tried == {alert["alert"] for alert in alerts()}


def test_every_alert_says_how_grave_it_is_and_what_was_seen() -> None:
    for alert in alerts():
        labels, words = alert["labels"], alert["annotations"]
        assert labels.keys() == {"severity"}, alert["alert"]
        assert labels["severity"] in SEVERITIES, alert["alert"]
        assert words.keys() == {"summary", "description", "runbook_url"}, alert["alert"]
        assert "$value" in words["description"] or alert["expr"].startswith("absent("), alert["alert"]


def test_every_alert_leads_to_a_runbook_entry_and_every_entry_has_an_alert() -> None:
    linked = {alert["annotations"]["runbook_url"].removeprefix(RUNBOOK) for alert in alerts()}

    assert linked == runbook()


def test_no_two_alerts_have_one_name() -> None:
    names = [alert["alert"] for alert in alerts()]

    assert sorted(names) == sorted(set(names))
