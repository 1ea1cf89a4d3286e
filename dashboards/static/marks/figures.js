// Large numbers with their denominators: what one reads from across the room.
import { el, redraw } from "../dom.js";
import { show, words } from "../format.js";

const part = (ratio, rest) => (rest && ratio != null ? 1 - ratio : ratio);

export function draw(host, panel, { rows }) {
  const row = rows[0] ?? {};
  redraw(host, el("dl", { class: "figures" }, ...panel.figures.map(({ value, title, beside = [], low, high, tone, rest }) => el("div", { class: tone ?? null },
    el("dt", {}, title ?? words(value)),
    el("dd", {}, el("b", {}, show(value, part(row[value], rest)))),
    el("dd", { class: "quiet" }, [
      low && row[low] != null ? [low, high].map((name) => show(name, part(row[name], rest))).join(" to ") : null,
      ...[beside].flat().map((name) => `${show(name, row[name])} ${words(name)}`),
    ].filter(Boolean).join(" · ") || " ")))));
}
