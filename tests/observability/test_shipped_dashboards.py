"""The dashboards: what Grafana demands of their JSON, and what a reader demands of a panel."""

from itertools import combinations
from typing import Any

import pytest
import yaml
from tests.observability.shipped import FOLDER, dashboards, panels
from tools.dashboards.__main__ import text
from tools.dashboards.pages import PAGES

COLUMNS = 24


def test_the_files_are_those_that_the_tool_writes() -> None:
    written = {path.name: path.read_text() for path in (FOLDER / "grafana/dashboards").glob("*.json")}

    assert written == {f"{page['uid']}.json": text(page) for page in PAGES}, "run python -m tools.dashboards"


def test_identifiers_are_unique() -> None:
    uids = [dashboard["uid"] for dashboard in dashboards().values()]

    assert len(set(uids)) == len(uids) == 5
    for dashboard in dashboards().values():
        numbers = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", dashboards())
def test_panels_are_within_the_grid_and_beside_one_another(name: str) -> None:
    places = [panel["gridPos"] for panel in dashboards()[name]["panels"]]

    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    is_apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"]
    return not (is_apart or b["y"] + b["h"] <= a["y"])


def test_every_panel_explains_itself_and_has_a_unit() -> None:
    for name, panel in panels():
        where = f"{name}: {panel['title']}"
        assert panel["description"].endswith("."), where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None, where
        assert panel["targets"], where


def test_every_query_asks_the_chosen_prometheus() -> None:
    for dashboard in dashboards().values():
        [choice, *variables] = dashboard["templating"]["list"]
        assert (choice["name"], choice["type"], choice["query"]) == ("datasource", "datasource", "prometheus")
        asked: list[Any] = [*variables, *dashboard["annotations"]["list"]]
        for panel in dashboard["panels"]:
            asked += [panel, *panel["targets"]] if panel["type"] != "row" else []
        assert {each["datasource"]["uid"] for each in asked} == {"${datasource}"}


def test_variables_are_defined_where_they_are_used() -> None:
    for name, dashboard in dashboards().items():
        defined = {f"${variable['name']}" for variable in dashboard["templating"]["list"]}
        written = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
        used = {variable for variable in ("$job", "$instance", "$handler") if any(variable in expr for expr in written)}
        assert used <= defined, name


def test_grafana_is_told_of_the_folder_and_of_prometheus() -> None:
    provisioning = FOLDER / "grafana/provisioning"

    [provider] = yaml.safe_load((provisioning / "dashboards/holdfast.yml").read_text())["providers"]
    sources = yaml.safe_load((provisioning / "datasources/holdfast.yml").read_text())["datasources"]

    assert provider["options"]["path"] == "/etc/grafana/holdfast-dashboards"
    assert [source["type"] for source in sources if source.get("isDefault")] == ["prometheus"]
