// A table; ids are links to their session.
import { el, redraw } from "../dom.js";
import { show, words } from "../format.js";

const IDS = ["attempt_id", "session_id", "episode_id", "trace_id"];
const kindOf = ({ name, type }) => (name === "sentence" ? "long" : /int|double|float|decimal/.test(type) ? "number" : /timestamp/.test(type) ? "whole" : null);

export const sessionAddress = (id) => `/sessions/${encodeURIComponent(id)}`;

export function draw(host, panel, answer, { title }) {
  redraw(host, tableOf(answer, { ...panel, title: `Table: ${title}` }));
}

export function tableOf({ columns, rows }, panel = {}) {
  const shown = panel.columns ? panel.columns.map((name) => columns.find((column) => column.name === name)).filter(Boolean) : columns;
  const links = panel.link ?? IDS;
  const cell = (row, { name, type }) => {
    const value = row[name];
    const content = value != null && name === "sentence" ? el("a", { href: sessionAddress(row.attempt_id), "data-key": `${name} ${row.attempt_id}` }, value)
      : value != null && (links.includes(name) || /_attempt_id$/.test(name))
      ? el("a", { href: sessionAddress(value), class: "id", "data-key": `${name} ${value}`, title: String(value) }, panel.whole ? value : short(String(value)))
      : Array.isArray(value) ? list(name, value) : show(name, value);
    return el("td", { class: kindOf({ name, type }) }, content);
  };
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": panel.title ?? "table" },
    el("table", {},
      el("thead", {}, el("tr", {}, ...shown.map(({ name, type }) => el("th", { scope: "col", class: kindOf({ name, type }) }, panel.names?.[name] ?? words(name))))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...shown.map((column) => cell(row, column)))))));
}

function list(name, values) {
  if (!/_ids$/.test(name)) return values.map((value) => show(name, value)).join(", ");
  return el("span", {}, ...values.flatMap((value, index) => [index ? " " : null, el("a", { href: sessionAddress(value), class: "id", title: String(value) }, short(String(value)))]));
}

// The beginning of a long id is enough to open it by, and to recognise it.
const short = (id) => (id.length > 18 ? `${id.slice(0, 13)}…` : id);
