// One session: the verdict, the times, the media, the others, the spans, in the order in which support reads.
import { ask, Away, Refused } from "./api.js";
import { copyButton, el } from "./dom.js";
import { moment } from "./format.js";
import { header, isId } from "./header.js";
import { sessionAddress } from "./marks/table.js";
import { media } from "./session/media.js";
import { hourAround, neighbours } from "./session/neighbours.js";
import { spans } from "./session/spans.js";
import { setOrigin, timesChoice } from "./session/times.js";
import { ticket, verdict } from "./session/verdict.js";
import { ladder, waterfall } from "./session/waterfall.js";
import { change, state } from "./state.js";

const RETRY_MS = 2000;
const FRESH_NS = 60e9; // telemetry of a session that lives arrives every few seconds
const main = document.getElementById("story");
const asked = readable(location.pathname.replace(/^\/sessions\//, ""));

function readable(path) {
  try { return decodeURIComponent(path); } catch { return path; } // a % that somebody typed
}

async function tell() {
  document.title = `${asked.slice(0, 60)} · Session`;
  let story;
  try {
    story = await ask(`/api${location.pathname}${location.search}`); // as the server names it to the browser beforehand
  } catch (error) {
    main.setAttribute("aria-busy", "false");
    return refused(error);
  }
  // Pasted text has no place in an address, which histories and logs keep.
  if (!isId(asked)) history.replaceState(null, "", sessionAddress(story.kind === "session" ? story.attempt.session_id : story.attempt.attempt_id) + location.search);
  setOrigin(story.attempt.start_ns);
  document.title = `${story.verdict.outcome} · ${story.attempt.attempt_id}`;
  main.replaceChildren(top(story), verdict(story),
    el("section", { class: "block", "aria-labelledby": "times-title" }, el("h2", { id: "times-title" }, "How it went"), ladder(story), waterfall(story)),
    media(story), neighbours(story), spans(story));
  main.setAttribute("aria-busy", "false");
}

function top(story) {
  const { attempt } = story;
  const link = () => new URL(`${sessionAddress(attempt.attempt_id)}${location.search}`, location.href).href;
  const ids = [["attempt", attempt.attempt_id], ["session", attempt.session_id], ["episode", attempt.episode_id], ["trace", attempt.trace_id]].filter(([, id]) => id);
  const facts = [attempt.region, attempt.client_version && `version ${attempt.client_version}`, attempt.runtime, attempt.network_type, attempt.server_address, attempt.environment].filter(Boolean);
  const trace = `/api/traces/${attempt.trace_id}`;
  const living = attempt.disconnected_ns == null && attempt.outcome !== "failed" && attempt.outcome !== "cancelled" && Date.now() * 1e6 - attempt.last_seen_ns < FRESH_NS;
  return el("div", { class: "story-top" },
    el("h1", {}, story.kind === "session" ? "Session " : "Attempt ", el("span", { class: "id" }, story.kind === "session" ? attempt.session_id : attempt.attempt_id)),
    living && el("p", { class: "warn", role: "status" }, "Still going on: telemetry is arriving. ", el("button", { type: "button", class: "small", on: { click: tell } }, "Read again")),
    el("p", { class: "quiet" }, facts.join(" · ")),
    el("dl", { class: "ids" }, ...ids.map(([name, id]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("span", { class: "id" }, id), copyButton(id))))),
    el("div", { class: "actions" }, timesChoice(), copyButton(() => ticket(story, link()), "Copy for the ticket"), copyButton(link, "Copy link"),
      el("button", { type: "button", class: "small", on: { click: () => print() } }, "Print"),
      el("span", { class: "quiet" }, "Download"), ...[["Story", `/api/sessions/${attempt.attempt_id}?download=story`], ["Jaeger", `${trace}?format=jaeger`], ["Chrome trace", `${trace}?format=chrome`], ["OTLP", `${trace}?format=otlp`]]
        .map(([name, href]) => el("a", { class: "small", href, download: `${attempt.attempt_id}.${name.toLowerCase().replace(" ", "-")}.json` }, name)),
      el("a", { class: "small", href: `/api/capsules/${attempt.attempt_id}`, download: `${attempt.attempt_id}.capsule.html`, title: "Everything about it in one scrubbed file that opens offline and imports anywhere" }, "Capsule")));
}

// Unknown, expired and not yet arrived are different answers, and the server tells them apart in its message.
function refused(error) {
  if (error instanceof Away) {
    main.replaceChildren(el("p", { class: "away", role: "alert" }, "The server does not answer. Asking again …"));
    setTimeout(tell, RETRY_MS);
    return;
  }
  if (!(error instanceof Refused) || error.status !== 404) {
    main.replaceChildren(el("h1", {}, "The story could not be told"), el("p", { class: "error", role: "alert" }, error.message));
    return;
  }
  const { nearest = [], since_ns: since, until_ns: until, about_ns: about } = error.facts;
  const arriving = about != null && about > (until ?? 0);
  const title = arriving ? "Its telemetry has not arrived yet" : about != null && about < since ? "It is from before what the store has" : "Nothing is recorded under this id";
  if (arriving) setTimeout(tell, RETRY_MS);
  const day = el("input", { type: "datetime-local", step: 1, "aria-label": "When it happened, UTC" });
  const form = el("form", { class: "actions", on: { submit: (event) => {
    event.preventDefault();
    change({ about: day.value && `${day.value}Z` });
    tell();
  } } }, "It happened at", day, "UTC", el("button", { class: "small" }, "Ask again"));
  const covered = since ? `The store covers ${moment(new Date(since / 1e6).toISOString())} to ${moment(new Date(until / 1e6).toISOString())} UTC.` : "The store is empty.";
  main.replaceChildren(...[el("h1", {}, title), el("p", { role: "alert" }, error.message),
    nearest.length > 0 && el("h2", {}, "Perhaps you mean"), nearest.length > 0 && el("ul", {}, ...nearest.map((id) => el("li", {}, el("a", { href: sessionAddress(id), class: "id" }, id)))),
    !error.message.includes("the store covers") && el("p", { class: "quiet" }, covered),
    about != null && !arriving && about >= since && el("p", {}, el("a", { href: hourAround(about / 1e6) }, "What was recorded in the hour around that time")),
    arriving ? el("p", { class: "quiet", role: "status" }, "Telemetry arrives within seconds while an attempt runs. Asking again …")
      : el("div", {}, el("p", { class: "quiet" }, "Telemetry of an attempt arrives within seconds while it runs; if it began just now, ", el("button", { type: "button", class: "small", on: { click: tell } }, "look again"), ". A time tells whether it can be in the store, and what else was recorded then:"), form)].filter(Boolean));
}

header(asked);
tell();
