"""Per-repository activity from GitHub webhook events: an example of a handler package."""

from holdfast.storage.migrate import MigrationSource

__all__ = ["MIGRATIONS"]

MIGRATIONS = MigrationSource("github_activity:migrations", "github_activity_version")
