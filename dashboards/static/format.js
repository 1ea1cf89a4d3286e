// Values as a person reads them. The name of a column carries its unit: `_ratio`, `_ms`, `_s`, `_bytes`.

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;

export const NOTHING = "–";

export function show(name, value) {
  if (value == null) return NOTHING;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value === "string") return ISO.test(value) ? moment(value) : value;
  if (/^difference_.*ratio$/.test(name)) return points(value);
  if (/_ratio(_|$)/.test(name)) return percent(value);
  if (/_ms(_|$)/.test(name)) return duration(value);
  if (/_s(_|$)/.test(name)) return duration(value * 1000);
  if (/_bytes(_|$)/.test(name)) return bytes(value);
  return Number.isInteger(value) ? whole.format(value) : digits.format(value);
}

// On an axis the values are round: without zeros behind the point.
export const mark = (name, value) => show(name, value).replace(/\.0+(?= |$)/, "");

export const count = (value) => (value == null ? NOTHING : whole.format(value));

export function percent(ratio) {
  const value = ratio * 100;
  return `${value !== 0 && Math.abs(value) < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

// A difference of two ratios, in percentage points.
const points = (ratio) => `${ratio > 0 ? "+" : ratio < 0 ? "−" : ""}${(Math.abs(ratio) * 100).toFixed(2)} pp`;

export function duration(ms) {
  if (ms == null) return NOTHING;
  const size = Math.abs(ms);
  if (size > 0 && size < 1) return `${Number(ms.toPrecision(2))} ms`;
  if (size < 1000) return `${Math.round(ms)} ms`;
  if (size < 60_000) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000), hours = Math.trunc(seconds / 3600), minutes = Math.trunc((seconds % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${seconds % 60} s`;
}

function bytes(value) {
  const steps = ["B", "kB", "MB", "GB", "TB"];
  const step = value > 0 ? Math.min(Math.floor(Math.log10(value) / 3), steps.length - 1) : 0;
  return `${digits.format(value / 1000 ** step)} ${steps[step]}`;
}

// Points in time are UTC wherever nothing else is said.
export const moment = (iso) => iso.slice(0, 19).replace("T", " ");
export const clock = (iso) => iso.slice(11, 19);
export const isoOf = (ms) => new Date(ms).toISOString().replace(/\.?0*Z$/, "Z");
export const words = (name) => name.replace(/_(ratio|ms|s|bytes)(?=_|$)/g, "").replaceAll("_", " ");

// "3m" style lengths in milliseconds; null for anything else.
const UNITS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
export function lengthOf(text) {
  const found = /^(\d+)([smhdw])$/.exec(text ?? "");
  return found ? Number(found[1]) * UNITS[found[2]] : null;
}
