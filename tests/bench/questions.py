"""Questions that the collector's table in ClickHouse can answer as well: its SQL, and the report that answers the same.

Each is written as someone who knows ClickHouse would: by the sorting key where it helps, one pass where one will do.
Survival curves, verdicts and whatever needs an attempt put together from its spans are not asked of it.
"""

from dataclasses import dataclass
from typing import Final

from telemetry.semconv import COLUMNS


@dataclass(frozen=True, slots=True)
class Question:
    """One question, with the figure that must be the same in both answers: a column of each, summed up."""

    report: str
    params: dict[str, object]
    figure: str
    sql: str
    """`{since}` and `{until}` are DateTime64; the figure is its last column."""


_PEOPLE: Final = "SpanAttributes['user_agent.synthetic.type'] = ''"
_IN_RANGE: Final = f"Timestamp >= {{since}} and Timestamp < {{until}} and {_PEOPLE}"
_ENDED: Final = "SpanAttributes['dp.outcome'] in ('connected', 'failed')"

QUESTIONS: Final = {
    "failure rate by hour": Question(
        "failure_rate",
        {"bucket": "1h"},
        "failed",
        f"""select toStartOfHour(Timestamp) as hour, countIf({_ENDED}) as ended,
        countIf(SpanAttributes['dp.outcome'] = 'failed') as failed
        from otel_traces where SpanName = 'connect' and {_IN_RANGE} group by hour order by hour""",
    ),
    "failures by detail": Question(
        "errors",
        {},
        "attempts",
        f"""select SpanAttributes['error.type'] as e, SpanAttributes['dp.failure.step'] as s,
        SpanAttributes['dp.failure.part'] as p, SpanAttributes['dp.failure.detail'] as d,
        uniqExact(SpanAttributes['dp.episode.id']) as episodes, min(Timestamp), max(Timestamp),
        argMax(SpanAttributes['dp.attempt.id'], Timestamp), count() as attempts
        from otel_traces where SpanName = 'connect' and {_IN_RANGE} and SpanAttributes['dp.outcome'] = 'failed'
        group by e, s, p, d order by attempts desc""",
    ),
    "funnel": Question(
        "funnel",
        {},
        "attempts",
        f"""select step, countIf(reached >= step) as attempts from (
          select TraceId, max(toUInt8OrZero(SpanAttributes['dp.step.number'])) as reached
          from otel_traces where SpanName = 'transition' and {_IN_RANGE}
          group by TraceId) as attempts_made cross join (select arrayJoin([1, 2, 3, 4]) as step) as steps
        group by step order by step""",
    ),
    "percentiles by step and hour": Question(
        "step_durations",
        {"bucket": "1h"},
        "completed",
        f"""select toStartOfHour(Timestamp) as hour, if(SpanName = 'connect', 'connect', SpanName) as step,
        quantilesExactInclusive(0.5, 0.95, 0.99)(Duration / 1e6), count() as completed
        from otel_traces where {_IN_RANGE}
        and ((SpanName = 'connect' and SpanAttributes['dp.outcome'] = 'connected')
          or (SpanName in ('SearchingForDigitalPerson', 'DownloadingAssets', 'ConnectingToDigitalPerson')
            and SpanAttributes['dp.step.outcome'] = 'completed'))
        group by hour, step order by hour, step""",
    ),
    "time to connect": Question(
        "time_to_connect",
        {},
        "connected",
        f"""select intDiv(Duration, 250000000) as bin, count() as connected
        from otel_traces where SpanName = 'connect' and {_IN_RANGE} and SpanAttributes['dp.outcome'] = 'connected'
        group by bin order by bin""",
    ),
    "episodes": Question(
        "episodes",
        {"bucket": "all"},
        "decided",
        f"""select countIf(through), countIf(through or (failures > 0 and last != 'unfinished')) as decided from (
          select SpanAttributes['dp.episode.id'] as id, countIf(SpanAttributes['dp.outcome'] = 'failed') as failures,
            max(SpanAttributes['dp.outcome'] = 'connected') as through,
            argMax(SpanAttributes['dp.outcome'], Timestamp) as last, min(Timestamp) as first
          from otel_traces where SpanName = 'connect' and {_PEOPLE}
            and Timestamp >= {{since}} - interval 1 day and Timestamp < {{until}} + interval 1 day
          group by id) where first >= {{since}} and first < {{until}}""",
    ),
    "queue by hour": Question(
        "queue",
        {"bucket": "1h"},
        "queued",
        f"""select toStartOfHour(Timestamp) as hour, count() as asked,
        quantilesExactInclusive(0.5, 0.95)(Duration / 1e6),
        countIf(SpanAttributes['dp.queue.position.first'] != '') as queued
        from otel_traces where SpanName = 'queue' and {_IN_RANGE} group by hour order by hour""",
    ),
    "disconnects": Question(
        "disconnects",
        {},
        "sessions",
        f"""select SpanAttributes['dp.disconnect.reason'] as reason, SpanAttributes['dp.disconnect.ended_by'] as by,
        quantilesExactInclusive(0.5, 0.95)(Duration / 1e9), count() as sessions
        from otel_traces where SpanName = 'Connected' and {_PEOPLE}
        and Timestamp >= {{since}} - interval 1 day and Timestamp < {{until}}
        and Timestamp + toIntervalNanosecond(Duration
          - if(reason = 'connectionLost', toUInt64OrZero(SpanAttributes['dp.media.last_seen_ago_ms']) * 1000000, 0))
          between {{since}} and {{until}} - interval 1 nanosecond
        group by reason, by order by sessions desc""",
    ),
    "media quality by hour": Question(
        "media_quality",
        {"bucket": "1h"},
        "samples",
        f"""select toStartOfHour(Timestamp) as hour,
        quantilesExactInclusive(0.5, 0.95)(toFloat64OrNull(SpanAttributes['webrtc.remote_inbound.roundTripTime'])),
        quantilesExactInclusive(0.5, 0.95)(toFloat64OrNull(SpanAttributes['webrtc.inbound.video.jitter'])),
        uniqExact(TraceId), count() as samples
        from otel_traces where SpanName = 'sample' and {_IN_RANGE} group by hour order by hour""",
    ),
    "the 50 slowest": Question(
        "slowest",
        {},
        "duration_ms",
        f"""select Timestamp, SpanAttributes['dp.attempt.id'], SpanAttributes['session.id'],
        Duration / 1e6 as duration_ms
        from otel_traces where SpanName = 'connect' and {_IN_RANGE} order by duration_ms desc limit 50""",
    ),
    "the 50 latest": Question(
        "recent",
        {},
        "connecting_ms",
        f"""select Timestamp, SpanAttributes['dp.attempt.id'], SpanAttributes['dp.outcome'],
        SpanAttributes['error.type'], SpanAttributes['dp.failure.detail'], Duration / 1e6 as connecting_ms
        from otel_traces where SpanName = 'connect' and {_IN_RANGE} order by Timestamp desc limit 50""",
    ),
    "one session": Question(
        "timeline",
        {"id": "{session}"},
        "duration_ms",
        """select Timestamp, TraceId, SpanId, SpanName, SpanAttributes, Duration / 1e6 as duration_ms from otel_traces
        where TraceId in (select TraceId from otel_traces where SpanAttributes['session.id'] = '{session}')
        order by Timestamp""",
    ),
}
WITHOUT_UNFINISHED: Final = ("the 50 slowest", "the 50 latest", "episodes")
"""An attempt that never ended has no `connect` span, and these list or count it: the figures differ by those few."""


def loading(copies: int) -> str:
    """The statement that fills the collector's table from a Parquet file of our columns; `{file}`, `{copy}`."""
    spans = [column for column in COLUMNS if column.span]
    resources = [column for column in COLUMNS if column.resource and not column.span]

    def own(column: str) -> str:
        """Each copy's ids are its own, as in `fleets.multiply`."""
        ids = ("trace_id", "attempt_id", "episode_id", "session_id")
        return (
            f"concat(substring(hex({{copy}}), 2, 1), substring({column}, 2))"
            if copies > 1 and column in ids
            else column
        )

    def attributes(pairs: list[tuple[str, str]]) -> str:
        inside = ", ".join(f"'{attribute}', ifNull(toString({column}), '')" for attribute, column in pairs)
        return f"mapFilter((k, v) -> v != '', map({inside}))"

    return f"""insert into otel_traces (Timestamp, TraceId, SpanId, ParentSpanId, SpanName, SpanKind, ServiceName,
    ResourceAttributes, SpanAttributes, Duration, StatusCode, StatusMessage)
    select fromUnixTimestamp64Nano(start_ns + {{copy}} * 37000000000), {own("trace_id")}, span_id,
    ifNull(parent_span_id, ''), name, kind, service_name,
    {attributes([(str(column.resource), column.name) for column in resources])},
    {attributes([(str(column.span), own(column.name)) for column in spans])},
    end_ns - start_ns, status_code, ifNull(status_message, '') from file('{{file}}', Parquet)"""
