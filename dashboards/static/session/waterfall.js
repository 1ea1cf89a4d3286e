// The second block: the ladder of states, and the waterfall of steps and parts on one of two scales.
// On the scale of a long session its forming is a sliver, so the strip on top always shows the whole.
import { breakable, el, redraw } from "../dom.js";
import { duration, show } from "../format.js";
import { change, onChange, state } from "../state.js";
import { goTo } from "./spans.js";
import { when } from "./times.js";

const MOST_BEATS = 300; // closer together they would be one grey bar
const SAME_CLOCK_MS = 1; // rounding, and no other clock

export function ladder({ ladder: rungs }) {
  if (!rungs.length) return null;
  return el("ol", { class: "ladder", "aria-label": "States" }, ...rungs.map(({ state: name, percentage, at_ns, lasted_ms }, index) =>
    el("li", { class: name === "Connected" ? "good" : name === "Disconnected" && index === rungs.length - 1 ? "end" : null },
      el("b", {}, ...breakable(name)), el("span", {}, when(at_ns)),
      el("span", { class: "quiet" }, lasted_ms == null ? (name === "Disconnected" ? "the end" : "not seen to end") : `${duration(lasted_ms)} · ${percentage} %`))));
}

export function waterfall(story) {
  const { samples, cohort, attempt } = story;
  const bars = story.waterfall.map((bar, _, all) => ({ ...bar, astray_ms: astray(bar, all) }));
  if (!bars.length) return el("p", { class: "empty" }, "No step was recorded.");
  const lastSeen = (attempt.last_seen_ns - attempt.start_ns) / 1e6;
  const end = (bar) => bar.offset_ms + (bar.duration_ms ?? Math.max(lastSeen - bar.offset_ms, 0));
  const forming = Math.max(...bars.filter(({ kind }) => kind !== "session").map(end), 1);
  const whole = Math.max(...bars.map(end), lastSeen, 1);
  const standing = new Map((cohort?.standings ?? []).map((one) => [one.name, one]));
  const host = el("div");
  const draw = () => {
    const wide = state().scale === "whole";
    const scale = wide ? whole : forming;
    const at = (ms) => `${Math.min(100, Math.max(0, (100 * ms) / scale))}%`;
    const rows = bars.filter(({ kind }) => wide || kind !== "session").map((bar) => row(bar, at, end, standing.get(bar.name), scale));
    const choice = el("div", { class: "presets small-presets", role: "group", "aria-label": "Scale" },
      ...[["", `Connecting (${duration(forming)})`], ["whole", `Whole session (${duration(whole)})`]].map(([name, label]) =>
        el("button", { type: "button", class: "small", "data-key": `scale ${name}`, "aria-pressed": String((state().scale ?? "") === name), on: { click: () => change({ scale: name }, { quietly: true }) } }, label)));
    const long = whole > forming * 1.05; // a failed attempt is nothing but its connecting
    redraw(host, ...(long ? [choice, strip(bars, samples, attempt, whole, forming, end)] : []), axis(scale), el("ol", { class: "waterfall" }, ...rows), legend(cohort), ...notes(story, bars));
  };
  onChange(draw);
  draw();
  return host;
}

// The whole session in one line, where the connecting part and each heartbeat lie.
function strip(bars, samples, attempt, whole, forming, end) {
  const at = (ms) => `${(100 * ms) / whole}%`;
  const session = bars.find(({ kind }) => kind === "session");
  return el("div", { class: "strip", role: "img", "aria-label": `Whole session, ${duration(whole)}: connecting for the first ${duration(forming)}${session ? `, connected for ${duration(end(session) - session.offset_ms)}` : ""}, ${samples.length} heartbeats` },
    el("span", { class: "bar s0", style: { left: 0, width: at(forming) } }),
    session && el("span", { class: `bar ${session.end_ns == null ? "open" : "good"}`, style: { left: at(session.offset_ms), width: at(end(session) - session.offset_ms) } }),
    ...samples.filter((_, index) => index % Math.ceil(samples.length / MOST_BEATS) === 0).map(({ at_ns }) => el("span", { class: "beat", style: { left: at((at_ns - attempt.start_ns) / 1e6) } })));
}

function axis(scale) {
  return el("div", { class: "axis", "aria-hidden": "true" }, ...[0, 0.25, 0.5, 0.75, 1].map((share) => el("span", { style: { left: `${100 * share}%` } }, duration(share * scale))));
}

function row(bar, at, end, standing, scale) {
  const open = bar.end_ns == null;
  const tone = bar.kind === "gap" ? "gap" : bar.outcome === "failed" ? "bad" : open ? "open" : bar.kind === "session" ? "good" : bar.kind === "step" ? "s0" : "s2";
  const length = open ? `not seen to end${end(bar) > bar.offset_ms ? `, at least ${duration(end(bar) - bar.offset_ms)}` : ""}` : duration(bar.duration_ms);
  const rank = standing?.percentile != null ? `p${Math.round(standing.percentile)} of ${show("n", standing.n)}` : standing ? `too few: ${show("n", standing.n)}` : "";
  const track = el("span", { class: "track open-track" },
    el("span", { class: `bar ${tone}`, style: { left: at(bar.offset_ms), width: at(end(bar) - bar.offset_ms) } }),
    standing && bar.offset_ms + standing.p50_ns / 1e6 <= scale && el("span", { class: "tick p50", title: `cohort p50 ${duration(standing.p50_ns / 1e6)}`, style: { left: at(bar.offset_ms + standing.p50_ns / 1e6) } }),
    standing && bar.offset_ms + standing.p95_ns / 1e6 <= scale && el("span", { class: "tick p95", title: `cohort p95 ${duration(standing.p95_ns / 1e6)}`, style: { left: at(bar.offset_ms + standing.p95_ns / 1e6) } }));
  const label = el("span", { class: "label", title: bar.name }, bar.name, bar.astray_ms > 0 && el("span", { class: "warn" }, " clock astray"), bar.outcome && bar.outcome !== "completed" ? el("span", { class: bar.outcome === "failed" ? "bad" : "warn" }, ` ${bar.outcome}`) : null);
  const beside = el("span", { class: "value" }, el("b", {}, length), el("span", { class: standing?.percentile >= 95 ? "warn" : "quiet" }, rank));
  return el("li", { class: bar.kind }, bar.span_id
    ? el("button", { type: "button", class: "row", "data-key": bar.span_id, title: standing ? `cohort p50 ${duration(standing.p50_ns / 1e6)}, p95 ${duration(standing.p95_ns / 1e6)}, n = ${standing.n}` : null, on: { click: () => goTo(bar.span_id) } }, label, track, beside)
    : el("span", { class: "row" }, label, track, beside));
}

// How far a part lies outside its step: by one clock the parts lie within.
function astray({ kind, step, offset_ms: from, duration_ms: length }, bars) {
  const around = bars.find((bar) => bar.kind === "step" && bar.name === step);
  if (kind !== "part" || !around) return 0;
  const after = length == null || around.duration_ms == null ? 0 : from + length - around.offset_ms - around.duration_ms;
  const most = Math.max(around.offset_ms - from, after);
  return most > SAME_CLOCK_MS ? most : 0;
}

// What is not as it should be recorded stands beside the drawing, not only in it.
function notes({ missing }, bars) {
  const strays = bars.filter((bar) => bar.astray_ms > 0).map((bar) => `${bar.name} lies ${duration(bar.astray_ms)} outside its step, ${bar.step}: its clock differs. It is drawn as it was recorded.`);
  return [...missing, ...strays].map((text) => el("p", { class: "warn note" }, text));
}

function legend(cohort) {
  const entry = (name, text) => el("span", {}, el("span", { class: `swatch ${name}` }), text);
  return el("p", { class: "legend" }, entry("bar s0", "step"), entry("bar s2", "part"), entry("bar gap", "gap: no part covers it"), entry("bar open", "not seen to end"), entry("bar bad", "failed"),
    cohort && [entry("tick p50", "cohort p50"), entry("tick p95", "cohort p95"), el("span", { class: "quiet" }, `cohort: ${cohort.alike}${cohort.enough ? "" : ", too few to rank"}`)]);
}
