"""What operators find beside a large history: counters of 90 days, dead letters of five causes, and what others have done.

:func:`settle_in` adds to a history of ``bench.history``, for the tenant ``acme``:

- dead letters of every cause, half of those that are missing of the first one, which is then the main cause;
- counters of a day in minutes and of 90 days in hours and days, for as many handlers and types as a tenant can have;
- keys, replays and discards that are over, and an audit log;
- the counts of what is open, and the cursor behind which everything is counted: maintenance does not count it again.
"""

from bench.history import CAUSES, Execute, cause_rows
from holdfast.domain.histogram import BUCKETS

__all__ = ["DEAD", "TENANT", "beat", "settle_in"]

TENANT = "acme"

DEAD = 500
"""Dead letters of the tenant."""

NAMES = 50
"""Handlers, and as many types, that a tenant has counters of its own for: the most that there can be."""

KEYS = 60

REPLAYS = 200

AUDITED = 100_000
"""Entries of the audit log."""

PEOPLE = ("ann", "bob", "carol", "night shift")

_DIE = """
WITH chosen AS (
    SELECT s.event_id, row_number() OVER (ORDER BY s.event_id DESC) AS n
    FROM processing_state s JOIN event e ON e.id = s.event_id
    WHERE s.state = 'processed' AND e.tenant = '{tenant}'
    ORDER BY s.event_id DESC LIMIT greatest(0, {dead} - (
        SELECT count(*) FROM processing_state s JOIN event e ON e.id = s.event_id
        WHERE s.state = 'dead' AND e.tenant = '{tenant}'))
), dying AS (
    SELECT event_id, CASE WHEN n % 2 = 0 THEN 0 ELSE n / 2 % {causes} END AS cause FROM chosen
), undone AS (
    DELETE FROM processed_event_log l USING dying WHERE l.event_id = dying.event_id
), said AS (
    UPDATE event_update u SET state = 'dead', detail = '{{}}' FROM dying
    WHERE u.event_id = dying.event_id AND u.state = 'processed'
), moved AS (
    UPDATE processing_state s SET state = 'dead', last_error = c.error
    FROM dying JOIN ({rows}) AS c (cause, error) USING (cause) WHERE s.event_id = dying.event_id
)
INSERT INTO attempt_error (event_id, attempt, handler, error_type, message, fingerprint, traceback, at)
SELECT event_id, 1, error->>'handler', error->>'type', error->>'message', error->>'fingerprint',
       CASE WHEN error->>'handler' IS NOT NULL THEN 'Traceback (most recent call last):' || chr(10)
           || '  File "/shop/orders.py", line 42, in book' || chr(10) || '    price = catalogue[order.article]' || chr(10)
           || '            ~~~~~~~~~^^^^^^^^^^^^^^^' || chr(10) || (error->>'type') || ': ' || (error->>'message') END, now()
FROM dying JOIN ({rows}) AS c (cause, error) USING (cause)
"""

_STEPS = {60: "25 hours", 3600: "90 days", 86_400: "90 days"}
"""Seconds of a step → for how long there are some."""

_FLOW = """
INSERT INTO event_statistics (tenant, step_seconds, at, accepted, processed, failed, retried, dead)
SELECT tenant, {step}, at, n, n - n / 50, n / 20, n / 25, n / 500
FROM generate_series(date_bin(make_interval(secs => {step}), now() - interval '{span}', 'epoch'), now(),
                     make_interval(secs => {step})) AS at,
     (SELECT DISTINCT tenant FROM state_count) AS tenants,
     LATERAL (SELECT CAST({step} / 60 * (20 + 15 * sin(extract(epoch FROM at) / 13750)
                          + mod(hashint8(CAST(extract(epoch FROM at) AS bigint)), 9)) AS bigint) AS n) AS amount
"""

_HISTOGRAM = "CAST(ARRAY[{}] AS bigint[])".format(", ".join(f"(number * {each}) % 7" for each in range(BUCKETS)))
"""Counts for the buckets of a histogram, another for each handler."""

_HANDLERS = """
INSERT INTO handler_statistics (tenant, step_seconds, at, kind, name, processed, failed, dead, run, wait, end_to_end)
SELECT '{tenant}', {step}, at, kind, name, CASE kind WHEN 'type' THEN 0 ELSE 20 + number END, number / 10, number / 25,
       {histogram}, {histogram}, {histogram}
FROM generate_series(date_bin(make_interval(secs => {step}), now() - interval '{span}', 'epoch'), now(),
                     make_interval(secs => {step})) AS at,
     ({names}) AS names
"""

_NAMES = """
SELECT 'handler' AS kind, coalesce((ARRAY['book-order', 'send-mail', 'count'])[number], 'handler-' || number) AS name, number
FROM generate_series(1, {names}) AS number
UNION ALL SELECT 'type', 'com.example.unserved-' || number, number FROM generate_series(1, {names}) AS number
UNION ALL SELECT 'other', '', 0
"""

_SEEN = """
INSERT INTO statistics_name (tenant, kind, name, seen_at)
SELECT '{tenant}', kind, name, now() FROM ({names}) AS names WHERE kind <> 'other'
"""

_STATES = """
INSERT INTO state_count (tenant, state, events)
SELECT e.tenant, s.state, count(*) FROM processing_state s JOIN event e ON e.id = s.event_id
WHERE s.state IN ('queued', 'processing', 'failed', 'dead') GROUP BY 1, 2
ON CONFLICT (tenant, state) DO UPDATE SET events = excluded.events
"""

_COUNTED = "UPDATE statistics_cursor SET counted = CAST(pg_current_snapshot() AS text), counted_at = now()"

_KEYS = """
INSERT INTO api_key (id, tenant, name, scopes, secret_hash, created_at, last_used_at, revoked_at)
SELECT substr(md5('key' || n), 1, 12), '{tenant}', (ARRAY[{people}])[1 + n % {count}] || ' ' || n,
       ARRAY['events:read', 'operate'], sha256(convert_to('nobody knows ' || n, 'UTF8')),
       now() - make_interval(days => n), now() - make_interval(hours => n), CASE WHEN n % 7 = 0 THEN now() END
FROM generate_series(1, {keys}) AS n
"""

_REPLAYS = """
INSERT INTO replay_job (id, tenant, idempotency_key, created_by, created_by_name, created_at, filter, rate_per_s, total,
                        replayed, skipped, state, finished_at, action)
SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7' || substr(md5('r' || n), 1, 3)
            || '8' || substr(md5('r' || n), 4, 15) AS uuid),
       '{tenant}', 'lived-' || n, substr(md5('key' || n % {keys}), 1, 12), (ARRAY[{people}])[1 + n % {count}], at,
       '{{"state": "dead", "error_type": "KeyError"}}', 20, 100 + n, 100 + n, 0, 'done', at + interval '1 minute',
       CASE WHEN n % 5 = 0 THEN 'discard' ELSE 'replay' END
FROM generate_series(1, {replays}) AS n, LATERAL (SELECT now() - make_interval(hours => n) AS at) AS moment
"""

_AUDIT = """
INSERT INTO audit_log (at, tenant, actor, actor_name, origin, request_id, action, event_id, detail)
SELECT now() - interval '90 days' * (1 - CAST(n AS float8) / {entries}), '{tenant}', substr(md5('key' || n % {keys}), 1, 12),
       (ARRAY[{people}])[1 + n % {count}], '10.0.0.' || n % 250, 'request-' || n,
       (ARRAY['replay', 'discard', 'sign_in', 'start_replay', 'create_key'])[1 + n % 5],
       CASE WHEN n % 5 < 2 THEN dead.event_id END,
       CASE WHEN n % 5 = 3 THEN jsonb_build_object('filter', '{{"state": "dead", "error_type": "KeyError"}}'::jsonb,
                                                   'total', 1 + n % 250) ELSE '{{}}' END
FROM generate_series(1, {entries}) AS n
     LEFT JOIN (SELECT event_id, row_number() OVER () AS number FROM processing_state WHERE state = 'dead') AS dead
     ON dead.number = 1 + n % {dead}
"""

_NODES = """
INSERT INTO node (id, service, host, pid, version, started_at, types)
SELECT substr(md5('node' || n), 1, 12), 'processor', 'worker-host-' || n, 100 + n, '0.1.0', now() - make_interval(hours => n),
       ARRAY['com.example.*']
FROM generate_series(1, {nodes}) AS n
ON CONFLICT (id) DO NOTHING;
INSERT INTO node (id, service, host, pid, version, started_at, types)
VALUES (substr(md5('maintenance'), 1, 12), 'maintenance', 'worker-host-1', 99, '0.1.0', now() - interval '1 hour', '{{}}')
ON CONFLICT (id) DO NOTHING;
INSERT INTO node_worker (node_id, name, pid, beat_at, slots)
VALUES (substr(md5('maintenance'), 1, 12), 'worker', 99, now(), 0)
ON CONFLICT (node_id, name) DO UPDATE SET beat_at = now();
INSERT INTO node_worker (node_id, name, pid, beat_at, polled_seconds, slots, busy, running)
SELECT substr(md5('node' || n), 1, 12), 'worker-' || w, 1000 * n + w, now(), 0.5, 8, 2,
       (SELECT jsonb_agg(jsonb_build_object('event_id', r.event_id, 'tenant', e.tenant, 'handler', 'book-order', 'attempt', 1,
                                            'since', now() - interval '3 seconds'))
        FROM (SELECT event_id FROM processing_state WHERE state = 'processing' LIMIT 2) r JOIN event e ON e.id = r.event_id)
FROM generate_series(1, {nodes}) AS n, generate_series(1, 4) AS w
ON CONFLICT (node_id, name) DO UPDATE SET beat_at = now()
"""


def settle_in(execute: Execute, *, dead: int = DEAD, names: int = NAMES) -> None:
    """Add all of it, in half a minute. The role has to be a superuser, as for the history.

    With ``names=0`` nothing of before is counted, and what is counted from now on is all that counters have.
    """
    people = ", ".join(f"'{name}'" for name in PEOPLE)
    by_people = {"tenant": TENANT, "keys": KEYS, "people": people, "count": len(PEOPLE)}
    execute(_DIE.format(tenant=TENANT, dead=dead, causes=len(CAUSES), rows=cause_rows()))
    execute(_STATES)
    if names:
        _count(execute, names)
    execute(_KEYS.format(**by_people))
    execute(_REPLAYS.format(**by_people, replays=REPLAYS))
    execute(_AUDIT.format(**by_people, entries=AUDITED, dead=dead))
    execute(_COUNTED)
    execute("VACUUM ANALYZE")


def beat(execute: Execute, nodes: int = 20) -> None:
    """Processors, each with four workers that run something, and a maintenance, as they would have said just now."""
    execute(_NODES.format(nodes=nodes))


def _count(execute: Execute, count: int) -> None:
    names = _NAMES.format(names=count)
    for step, span in _STEPS.items():
        at = {"step": step, "span": span}
        execute(_FLOW.format(**at))
        execute(_HANDLERS.format(**at, tenant=TENANT, names=names, histogram=_HISTOGRAM))
    execute(_SEEN.format(tenant=TENANT, names=names))
