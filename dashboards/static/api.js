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

export async function ask(path, params = {}, signal = null) {
  let answer;
  try {
    answer = await fetch(address(path, params), { headers: { Accept: "application/json" }, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Away();
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, body.error);
  return body;
}
