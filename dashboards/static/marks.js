// The marks that a panel may name: line, bars, table. Each takes the panel and the answer, and returns an element.
import { el, sessionLink, show } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 640, HEIGHT = 220, LEFT = 56, RIGHT = 8, TOP = 8, BOTTOM = 24;

export const marks = { line, bars, table };

export function table(panel, { columns, rows }) {
  const shown = panel.columns ? columns.filter(({ name }) => panel.columns.includes(name)) : columns;
  const isNumber = ({ type }) => /int|double|float|decimal/.test(type);
  const head = shown.map((column) => el("th", { scope: "col", class: isNumber(column) ? "number" : null }, column.name));
  const cell = (row, column) => {
    const value = row[column.name];
    const link = value != null && (panel.link ?? ["attempt_id", "session_id"]).includes(column.name);
    return el("td", { class: isNumber(column) ? "number" : null }, link ? sessionLink(value) : show(column.name, value));
  };
  const body = rows.map((row) => el("tr", {}, ...shown.map((column) => cell(row, column))));
  return el("div", { class: "scroll", tabindex: "0" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}

export function bars(panel, { rows }) {
  const most = Math.max(...rows.map((row) => row[panel.value] ?? 0), 1e-9);
  const parts = rows.flatMap((row) => {
    const label = [panel.label].flat().map((name) => row[name]).filter((text) => text != null).join(" · ");
    const bar = el("div", { class: "bar" });
    bar.style.width = `${(100 * (row[panel.value] ?? 0)) / most}%`;
    const beside = [panel.beside ?? []].flat().map((name) => ` · ${show(name, row[name])}`).join("");
    return [el("span", {}, label || "–"), el("div", {}, bar), el("span", {}, show(panel.value, row[panel.value]) + beside)];
  });
  return el("div", { class: "bars" }, ...parts);
}

export function line(panel, { rows }) {
  const values = [panel.y].flat();
  const series = new Map();
  for (const row of rows) {
    const group = panel.series ? [panel.series].flat().map((name) => row[name]).join(" · ") : "";
    for (const name of values) {
      const label = [group, values.length > 1 || !group ? name : ""].filter(Boolean).join(" ");
      if (!series.has(label)) series.set(label, []);
      if (row[name] != null) series.get(label).push([Date.parse(row[panel.x]), row[name]]);
    }
  }
  const points = [...series.values()].flat();
  const span = [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))];
  const top = Math.max(...points.map(([, y]) => y), 1e-9);
  const x = (time) => LEFT + ((WIDTH - LEFT - RIGHT) * (time - span[0])) / Math.max(span[1] - span[0], 1);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / top;
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
  for (const share of [0, 0.5, 1]) {
    chart.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(share * top), y2: y(share * top) }));
    chart.append(svg("text", { x: LEFT - 6, y: y(share * top) + 4, "text-anchor": "end" }, show(values[0], share * top)));
  }
  const clock = (time) => new Date(time).toISOString().slice(5, 16).replace("T", " ");
  chart.append(svg("text", { x: LEFT, y: HEIGHT - 6 }, `${clock(span[0])} UTC`));
  chart.append(svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, clock(span[1])));
  [...series.values()].forEach((line, index) => {
    const colour = `s${index % 8}`;
    chart.append(svg("polyline", { class: `${colour} line`, points: line.map(([t, v]) => `${x(t)},${y(v)}`).join(" ") }));
    for (const [t, v] of line) chart.append(svg("circle", { class: colour, cx: x(t), cy: y(v), r: 2.5 }));
  });
  const legend = [...series.keys()].map((label, index) => el("span", {}, el("span", { class: `swatch s${index % 8}` }), label));
  return el("div", {}, chart, el("div", { class: "legend" }, ...legend));
}

function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text != null) element.textContent = text;
  return element;
}
