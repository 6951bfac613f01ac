"""Grafana dashboards as code: ``python -m tools.dashboards`` writes the JSON files that Grafana loads."""
