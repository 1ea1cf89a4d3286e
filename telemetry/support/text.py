"""Write a story, as JSON has it, for a terminal, or as a short block for a ticket. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from telemetry.support.verdict import duration

Story = Mapping[str, Any]
_MARK: Final = {"completed": "✓", "failed": "✗", "cancelled": "–", "unfinished": "…", None: " "}
_BAR_WIDTH: Final = 32
_MOST_SAMPLES: Final = 5


def render(story: Story, *, link: str | None = None) -> str:
    """The whole story: the verdict line first, then what proves it, then the times, then the others.

    Args:
        link: the address of its page; None leaves it out.
    """
    blocks = [
        _verdict(story),
        _identity(story, link),
        _block("EVIDENCE", _evidence(story["verdict"])),
        _block("OTHER EXPLANATIONS", _rivals(story)),
        _block("NOT RECORDED", _missing(story)),
        _block("WATERFALL", _waterfall(story)),
        _block("TIMELINE", _timeline(story)),
        _block("CANDIDATES", _candidates(story["candidates"])),
        _block("AGAINST OTHERS", _cohort(story)),
        _block("TWIN", _twin(story)),
        _block("HISTORY", _history(story)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def ticket(story: Story, *, link: str | None = None) -> str:
    """A few lines that stand on their own in a ticket."""
    verdict, attempt = story["verdict"], story["attempt"]
    about = [
        f"{name} {attempt[name]}" for name in ("client_version", "runtime", "network_type", "region") if attempt[name]
    ]
    proof = [
        f"{item['fact']}={_value(item)} (span {item['span_id']})" for item in verdict["evidence"] if item["span_id"]
    ]
    lines = [
        verdict["sentence"],
        f"Owner: {_owner(verdict)}. Rule: {verdict['rule']}.",
        f"Next: {verdict['next']}",
        f"Attempt {attempt['attempt_id']}, session {attempt['session_id'] or 'none'}, {_moment(attempt['start_ns'])}.",
        f"Server {attempt['server_address']}:{attempt['server_port']}; {', '.join(about) or 'no more is known'}.",
        f"Evidence: {'; '.join(proof[:6]) or 'none recorded'}.",
        *(f"Not recorded: {item['what']}." for item in verdict["missing"]),
        *([link] if link else []),
    ]
    return "\n".join(_safe(line) for line in lines) + "\n"


def _verdict(story: Story) -> str:
    verdict = story["verdict"]
    where = ", ".join(filter(None, (verdict["step"], verdict["part"])))
    return "\n".join(
        (
            _safe(f"{verdict['outcome'].upper()}: {verdict['sentence']}"),
            _safe(f"  owner  {_owner(verdict)}"),
            _safe(f"  where  {where or 'unknown'}"),
            _safe(f"  next   {verdict['next']}"),
            _safe(f"  why    {verdict['because']}"),
            _safe(f"  rule   {verdict['rule']} ({verdict['source']})"),
        )
    )


def _owner(verdict: Mapping[str, Any]) -> str:
    if verdict["owner"] == "undetermined":
        return f"not determined: {' or '.join(verdict['suspects']) or 'insufficient evidence'}"
    if verdict["owner"] == "nobody":
        return "nobody: nothing failed"
    return f"{verdict['owner']} ({verdict['certainty']})"


def _identity(story: Story, link: str | None) -> str:
    attempt = story["attempt"]
    pairs = [
        ("attempt", attempt["attempt_id"]),
        ("session", attempt["session_id"] or "none: the server had not accepted"),
        ("episode", attempt["episode_id"]),
        ("trace", attempt["trace_id"]),
        ("began", _moment(attempt["start_ns"])),
        ("server", f"{attempt['server_address']}:{attempt['server_port']}"),
        ("client", " ".join(str(attempt[n]) for n in ("service_name", "client_version", "runtime") if attempt[n])),
        ("network", attempt["network_type"]),
        ("region", attempt["region"]),
        ("page", link),
    ]
    lines = [_safe(f"  {name:<8} {value}") for name, value in pairs if value]
    if story["also"]:
        count = len(story["also"])
        earlier = "1 earlier attempt stands" if count == 1 else f"{count} earlier attempts stand"
        lines.append(_safe(f"  {earlier} under the same {story['kind']} id"))
    return "\n".join(lines)


def _evidence(verdict: Mapping[str, Any]) -> Iterable[str]:
    for item in verdict["evidence"]:
        where = f"  [{item['span_name']} {item['span_id']}]" if item["span_id"] else ""
        yield f"{item['fact']} = {_value(item)}{where}"


def _value(item: Mapping[str, Any]) -> str:
    if item["value"] is None:
        return "not recorded"
    if item["fact"].endswith("_ns"):
        return duration(item["value"]) if item["fact"] == "failing_part_ns" else _moment(item["value"])
    return str(item["value"])


def _rivals(story: Story) -> Iterable[str]:
    for rival in story["verdict"]["rivals"]:
        yield f"{rival['owner']}: {rival['explanation']}"
        yield f"    decided by: {rival['decided_by']}"
    for reading in story["surroundings"]["readings"]:
        speaks = [f"for {', '.join(reading['speaks_for'])}"] if reading["speaks_for"] else []
        speaks += [f"against {', '.join(reading['speaks_against'])}"] if reading["speaks_against"] else []
        yield reading["text"] + (f" Speaks {' and '.join(speaks)}." if speaks else "")


def _missing(story: Story) -> Iterable[str]:
    for item in story["verdict"]["missing"]:
        yield f"{item['what']}"
        yield f"    to record it: {item['record']}"
    yield from story["missing"]


def _waterfall(story: Story) -> Iterable[str]:
    bars = story["waterfall"]
    lengths = [bar["offset_ms"] + (bar["duration_ms"] or 0) for bar in bars if bar["kind"] != "session"]
    total = max([*lengths, 1e-9])
    for bar in bars:
        indent = "  " if bar["kind"] in ("part", "gap") else ""
        took = "open" if bar["duration_ms"] is None else duration(bar["duration_ms"] * 1_000_000)
        mark = _MARK.get(bar["outcome"], "?")
        drawn = "" if bar["kind"] == "session" else _drawn(bar["offset_ms"], bar["duration_ms"], total)
        yield f"{mark} {indent + bar['name']:<36} {bar['offset_ms'] / 1000:>9.3f} s {took:>12}  {drawn}".rstrip()


def _drawn(offset_ms: float, duration_ms: float | None, total_ms: float) -> str:
    begin = min(_BAR_WIDTH - 1, max(0, int(_BAR_WIDTH * offset_ms / total_ms)))
    if duration_ms is None:
        return " " * begin + "▒" * (_BAR_WIDTH - begin)
    length = min(_BAR_WIDTH - begin, max(1, round(_BAR_WIDTH * duration_ms / total_ms)))
    return " " * begin + "█" * length


def _timeline(story: Story) -> Iterable[str]:
    samples = 0
    for moment in story["timeline"]:
        if moment["kind"] in ("begin", "end"):
            continue  # the waterfall has them
        samples += moment["kind"] == "sample"
        if moment["kind"] == "sample" and samples > _MOST_SAMPLES:
            continue
        yield f"{_moment(moment['at_ns'])}  {moment['offset_ms'] / 1000:>+10.3f} s  {moment['text']}"
    if samples > _MOST_SAMPLES:
        yield f"and {samples - _MOST_SAMPLES} more heartbeats"
    if story["moments_left_out"]:
        yield f"and {story['moments_left_out']} more moments"
    if story["trail"]:
        yield f"signalling: {' '.join(story['trail'])}"


def _candidates(found: Mapping[str, Any]) -> Iterable[str]:
    if all(count is None for side in ("local", "remote") for count in found[side].values()) and found["relay"] is None:
        return
    for side in ("local", "remote"):
        counts = ", ".join(f"{'?' if count is None else count} {kind}" for kind, count in found[side].items())
        yield f"{side:<7} {counts}"
    yield f"servers {'not recorded' if found['servers'] is None else found['servers']}"
    if found["local_type"] or found["remote_type"]:
        through = {True: ", through a relay", False: ", without a relay"}.get(found["relay"], "")
        yield f"pair    {found['local_type'] or '?'} to {found['remote_type'] or '?'}{through}"


def _cohort(story: Story) -> Iterable[str]:
    cohort = story["cohort"]
    if not cohort or not cohort["standings"]:
        yield "nobody else completed these steps within a week"
        return
    few = "" if cohort["enough"] else ", too few for percentiles"
    yield f"others of {cohort['alike']}{few}:"
    for row in cohort["standings"]:
        rank = "" if row["percentile"] is None else f"p{row['percentile']:.1f} of "
        usual = f"median {duration(row['p50_ns'])}, p95 {duration(row['p95_ns'])}"
        yield f"{row['name']:<28} {duration(row['duration_ns']):>10}  {rank}{row['n']} ({usual})"


def _twin(story: Story) -> Iterable[str]:
    twin = story["twin"]
    if not twin:
        return
    when = "after" if twin["apart_ns"] >= 0 else "before"
    alike = not twin["facts"] and not twin["times"]
    differs = "nothing differs" if alike else "what differs (here / there):"
    yield f"{twin['attempt_id']} connected, {duration(abs(twin['apart_ns']))} {when}; {differs}"
    for item in twin["facts"]:
        yield f"{item['name']:<28} {item['mine']} / {item['twin']}"
    begun = {bar["name"] for bar in story["waterfall"]}
    for item in twin["times"]:
        absent = "did not end" if item["name"] in begun else "not begun"
        mine = absent if item["mine"] is None else duration(item["mine"])
        theirs = "not begun" if item["twin"] is None else duration(item["twin"])
        yield f"{item['name']:<28} {mine} / {theirs}"


def _history(story: Story) -> Iterable[str]:
    titles = {
        "episode": "same episode",
        "session": "same session",
        "client_before": "same client, before",
        "client_after": "same client, after",
    }
    for name, title in titles.items():
        for other in story["history"][name]:
            how = other["detail"] or other["disconnect_reason"] or ""
            yield f"{title:<20} {_moment(other['start_ns'])}  {other['attempt_id']}  {other['outcome']} {how}".rstrip()


def _block(title: str, lines: Iterable[str]) -> str:
    body: Sequence[str] = [f"  {_safe(line)}" for line in lines]
    return "\n".join([title, *body]) if body else ""


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{rest // 1_000_000:03d} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns"


def _safe(text: str) -> str:
    """One line that a terminal shows as it is: no control or direction characters, which could hide or forge text."""
    return "".join(char if char.isprintable() else "�" for char in text.replace("\n", " ").replace("\t", " "))
