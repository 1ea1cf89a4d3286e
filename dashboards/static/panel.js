// One panel: a question, its drawing, and what the drawing rests on: unit, denominator, n, table, SQL, downloads.
// It knows five states: waiting, slow, drawn, empty, refused. What is drawn stays until there is something better.
import { address, askTogether, Away } from "./api.js";
import { copyButton, el } from "./dom.js";
import { count, words } from "./format.js";
import { marks } from "./marks/all.js";
import { tableOf } from "./marks/table.js";
import { change, state, toggle } from "./state.js";
import { withVerdicts } from "./verdicts.js";

const SLOW_MS = 1500;

// Parameters that the panel itself lets one choose, such as an order; the first value is the report's own.
const choices = ({ choice = {} }) => el("div", { class: "presets small-presets" }, ...Object.entries(choice).flatMap(([param, values]) => values.map((text, index) => {
  const value = index ? text : "";
  return el("button", { type: "button", class: "small", "data-param": param, "data-value": value, on: { click: () => change({ [param]: value }) } }, `${text} first`);
})));

export class Panel {
  constructor(panel, report, view) {
    Object.assign(this, { panel, report, view, only: panel.only ?? {}, path: `/api/reports/${panel.report}`, last: null, answer: null, trouble: null });
    this.title = panel.title ?? report.question;
    this.drawing = el("div", { class: "drawing" });
    this.note = el("p", { class: "note", hidden: true });
    this.facts = el("p", { class: "facts" });
    this.table = el("div", { hidden: true });
    this.sql = el("div", { class: "sql", hidden: true });
    this.wait = el("p", { class: "wait", role: "status" });
    this.tools = el("div", { class: "tools" });
    this.element = el("section", { class: `panel ${panel.size ?? "half"}`, id: panel.id, "aria-labelledby": `${panel.id}-title`, "aria-busy": "true" },
      el("div", { class: "panel-top" }, el("h3", { id: `${panel.id}-title` }, this.title), this.choices = choices(panel)),
      panel.notice && el("p", { class: "quiet notice" }, panel.notice),
      this.note, this.drawing, this.wait, this.table, this.sql, el("footer", {}, this.facts, this.tools));
    this.skeleton();
    this.makeTools();
  }

  skeleton() { this.drawing.replaceChildren(el("div", { class: "skeleton", "aria-hidden": "true" })); }

  // Ask again where the parameters changed or `fresh` says that the store did; draw only what differs.
  async refresh(fresh) {
    const params = this.params();
    const key = JSON.stringify(params);
    this.say();
    if (key === this.asked && !fresh && this.answer) return this.draw(); // what is chosen may have changed
    this.element.setAttribute("aria-busy", "true");
    this.going?.abort();
    const going = (this.going = new AbortController());
    const slow = setTimeout(() => {
      this.element.classList.add("slow");
      this.wait.textContent = "This one takes a while …";
    }, SLOW_MS);
    try {
      const asked = await askTogether(this.path, params, going.signal);
      const answer = this.panel.columns?.includes("sentence") ? await withVerdicts(asked) : asked;
      if (going.signal.aborted) return;
      this.asked = key;
      this.show({ ...answer, rows: answer.rows.filter((row) => Object.entries(this.only).every(([name, value]) => row[name] === value)) }, params);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.asked = null;
      if (error instanceof Away) throw error;
      this.refused(error);
    } finally {
      clearTimeout(slow);
      if (this.going === going) {
        this.element.classList.remove("slow");
        this.wait.textContent = "";
        this.element.setAttribute("aria-busy", "false");
      }
    }
  }

  show(answer, params) {
    const text = JSON.stringify([answer.rows, params]);
    if (text === this.last) return;
    this.last = text;
    this.answer = answer;
    this.trouble = null;
    this.element.classList.remove("refused");
    this.draw();
    this.links(params);
    this.facts.textContent = this.describe(answer);
    this.fillTable();
  }

  // Which of the chosen filters the report cannot follow.
  say() {
    const ignored = this.ignored();
    this.note.hidden = !ignored.length;
    this.note.textContent = ignored.length ? `Not filtered by ${ignored.map(words).join(", ")}.` : "";
  }

  draw() {
    for (const button of this.choices.children) button.setAttribute("aria-pressed", String((state()[button.dataset.param] ?? "") === button.dataset.value));
    if (!this.answer) return;
    const { rows } = this.answer;
    this.element.dataset.rows = rows.length;
    if (!rows.length || (this.panel.n && rows.every((row) => !row[this.panel.n]))) {
      this.drawing.replaceChildren(el("p", { class: "empty" }, this.panel.empty ?? (this.view.chosen().length ? "Nothing in this range matches the chosen filters." : "Nothing in this range.")));
      return;
    }
    marks[this.panel.mark](this.drawing, this.panel, this.answer, this.context());
  }

  context() {
    const selects = this.panel.selects ?? {};
    // A parameter "$column" is named by the row itself; "=text" is the text; a length of time becomes one as the reports read it.
    const valueOf = (row, column) => (column.startsWith("=") ? column.slice(1) : column.endsWith("_ms") && row[column] != null ? `${row[column]}ms` : row[column]);
    const wanted = (row) => Object.fromEntries(Object.entries(selects).map(([param, column]) => [
      param.startsWith("$") ? row[param.slice(1)] : param, valueOf(row, column)]));
    return {
      title: this.title,
      range: this.view.range(),
      zoom: (from, to) => this.view.zoom(from, to),
      canSelect: (row) => {
        const names = Object.keys(wanted(row));
        return names.length > 0 && names.every((name) => this.view.known(name));
      },
      select: (row) => toggle(wanted(row)),
      isSelected: (row) => {
        const now = state();
        const entries = Object.entries(wanted(row));
        return entries.length > 0 && entries.every(([param, value]) => (now[param] ?? "") === String(value ?? ""));
      },
    };
  }

  refused(error) {
    this.last = null;
    this.answer = null;
    this.trouble = error.message.replace(` of report ${this.panel.report}`, ""); // as every panel would say it
    this.element.classList.add("refused");
    this.drawing.replaceChildren(el("div", { class: "error", role: "alert" }, el("p", {}, error.message),
      el("button", { type: "button", class: "small", on: { click: () => this.refresh(true) } }, "Try again")));
  }

  // The view's parameters that this report knows, and the panel's own on top.
  params() {
    const known = this.known();
    const chosen = Object.fromEntries(Object.entries(this.view.params()).filter(([name]) => known.has(name)));
    return { ...this.panel.defaults, ...chosen, ...this.panel.params };
  }

  known() {
    const ignores = this.panel.ignores ?? [];
    return new Set(this.report.params.map(({ name }) => name).filter((name) => !ignores.includes(name) && !(name in this.only)));
  }

  ignored() {
    const known = this.known();
    return this.view.chosen().filter((name) => !known.has(name) && !(name in { ...this.panel.params, ...this.only }));
  }

  describe({ rows }) {
    const { unit, of, n, total } = this.panel;
    const sum = n ? rows.reduce((before, row) => (total ? Math.max(before, row[n] ?? 0) : before + (row[n] ?? 0)), 0) : rows.length;
    return [unit, of && `of ${of}`, `n = ${count(sum)}${n ? "" : rows.length === 1 ? " row" : " rows"}`].filter(Boolean).join(" · ");
  }

  makeTools() {
    const opens = (label, part, fill) => {
      const button = el("button", { type: "button", class: "small plain", "aria-expanded": "false", "aria-label": `${label}: ${this.title}` }, label);
      const set = (open) => {
        part.hidden = !open;
        button.setAttribute("aria-expanded", String(open));
        if (open) fill();
      };
      button.addEventListener("click", () => {
        if (label !== "Table") return set(part.hidden);
        const opened = new Set((state().tables ?? "").split(" ").filter(Boolean));
        if (part.hidden) opened.add(this.panel.id); else opened.delete(this.panel.id);
        change({ tables: [...opened].join(" ") }, { quietly: true });
      });
      return { button, set };
    };
    const table = opens("Table", this.table, () => this.fillTable());
    this.showTable = table.set;
    const sql = opens("SQL", this.sql, () => {
      if (!this.sql.childElementCount) this.sql.append(copyButton(this.report.sql, "Copy SQL"), el("pre", { tabindex: 0 }, this.report.sql));
    });
    this.csv = el("a", { class: "small", download: "", "aria-label": `CSV: ${this.title}` }, "CSV");
    this.parquet = el("a", { class: "small", download: "", "aria-label": `Parquet: ${this.title}` }, "Parquet");
    this.tools.append(...(this.panel.mark === "table" ? [] : [table.button]), sql.button, this.csv, this.parquet);
    this.links(this.params());
  }

  fillTable() {
    if (!this.table.hidden && this.answer) this.table.replaceChildren(tableOf(this.answer, { title: `Table: ${this.title}` }));
  }

  links(params) {
    this.csv.href = address(this.path, { ...params, ...this.only, format: "csv" });
    this.parquet.href = address(this.path, { ...params, ...this.only, format: "parquet" });
  }

  syncTable() { this.showTable((state().tables ?? "").split(" ").includes(this.panel.id)); }
}
