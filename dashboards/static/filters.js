// The bar of filters: range, bucket, cohort, probes; and a chip for everything that a click has chosen.
import { address, ask } from "./api.js";
import { el, redraw } from "./dom.js";
import { isoOf, lengthOf, moment, words } from "./format.js";
import { change, state } from "./state.js";

const PRESETS = { "15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 days", "30d": "30 days", "90d": "90 days" };
const BUCKETS = ["1s", "5s", "15s", "1m", "5m", "15m", "1h", "3h", "6h", "1d", "7d"];
const BUCKETS_WANTED = 60;
const COHORT = ["region", "client_version", "runtime", "network_type", "server_address", "environment"];
const OURS = new Set(["since", "until", "bucket", "synthetic", "live", "tables", "theme", "order", ...COHORT]);
const DEFAULT_RANGE = "24h";

// What the reports are asked with. A bucket nobody chose follows from the range.
export function params() {
  const { live, tables, theme, ...chosen } = state();
  const since = chosen.since ?? DEFAULT_RANGE;
  return { ...chosen, since, bucket: chosen.bucket ?? bucketFor(range()) };
}

// The range in milliseconds; null where it is not known here, as for a time that only the server can read.
export function range() {
  const { since = DEFAULT_RANGE, until } = state();
  const to = until ? Date.parse(until) : Date.now();
  const from = lengthOf(since) == null ? Date.parse(since) : to - lengthOf(since);
  return Number.isNaN(from) || Number.isNaN(to) ? null : [from, to];
}

function bucketFor(span) {
  if (!span) return "1h";
  const wanted = (span[1] - span[0]) / BUCKETS_WANTED;
  return BUCKETS.find((bucket) => lengthOf(bucket) >= wanted) ?? BUCKETS.at(-1);
}

// Filters that were chosen, by name: what a panel that cannot follow one must say.
export const chosen = () => Object.keys(state()).filter((name) => COHORT.includes(name) || name === "synthetic" || !OURS.has(name));

// Whether any report of the page can follow a filter.
let followed = new Set();
export const setFollowed = (names) => { followed = new Set(names); };
export const known = (name) => followed.has(name);

export function zoom(from, to) {
  change({ since: isoOf(Math.floor(from / 1000) * 1000), until: isoOf(Math.ceil(to / 1000) * 1000), bucket: null });
}

export function filterBar(form, chips) {
  form.addEventListener("submit", (event) => event.preventDefault());
  const presets = el("div", { class: "presets", role: "group", "aria-label": "Time range" }, ...Object.entries(PRESETS).map(([since, label]) =>
    el("button", { type: "button", "data-since": since, on: { click: () => change({ since, until: null, bucket: null }) } }, label)));
  const [from, to] = ["From", "to"].map((label) => el("input", { type: "datetime-local", step: 1, "aria-label": `${label}, UTC` }));
  const absolute = el("details", { class: "absolute" }, el("summary", {}, "Range"), el("div", {}, from, "to", to, "UTC",
    el("button", { type: "button", on: { click: () => {
      if (from.value && to.value) change({ since: `${from.value}Z`, until: `${to.value}Z`, bucket: null });
      absolute.open = false;
    } } }, "Show")));
  const back = el("button", { type: "button", title: "Twice the range, around the same middle", on: { click: () => {
    const span = range();
    if (span) zoom(span[0] - (span[1] - span[0]) / 2, Math.min(span[1] + (span[1] - span[0]) / 2, Date.now() + 60_000));
  } } }, "Zoom out");
  const bucket = select("bucket", "Bucket", { "": "auto", ...Object.fromEntries(BUCKETS.map((name) => [name, name])) });
  const probes = select("synthetic", "Probes", { "": "left out", true: "counted in" });
  const cohort = COHORT.map((name) => {
    const list = el("datalist", { id: `known-${name}` });
    const input = el("input", { name, list: list.id, size: 9, placeholder: "all", maxlength: 1000, autocomplete: "off", spellcheck: "false" });
    input.addEventListener("change", () => change({ [name]: input.value.trim() }));
    return { name, input, list, element: el("label", {}, words(name), input, list) };
  });
  let list = null;
  const printed = el("p", { class: "printed" }); // paper has no bar of filters, and says what it shows all the same
  form.after(printed);
  form.append(el("div", { class: "line" }, presets, absolute, back, bucket.element, probes.element), el("div", { class: "line cohort" }, ...cohort.map(({ element }) => element)));

  const show = () => {
    const now = state();
    const since = now.since ?? DEFAULT_RANGE;
    for (const button of presets.children) button.setAttribute("aria-pressed", String(!now.until && button.dataset.since === since));
    const span = range();
    if (span && !absolute.open) [from.value, to.value] = span.map((time) => isoOf(Math.floor(time / 1000) * 1000).slice(0, 19));
    absolute.firstChild.textContent = now.until && span ? `${moment(isoOf(span[0])).slice(0, 16)} – ${moment(isoOf(span[1])).slice(0, 16)}` : "Range";
    absolute.classList.toggle("chosen", Boolean(now.until));
    bucket.input.firstChild.textContent = `auto (${bucketFor(span)})`;
    bucket.input.value = now.bucket ?? "";
    probes.input.value = now.synthetic ?? "";
    for (const { name, input } of cohort) {
      input.value = now[name] ?? "";
      input.classList.toggle("chosen", Boolean(now[name]));
    }
    printed.textContent = [span?.map((time) => moment(isoOf(time))).join(" to ").concat(" UTC"), ...chosen().map((name) => `${words(name)}: ${now[name]}`)].filter(Boolean).join(" · ");
    const others = chosen().filter((name) => name !== "synthetic");
    redraw(chips, ...others.map((name) => el("button", {
      type: "button", class: "chip", "data-key": name, "aria-label": `Remove the filter ${words(name)}: ${now[name]}`, on: { click: () => change({ [name]: null }) },
    }, `${words(name)}: ${now[name]}`, el("span", { "aria-hidden": "true" }, " ×"))),
    others.length > 0 && list ? el("button", { type: "button", class: "small plain lead", "data-key": "attempts", on: { click: () => {
      change({ order: "slowest" });
      document.getElementById(list).scrollIntoView();
    } } }, "Its attempts, slowest first ↓") : "",
    others.length > 1 ? el("button", { type: "button", class: "small plain", on: { click: () => change(Object.fromEntries(others.map((name) => [name, null]))) } }, "Clear all") : "");
  };
  show();
  return { show, suggest: (source) => suggest(cohort, source), leadTo: (panel) => { list = panel; show(); } };
}

function select(name, label, options) {
  const input = el("select", { name }, ...Object.entries(options).map(([value, text]) => el("option", { value }, text)));
  input.addEventListener("change", () => change({ [name]: input.value }));
  return { input, element: el("label", {}, label, input) };
}

// Values to choose from, where a report knows them for the range; without it one still may type.
let suggested = null;
async function suggest(cohort, { report, dimension, value }) {
  const { since, until } = params();
  const asked = address(`/api/reports/${report}`, { since, until });
  if (asked === suggested) return;
  suggested = asked;
  const { rows } = await ask(asked).catch(() => {
    suggested = null; // ask again the next time
    return { rows: [] };
  });
  if (suggested && asked !== suggested) return; // the range has changed meanwhile
  for (const { name, list } of cohort) {
    const known = [...new Set(rows.filter((row) => row[dimension] === name && row[value] != null).map((row) => row[value]))];
    list.replaceChildren(...known.sort().map((text) => el("option", { value: text })));
  }
}
