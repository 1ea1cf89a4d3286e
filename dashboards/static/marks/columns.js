// A histogram: one column a bin, its height the count. Columns are buttons; arrow keys move between them.
import { el, redraw, rove } from "../dom.js";
import { count, show } from "../format.js";

export function draw(host, panel, answer, context) {
  const rows = even(panel, answer.rows);
  const most = Math.max(...rows.map((row) => row[panel.value] ?? 0), 1e-9);
  const name = (row) => (row.later ? `${show(panel.x, row[panel.x])} or more` : panel.until ? `${show(panel.x, row[panel.x])} to ${show(panel.until, row[panel.until])}` : show(panel.x, row[panel.x]));
  const bins = el("div", { class: "columns", role: "group", "aria-label": `${context.title}: ${rows.length} columns; arrow keys move` }, ...rows.map((row) => {
    const text = `${name(row)}: ${count(row[panel.value])}`;
    return el("button", {
      type: "button", class: "column", "data-stop": true, "data-key": name(row), title: text, "aria-label": text,
      "aria-pressed": panel.selects ? String(context.isSelected(row)) : null, on: { click: () => context.canSelect(row) && context.select(row) },
    }, el("span", { class: `bar ${panel.ink ?? "s0"}`, style: { height: `${(100 * (row[panel.value] ?? 0)) / most}%` } }));
  }));
  const at = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (rows.length - 1))).filter((place, index, all) => all.indexOf(place) === index);
  redraw(host, bins, el("div", { class: "heat-foot flush" }, ...at.map((place) => el("span", {}, show(panel.x, rows[place][panel.x])))));
  rove(bins, 1);
}

// Bins that nobody fell into are not in the answer; and a long tail is added up, so that the body keeps its shape.
function even(panel, rows) {
  const { x, until, value, most = 48 } = panel;
  if (!until || !rows.length) return rows;
  const width = rows[0][until] - rows[0][x];
  const known = new Map(rows.map((row) => [Math.round(row[x] / width), row]));
  const [first, last] = [Math.min(...known.keys()), Math.max(...known.keys())];
  const shown = [];
  for (let bin = first; bin <= Math.min(last, first + most - 1); bin += 1) shown.push(known.get(bin) ?? { [x]: bin * width, [until]: (bin + 1) * width, [value]: 0 });
  const later = [...known].filter(([bin]) => bin >= first + most).reduce((sum, [, row]) => sum + row[value], 0);
  return later ? [...shown, { [x]: (first + most) * width, [value]: later, later: true }] : shown;
}
