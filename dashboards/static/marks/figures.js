// Large numbers with their denominators: what one reads from across the room.
import { el, redraw } from "../dom.js";
import { show, words } from "../format.js";

export function draw(host, panel, { rows }) {
  const row = rows[0] ?? {};
  redraw(host, el("dl", { class: "figures" }, ...panel.figures.map(({ value, title, beside = [], low, high, tone }) => el("div", { class: tone ?? null },
    el("dt", {}, title ?? words(value)),
    el("dd", {}, el("b", {}, show(value, row[value]))),
    el("dd", { class: "quiet" }, [
      low && row[low] != null ? `${show(low, row[low])} to ${show(high, row[high])}` : null,
      ...[beside].flat().map((name) => `${show(name, row[name])} ${words(name)}`),
    ].filter(Boolean).join(" · ") || " ")))));
}
