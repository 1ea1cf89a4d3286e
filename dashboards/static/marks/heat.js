// A heat map: columns over time or cohorts, rows of another column, and a shade for each cell. Cells are buttons.
import { el, redraw, rove } from "../dom.js";
import { moment, percent, show } from "../format.js";

export function draw(host, panel, { rows }, context) {
  const places = (name) => {
    const found = [...new Set(rows.map((row) => row[name]))];
    return found.sort((a, b) => (a < b ? -1 : 1));
  };
  const across = places(panel.x).slice(0, panel.most ?? 60);
  const down = places(panel.y);
  if (typeof down[0] === "number") down.sort((a, b) => b - a);
  const cells = new Map(rows.map((row) => [`${row[panel.x]} ${row[panel.y]}`, row]));
  // A row's own total, so that a busy row does not hide where a quiet one has its most.
  const all = new Map();
  for (const row of rows) all.set(row[panel.y], (all.get(row[panel.y]) ?? 0) + (row[panel.value] ?? 0));
  const share = (row) => (row ? (row[panel.value] ?? 0) / Math.max(all.get(row[panel.y]), 1e-9) : 0);
  const most = Math.max(...rows.map(share), 1e-9);
  const isTime = /^\d{4}-/.test(String(across[0]));
  const name = (key, value) => (isTime && key === panel.x ? moment(value).slice(5, 16) : show(key, value));
  const grid = el("div", { class: "heat", role: "group", "aria-label": `${context.title}: ${down.length} rows, ${across.length} columns; arrow keys move`, style: { "--columns": across.length, "--rows": down.length } });
  for (const y of down) {
    grid.append(el("span", { class: "side" }, name(panel.y, y)));
    for (const x of across) {
      const row = cells.get(`${x} ${y}`);
      const text = `${name(panel.x, x)}, ${name(panel.y, y)}: ${show(panel.value, row?.[panel.value] ?? 0)}, ${percent(share(row))} of its row`;
      // A square root keeps the rare cells visible beside the common ones.
      grid.append(el("button", {
        type: "button", class: "cell", "data-stop": true, "data-key": `${x} ${y}`, title: text, "aria-label": text, disabled: !row, "aria-pressed": String(Boolean(row && context.isSelected(row))),
        style: { "--heat": `${Math.round(100 * Math.sqrt(share(row) / most))}%` }, on: { click: () => context.select(row) },
      }));
    }
  }
  const marks = [0, Math.floor(across.length / 2), across.length - 1].filter((at, index, all) => all.indexOf(at) === index);
  const foot = el("div", { class: "heat-foot" }, ...marks.map((at) => el("span", {}, name(panel.x, across[at]))));
  const shades = el("p", { class: "shades quiet" }, "share of the row: 0 %", ...[0, 0.0625, 0.25, 0.5625, 1].map((part) => el("span", { class: "shade", style: { "--heat": `${100 * Math.sqrt(part)}%` } })), percent(most));
  redraw(host, grid, foot, shades);
  rove(grid, across.length);
}
