// Points in time on the session page, in the way the reader chose: UTC, local, or since the attempt began.
import { el } from "../dom.js";
import { duration } from "../format.js";
import { change, onChange, state } from "../state.js";

const MODES = { "": "UTC", local: `Local time (${Intl.DateTimeFormat().resolvedOptions().timeZone})`, relative: "Since start" };
let origin = 0;
const shown = new Set();

export const setOrigin = (ns) => { origin = ns; shown.clear(); };

// A `time` element that follows the choice.
export function when(ns) {
  const ms = ns / 1e6;
  const element = el("time", { datetime: new Date(ms).toISOString(), title: `${new Date(ms).toISOString()} (${signed(ms - origin / 1e6)})` });
  shown.add({ element, ms });
  write({ element, ms });
  return element;
}

const signed = (ms) => `${ms < 0 ? "−" : "+"}${duration(Math.abs(ms))}`;

function write({ element, ms }) {
  const mode = state().times ?? "";
  const date = new Date(ms);
  const two = (value, size = 2) => String(value).padStart(size, "0");
  element.textContent = mode === "relative" ? signed(ms - origin / 1e6)
    : mode === "local" ? `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${two(date.getMilliseconds(), 3)}`
    : date.toISOString().replace("T", " ").slice(0, 23);
}

export function timesChoice() {
  const group = el("div", { class: "presets small-presets", role: "group", "aria-label": "Show times as" }, ...Object.entries(MODES).map(([mode, label]) =>
    el("button", { type: "button", class: "small", "data-mode": mode, on: { click: () => change({ times: mode }, { quietly: true }) } }, label)));
  const show = () => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.mode === (state().times ?? "")));
    for (const entry of shown) write(entry);
  };
  onChange(show);
  show();
  return group;
}
