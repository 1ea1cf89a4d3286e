// A funnel: one row a stage, as wide as those who reached it, and what was lost on the way.
import { el, redraw } from "../dom.js";
import { count, percent, show } from "../format.js";

export function draw(host, panel, { rows }, context) {
  const first = Math.max(rows[0]?.[panel.value] ?? 0, 1);
  const items = rows.map((row, index) => {
    const reached = row[panel.value] ?? 0;
    const lost = index ? (rows[index - 1][panel.value] ?? 0) - reached : 0;
    const inside = [
      el("span", { class: "label" }, row[panel.label]),
      el("span", { class: "track" },
        el("span", { class: "bar good", style: { width: `${(100 * reached) / first}%` } }),
        lost > 0 && el("span", { class: "bar lost", style: { left: `${(100 * reached) / first}%`, width: `${(100 * lost) / first}%` } })),
      el("span", { class: "value" }, el("b", {}, count(reached)), el("span", { class: "quiet" }, percent(reached / first)),
        el("span", { class: "bad" }, lost > 0 ? `−${count(lost)}` : ""),
        [panel.beside ?? []].flat().map((name) => el("span", { class: "quiet" }, row[name] == null ? "" : show(name, row[name])))),
    ];
    if (!context.canSelect(row)) return el("li", {}, el("span", { class: "row" }, ...inside));
    return el("li", {}, el("button", {
      type: "button", class: "row", "data-key": String(row[panel.label]), "aria-pressed": String(context.isSelected(row)), on: { click: () => context.select(row) },
    }, ...inside));
  });
  redraw(host, el("ol", { class: "bars funnel", style: { "--values": 3 + [panel.beside ?? []].flat().length } }, ...items));
}
