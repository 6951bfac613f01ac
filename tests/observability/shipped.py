"""What ``deploy/observability`` ships, as the tests read it: alerts, recorded figures, dashboards, and the names that their
queries use.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = ["FOLDER", "ROOT", "Use", "alerts", "dashboards", "expressions", "needs", "panels", "recorded", "uses"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/observability"

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\s*\()")
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_WORDS = {"and", "or", "unless", "offset", "bool"}


def needs(program: str) -> pytest.MarkDecorator:
    """Skips a test on a machine without a program of Debian's packages."""
    package = "prometheus" if program == "promtool" else program
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"there is no {program} here: apt-get install {package}"
    )


@dataclass(frozen=True, slots=True)
class Use:
    """A time series that a query names, with the labels that it matches."""

    metric: str
    labels: frozenset[str]


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file."""
    for path in sorted((FOLDER / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """Name of each recorded figure → its query."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def dashboards() -> Mapping[str, dict[str, Any]]:
    """File name → dashboard."""
    return {path.name: json.loads(path.read_text()) for path in sorted((FOLDER / "grafana/dashboards").glob("*.json"))}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Dashboard's file name and each of its panels that shows something."""
    for name, dashboard in dashboards().items():
        yield from ((name, panel) for panel in dashboard["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    """Where each query is, and the query; those of variables are metric and labels without their function."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for name, panel in panels():
        for target in panel["targets"]:
            yield f"{name}: {panel['title']}", target["expr"]
    for name, dashboard in dashboards().items():
        yield f"{name}: annotations", dashboard["annotations"]["list"][0]["expr"]
        for variable in dashboard["templating"]["list"][1:]:
            selector, _, label = (
                variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            )
            yield f"{name}: ${variable['name']}", f"sum by ({label}) ({selector})"


def uses(expression: str) -> tuple[set[Use], set[str]]:
    """The series that a query names, and the labels that it groups or matches by."""
    grouped = {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",")} - {""}
    plain = _RANGE.sub("", _GROUPING.sub("", _TEXT.sub("", expression)))
    found = {
        Use(metric, frozenset(_MATCHER.findall(labels)))
        for metric, labels in _SELECTOR.findall(plain)
        if metric not in _WORDS and not _is_function(metric, plain)
    }
    return found, grouped


def _is_function(name: str, plain: str) -> bool:
    return re.search(rf"(?<![\w:]){re.escape(name)}[\w:]*\s*\(", plain) is not None or name.startswith("$")
