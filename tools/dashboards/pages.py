"""The dashboards, from the metrics of ``runtime/telemetry.py`` and the figures of ``rules/recording.yml``."""

from tools.dashboards.parts import Panel, Row, Target, Variable, dashboard

__all__ = ["PAGES"]


def _choice(metric: str) -> list[Variable]:
    """Job and instance, among those that export the metric."""
    return [
        Variable("job", f"label_values({metric}, job)"),
        Variable("instance", f'label_values({metric}{{job=~"$job"}}, instance)'),
    ]


HERE = 'job=~"$job", instance=~"$instance"'
"""What was chosen."""


def _rate(metric: str, labels: str = HERE) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def _quantiles(metric: str, labels: str = HERE, by: str = "") -> list[Target]:
    """Median, 95th and 99th percentile of a histogram, in its unit."""
    group = f"{by}, le" if by else "le"
    prefix = f"{{{{{by}}}}} " if by else ""
    return [
        Target(f"histogram_quantile({q}, sum by ({group}) ({_rate(f'{metric}_bucket', labels)}))", f"{prefix}{name}")
        for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


OVERVIEW = dashboard(
    "holdfast-overview",
    "Holdfast: overview",
    "Is everything well? One screen; the other pages say why not.",
    [
        Row("Now", [
            Panel("Alerts", "short", "Alerts that fire. Each has an entry in the runbook (docs/reliability.md).",
                  [Target('count(ALERTS{alertstate="firing", alertname=~"Holdfast.+"}) or vector(0)', "firing")],
                  kind="stat", thresholds=[(1, "red")], width=4, height=4),
            Panel("Oldest due event", "s", "How long the event has waited that is due for longest. Over a minute: look at "
                  "Processing. At 15 minutes ingest turns new events away.",
                  [Target("holdfast:oldest_due_age_seconds:max", "age")],
                  kind="stat", thresholds=[(60, "yellow"), (450, "red")], width=4, height=4),
            Panel("Open events", "short", "Queued, in hand, or waiting for their next attempt.",
                  [Target("holdfast:events_open:sum", "open")], kind="stat", width=4, height=4),
            Panel("Dead letters, 15 min", "short", "Events that failed for good. `holdfast dead groups` has the causes.",
                  [Target("sum(holdfast:dead_letters:increase15m) or vector(0)", "dead")],
                  kind="stat", thresholds=[(1, "orange"), (10, "red")], width=4, height=4),
            Panel("Live connections", "short", "Open connections of all gateways.",
                  [Target("sum(holdfast_live_connections)", "open")], kind="stat", width=4, height=4),
            Panel("Services not ready", "short", "Processes whose /readyz is not 200, by the probes.",
                  [Target('count(probe_success{job="holdfast-ready"} == 0) or vector(0)', "not ready")],
                  kind="stat", thresholds=[(1, "red")], width=4, height=4),
        ]),
        Row("Flow", [
            Panel("Events a second", "cps", "Accepted (POSTs; a batch is one), processed, failed attempts that will be "
                  "tried again, and dead letters. Accepted above processed for long: the backlog grows.",
                  [Target('sum(holdfast:events_received:rate5m{outcome="accepted"})', "accepted"),
                   Target("holdfast:events_processed:rate5m", "processed"),
                   Target("sum(rate(holdfast_retries_total[5m]))", "failed, again later"),
                   Target("sum(rate(holdfast_dead_letters_total[5m]))", "dead")]),
            Panel("From received to processed", "s", "Of the events that were processed. p99 far above p95: retries, or a "
                  "subject whose events wait for one another.",
                  _quantiles("holdfast_end_to_end_seconds", 'job=~".+"'), thresholds=[(60, "yellow")]),
            Panel("Handlers at work", "short", "Seconds of handlers' work in a second: how many threads are busy on "
                  "average. At processes times threads the processor is full.",
                  [Target("sum by (handler) (rate(holdfast_handler_duration_seconds_sum[5m]))", "{{handler}}")],
                  is_stacked=True),
            Panel("Oldest due event", "s", "The same as above, over time.",
                  [Target("holdfast:oldest_due_age_seconds:max", "age")], thresholds=[(60, "yellow"), (450, "red")]),
            Panel("Open events", "short", "By state. `failed` wait for their next attempt.",
                  [Target("holdfast:events_pending:max", "{{state}}")], is_stacked=True),
            Panel("Answers of ingest", "reqps", "To POST /v1/events by outcome.",
                  [Target("holdfast:events_received:rate5m", "{{outcome}}")], is_stacked=True),
        ]),
        Row("What fires", [
            Panel("Alerts", "short", "Firing and pending alerts with their severity.",
                  [Target('count by (alertname, severity, alertstate) (ALERTS{alertname=~"Holdfast.+"})', "")],
                  kind="table", width=24, height=6),
        ]),
    ],
)  # fmt: skip

ATTEMPTS = f'{HERE}, handler=~"$handler"'

PROCESSING = dashboard(
    "holdfast-processing",
    "Holdfast: processing by handler",
    "Which handler is slow, fails, or has lost its workers?",
    [
        Row("Handlers", [
            Panel("Attempts a second", "cps", "Attempts that ended, by handler and outcome.",
                  [Target(f"sum by (handler, outcome) ({_rate('holdfast_handler_duration_seconds_count', ATTEMPTS)})",
                          "{{handler}} {{outcome}}")], is_stacked=True, width=12),
            Panel("Failed attempts", "percentunit", "Share of attempts that will be tried again. Over a fifth: "
                  "`holdfast events ls --state failed`.",
                  [Target(f"sum by (handler) ({_rate('holdfast_retries_total', ATTEMPTS)})"
                          f" / sum by (handler) ({_rate('holdfast_handler_duration_seconds_count', ATTEMPTS)})",
                          "{{handler}}")], thresholds=[(0.2, "red")], width=12),
            Panel("Run time, p50", "s", "Median of each handler.",
                  _quantiles("holdfast_handler_duration_seconds", ATTEMPTS, "handler")[:1]),
            Panel("Run time, p95", "s", "One run in twenty takes longer.",
                  _quantiles("holdfast_handler_duration_seconds", ATTEMPTS, "handler")[1:2], thresholds=[(10, "red")]),
            Panel("Threads busy", "short", "Seconds of work in a second. A handler that fills all threads makes the others "
                  "wait.",
                  [Target(f"sum by (handler) ({_rate('holdfast_handler_duration_seconds_sum', ATTEMPTS)})",
                          "{{handler}}")], is_stacked=True),
        ]),
        Row("Endings", [
            Panel("From received to processed", "s", "Waiting, all attempts and the waits between them.",
                  _quantiles("holdfast_end_to_end_seconds")),
            Panel("Dead letters", "short", "In 15 minutes, by reason.",
                  [Target("holdfast:dead_letters:increase15m", "{{reason}}")], thresholds=[(1, "red")]),
            Panel("Told to stop, leases lost", "short", "In 15 minutes: handlers out of time or without a lease, and "
                  "attempts whose event had been given away. Look for pauses and timeouts.",
                  [Target(f"sum(increase(holdfast_handlers_cancelled_total{{{HERE}}}[15m]))", "told to stop"),
                   Target(f"sum(increase(holdfast_lost_leases_total{{{HERE}}}[15m]))", "leases lost")]),
        ]),
        Row("Work and workers", [
            Panel("How events are found", "cps", "Polled: without a doorbell. Stale: the doorbell found nothing to claim. "
                  "Polled events while Redis is up mean that doorbells do not arrive.",
                  [Target(f"sum({_rate('holdfast_events_polled_total')})", "polled"),
                   Target(f"sum({_rate('holdfast_stale_doorbells_total')})", "stale doorbells")], width=12),
            Panel("Taken from lost workers", "short", "In 15 minutes, by the state that the events went to. `dead` is "
                  "crash_loop: events that kill workers.",
                  [Target("holdfast:events_recovered:increase15m", "{{to_state}}")], thresholds=[(10, "red")], width=12),
        ]),
    ],
    [*_choice("holdfast_stale_doorbells_total"),
     Variable("handler", 'label_values(holdfast_handler_duration_seconds_count{job=~"$job"}, handler)')],
)  # fmt: skip

INGEST = dashboard(
    "holdfast-ingest",
    "Holdfast: ingest",
    "What do producers get, and how fast?",
    [
        Row("Requests", [
            Panel("Answers a second", "reqps", "To POST /v1/events, by outcome; a batch is one.",
                  [Target(f"sum by (outcome) ({_rate('holdfast_events_received_total')})", "{{outcome}}")],
                  is_stacked=True),
            Panel("Duration", "s", "POST /v1/events, whole request. Most of it is the commit, and so PostgreSQL's disk.",
                  _quantiles("holdfast_ingest_duration_seconds"), thresholds=[(1, "red")]),
            Panel("In flight", "short", "Requests that are whole and not answered yet.",
                  [Target(f"sum by (instance) (holdfast_ingest_in_flight{{{HERE}}})", "{{instance}}")]),
            Panel("Events in one transaction", "short", "Requests in flight share a commit: larger groups under load are "
                  "well.", _quantiles("holdfast_ingest_group_size")[:2]),
            Panel("Turning away", "bool", "1 while the backlog is too old and events are answered with 503 backlog.",
                  [Target(f"max by (instance) (holdfast_ingest_turning_away{{{HERE}}})", "{{instance}}")],
                  thresholds=[(1, "red")]),
            Panel("Ended before they were whole", "reqps", "By the code of the answer. Many: a proxy that cuts, slow or "
                  "hostile clients.",
                  [Target(f"sum by (code) ({_rate('holdfast_ingest_refused_total')})", "{{code}}")]),
        ]),
        Row("After the commit", [
            Panel("Not taken by Redis", "cps", "Doorbells and updates. Nothing is lost: they are found and relayed later.",
                  [Target(f"sum by (instance) ({_rate('holdfast_enqueue_failures_total')})", "{{instance}}")],
                  thresholds=[(0.1, "red")], width=24),
        ]),
    ],
    _choice("holdfast_ingest_in_flight"),
)  # fmt: skip

GATEWAY = dashboard(
    "holdfast-gateway",
    "Holdfast: live gateway",
    "Do clients hear of everything, and in time?",
    [
        Row("Connections", [
            Panel("Open", "short", "Of each gateway; one takes HOLDFAST_GATEWAY_CONNECTIONS (20000).",
                  [Target(f"sum by (instance) (holdfast_live_connections{{{HERE}}})", "{{instance}}")], is_stacked=True),
            Panel("Closed", "cps", "By close code (docs/live.md). 4001: shut down in order; 4002: slow; 4008: Redis is away.",
                  [Target(f"sum by (code) ({_rate('holdfast_live_closed_total')})", "{{code}}")], is_stacked=True),
            Panel("Turned away", "cps", "There were too many. Add gateways.",
                  [Target(f"sum by (instance) ({_rate('holdfast_live_connections_refused_total')})", "{{instance}}")],
                  thresholds=[(0.1, "red")]),
        ]),
        Row("Updates", [
            Panel("Delivered", "cps", "Frames handed to connections.",
                  [Target(f"sum by (instance) ({_rate('holdfast_updates_delivered_total')})", "{{instance}}")],
                  is_stacked=True),
            Panel("Gaps", "short", "Subscriptions told of a gap in 15 minutes. epoch: Redis was restarted; trimmed and "
                  "too_many: clients were away for long.",
                  [Target("holdfast:live_gaps:increase15m", "{{reason}}")]),
            Panel("Relayed", "cps", "Updates that maintenance published because nobody else had: they came late.",
                  [Target("sum(rate(holdfast_updates_relayed_total[5m]))", "relayed")], thresholds=[(1, "red")]),
        ]),
        Row("Process", [
            Panel("Memory", "bytes", "Resident. An idle connection takes about 12 KiB.",
                  [Target(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}")]),
            Panel("CPU", "percentunit", "Of one core; a gateway uses one.",
                  [Target(_rate("process_cpu_seconds_total"), "{{instance}}")], thresholds=[(0.8, "red")]),
            Panel("File descriptors", "percentunit", "Open, of those allowed.",
                  [Target(f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}", "{{instance}}")],
                  thresholds=[(0.8, "red")]),
        ]),
    ],
    _choice("holdfast_live_connections"),
)  # fmt: skip

UPKEEP = dashboard(
    "holdfast-upkeep",
    "Holdfast: maintenance and database",
    "What maintenance measures in PostgreSQL, and what it had to mend.",
    [
        Row("In PostgreSQL", [
            Panel("Oldest due event", "s", "As each replica of maintenance measures it.",
                  [Target(f"holdfast_oldest_due_age_seconds{{{HERE}}}", "{{instance}}")],
                  thresholds=[(60, "yellow"), (450, "red")]),
            Panel("Open events", "short", "By state.",
                  [Target(f"max by (state) (holdfast_events_pending{{{HERE}}})", "{{state}}")], is_stacked=True),
            Panel("Change of open events", "short", "Within half an hour. Above 0 for long: more comes in than goes out.",
                  [Target("delta(holdfast:events_open:sum[30m])", "change")], thresholds=[(1000, "red")], lowest=None),
        ]),
        Row("What was mended", [
            Panel("Doorbells rung again", "cps", "For events that were due and that nobody had taken.",
                  [Target(f"sum({_rate('holdfast_events_redispatched_total')})", "redispatched")]),
            Panel("Taken from lost workers", "short", "In 15 minutes, by the state that the events went to.",
                  [Target("holdfast:events_recovered:increase15m", "{{to_state}}")]),
            Panel("Updates relayed", "cps", "Published by the relay, late.",
                  [Target(f"sum({_rate('holdfast_updates_relayed_total')})", "relayed")], thresholds=[(1, "red")]),
            Panel("Replays by filter", "cps", "Events of replays that were put back, and those that were skipped because "
                  "they had moved on.",
                  [Target(f"sum by (outcome) ({_rate('holdfast_replay_items_total')})", "{{outcome}}")]),
            Panel("Ticks of schedules", "cps", "By what became of them: those that were missed, or came while the event of "
                  "the tick before was open, have no event.",
                  [Target(f"sum by (outcome) ({_rate('holdfast_schedule_ticks_total')})", "{{outcome}}")]),
            Panel("Not taken by Redis", "cps", "Doorbells and updates after a commit, by service.",
                  [Target("sum by (job) (rate(holdfast_enqueue_failures_total[5m]))", "{{job}}")],
                  thresholds=[(0.1, "red")]),
            Panel("Memory of maintenance", "bytes", "Resident.",
                  [Target(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}")]),
        ]),
        Row("Dependencies, by the probes", [
            Panel("PostgreSQL reached", "bool", "1 where /readyz says that PostgreSQL answers.",
                  [Target('min by (service) (probe_success{job="holdfast-database"})', "{{service}}")]),
            Panel("Redis reached", "bool", "1 where /readyz says that Redis answers.",
                  [Target('min by (service) (probe_success{job="holdfast-redis"})', "{{service}}")]),
            Panel("Disk left", "percentunit", "Of the machine's file systems.",
                  [Target('node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660"}'
                          ' / node_filesystem_size_bytes{fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660"}',
                          "{{instance}} {{mountpoint}}")]),
        ]),
    ],
    _choice("holdfast_oldest_due_age_seconds"),
)  # fmt: skip

PAGES = (OVERVIEW, PROCESSING, INGEST, GATEWAY, UPKEEP)
