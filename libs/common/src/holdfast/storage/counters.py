"""The counters, and the statement that adds a page of updates to them.

Each update is told apart by what it and its predecessors say: an outcome's claim is the version before it, and what made the
event due the one before that. Most often all three are in the page; those that are not are looked up by their key.
"""

from collections.abc import Iterable

from holdfast.domain.histogram import BOUNDS_MS, BUCKETS
from holdfast.domain.state import OPEN, State
from holdfast.storage.statements import render, state_list, statement

__all__ = ["ADD_PAGE", "COUNTED_STATES", "FLOW", "HISTOGRAMS", "OUTCOMES", "STEPS", "arrays"]

STEPS = {60: 25 * 3600, 3600: 91 * 86_400, 86_400: 91 * 86_400}
"""Seconds that one row spans → seconds that it is kept. An update is counted in a row of each."""

HISTOGRAMS = ("run", "wait", "end_to_end")

MAX_NAME_CHARACTERS = 255

COUNTED_STATES = OPEN | {State.DEAD}
"""Those whose events are counted in ``state_count``. The others only grow."""

FLOW = {
    "accepted": "version = 1",
    "processed": "state = {PROCESSED}",
    "failed": "state IN ({FAILED}, {DEAD})",
    "retried": "state = {PROCESSING} AND attempt > 1",
    "dead": "state = {DEAD}",
    "discarded": "state = {DISCARDED}",
    "replayed": "reason = 'replayed'",
    "lost": "reason = 'recovered'",
}
"""Counter → which updates it counts."""

OUTCOMES = {name: FLOW[name] for name in ("processed", "dead", "lost")} | {"failed": "state = {FAILED}"}

_BOUNDS = "CAST(ARRAY[{}] AS float8[])".format(", ".join(map(str, BOUNDS_MS)))

_MINUTE = "date_bin('1 minute', {}, 'epoch')"

_REASON = "CASE WHEN {u}state = {{QUEUED}} AND {u}version > 1 THEN {u}detail ->> 'reason' END"

_DUE = """
CASE {u}state
    -- Recovered ones wait for a while that no update tells; those without a handler have been due for longer.
    WHEN {{QUEUED}} THEN CASE WHEN {u}detail ->> 'reason' IN ('recovered', 'no_handler') THEN NULL
                         -- Wanted later by who sent it, or by its handler.
                         ELSE coalesce(CAST({u}detail ->> 'deliver_at' AS timestamptz), {u}at + make_interval(
                             secs => coalesce(CAST({u}detail ->> 'retry_in_seconds' AS float8), 0))) END
    WHEN {{FAILED}} THEN {u}at + make_interval(secs => CAST({u}detail ->> 'retry_in_seconds' AS float8))
END
""".strip()
"""When an event became due by the update that made it claimable."""


def _list(template: str, names: Iterable[str]) -> str:
    """The template for each name, which is its ``{name}``."""
    return ", ".join(template.format(name=name) for name in names)


def _buckets(template: str) -> str:
    """The template for each bucket: ``{name}`` of its histogram, ``{bucket}`` from 0."""
    return ", ".join(template.format(name=name, bucket=bucket) for name in HISTOGRAMS for bucket in range(BUCKETS))


def arrays(template: str, element: str) -> str:
    """The template for each histogram: ``{name}``, and ``{elements}``, the elements of its array by ``{place}`` from 1."""
    return ", ".join(
        template.format(
            name=name, elements=", ".join(element.format(name=name, place=place) for place in range(1, BUCKETS + 1))
        )
        for name in HISTOGRAMS
    )


_PAGE = """
-- Adds a page of updates to the counters. Parameters: ended, first, end, running, limit, as of the outbox's page; since;
-- max_names. A transaction is never cut in two.
WITH page AS MATERIALIZED (
    SELECT event_id, version, state, attempt, at, transaction_id, {reason} AS reason, {due} AS due_at FROM event_update
    WHERE transaction_id = ANY (CAST(:ended AS bigint[])) AND at >= :since
    UNION ALL (
    SELECT event_id, version, state, attempt, at, transaction_id, {reason}, {due} FROM event_update
    WHERE transaction_id >= :first AND transaction_id < :end AND transaction_id <> ALL (CAST(:running AS bigint[]))
      AND at >= :since
    ORDER BY transaction_id FETCH FIRST (:limit) ROWS WITH TIES)
), chained AS (
    SELECT p.*, coalesce(lag(version) OVER one = version - 1, false) AS has_last,
           coalesce(lag(version, 2) OVER one = version - 2, false) AS has_last_two,
           coalesce(lead(version) OVER one = version + 1, false) AS has_next,
           lag(at) OVER one AS last_at, lag(due_at, 2) OVER one AS last_due_at,
           CASE WHEN lead(version) OVER one IS NULL AND first_value(version) OVER one = 1
                THEN first_value(at) OVER one END AS accepted_at
    FROM page p WINDOW one AS (PARTITION BY event_id ORDER BY version)
), found AS MATERIALIZED (
    -- The last update of an event in the page also says when it was accepted, if that is in the page. So most events are
    -- looked up once: neither an acceptance nor a claim says anything that its neighbours do not say.
    SELECT c.*, e.tenant, e.type, e.received_at, {minute_of_at} AS minute,
           e.extensions ?| ARRAY['deliverat', 'debounceseconds'] AS is_scheduled,
           c.state IN ({PROCESSED}, {FAILED}, {DEAD}) OR c.reason IS NOT DISTINCT FROM 'recovered' AS is_outcome,
           CASE WHEN NOT c.has_next THEN c.state END AS entered,
           CASE WHEN NOT c.has_last AND c.version > 1 THEN (
               SELECT u.state FROM event_update u WHERE u.event_id = c.event_id AND u.version < c.version
               ORDER BY u.version DESC LIMIT 1) END AS left_state
    FROM chained c JOIN event e ON e.id = c.event_id
    WHERE NOT c.has_next OR (c.version > 1 AND (c.state <> {PROCESSING} OR c.attempt > 1 OR NOT c.has_last))
), flow AS (
    SELECT tenant, minute, 0 AS accepted, {flow_counts} FROM found GROUP BY tenant, minute
    UNION ALL
    SELECT tenant, {minute_of_acceptance}, count(*), {flow_zeros}
    FROM found WHERE accepted_at IS NOT NULL GROUP BY 1, 2
), flow_added AS (
    INSERT INTO event_statistics AS t (tenant, step_seconds, at, {flow_names})
    SELECT tenant, step, date_bin(make_interval(secs => step), minute, 'epoch'), {flow_sums}
    FROM flow CROSS JOIN (VALUES {steps}) s(step) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (tenant, step_seconds, at) DO UPDATE SET {flow_updates}
), states_added AS (
    INSERT INTO state_count AS t (tenant, state, events)
    SELECT tenant, state, sum(change) FROM (
        SELECT tenant, entered AS state, 1 AS change FROM found WHERE entered IN {counted_states}
        UNION ALL SELECT tenant, left_state, -1 FROM found WHERE left_state IN {counted_states}
    ) c GROUP BY tenant, state ORDER BY tenant, state
    ON CONFLICT (tenant, state) DO UPDATE SET events = t.events + excluded.events
), timed AS MATERIALIZED (
    SELECT f.tenant, f.minute, f.at, f.state, f.reason,
           CASE WHEN r.handler IS NULL THEN 'type' ELSE 'handler' END AS kind,
           left(coalesce(r.handler, f.type), {max_characters}) AS name,
           width_bucket(CAST(r.duration_ms AS float8), {bounds}) AS run,
           width_bucket(1000 * date_part('epoch',
               CASE WHEN f.has_last THEN f.last_at ELSE (
                   SELECT u.at FROM event_update u WHERE u.event_id = f.event_id AND u.version = f.version - 1) END
             - CASE WHEN f.has_last_two THEN f.last_due_at ELSE (
                   SELECT {due_of_u} FROM event_update u WHERE u.event_id = f.event_id AND u.version = f.version - 2) END
           ), {bounds}) AS wait,
           CASE WHEN f.state = {PROCESSED} THEN
               width_bucket(1000 * date_part('epoch', f.at - coalesce(
                   -- Where it was wanted later: the time in its first update, since the sender's own text may be none here.
                   CASE WHEN f.is_scheduled THEN (
                       SELECT CAST(u.detail ->> 'deliver_at' AS timestamptz) FROM event_update u
                       WHERE u.event_id = f.event_id AND u.version = 1) END, f.received_at)), {bounds}) END AS end_to_end
    FROM found f LEFT JOIN LATERAL (
        SELECT handler, duration_ms FROM processed_event_log l WHERE l.event_id = f.event_id AND f.state = {PROCESSED}
        UNION ALL
        SELECT handler, duration_ms FROM attempt_error x
        WHERE x.event_id = f.event_id AND x.at = f.at AND f.state IN ({FAILED}, {DEAD})
    ) r ON true
    WHERE f.is_outcome
), by_name AS MATERIALIZED (
    SELECT tenant, minute, kind, name, max(at) AS seen_at, {outcome_counts}, {bucket_counts}
    FROM timed GROUP BY tenant, minute, kind, name
), named AS (
    -- The names that have a place: those that had one, and new ones while there is room.
    INSERT INTO statistics_name AS t (tenant, kind, name, seen_at)
    SELECT tenant, kind, name, seen_at FROM (
        SELECT n.*, k.name IS NOT NULL AS is_known,
               count(*) FILTER (WHERE k.name IS NULL) OVER (PARTITION BY n.tenant, n.kind ORDER BY n.name) AS place
        FROM (SELECT tenant, kind, name, max(seen_at) AS seen_at FROM by_name GROUP BY 1, 2, 3) n
        LEFT JOIN statistics_name k USING (tenant, kind, name)
    ) p
    WHERE is_known
       OR place <= :max_names - (SELECT count(*) FROM statistics_name o WHERE o.tenant = p.tenant AND o.kind = p.kind)
    ORDER BY tenant, kind, name
    ON CONFLICT (tenant, kind, name) DO UPDATE SET seen_at = greatest(t.seen_at, excluded.seen_at)
    RETURNING tenant, kind, name
), handlers_added AS (
    INSERT INTO handler_statistics AS t (tenant, step_seconds, at, kind, name, {outcome_names}, {histogram_names})
    SELECT b.tenant, step, date_bin(make_interval(secs => step), minute, 'epoch'),
           coalesce(n.kind, 'other'), coalesce(n.name, ''), {outcome_sums}, {bucket_sums}
    FROM by_name b LEFT JOIN named n USING (tenant, kind, name) CROSS JOIN (VALUES {steps}) s(step)
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (tenant, step_seconds, at, kind, name) DO UPDATE SET {outcome_updates}, {bucket_updates}
)
SELECT count(*) AS updates, count(*) FILTER (WHERE transaction_id >= :first) AS in_order, max(transaction_id) AS last
FROM page
"""

ADD_PAGE = statement(
    _PAGE,
    reason=render(_REASON.format(u="")),
    due=render(_DUE.format(u="")),
    due_of_u=render(_DUE.format(u="u.")),
    bounds=_BOUNDS,
    steps=_list("({name})", map(str, STEPS)),
    counted_states=state_list(COUNTED_STATES),
    max_characters=str(MAX_NAME_CHARACTERS),
    flow_names=", ".join(FLOW),
    flow_counts=", ".join(
        f"count(*) FILTER (WHERE {render(which)}) AS {name}" for name, which in FLOW.items() if name != "accepted"
    ),
    flow_zeros=", ".join("0" for name in FLOW if name != "accepted"),
    minute_of_at=_MINUTE.format("c.at"),
    minute_of_acceptance=_MINUTE.format("accepted_at"),
    flow_sums=_list("sum({name})", FLOW),
    flow_updates=_list("{name} = t.{name} + excluded.{name}", FLOW),
    outcome_names=", ".join(OUTCOMES),
    outcome_counts=", ".join(f"count(*) FILTER (WHERE {render(which)}) AS {name}" for name, which in OUTCOMES.items()),
    outcome_sums=_list("sum({name})", OUTCOMES),
    outcome_updates=_list("{name} = t.{name} + excluded.{name}", OUTCOMES),
    histogram_names=", ".join(HISTOGRAMS),
    bucket_counts=_buckets("count(*) FILTER (WHERE {name} = {bucket}) AS {name}_{bucket}"),
    bucket_sums=", ".join(
        "ARRAY[{}]".format(", ".join(f"sum({name}_{bucket})" for bucket in range(BUCKETS))) for name in HISTOGRAMS
    ),
    bucket_updates=arrays("{name} = ARRAY[{elements}]", "t.{name}[{place}] + excluded.{name}[{place}]"),
)
"""Answers with how many updates the page had, how many of them in the order of transactions, and the last transaction."""
