// Draw a declarative page: its panels, each one report; the address bar holds the filters.
import { ask, connectSearch, el } from "./api.js";
import { marks, table } from "./marks.js";

const REFRESH_MS = 5000;
const BUCKETS = { "15m": "1m", "1h": "5m", "6h": "15m", "24h": "1h", "7d": "6h", "30d": "1d" };
const filters = document.getElementById("filters");
const status = document.getElementById("status");

function readAddress() {
  const given = new URLSearchParams(location.search);
  for (const field of filters.elements) {
    if (field.type === "checkbox") field.checked = given.get(field.name) === field.value;
    else if (field.name) field.value = given.get(field.name) ?? (field.name === "since" ? "1h" : "");
  }
}

function writeAddress() {
  const chosen = [...new FormData(filters)].filter(([, value]) => value !== "");
  history.replaceState(null, "", `?${new URLSearchParams(chosen)}`);
}

function paramsFor(panel, report) {
  const chosen = { ...Object.fromEntries(new FormData(filters)), ...panel.params };
  chosen.bucket ??= BUCKETS[chosen.since];
  const known = new Set(report.params.map(({ name }) => name).filter((name) => !(panel.ignores ?? []).includes(name)));
  return Object.fromEntries(Object.entries(chosen).filter(([name]) => known.has(name)));
}

function addPanel(panel, report) {
  const drawing = el("div", {}, el("p", { class: "quiet" }, "Loading …"));
  const rows = el("div");
  const sql = el("pre", {}, report.sql);
  const downloads = el("p");
  const section = el("section", { class: panel.wide ? "panel wide" : "panel", "aria-label": panel.title ?? report.question },
    el("h2", {}, panel.title ?? report.question), panel.notice ? el("p", { class: "quiet" }, panel.notice) : null, drawing,
    el("details", {}, el("summary", {}, "Table, SQL, download"), rows, sql, downloads));
  document.getElementById("panels").append(section);

  let last = "";
  return async () => {
    const params = paramsFor(panel, report);
    const path = `/api/reports/${panel.report}`;
    try {
      const answer = await ask(path, params);
      const text = JSON.stringify(answer);
      if (text === last) return;
      last = text;
      const empty = el("p", { class: "quiet" }, "Nothing in this range.");
      drawing.replaceChildren(answer.rows.length ? marks[panel.mark](panel, answer) : empty);
      rows.replaceChildren(panel.mark === "table" ? "" : table({}, answer));
      downloads.replaceChildren(...["csv", "parquet", "json"].map((format) =>
        el("a", { href: `${path}?${new URLSearchParams({ ...params, format })}` }, `${format} `)));
    } catch (error) {
      last = "";
      drawing.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
    }
  };
}

async function main() {
  connectSearch();
  readAddress();
  const name = location.pathname.split("/").filter(Boolean).pop() ?? "overview";
  const [page, menu] = await Promise.all([ask(`/api/pages/${name}`), ask("/api/reports")]);
  document.title = document.getElementById("title").textContent = page.title;
  document.getElementById("notice").textContent = page.notice;
  const reports = new Map(menu.map((report) => [report.name, report]));
  const refreshes = page.panels.filter((panel) => reports.has(panel.report)).map((panel) => addPanel(panel, reports.get(panel.report)));
  const refresh = async () => {
    await Promise.all(refreshes.map((one) => one()));
    status.textContent = `as of ${new Date().toISOString().slice(11, 19)} UTC`;
  };
  filters.addEventListener("change", () => { writeAddress(); refresh(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  await refresh();
  setInterval(() => { if (!document.hidden && !filters.elements.live.checked) refresh(); }, REFRESH_MS);
}

main().catch((error) => document.getElementById("panels").replaceChildren(el("p", { class: "error", role: "alert" }, error.message)));
