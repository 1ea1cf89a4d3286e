// The third block: how media found its way, and how it fared.
import { el, svg } from "../dom.js";
import { count, duration, percent, show } from "../format.js";

const [WIDTH, HEIGHT] = [260, 56];

export function media({ candidates, waterfall, samples, attempt, trail, history, verdict }) {
  const part = (name) => waterfall.find((bar) => bar.kind === "part" && bar.name === name);
  const ice = part("webrtc.ice")?.facts ?? {};
  const kinds = (found) => (Object.values(found).every((value) => value == null) ? "not recorded" : Object.entries(found).map(([kind, value]) => `${value ?? "?"} ${kind}`).join(", "));
  const known = [
    ["Selected pair", part("webrtc.ice")?.outcome === "failed" ? "none worked" : candidates.local_type ? `${candidates.local_type} to ${candidates.remote_type ?? "?"}${candidates.relay ? ", through a relay" : candidates.relay === false ? ", no relay" : ""}` : "none was selected, or it was not recorded"],
    ["Protocol", [ice["webrtc.local.protocol"], ice["webrtc.local.relayProtocol"] && `relay over ${ice["webrtc.local.relayProtocol"]}`].filter(Boolean).join(", ") || "not recorded"],
    ["Local candidates", kinds(candidates.local)],
    ["Remote candidates", kinds(candidates.remote)],
    ["STUN and TURN servers named", candidates.servers ?? "not recorded"],
    ["Negotiated and gathered in", length(part("webrtc.negotiate"))],
    ["Checked (ICE) in", length(part("webrtc.ice"))],
    ["Encrypted (DTLS) in", length(part("webrtc.dtls"))],
    ["First video frame after", length(part("media.first_frame"))],
    ["Codec", codec(waterfall) ?? "not recorded"],
    ["Connections of this session", count(history.session.length + 1) + (attempt.resumed ? ", this one resumed it" : "")],
    verdict.outcome === "connected" && ["Ended", [attempt.disconnect_reason, attempt.ended_by && `by the ${attempt.ended_by}`, attempt.disconnect_detail, attempt.close_code && `code ${attempt.close_code}`].filter(Boolean).join(", ") || "not seen to end"],
  ].filter(Boolean);
  return el("section", { class: "block", "aria-labelledby": "media-title" },
    el("h2", { id: "media-title" }, "WebRTC"),
    el("div", { class: "columns-2" },
      el("dl", { class: "known" }, ...known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
      el("div", { class: "sparks" }, ...sparks(samples))),
    trail.length > 0 && el("p", { class: "quiet" }, "Last signalling messages (> sent, < received): ", el("code", {}, trail.join("  "))));
}

const length = (bar) => (bar == null ? "not reached" : bar.duration_ms == null ? "not seen to end" : `${duration(bar.duration_ms)}${bar.outcome === "failed" ? ", failed" : ""}`);

function codec(bars) {
  for (const { facts } of bars) {
    const found = Object.entries(facts).find(([name]) => /codec|mimeType/.test(name));
    if (found) return found[1];
  }
  return null;
}

// Counters are cumulative: a rate is the difference of two heartbeats over the time between them.
function sparks(samples) {
  if (!samples.length) return [el("p", { class: "quiet" }, "No heartbeat was recorded, so nothing is known of round trip, loss and bitrate.")];
  const pairs = samples.slice(1).map((sample, index) => [samples[index], sample]);
  const delta = (name) => ([a, b]) => (a[name] == null || b[name] == null ? null : b[name] - a[name]);
  const received = delta("video_packets_received"), lost = delta("video_packets_lost");
  const series = [
    ["Round trip", samples.map(({ rtt_s }) => (rtt_s == null ? null : rtt_s * 1000)), duration],
    ["Video loss", pairs.map((pair) => { const [got, gone] = [received(pair), lost(pair)]; return got == null || gone == null || got + gone <= 0 ? null : gone / (got + gone); }), percent],
    ["Bitrate in", rates(pairs, delta("bytes_received")), bits],
    ["Bitrate out", rates(pairs, delta("bytes_sent")), bits],
    ["Video jitter", samples.map(({ video_jitter_s }) => (video_jitter_s == null ? null : video_jitter_s * 1000)), duration],
    ["Video frozen", samples.map(({ video_frozen_ms }) => video_frozen_ms ?? null), duration],
  ];
  return series.map(([name, values, format]) => spark(name, values, format));
}

const rates = (pairs, delta) => pairs.map((pair) => { const bytes = delta(pair); return bytes == null ? null : (bytes * 8) / ((pair[1].at_ns - pair[0].at_ns) / 1e9); });
const bits = (value) => (value >= 1e6 ? `${(value / 1e6).toFixed(2)} Mbit/s` : `${(value / 1e3).toFixed(0)} kbit/s`);

function spark(name, values, format) {
  const known = values.filter((value) => value != null);
  if (!known.length) return el("figure", {}, el("figcaption", {}, el("b", {}, name), el("span", { class: "quiet" }, "not recorded")));
  const top = Math.max(...known, 1e-12);
  const x = (index) => (WIDTH * index) / Math.max(values.length - 1, 1);
  const y = (value) => HEIGHT - 3 - ((HEIGHT - 8) * value) / top;
  const runs = [[]];
  values.forEach((value, index) => { if (value == null) runs.push([]); else runs.at(-1).push(`${x(index)},${y(value)}`); });
  const said = `last ${format(known.at(-1))}, most ${format(top)}, ${known.length} of ${values.length} measured`;
  return el("figure", {}, el("figcaption", {}, el("b", {}, name), el("span", { class: "quiet" }, said)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${said}` },
      svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 3, y2: HEIGHT - 3 }),
      ...runs.filter(({ length: points }) => points > 1).map((points) => svg("polyline", { points: points.join(" ") })),
      ...runs.filter(({ length: points }) => points === 1).map(([point]) => svg("circle", { cx: point.split(",")[0], cy: point.split(",")[1], r: 2.5 }))));
}
