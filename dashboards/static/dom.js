// Make elements. What strangers said becomes text, never markup: there is no innerHTML anywhere on these pages.

const SVG = "http://www.w3.org/2000/svg";

// Attributes whose value is null or false are left out; `on` holds listeners; `style` holds properties, set one by one
// because the Content-Security-Policy refuses style attributes.
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, { on = {}, style = {}, ...attributes }, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value != null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  for (const [key, value] of Object.entries(style)) element.style.setProperty(key, value);
  for (const [key, listener] of Object.entries(on)) element.addEventListener(key, listener);
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

// A name that may go on in the next line where one of its words begins: Searching|For|Digital|Person.
export const breakable = (text) => text.split(/(?=[A-Z])/).flatMap((word, at) => (at ? [el("wbr"), word] : word));

export const hidden = (text) => el("span", { class: "hidden" }, text);

// Replace what an element holds, and leave the keyboard where it was: on the element with the same `data-key`.
export function redraw(host, ...children) {
  const key = host.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  host.replaceChildren(...children);
  if (key != null) host.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "small" }, label);
  button.addEventListener("click", async () => {
    await write(typeof text === "function" ? text() : text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
}

// The clipboard interface exists on https and on localhost only; the older command works wherever the page is served.
async function write(text) {
  if (navigator.clipboard) {
    try { return await navigator.clipboard.writeText(text); } catch { /* not permitted: the older way */ }
  }
  const area = el("textarea", { readonly: true, class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// Let arrow keys move between the buttons of a grid; only one of them is a stop of the Tab key.
export function rove(host, columns) {
  const stops = [...host.querySelectorAll("[data-stop]")];
  stops.forEach((stop, index) => { stop.tabIndex = index === 0 ? 0 : -1; });
  host.onkeydown = (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const index = stops.indexOf(document.activeElement);
    if (move == null || index < 0 || !stops[index + move]) return;
    event.preventDefault();
    stops[index].tabIndex = -1;
    stops[index + move].tabIndex = 0;
    stops[index + move].focus();
  };
}
