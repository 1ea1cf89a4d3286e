// Horizontal bars, one a row: real buttons where a click filters. A whisker shows an interval.
import { breakable, el, redraw } from "../dom.js";
import { show } from "../format.js";

export function draw(host, panel, { rows }, context) {
  const shown = rows.slice(0, panel.most ?? 12);
  const value = (row, name = panel.value) => row[name] ?? 0;
  const most = panel.top ?? Math.max(...shown.map((row) => Math.max(value(row), panel.high ? value(row, panel.high) : 0)), 1e-9);
  const share = (amount) => `${Math.min(100, (100 * amount) / most)}%`;
  const items = shown.map((row) => {
    const label = [panel.label].flat().map((name) => row[name]).filter((text) => text != null).join(" · ") || "none";
    const beside = [panel.beside ?? []].flat().map((name) => el("span", { class: "quiet" }, `${show(name, row[name])}${panel.names?.[name] ? ` ${panel.names[name]}` : ""}`));
    const track = el("span", { class: "track" },
      el("span", { class: `bar ${panel.colours?.[row[panel.colour ?? [panel.label].flat()[0]]] ?? panel.ink ?? "s0"}`, style: { width: share(value(row)) } }),
      panel.low && row[panel.low] != null && el("span", { class: "whisker", style: { left: share(row[panel.low]), width: share(row[panel.high] - row[panel.low]) } }));
    const content = [el("span", { class: "label", title: label }, ...breakable(label)), track, el("span", { class: "value" }, el("b", {}, show(panel.value, row[panel.value])), ...beside)];
    if (!context.canSelect(row)) return el("li", {}, el("span", { class: "row" }, ...content));
    const pressed = context.isSelected(row);
    return el("li", {}, el("button", { type: "button", class: "row", "data-key": label, "aria-pressed": String(pressed), on: { click: () => context.select(row) } }, ...content));
  });
  const rest = rows.length - shown.length;
  redraw(host, el("ul", { class: "bars", style: { "--values": 1 + [panel.beside ?? []].flat().length } }, ...items), rest > 0 ? el("p", { class: "quiet" }, `and ${rest} more in the table`) : "");
}
