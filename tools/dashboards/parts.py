"""Building blocks of a dashboard, as Grafana's JSON has them (schema version 39, Grafana 11 and later).

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Panel", "Row", "Target", "Variable", "dashboard"]

Json = dict[str, Any]

COLUMNS = 24
"""Width of Grafana's grid."""

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

Threshold = tuple[float, Literal["green", "yellow", "orange", "red"]]


@dataclass(frozen=True, slots=True)
class Target:
    """A PromQL query, and the name of its series (``{{label}}`` is the label's value)."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart or figure.

    Attributes:
        unit: Grafana's name of it (``s``, ``short``, ``reqps``, ``percentunit``, ``bytes``).
        description: what the figure means and when to worry; shown behind the panel's "i".
        thresholds: from this value on, this colour; green below the first.
        kind: ``stat`` is the latest value, large; ``table`` lists the latest values.
        lowest: where the axis begins; ``None`` for what can be negative.
        width, height: in cells of the grid, whose width is 24.
    """

    title: str
    unit: str
    description: str
    targets: Sequence[Target]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    thresholds: Sequence[Threshold] = ()
    is_stacked: bool = False
    lowest: float | None = 0
    width: int = 8
    height: int = 8

    def json(self, number: int, *, x: int, y: int) -> Json:
        """The panel at a place of the grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "targets": [self._target(ref, target) for ref, target in zip("ABCDEFGH", self.targets, strict=False)],
        }

    def _target(self, ref: str, target: Target) -> Json:
        is_latest = self.kind != "timeseries"
        return {
            "refId": ref,
            "datasource": DATASOURCE,
            "expr": target.expr,
            "legendFormat": target.legend,
            "range": not is_latest,
            "instant": is_latest,
            "format": "table" if self.kind == "table" else "time_series",
        }

    def _defaults(self) -> Json:
        steps = [{"color": "green", "value": None}, *({"color": c, "value": v} for v, c in self.thresholds)]
        defaults: Json = {"unit": self.unit, "min": self.lowest, "thresholds": {"mode": "absolute", "steps": steps}}
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 20 if self.is_stacked else 5,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.is_stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "dashed" if self.thresholds else "off"},
            }
        return defaults

    def _options(self) -> Json:
        if self.kind == "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        if self.kind == "stat":
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "colorMode": "value",
                "graphMode": "none",
                "textMode": "auto",
            }
        return {"showHeader": True, "cellHeight": "sm"}


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it, which flow from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of the page: the values of a label."""

    name: str
    query: str
    label: str = ""

    def json(self) -> Json:
        """Several values can be chosen; all are at first."""
        return {
            "name": self.name,
            "label": self.label or self.name,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": self.query, "refId": self.name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@dataclass(slots=True)
class _Grid:
    """Places panels and counts them."""

    y: int = 0
    panels: list[Json] = field(default_factory=list)

    def heading(self, title: str) -> None:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": self.y}
        number = len(self.panels) + 1
        self.panels.append(
            {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        )
        self.y += 1

    def flow(self, panels: Sequence[Panel]) -> None:
        x = height = 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, self.y, height = 0, self.y + height, 0
            self.panels.append(panel.json(len(self.panels) + 1, x=x, y=self.y))
            x, height = x + panel.width, max(height, panel.height)
        self.y += height


def dashboard(
    uid: str, title: str, description: str, rows: Sequence[Row], variables: Sequence[Variable] = ()
) -> Mapping[str, Any]:
    """A page. Which Prometheus is asked is chosen at its top, and firing alerts are marked in all charts."""
    grid = _Grid()
    for row in rows:
        grid.heading(row.title)
        grid.flow(row.panels)
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["holdfast"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [source, *(variable.json() for variable in variables)]},
        "annotations": {"list": [_alerts()]},
        "links": [_others()],
        "panels": grid.panels,
    }


def _alerts() -> Json:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing", alertname=~"Holdfast.+"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
        "step": "60s",
    }


def _others() -> Json:
    return {
        "type": "dashboards", "title": "Holdfast", "tags": ["holdfast"], "asDropdown": True, "includeVars": False,
        "keepTime": True,
    }  # fmt: skip
