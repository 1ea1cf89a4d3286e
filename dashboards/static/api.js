// Ask the query API, and write what strangers said as text, never as markup.

export async function ask(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(given).toString();
  let answer;
  try {
    answer = await fetch(query ? `${path}?${query}` : path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Error("the server does not answer; is `telemetry serve` running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error?.message ?? `the server answered ${answer.status}`);
  return body;
}

export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value != null) element.setAttribute(key, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

export function sessionLink(id) {
  return el("a", { href: `/sessions/${encodeURIComponent(id)}` }, id);
}

export function connectSearch() {
  document.getElementById("find").addEventListener("submit", (event) => {
    event.preventDefault();
    location.href = `/sessions/${encodeURIComponent(new FormData(event.target).get("id").trim())}`;
  });
}

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

// A value as a person reads it; the name carries the unit.
export function show(name, value) {
  if (value == null) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value === "string") return /^\d{4}-\d\d-\d\dT/.test(value) ? value.slice(0, 19).replace("T", " ") : value;
  if (name.endsWith("_ratio")) return `${(value * 100).toFixed(1)} %`;
  if (name.endsWith("_ms")) return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${digits.format(value)} ms`;
  if (name.endsWith("_s")) return `${digits.format(value)} s`;
  return digits.format(value);
}
