// What a reader leaves in this browser: predictions, answers to checkpoint questions, pages they finished. It goes nowhere.
const PREFIX = "scalelab.";
export const KINDS = ["prediction", "answer", "finished"];
const FILE = { course: "Scalable Python, Measured", format: 1 };
const listeners = new Set();

/** Whether this browser keeps anything for this site. */
export function works() {
  try {
    localStorage.setItem(`${PREFIX}probe`, "");
    localStorage.removeItem(`${PREFIX}probe`);
    return true;
  } catch {
    return false;
  }
}

export function recall(kind, key) {
  try {
    return JSON.parse(localStorage.getItem(`${PREFIX}${kind}.${key}`));
  } catch {
    return null; // storage is off, or the entry is not ours
  }
}

/** Keep `value`, or forget what was kept where it is null. Without storage the page shows it until it is left. */
export function keep(kind, key, value) {
  try {
    if (value === null) localStorage.removeItem(`${PREFIX}${kind}.${key}`);
    else localStorage.setItem(`${PREFIX}${kind}.${key}`, JSON.stringify(value));
  } catch {
    // storage is off or full
  }
  tell();
}

/** Everything that is kept, as `{ prediction: { key: value }, answer: …, finished: … }`. */
export function everything() {
  const found = Object.fromEntries(KINDS.map((kind) => [kind, {}]));
  try {
    for (const name of Object.keys(localStorage)) {
      const [, kind, key] = /^scalelab\.(\w+)\.(.+)$/.exec(name) ?? [];
      const value = KINDS.includes(kind) ? recall(kind, key) : null;
      if (value !== null) found[kind][key] = value;
    }
  } catch {
    // storage is off
  }
  return found;
}

export const count = (all) => KINDS.reduce((sum, kind) => sum + Object.keys(all[kind]).length, 0);

/** Put in `all`: over entries of the same name, beside others. */
export function put(all) {
  for (const kind of KINDS) for (const [key, value] of Object.entries(all[kind])) keep(kind, key, value);
}

export function forgetEverything() {
  const all = everything();
  for (const kind of KINDS) for (const key of Object.keys(all[kind])) keep(kind, key, null);
}

export const asFile = (all) => JSON.stringify({ ...FILE, saved: new Date().toISOString(), ...all }, null, 1);

const isDate = (value) => typeof value === "string" && !Number.isNaN(Date.parse(value));
const FITS = {
  prediction: (value) => (typeof value === "number" && Number.isFinite(value)) || typeof value === "string",
  answer: (value) => Number.isInteger(value?.tries) && value.tries > 0 && typeof value.found === "boolean",
  finished: isDate,
};

/** What a file holds that `asFile` wrote. Throws an Error that says what is wrong with another. */
export function fromFile(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error("This file is no JSON. Choose a file that “Save to a file” on this page wrote.");
  }
  if (read?.course !== FILE.course) throw new Error("This file was not saved by this book. Choose one that “Save to a file” wrote.");
  if (read.format !== FILE.format) throw new Error(`This file has format ${read.format}, and this page reads format ${FILE.format}. Reload the page, or save the file again.`);
  const found = {};
  for (const kind of KINDS) {
    const entries = read[kind] ?? {};
    const odd = Object.entries(entries).find(([, value]) => !FITS[kind](value));
    if (typeof entries !== "object" || Array.isArray(entries)) throw new Error(`This file's list “${kind}” is damaged. Nothing was changed.`);
    if (odd) throw new Error(`This file's entry “${odd[0]}” of “${kind}” is damaged. Nothing was changed.`);
    found[kind] = entries;
  }
  return found;
}

/** Call `listener` now, and whenever something is kept or forgotten, on this page or another that is open. */
export function whenever(listener) {
  listeners.add(listener);
  listener();
}

function tell() {
  for (const listener of listeners) listener();
}

addEventListener("storage", tell);
addEventListener("pageshow", ({ persisted }) => persisted && tell());
