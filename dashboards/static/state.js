// The whole state of a page is its address: a copied link shows the same view. This is the only place that writes it.

const listeners = new Set();

export const state = () => Object.fromEntries(new URLSearchParams(location.search));

// A value of "" or null takes the key away.
export function change(changes, { quietly = false } = {}) {
  const next = { ...state(), ...changes };
  const kept = Object.entries(next).filter(([, value]) => value != null && value !== "");
  const query = new URLSearchParams(kept).toString();
  if (query === new URLSearchParams(location.search).toString()) return;
  history[quietly ? "replaceState" : "pushState"](null, "", query ? `?${query}` : location.pathname);
  for (const listener of listeners) listener();
}

export function toggle(changes) {
  const now = state();
  const chosen = Object.entries(changes).every(([key, value]) => now[key] === String(value ?? ""));
  change(chosen ? Object.fromEntries(Object.keys(changes).map((key) => [key, null])) : changes);
}

export function onChange(listener) { listeners.add(listener); }

addEventListener("popstate", () => { for (const listener of listeners) listener(); });
