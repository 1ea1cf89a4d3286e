// A time series on a canvas, by uPlot: lines, or bars on top of one another's feet, with a band for an interval.
// Drag, or Shift and the arrow keys, choose a time range. The values under the cursor stand in the legend, each with
// its interval. Small columns along the foot say how much each point rests on.
import { el, svg } from "../dom.js";
import { clock, count, isoOf, mark, moment, show, words } from "../format.js";

const HEIGHT = 210;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const charts = new WeakMap();

export function draw(host, panel, answer, context) {
  const data = gather(panel, answer.rows);
  const shape = JSON.stringify([data.labels, getComputedStyle(host).color, panel.report]);
  const known = charts.get(host);
  if (known?.shape === shape) return known.update(data, context);
  known?.destroy();
  charts.set(host, { shape, ...make(host, panel, data, context) });
}

// Long rows to aligned columns: one for x in seconds, one for each series, and two more for its band.
function gather(panel, rows) {
  const times = [...new Set(rows.map((row) => Date.parse(row[panel.x]) / 1000))].sort((a, b) => a - b);
  const place = new Map(times.map((time, index) => [time, index]));
  const columns = new Map();
  const column = (key) => columns.get(key) ?? columns.set(key, new Array(times.length).fill(null)).get(key);
  const labels = [];
  for (const row of rows) {
    const at = place.get(Date.parse(row[panel.x]) / 1000);
    if (panel.volume) column(panel.volume)[at] = row[panel.volume];
    for (const name of [panel.y].flat()) {
      const group = panel.series ? String(row[panel.series] ?? "none") : null;
      const label = [group, group == null || [panel.y].flat().length > 1 ? panel.names?.[name] ?? words(name) : null]
        .filter(Boolean).join(" ");
      if (!columns.has(label)) labels.push({ label, name, value: group });
      column(label)[at] = row[name];
      if (panel.low) {
        column(`${label} low`)[at] = row[panel.low];
        column(`${label} high`)[at] = row[panel.high];
      }
    }
  }
  return { times, labels, columns };
}

const columnsOf = (panel, { times, labels, columns }) => [
  times,
  ...(panel.volume ? [columns.get(panel.volume)] : []),
  ...labels.flatMap(({ label }) => (panel.low ? [label, `${label} low`, `${label} high`] : [label]).map((key) => columns.get(key))),
];

// A canvas knows no CSS variables: let the browser resolve them for the theme of the moment.
function inks(host) {
  const probe = host.appendChild(el("span", { hidden: true }));
  return (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
}

// 24-hour UTC; the date stands where a day begins and at the left edge.
function tick(seconds, step, first) {
  const text = isoOf(seconds * 1000);
  if (step >= 86_400) return text.slice(5, 10);
  const time = step < 60 ? clock(text) : text.slice(11, 16);
  return first || time === "00:00" ? `${time}\n${text.slice(5, 10)}` : time;
}

const faint = (colour, share) => colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);

function make(host, panel, data, context) {
  const ink = inks(host);
  const colour = ({ value, name }, index) => ink(panel.colours?.[value ?? name] ?? `s${index % 8}`);
  const step = panel.low ? 3 : 1;
  const series = [{}], bands = [];
  const before = panel.volume ? 1 : 0;
  if (panel.volume) series.push({ scale: "volume", fill: ink("volume"), width: 0, stroke: ink("volume"), points: { show: false }, paths: globalThis.uPlot.paths.bars({ size: [0.9, 30] }) });
  data.labels.forEach((entry, index) => {
    const stroke = colour(entry, index);
    series.push({
      stroke, width: 2, dash: DASHES[index % 4], points: { size: 5, fill: stroke, filter: alone },
      ...(panel.bars && { paths: globalThis.uPlot.paths.bars({ size: [0.8, 40] }), fill: faint(stroke, 0.6), width: 1, points: { show: false } }),
    });
    if (!panel.low) return;
    const side = { stroke: "transparent", points: { show: false } };
    series.push(side, side);
    bands.push({ series: [index * step + before + 3, index * step + before + 2], fill: faint(stroke, 0.18) });
  });
  const axis = { stroke: ink("quiet"), grid: { stroke: ink("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const unitName = [panel.y].flat()[0];
  let last = data, range = context.range;

  const plot = el("div", {
    class: "plot", tabindex: 0, role: "img",
    "aria-label": `${context.title}. Chart of ${data.labels.length} lines over time. Left and right read its values; with Shift they choose a range, and Enter zooms to it. The same numbers are in the table.`,
  });
  const spoken = el("output", { class: "hidden" });
  const legend = el("div", { class: "legend" });
  const values = data.labels.map((entry, index) => {
    const value = el("b");
    const filters = panel.selects && entry.value != null;
    const swatch = svg("svg", { class: "stroke", viewBox: "0 0 24 8", "aria-hidden": "true", style: { stroke: colour(entry, index) } },
      svg("line", { x1: 0, x2: 24, y1: 4, y2: 4, "stroke-dasharray": DASHES[index % 4].join(" ") || null }));
    legend.append(filters
      ? el("button", { type: "button", class: "plain", "data-key": entry.label, title: `Filter by ${entry.value}`, on: { click: () => context.select({ [panel.series]: entry.value }) } }, swatch, entry.label, " ", value)
      : el("span", {}, swatch, entry.label, " ", value));
    return value;
  });
  const volume = el("b");
  if (panel.volume) legend.append(el("span", {}, el("span", { class: "swatch volume" }), panel.names?.[panel.volume] ?? words(panel.volume), " ", volume));
  const when = el("span", { class: "quiet" });
  legend.append(when);
  host.replaceChildren(plot, legend, spoken);

  const read = (index) => {
    const at = index ?? last.times.length - 1;
    when.textContent = at >= 0 ? `${moment(isoOf(last.times[at] * 1000)).slice(5, 16)} UTC` : "";
    last.labels.forEach(({ label, name }, place) => { values[place].textContent = said(panel, last, label, name, at); });
    if (panel.volume) volume.textContent = count(last.columns.get(panel.volume)?.[at]);
  };
  const chart = new globalThis.uPlot({
    width: Math.max(plot.clientWidth, 200), height: panel.height ?? HEIGHT, series, bands,
    tzDate: (seconds) => globalThis.uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false }, padding: [10, 20, 0, 0],
    cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 7 }, y: false },
    scales: {
      x: { range: (_, low, high) => (range ? range.map((time) => time / 1000) : low === high ? [low - 30, high + 30] : [low, high]) },
      volume: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 5] },
      y: { range: (_, low, high) => [0, panel.top ?? (Math.max(high ?? 0, 1e-9) * 1.08)] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: (_, marks, __, ___, step) => marks.map((time, index) => tick(time, step, index === 0)) },
      { ...axis, size: 62, values: (_, marks) => marks.map((value) => mark(unitName, value)) },
    ],
    hooks: {
      setCursor: [(self) => read(self.cursor.idx)],
      setSelect: [(self) => {
        if (self.select.width < 4) return;
        const [from, to] = [self.select.left, self.select.left + self.select.width].map((x) => self.posToVal(x, "x") * 1000);
        self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        context.zoom(from, to);
      }],
    },
  }, columnsOf(panel, data), plot);
  // The canvas is for the eye alone; the label above and the panel's table speak.
  read(null);
  byKeyboard(panel, plot, chart, spoken, () => last, context);
  const sized = new ResizeObserver(() => { if (plot.clientWidth) chart.setSize({ width: plot.clientWidth, height: chart.height }); });
  sized.observe(plot);
  return {
    update(next, { range: nextRange }) {
      [last, range] = [next, nextRange];
      chart.setData(columnsOf(panel, next));
      read(chart.cursor.idx);
    },
    destroy() { sized.disconnect(); chart.destroy(); },
  };
}

// A value with its interval, as the legend and a screen reader say it.
function said(panel, { columns }, label, name, at) {
  const [low, high] = ["low", "high"].map((side) => columns.get(`${label} ${side}`)?.[at]);
  return show(name, columns.get(label)[at]) + (low == null ? "" : ` (${show(name, low)} to ${show(name, high)})`);
}

// The points with nothing on either side: a line alone would not show them.
const alone = (chart, index) => chart.data[index].flatMap((value, at, all) => (value != null && all[at - 1] == null && all[at + 1] == null ? [at] : []));

function byKeyboard(panel, plot, chart, spoken, data, context) {
  let at = null, anchor = null;
  plot.addEventListener("blur", () => { at = anchor = null; });
  plot.addEventListener("keydown", (event) => {
    const { times, labels, columns } = data();
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) {
      event.preventDefault();
      if (event.shiftKey) anchor ??= at ?? times.length - 1; else anchor = null;
      at = Math.min(Math.max((at ?? times.length - (move > 0 ? 1 : 0)) + move, 0), times.length - 1);
      const x = chart.valToPos(times[at], "x");
      chart.setCursor({ left: x, top: 20 });
      const from = anchor == null ? x : chart.valToPos(times[anchor], "x");
      chart.setSelect({ left: Math.min(x, from), width: Math.abs(x - from), top: 0, height: chart.over.clientHeight }, false);
      const values = labels.map(({ label, name }) => `${label} ${said(panel, { columns }, label, name, at)}`);
      if (panel.volume) values.push(`${panel.names?.[panel.volume] ?? words(panel.volume)} ${count(columns.get(panel.volume)[at])}`);
      spoken.textContent = `${clock(isoOf(times[at] * 1000))}: ${anchor == null ? values.join(", ") : `range of ${Math.abs(at - anchor)} steps`}`;
    } else if (event.key === "Enter" && anchor != null && anchor !== at) {
      context.zoom(...[times[anchor], times[at]].sort((a, b) => a - b).map((time) => time * 1000));
    } else if (event.key === "Escape") {
      anchor = null;
      chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    }
  });
}
