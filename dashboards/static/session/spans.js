// The fifth block: every span with every attribute, and the log of moments.
import { ask } from "../api.js";
import { el } from "../dom.js";
import { count, duration } from "../format.js";
import { change, state } from "../state.js";
import { when } from "./times.js";

const FIRST = 200; // spans shown at first: more than any attempt has, less than a long session's heartbeats
let open = () => {};

// Show a span and keep it in the address: evidence, bars and moments all lead here.
export function goTo(spanId) {
  change({ span: spanId }, { quietly: true });
  open(spanId);
}

export function spans(story) {
  const list = el("div", { class: "spans", "aria-busy": "true" }, el("p", { class: "quiet" }, "Loading the spans …"));
  const filter = el("input", { type: "search", "aria-label": "Find in the spans", placeholder: "Find in names and attributes …" });
  const section = el("section", { class: "block", "aria-labelledby": "spans-title" },
    el("h2", { id: "spans-title" }, "Every span"), filter, list,
    el("h2", { id: "log-title" }, "Everything in the order of time"), log(story));
  fill(list, filter, story.attempt.trace_id).catch((error) => {
    list.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  }).finally(() => list.setAttribute("aria-busy", "false"));
  return section;
}

async function fill(list, filter, traceId) {
  const { data: [trace] } = await ask(`/api/traces/${traceId}`);
  const spans = trace.spans.toSorted((a, b) => a.startTime - b.startTime);
  const made = new Map(), texts = new Map();
  const elementOf = (span) => made.get(span) ?? made.set(span, entry(span, trace.processes[span.processID])).get(span);
  const textOf = (span) => texts.get(span) ?? texts.set(span, JSON.stringify([span.operationName, span.spanID, span.tags]).toLowerCase()).get(span);
  let most = FIRST;
  const draw = () => {
    const wanted = filter.value.toLowerCase();
    const found = wanted ? spans.filter((span) => textOf(span).includes(wanted)) : spans;
    const more = el("button", { type: "button", class: "small", on: { click: () => { most = Infinity; draw(); } } }, `Show all ${count(found.length)} spans`);
    list.replaceChildren(...found.slice(0, most).map(elementOf), ...(found.length > most ? [more] : []));
  };
  filter.addEventListener("input", draw);
  draw();
  open = (id) => {
    const at = spans.findIndex(({ spanID }) => spanID === id);
    if (at < 0) return;
    const element = elementOf(spans[at]);
    if (!element.isConnected) {
      filter.value = "";
      most = Math.max(most, at + 1);
      draw();
    }
    for (const other of made.values()) other.classList.toggle("target", other === element);
    element.open = true;
    element.querySelector("summary").focus({ preventScroll: true });
    element.scrollIntoView({ block: "center" });
  };
  if (state().span) open(state().span);
}

// One span; its attributes are written when it is first opened, because a session of a day has thousands.
function entry(span, process) {
  const failed = span.tags.some(({ key, value }) => key === "error" && value === true);
  const rows = (title, tags) => tags.length > 0 && [el("tr", { class: "group" }, el("th", { colspan: 2, scope: "colgroup" }, title)),
    ...tags.map(({ key, type, value }) => el("tr", {}, el("th", { scope: "row" }, key), el("td", { title: type }, String(value))))];
  const parent = span.references.find(({ refType }) => refType === "CHILD_OF")?.spanID;
  const table = () => el("table", {}, el("tbody", {},
    rows("Span", [{ key: "span id", value: span.spanID }, { key: "trace id", value: span.traceID }, ...(parent ? [{ key: "parent span id", value: parent }] : [])]),
    rows("Attributes", span.tags),
    ...span.logs.flatMap(({ timestamp, fields }) => rows(`Event at ${new Date(timestamp / 1000).toISOString()}`, fields) || []),
    rows("Resource", [{ key: "service.name", value: process.serviceName }, ...process.tags])));
  const element = el("details", { id: `span-${span.spanID}` },
    el("summary", {}, el("b", { class: failed ? "bad" : null }, span.operationName), failed ? el("span", { class: "bad" }, " failed") : null, " ",
      when(span.startTime * 1000), " ", el("span", { class: "quiet" }, span.duration ? duration(span.duration / 1000) : "a moment")));
  element.addEventListener("toggle", () => element.append(table()), { once: true });
  return element;
}

function log({ timeline, moments_left_out: more }) {
  const row = ({ at_ns, kind, text, span_id }) => el("tr", {}, el("td", { class: "id" }, when(at_ns)), el("td", { class: "quiet" }, kind),
    el("td", {}, span_id ? el("button", { type: "button", class: "plain moment", on: { click: () => goTo(span_id) } }, text) : text));
  const rows = el("tbody", {}, ...timeline.slice(0, FIRST).map(row));
  const rest = timeline.length > FIRST && el("button", { type: "button", class: "small", on: { click: () => {
    rows.append(...timeline.slice(FIRST).map(row));
    rest.remove();
  } } }, `Show all ${count(timeline.length)} moments`);
  return el("div", { class: "scroll log", tabindex: 0, role: "region", "aria-labelledby": "log-title" },
    el("table", {}, el("thead", {}, el("tr", {}, ...["time", "kind", "what"].map((name) => el("th", { scope: "col" }, name)))), rows), rest,
    more > 0 && el("p", { class: "warn" }, `${more} later moments are left out here; the downloads have them.`));
}
