// The whole state of a page is its address: a copied link shows the same view. This is the only place that writes it.

const listeners = new Set();
let told = location.search;

// A jump to a part of the page is no change of its state.
function tell() {
  if (location.search === told) return;
  told = location.search;
  for (const listener of listeners) listener();
}

export const state = () => Object.fromEntries(new URLSearchParams(location.search));

// A value of "" or null takes the key away.
export function change(changes, { quietly = false } = {}) {
  const next = { ...state(), ...changes };
  const kept = Object.entries(next).filter(([, value]) => value != null && value !== "");
  const query = new URLSearchParams(kept).toString();
  if (query === new URLSearchParams(location.search).toString()) return;
  history[quietly ? "replaceState" : "pushState"](null, "", query ? `?${query}` : location.pathname);
  tell();
}

export function toggle(changes) {
  const now = state();
  const chosen = Object.entries(changes).every(([key, value]) => (now[key] ?? "") === String(value ?? ""));
  change(chosen ? Object.fromEntries(Object.keys(changes).map((key) => [key, null])) : changes);
}

export function onChange(listener) { listeners.add(listener); }

addEventListener("popstate", tell);
