"""Putting the parts of the application together."""

from holdfast.ingest.http.auth import Authenticator
from holdfast.ingest.http.parts import Parts
from holdfast.ingest.intake.backpressure import LOOK_SECONDS, Backpressure
from holdfast.ingest.intake.record import Recorder
from holdfast.ingest.operate.operator import Operator
from holdfast.ingest.operate.revoker import COPY_SECONDS, Revoker
from holdfast.ingest.operate.scheduler import Scheduler
from holdfast.messaging.announce import Announcer
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import open_publisher
from holdfast.messaging.revocations import open_revocation_copy
from holdfast.runtime.background import Batcher, Repeater
from holdfast.runtime.health import Check
from holdfast.runtime.settings import IngestSettings
from holdfast.storage import keys, pools
from holdfast.storage.backlog import oldest_due_age_seconds
from holdfast.storage.database import Database
from holdfast.storage.readiness import check_work

__all__ = ["build"]


def build(settings: IngestSettings) -> Parts:
    """The parts; nothing connects or runs yet."""
    timeout = settings.redis_timeout_seconds
    database = Database(
        settings.database_url.get_secret_value(), application_name="holdfast-ingest",
        pool_size=settings.database_pool_size, connect_timeout_seconds=3, statement_timeout_seconds=10,
    )  # fmt: skip
    publisher = open_publisher(
        settings.redis_url.get_secret_value(), timeout_seconds=timeout, window_seconds=settings.live_window_seconds,
        window_updates=settings.live_window_updates,
    )  # fmt: skip
    bell = open_bell(settings.broker_url.get_secret_value(), timeout_seconds=timeout, is_consumer=False)
    copy = open_revocation_copy(settings.redis_url.get_secret_value(), timeout_seconds=timeout)
    revoker = Revoker(database, copy)
    announcer = Announcer(publisher, bell)
    used_keys: Batcher[str] = Batcher("note-key-use", lambda ids: database.call(keys.note_use, ids), interval_seconds=1)
    backpressure = Backpressure(
        lambda: database.call(oldest_due_age_seconds, with_suspects=False), limit_seconds=settings.backlog_limit_seconds
    )
    grace = settings.redispatch_grace_seconds
    return Parts(
        settings=settings,
        database=database,
        recorder=Recorder(database, announcer, grace_seconds=grace),
        operator=Operator(database, announcer, grace_seconds=grace),
        revoker=revoker,
        scheduler=Scheduler(database, announcer, grace_seconds=grace),
        copying=Repeater("copy-revocations", revoker.refresh_copy, interval_seconds=COPY_SECONDS),
        backpressure=backpressure,
        looking=Repeater("look-at-backlog", lambda: _look(database, backpressure), interval_seconds=LOOK_SECONDS),
        authenticator=Authenticator(database, cache_seconds=settings.key_cache_seconds, note_use=used_keys.add),
        used_keys=used_keys,
        checks={
            "database": Check(lambda: database.call(check_work)),
            "live": Check(publisher.ping, is_optional=True),
            "broker": Check(bell.ping, is_optional=True),
        },
        publisher=publisher,
        revocations=copy,
        bell=bell,
    )


def _look(database: Database, backpressure: Backpressure) -> None:
    pools.note_connections(database)
    backpressure.look_again()
