// A histogram: one column a bin, its height the count. Columns are buttons; arrow keys move between them.
import { el, redraw, rove } from "../dom.js";
import { count, show } from "../format.js";

export function draw(host, panel, { rows }, context) {
  const most = Math.max(...rows.map((row) => row[panel.value] ?? 0), 1e-9);
  const name = (row) => (panel.until ? `${show(panel.x, row[panel.x])} to ${show(panel.until, row[panel.until])}` : show(panel.x, row[panel.x]));
  const bins = el("div", { class: "columns", role: "group", "aria-label": `${context.title}: ${rows.length} columns; arrow keys move` }, ...rows.map((row) => {
    const text = `${name(row)}: ${count(row[panel.value])}`;
    return el("button", {
      type: "button", class: "column", "data-stop": true, "data-key": name(row), title: text, "aria-label": text,
      "aria-pressed": panel.selects ? String(context.isSelected(row)) : null, on: { click: () => panel.selects && context.select(row) },
    }, el("span", { class: `bar ${panel.ink ?? "s0"}`, style: { height: `${(100 * (row[panel.value] ?? 0)) / most}%` } }));
  }));
  const at = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (rows.length - 1))).filter((place, index, all) => all.indexOf(place) === index);
  redraw(host, bins, el("div", { class: "heat-foot flush" }, ...at.map((place) => el("span", {}, show(panel.x, rows[place][panel.x])))));
  rove(bins, 1);
}
