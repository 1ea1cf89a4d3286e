// Ask the query API. The page names reports and parameters; the SQL stays on the server.

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.type = error?.type;
    this.facts = error ?? {};
  }
}

export class Away extends Error {
  constructor() { super("the server does not answer"); }
}

const given = (params) => Object.entries(params).filter(([, value]) => value !== "" && value != null);

export function address(path, params = {}) {
  const query = new URLSearchParams(given(params)).toString();
  return query ? `${path}?${query}` : path;
}

export const ask = (path, params = {}, signal = null) => answered(address(path, params), { headers: { Accept: "application/json" }, signal });

// For text that has no place in an address.
export const tell = (path, text) => answered(path, { method: "POST", headers: { "Content-Type": "text/plain" }, body: text });

async function answered(path, request) {
  let answer;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Away();
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, body.error);
  return body;
}

// Several panels may show one answer: those who ask for the same at the same time share one request.
// Who stops waiting leaves it to the others; when all have left, the request is given up.
const going = new Map();

export async function askTogether(path, params, signal) {
  const key = address(path, params);
  let shared = going.get(key);
  if (!shared) {
    const stop = new AbortController();
    shared = { stop, waiting: 0, answer: ask(path, params, stop.signal).finally(() => { if (going.get(key) === shared) going.delete(key); }) };
    shared.answer.catch(() => {}); // who still waits hears of it
    going.set(key, shared);
  }
  shared.waiting += 1;
  try {
    return await Promise.race([shared.answer, new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    })]);
  } finally {
    shared.waiting -= 1;
    if (!shared.waiting && signal.aborted) {
      going.delete(key);
      shared.stop.abort();
    }
  }
}
