// What stands on top of every page: home, the search box, the theme.
import { tell } from "./api.js";
import { el } from "./dom.js";
import { sessionAddress } from "./marks/table.js";

const THEMES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

// What can stand in an address. Text around an id may hold a token, a name or an address of a user.
export const isId = (text) => /^[A-Za-z0-9._:-]{1,128}$/.test(text);

export function header(id = "") {
  const box = el("input", {
    type: "search", name: "id", required: true, spellcheck: "false", autocomplete: "off", maxlength: 8192, value: id,
    "aria-label": "Find a session", placeholder: "Paste a session, attempt or trace id, a link, a log line …",
  });
  const answer = el("output", { class: "found", role: "status" });
  const form = el("form", { role: "search", class: "find", on: { submit: async (event) => {
    event.preventDefault();
    const text = box.value.trim();
    answer.textContent = "";
    try {
      location.href = sessionAddress(isId(text) ? text : (await tell("/api/find", text)).id);
    } catch (error) {
      answer.textContent = error.message;
    }
  } } }, box, el("button", {}, "Open"), answer);
  // "/" goes to the search box, as on many sites, unless one is writing.
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || /INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName)) return;
    event.preventDefault();
    box.select();
  });
  document.getElementById("top").append(
    el("a", { class: "home", href: "/" }, el("img", { src: new URL("icon.svg", import.meta.url), alt: "", width: 22, height: 22 }), "Digital person sessions"),
    form,
    themeButton(),
  );
}

function themeButton() {
  const root = document.documentElement;
  const button = el("button", { type: "button", class: "small plain" });
  const show = () => { button.textContent = THEMES[root.dataset.theme ?? "system"]; };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(root.dataset.theme ?? "system") + 1) % names.length];
    if (next === "system") delete root.dataset.theme; else root.dataset.theme = next;
    if (next === "system") localStorage.removeItem("theme"); else localStorage.setItem("theme", next);
    show();
    dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
  show();
  return button;
}
