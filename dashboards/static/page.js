// Draw a declarative page: a panel for each report it names, kept up to date while the page is looked at.
import { ask, Away } from "./api.js";
import { el } from "./dom.js";
import * as filters from "./filters.js";
import { header } from "./header.js";
import { Panel } from "./panel.js";
import { change, onChange, state } from "./state.js";

const PULSE_MS = 2000;
const LONGEST_PAUSE_MS = 8000;
const AT_LEAST_MS = 30_000; // a relative range moves on even where nothing arrives
const away = document.getElementById("away");
const refused = document.getElementById("refused");
const host = document.getElementById("panels");

async function main() {
  header();
  const name = location.pathname.split("/").filter(Boolean).pop() ?? "overview";
  const bar = filters.filterBar(document.getElementById("filters"), document.getElementById("chips"));
  const page = await untilAnswered(() => ask(`/api/pages/${name}`));
  const pulse = ask("/api/pulse").catch(() => ({})); // before the reports: what arrives while they are answered is news
  document.title = document.getElementById("title").textContent = page.title;
  document.getElementById("notice").textContent = page.notice ?? "";
  const reports = new Map(page.reports.map((report) => [report.name, report]));
  filters.setFollowed(page.reports.flatMap(({ params }) => params.map((param) => param.name)));
  const panels = page.panels.map((panel, index) =>
    new Panel({ id: `panel-${index}`, ...panel }, reports.get(panel.report), filters));
  host.append(...panels.flatMap(({ panel, element }) => [panel.section && el("h2", { class: "section", id: anchor(panel) }, panel.section), element].filter(Boolean)));
  document.getElementById("sections").append(...panels.filter(({ panel }) => panel.section).map(({ panel }) => el("a", { href: `#${anchor(panel)}` }, panel.section)));
  if (page.attempts) bar.leadTo(page.attempts);
  for (const panel of panels) panel.syncTable();

  const live = liveButton();
  const refresh = async (fresh) => {
    const results = await Promise.allSettled(panels.map((panel) => panel.refresh(fresh)));
    const gone = results.some(({ reason }) => reason instanceof Away);
    showAway(gone);
    showRefused(panels);
    if (!gone) live.asOf(new Date());
    host.setAttribute("aria-busy", "false");
    if (page.suggest) bar.suggest(page.suggest);
    return !gone;
  };
  onChange(() => {
    bar.show();
    live.show();
    for (const panel of panels) panel.syncTable();
    refresh(false);
  });
  addEventListener("themechange", () => { for (const panel of panels) panel.draw(); });
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  await refresh(true);
  keepUp(refresh, live, (await pulse).pulse);
}

const anchor = ({ section }) => `part-${section.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;

// Ask now and then whether anything arrived, and ask the reports again only then. A slow answer slows the asking.
async function keepUp(refresh, live, seen) {
  let last = performance.now(), pause = PULSE_MS, whole = true;
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    if (document.hidden || !live.on()) continue;
    try {
      const { pulse } = await ask("/api/pulse");
      const begun = performance.now();
      const back = !whole;
      showAway(false);
      if (pulse !== seen || back || begun - last > AT_LEAST_MS) {
        whole = await refresh(true);
        last = performance.now();
      }
      seen = pulse;
      live.asOf(new Date());
      pause = Math.min(Math.max(PULSE_MS, performance.now() - begun), LONGEST_PAUSE_MS);
    } catch (error) {
      whole = false;
      showAway(error instanceof Away);
    }
  }
}

async function untilAnswered(question) {
  for (;;) {
    try { return await question(); } catch (error) {
      if (!(error instanceof Away)) throw error;
      showAway(true);
      await new Promise((resolve) => { setTimeout(resolve, PULSE_MS); });
    }
  }
}

// What all of the panels say, such as that a range cannot be read, is said once.
function showRefused(panels) {
  const told = new Set(panels.map(({ trouble }) => trouble));
  const [all] = told.size === 1 ? told : [];
  host.hidden = Boolean(all);
  refused.hidden = !all;
  refused.textContent = all ?? "";
}

let goneSince = null;
function showAway(gone) {
  if (gone === !away.hidden) return;
  goneSince = gone ? new Date().toISOString().slice(11, 19) : null;
  away.hidden = !gone;
  away.textContent = gone ? `The server has not answered since ${goneSince} UTC; what you see is its last answer. Asking again …` : "";
}

function liveButton() {
  const button = el("button", { type: "button", class: "small" });
  const status = el("output", { class: "quiet" });
  document.getElementById("live").append(el("span", { class: "dot", "aria-hidden": "true" }), status, button);
  const on = () => state().live !== "off" && !state().until;
  const show = () => {
    document.getElementById("live").classList.toggle("on", on());
    button.textContent = state().live === "off" ? "Resume" : "Pause";
    button.disabled = Boolean(state().until);
    button.title = button.disabled ? "The range has an end, so nothing new can appear in it" : "";
  };
  button.addEventListener("click", () => { change({ live: state().live === "off" ? null : "off" }); });
  show();
  return { on, show, asOf: (time) => { status.textContent = `${on() ? "Live" : state().until ? "Fixed range" : "Paused"}, as of ${time.toISOString().slice(11, 19)} UTC`; } };
}

main().catch((error) => {
  host.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  throw error;
});
