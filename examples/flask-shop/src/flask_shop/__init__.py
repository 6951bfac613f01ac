"""A shop that records an order and its event in one transaction: an example of an application beside Holdfast."""

from holdfast.storage.migrate import MigrationSource

__all__ = ["MIGRATIONS"]

MIGRATIONS = MigrationSource("flask_shop:migrations", "flask_shop_version")
