"""The columns of the lists: events, groups of dead letters, replays, keys, the audit log, nodes."""

import json
import shlex
from datetime import datetime

from rich.text import Text

from holdfast.client.audit import AuditEntry
from holdfast.client.cli_table import Column
from holdfast.client.events import StoredEvent
from holdfast.client.keys import ApiKey
from holdfast.client.nodes import Node, NodeRun, NodeWorker
from holdfast.client.pauses import Pause
from holdfast.client.render import STYLES, error_words, one_line, seconds
from holdfast.client.replays import DeadLetterGroup, ReplayProgress
from holdfast.client.schedules import Schedule

__all__ = [
    "AUDIT_COLUMNS",
    "EVENT_COLUMNS",
    "GROUP_COLUMNS",
    "KEY_COLUMNS",
    "PAUSE_COLUMNS",
    "REPLAY_COLUMNS",
    "SCHEDULE_COLUMNS",
    "node_columns",
    "run_columns",
]


def _error(event: StoredEvent) -> str:
    return error_words(event.last_error.type, event.last_error.message) if event.last_error else ""


def _state(state: str) -> Text:
    return Text(one_line(state), STYLES.get(state, ""))


EVENT_COLUMNS: tuple[Column[StoredEvent], ...] = (
    Column("RECEIVED", lambda event: seconds(event.received_at), is_whole=True, style="dim"),
    Column("STATE", lambda event: _state(event.state), is_whole=True),
    Column("EVENT ID", lambda event: event.event_id, is_whole=True),
    Column("TYPE", lambda event: event.cloudevent["type"]),
    Column("LAST ERROR", _error, style="red"),
)


def _replay_command(group: DeadLetterGroup) -> str:
    """The command that replays a group."""
    options = [
        f"--{name.replace('_', '-')} {shlex.quote(one_line(str(value)))}"
        for name, value in group.filter.items()
        if name != "state"
    ]
    return " ".join(["holdfast replay", *options])


GROUP_COLUMNS: tuple[Column[DeadLetterGroup], ...] = (
    Column("COUNT", lambda group: group.count, is_right=True, is_whole=True, style="bold"),
    Column("LAST HOUR", lambda group: group.count_last_hour, is_right=True, is_whole=True),
    Column("ERROR", lambda group: group.error_type, style="bold red"),
    Column("WHERE", lambda group: f"in {group.handler}" if group.handler else "before any handler"),
    Column("LAST", lambda group: seconds(group.last_at), is_whole=True, style="dim"),
    Column("SAMPLE", lambda group: error_words(group.sample.event_id, group.sample.message)),
    Column("REPLAY", _replay_command, style="dim"),
)

REPLAY_COLUMNS: tuple[Column[ReplayProgress], ...] = (
    Column("CREATED", lambda replay: seconds(replay.created_at), is_whole=True, style="dim"),
    Column("STATE", lambda replay: replay.state, is_whole=True),
    Column("REPLAY ID", lambda replay: replay.replay_id, is_whole=True),
    Column("REPLAYED", lambda replay: replay.replayed, is_right=True, is_whole=True),
    Column("SKIPPED", lambda replay: replay.skipped, is_right=True, is_whole=True),
    Column("TOTAL", lambda replay: replay.total, is_right=True, is_whole=True),
    Column("RATE", lambda replay: f"{replay.rate_per_s:g}/s", is_right=True, is_whole=True),
    Column("BY", lambda replay: replay.created_by),
    Column("FILTER", lambda replay: " ".join(f"{name}={value}" for name, value in replay.filter.items())),
)


PAUSE_COLUMNS: tuple[Column[Pause], ...] = (
    Column("SINCE", lambda pause: seconds(pause.paused_at), is_whole=True, style="dim"),
    Column("KIND", lambda pause: pause.kind, is_whole=True),
    Column("NAME", lambda pause: pause.name, style="bold"),
    Column("BY", lambda pause: pause.paused_by),
    Column("NOTE", lambda pause: pause.note),
)


def _schedule_state(schedule: Schedule) -> Text:
    if schedule.failures:
        return Text("failing", "bold red")
    return Text("paused", "yellow") if schedule.is_paused else Text("active", "green")


SCHEDULE_COLUMNS: tuple[Column[Schedule], ...] = (
    Column("NAME", lambda schedule: schedule.name, is_whole=True),
    Column("STATE", _schedule_state, is_whole=True),
    Column("CRON", lambda schedule: schedule.cron, is_whole=True),
    Column("ZONE", lambda schedule: schedule.timezone),
    Column("NEXT", lambda schedule: schedule.next_at and seconds(schedule.next_at), is_whole=True),
    Column("LAST", lambda schedule: schedule.last_at and seconds(schedule.last_at), is_whole=True, style="dim"),
    Column("LAST EVENT", lambda schedule: schedule.last_event_id),
    Column("SKIPPED", lambda schedule: schedule.skipped, is_right=True, is_whole=True),
    Column("BY", lambda schedule: schedule.created_by),
    Column("TYPE", lambda schedule: schedule.type),
)


def _key_state(key: ApiKey) -> str:
    return f"{key.state}, now {key.replaced_by}" if key.replaced_by else key.state


KEY_COLUMNS: tuple[Column[ApiKey], ...] = (
    Column("ID", lambda key: key.key_id, is_whole=True),
    Column("STATE", _key_state, is_whole=True),
    Column("SCOPES", lambda key: ",".join(key.scopes)),
    Column("CREATED", lambda key: seconds(key.created_at), is_whole=True, style="dim"),
    Column("EXPIRES", lambda key: seconds(key.expires_at) if key.expires_at else "never", is_whole=True),
    Column("LAST USED", lambda key: seconds(key.last_used_at) if key.last_used_at else "never", is_whole=True),
    Column("NAME", lambda key: key.name),
)


def _who(entry: AuditEntry) -> str:
    return f"{entry.actor_name} ({entry.actor_id})" if entry.actor_name else entry.actor_id


def _what(entry: AuditEntry) -> str:
    about = entry.event_id or entry.replay_id
    detail = json.dumps(entry.detail, ensure_ascii=False) if entry.detail else ""
    return f"{about or ''} {detail}".strip()


AUDIT_COLUMNS: tuple[Column[AuditEntry], ...] = (
    Column("WHEN", lambda entry: seconds(entry.at), is_whole=True, style="dim"),
    Column("WHO", _who),
    Column("FROM", lambda entry: entry.origin),
    Column("ACTION", lambda entry: entry.action, is_whole=True),
    Column("WHAT", _what),
)


NODE_STYLES = {"active": "green", "draining": "yellow", "drained": "cyan", "stale": "bold red"}


def node_columns(now: datetime, *, with_types: bool) -> list[Column[Node]]:
    """Nodes, with the event types that they serve if those are wanted."""
    columns: list[Column[Node]] = [
        Column("NODE", lambda node: node.node_id, is_whole=True),
        Column("SERVICE", lambda node: node.service, is_whole=True),
        Column("HOST", lambda node: node.host),
        Column("STATE", lambda node: Text(node.state, NODE_STYLES.get(node.state, "")), is_whole=True),
        Column("BUSY", lambda node: f"{node.busy}/{node.slots}" if node.slots else None, is_right=True, is_whole=True),
        Column("LAST BEAT", lambda node: _ago(node.last_beat_at, now), is_right=True, is_whole=True),
        Column("LAST POLL", lambda node: _ago(node.last_poll_at, now), is_right=True, is_whole=True),
        Column("UP", lambda node: _ago(node.started_at, now), is_right=True, is_whole=True),
        Column("VERSION", lambda node: node.version),
    ]
    if with_types:
        columns.append(Column("SERVES", lambda node: ", ".join(node.types) or None))
    return columns


def run_columns(now: datetime) -> list[Column[tuple[Node, NodeWorker, NodeRun]]]:
    """What handlers have now."""
    return [
        Column("NODE", lambda held: held[0].node_id, is_whole=True),
        Column("WORKER", lambda held: held[1].name),
        Column("HANDLER", lambda held: held[2].handler),
        Column("EVENT ID", lambda held: held[2].event_id, is_whole=True),
        Column("ATTEMPT", lambda held: held[2].attempt, is_right=True, is_whole=True),
        Column("FOR", lambda held: _ago(held[2].since, now), is_right=True, is_whole=True),
    ]


def _ago(moment: datetime | None, now: datetime) -> str | None:
    """``4s``, ``3m``, ``2h``, ``5d``."""
    if moment is None:
        return None
    seconds_ago = max(0, round((now - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds_ago >= size:
            return f"{seconds_ago // size}{unit}"
    return f"{seconds_ago}s"
