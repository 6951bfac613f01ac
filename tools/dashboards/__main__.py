"""Write ``deploy/observability/grafana/dashboards/*.json``."""

import json
from collections.abc import Mapping
from pathlib import Path

from tools.dashboards.pages import PAGES

FOLDER = Path(__file__).parents[2] / "deploy/observability/grafana/dashboards"


def text(page: Mapping[str, object]) -> str:
    """A dashboard's file."""
    return json.dumps(page, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every page and remove files that are none."""
    written = {FOLDER / f"{page['uid']}.json": text(page) for page in PAGES}
    for stale in set(FOLDER.glob("*.json")) - set(written):
        stale.unlink()
    for path, content in written.items():
        path.write_text(content)
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
