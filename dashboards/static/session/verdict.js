// The first block: what happened in one sentence, the one abnormal number, the evidence, and what to do next.
import { el } from "../dom.js";
import { duration, show, words } from "../format.js";
import { goTo } from "./spans.js";
import { when } from "./times.js";

const MEANINGS = {
  noUserMedia: "means that the microphone or camera that is required is not there, cannot be used, or was declined.",
  noScene: "means that no digital person was free: the server was busy, or the wait in the queue was given up.",
  serverConnectionFailed: "means that the connection to the server failed.",
  notSupported: "means that this runtime cannot capture or carry the media that is required.",
  mediaStreamFailed: "means that the audio or video stream failed.",
  sessionTimeout: "means that the session timed out before it was fully available.",
};
const OUTCOME = { connected: "good", failed: "bad", cancelled: "none", unfinished: "warn" };

export function verdict({ verdict: told, attempt, cohort }) {
  const odd = abnormal(told, cohort);
  return el("section", { class: `block verdict-block ${OUTCOME[told.outcome] ?? ""}`, "aria-labelledby": "verdict-title" },
    el("p", { class: "pills" },
      pill(told.outcome, OUTCOME[told.outcome]),
      ...meaning(attempt.error_type, told.next),
      told.owner !== "nobody" && pill(`owner: ${told.owner}`),
      pill(told.certainty === "insufficient" ? "insufficient evidence" : told.certainty, told.certainty === "certain" ? "" : "warn"),
      attempt.synthetic && pill("probe")),
    el("h2", { id: "verdict-title", class: "sentence" }, told.sentence),
    odd && el("p", { class: "odd" }, odd),
    el("div", { class: "columns-2" },
      el("div", {},
        el("h3", {}, "Next"), el("p", { class: "next" }, told.next),
        el("h3", {}, "Why"), el("p", {}, told.because),
        el("p", { class: "quiet" }, "Rule ", el("code", {}, told.rule), told.source ? ` · ${told.source}` : ""),
        told.rivals.length > 0 && [el("h3", {}, "What else it could be"), el("ul", {}, ...told.rivals.map((rival) =>
          el("li", {}, `${rival.explanation} (${rival.owner}). `, el("span", { class: "quiet" }, rival.decided_by))))],
        told.missing.length > 0 && [el("h3", {}, "Not recorded"), el("ul", {},
          ...told.missing.map((gap) => el("li", {}, `${gap.what}. `, el("span", { class: "quiet" }, gap.record))))]),
      el("div", {}, el("h3", {}, "Evidence"), evidence(told.evidence))));
}

// A reason opens its meaning, from the closed list of six.
function meaning(reason, next) {
  if (!reason) return [];
  return [el("button", { type: "button", class: "pill bad", popovertarget: "meaning" }, reason),
    el("span", { id: "meaning", popover: "auto", class: "meaning" }, el("b", {}, reason), ` ${MEANINGS[reason] ?? "is not on the list of reasons."}`, el("b", {}, " Next: "), next)];
}

const pill = (text, tone = "") => el("span", { class: `pill ${tone}` }, text);

// Each fact leads to the span that says it.
function evidence(facts) {
  if (!facts.length) return el("p", { class: "quiet" }, "None was needed.");
  return el("ul", { class: "evidence" }, ...facts.map((fact) => {
    const text = [el("code", {}, fact.fact), " ", el("b", {}, value(fact))];
    const where = fact.span_id ? el("span", { class: "quiet" }, ` ${fact.span_name} at `, when(fact.at_ns)) : null;
    return el("li", {}, fact.span_id
      ? el("button", { type: "button", class: "plain fact", on: { click: () => goTo(fact.span_id) } }, ...text, where)
      : el("span", { class: "fact" }, ...text));
  }));
}

const A_TIME_NS = 1e15; // later than eleven days: a point in time and no duration
function value({ fact, value: said }) {
  if (said == null) return "not recorded";
  if (!fact.endsWith("_ns")) return show(fact, said);
  return said > A_TIME_NS ? `${new Date(said / 1e6).toISOString().slice(0, 23).replace("T", " ")} UTC` : duration(said / 1e6);
}

// "DownloadingAssets 8.15 s, cohort p95 6.16 s, n = 1,204": the step or part that stands out most among its like.
export function abnormal(told, cohort) {
  if (!cohort?.standings.length) return null;
  const slow = cohort.standings.filter(({ percentile }) => percentile != null && percentile >= 95);
  const own = slow.filter(({ name }) => name === told.part || name === told.step);
  const worst = (own.length ? own : slow).toSorted((a, b) => b.duration_ns / b.p95_ns - a.duration_ns / a.p95_ns)[0];
  if (!worst) return `Every step within the usual of its cohort (${cohort.alike}, n = ${show("n", Math.max(...cohort.standings.map(({ n }) => n)))}).`;
  return `${worst.name} ${duration(worst.duration_ns / 1e6)}, cohort p95 ${duration(worst.p95_ns / 1e6)}, n = ${show("n", worst.n)} (${cohort.alike}).`;
}

export function ticket(story, address) {
  const { verdict: told, attempt } = story;
  const odd = abnormal(told, story.cohort);
  return [
    told.sentence,
    odd,
    `Outcome ${told.outcome}; owner ${told.owner} (${told.certainty}); rule ${told.rule}`,
    `Next: ${told.next}`,
    ...told.evidence.map((fact) => `- ${fact.fact} = ${value(fact)}${fact.span_name ? ` (${fact.span_name}, span ${fact.span_id})` : ""}`),
    `Attempt ${attempt.attempt_id}`,
    attempt.session_id && `Session ${attempt.session_id}`,
    `Began ${new Date(attempt.start_ns / 1e6).toISOString()}, ${["region", "client_version", "network_type", "server_address"].map((name) => attempt[name] && `${words(name)} ${attempt[name]}`).filter(Boolean).join(", ")}`,
    address,
  ].filter(Boolean).join("\n");
}
