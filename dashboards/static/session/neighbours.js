// The fourth block: the twin, the other attempts, and what else happened then.
import { el } from "../dom.js";
import { count, duration, show, words } from "../format.js";
import { sessionAddress } from "../marks/table.js";
import { when } from "./times.js";

export function neighbours(story) {
  return el("section", { class: "block", "aria-labelledby": "others-title" },
    el("h2", { id: "others-title" }, "Held against others"),
    el("div", { class: "columns-2" }, el("div", {}, ...twin(story)), el("div", {}, ...around(story), ...others(story))));
}

const HALF_HOUR_MS = 1_800_000;

// Where the fleet of that hour is shown.
export function hourAround(ms, more = {}) {
  const hour = { since: new Date(ms - HALF_HOUR_MS).toISOString(), until: new Date(ms + HALF_HOUR_MS).toISOString() };
  return `/?${new URLSearchParams(Object.entries({ ...hour, ...more }).filter(([, value]) => value != null))}#recent`;
}

function twin({ twin: other, attempt, waterfall }) {
  const title = el("h3", {}, "Its twin: the nearest attempt that connected");
  if (!other) return [title, el("p", { class: "quiet" }, "Nobody connected within a week.")];
  const begun = new Set(waterfall.map(({ name }) => name));
  const line = (name, mine, theirs) => el("tr", {}, el("th", { scope: "row" }, words(name)), el("td", {}, mine), el("td", {}, theirs));
  const fact = (value) => (value == null ? "not recorded" : show("", value));
  const time = (value, absent) => (value == null ? absent : duration(value / 1e6));
  const apart = `${duration(Math.abs(other.apart_ns) / 1e6)} ${other.apart_ns < 0 ? "before" : "after"}`;
  const rows = [
    ...other.times.map(({ name, mine, twin: theirs }) => line(name, time(mine, begun.has(name) ? "did not end" : "not begun"), time(theirs, "not begun"))),
    ...other.facts.map(({ name, mine, twin: theirs }) => line(name, fact(mine), fact(theirs))),
  ];
  return [title, el("p", { class: "quiet" }, link(other.attempt_id), ` began ${apart}. Only what differs is shown.`),
    rows.length ? el("table", { class: "compare" }, el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col" }, "This attempt"), el("th", { scope: "col" }, "Its twin"))), el("tbody", {}, ...rows))
      : el("p", {}, `Nothing differs clearly${attempt.outcome === "connected" ? "" : " but the outcome"}.`)];
}

function around({ surroundings: then, attempt }) {
  const same = (more) => hourAround(attempt.start_ns / 1e6, more);
  return [el("h3", {}, "The same hour, the same server"),
    el("p", {}, `${count(then.attempts)} other ${then.attempts === 1 ? "attempt" : "attempts"}: ${count(then.connected)} connected, ${count(then.failed)} failed, ${count(then.failed_alike)} of them alike; ${count(then.lost)} ${then.lost === 1 ? "connection was" : "connections were"} lost.`),
    then.readings.length > 0 && el("ul", {}, ...then.readings.map(({ text }) => el("li", {}, text))),
    el("p", {}, el("a", { href: same({ outcome: "failed" }) }, "What else failed in that hour"), " · ",
      el("a", { href: same({ outcome: attempt.outcome, error_type: attempt.error_type, detail: attempt.detail, region: attempt.region }) }, "Similar sessions"), " · ",
      el("a", { href: same({}) }, "The fleet in that hour"))];
}

function others({ history, also, kind }) {
  const groups = [
    ["Other attempts of the episode", history.episode], ["Other connections of the session", history.session],
    ["The same client before", history.client_before], ["The same client after", history.client_after],
  ].filter(([, list]) => list.length);
  const named = also.length ? [el("h3", {}, `This ${kind} has ${also.length + 1} attempts; this is the latest`), list(also)] : [];
  if (!groups.length && !named.length) return [el("h3", {}, "Its history"), el("p", { class: "quiet" }, "No other attempt of the same episode, session or client is known.")];
  return [...named, ...groups.flatMap(([title, entries]) => [el("h3", {}, title), list(entries)])];
}

const list = (entries) => el("ul", { class: "others" }, ...entries.map((other) => el("li", {}, link(other.attempt_id), " ", when(other.start_ns), " ",
  el("span", { class: other.outcome === "failed" ? "bad" : other.outcome === "connected" ? "good" : "warn" }, other.outcome),
  el("span", { class: "quiet" }, [other.detail && ` ${other.detail}`, other.disconnect_reason && ` ended: ${other.disconnect_reason}`, other.resumed && " resumed"].filter(Boolean).join(",")))));

const link = (id) => el("a", { href: sessionAddress(id), class: "id", title: id }, id.length > 18 ? `${id.slice(0, 13)}…` : id);
