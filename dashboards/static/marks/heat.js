// A heat map: columns over time or cohorts, rows of another column, and a shade for each cell. Cells are buttons.
import { el, redraw, rove } from "../dom.js";
import { moment, show } from "../format.js";

export function draw(host, panel, { rows }, context) {
  const places = (name) => {
    const found = [...new Set(rows.map((row) => row[name]))];
    return found.sort((a, b) => (a < b ? -1 : 1));
  };
  const across = places(panel.x).slice(0, panel.most ?? 60);
  const down = places(panel.y);
  if (typeof down[0] === "number") down.sort((a, b) => b - a);
  const cells = new Map(rows.map((row) => [`${row[panel.x]} ${row[panel.y]}`, row]));
  const most = Math.max(...rows.map((row) => row[panel.value] ?? 0), 1e-9);
  const isTime = /^\d{4}-/.test(String(across[0]));
  const name = (key, value) => (isTime && key === panel.x ? moment(value).slice(5, 16) : show(key, value));
  const grid = el("div", { class: "heat", role: "group", "aria-label": `${context.title}: ${down.length} rows, ${across.length} columns; arrow keys move`, style: { "--columns": across.length, "--rows": down.length } });
  for (const y of down) {
    grid.append(el("span", { class: "side" }, name(panel.y, y)));
    for (const x of across) {
      const row = cells.get(`${x} ${y}`);
      const value = row?.[panel.value] ?? 0;
      const text = `${name(panel.x, x)}, ${name(panel.y, y)}: ${show(panel.value, value)}`;
      // A square root keeps the rare cells visible beside the common ones.
      grid.append(el("button", {
        type: "button", class: "cell", "data-stop": true, "data-key": `${x} ${y}`, title: text, "aria-label": text, disabled: !row, "aria-pressed": String(Boolean(row && context.isSelected(row))),
        style: { "--heat": `${Math.round(100 * Math.sqrt(value / most))}%` }, on: { click: () => context.select(row) },
      }));
    }
  }
  const marks = [0, Math.floor(across.length / 2), across.length - 1].filter((at, index, all) => all.indexOf(at) === index);
  const foot = el("div", { class: "heat-foot" }, ...marks.map((at) => el("span", {}, name(panel.x, across[at]))));
  redraw(host, grid, foot);
  rove(grid, across.length);
}
