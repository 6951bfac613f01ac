"""House rules that ruff, mypy and import-linter do not know. ``python -m tools.house`` prints every breach."""
