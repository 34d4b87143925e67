// How far a reader is: at the end of a chapter or exercise page, and for the whole course on the start page.
import { asFile, count, everything, forgetEverything, fromFile, keep, put, recall, whenever, works } from "scalebook/kept";

const share = (done, of, what) => `${done} of ${of} ${what}`;
const keysOf = (entries, number) => Object.keys(entries).filter((key) => key.startsWith(`${number}-`));
const day = (date) => new Date(date).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
const entries = (all) => `${count(all)} ${count(all) === 1 ? "entry" : "entries"}`;

/** The box at the end of a page: what was predicted and answered on it, and a button that marks it as finished. */
function endOfPage(box) {
  const { page } = box.dataset;
  const [said, button] = [box.querySelector("p"), box.querySelector("button")];
  const asked = [...document.querySelectorAll("form.sl-predict")].map((form) => form.dataset.prediction);
  const questions = [...document.querySelectorAll(".sl-question")].map((question) => question.dataset.question);
  whenever(() => {
    const finished = recall("finished", page);
    const parts = [
      [asked, "prediction", "predictions committed"],
      [questions, "answer", "checkpoint questions answered"],
    ].filter(([keys]) => keys.length);
    const done = parts.map(([keys, kind, what]) => share(keys.filter((key) => recall(kind, key) !== null).length, keys.length, what));
    const words = [done.join(", "), finished && `finished on ${day(finished)}`].filter(Boolean).join(". ");
    said.textContent = words ? `${words[0].toUpperCase()}${words.slice(1)}.` : "Solved them? Your progress is kept in this browser.";
    button.textContent = finished ? "Not finished after all" : "Mark as finished";
  });
  button.addEventListener("click", () => keep("finished", page, recall("finished", page) ? null : new Date().toISOString()));
  box.hidden = false;
}

function stateOf({ page, number, predictions, questions }, all) {
  const predicted = Math.min(predictions, keysOf(all.prediction, number).length);
  const answered = Math.min(questions, keysOf(all.answer, number).length);
  const parts = [];
  if (all.finished[page]) parts.push("Finished");
  if (predicted) parts.push(share(predicted, predictions, "predicted"));
  if (answered) parts.push(share(answered, questions, "questions answered"));
  if (all.finished[page.replace("chapters/", "exercises/")]) parts.push("exercises finished");
  return parts.join(" · ") || "Not begun";
}

/** The panel of the start page: each chapter's state, and what one may do with all of it. */
function panel(place) {
  const said = place.querySelector("[role=status]");
  const rows = [...place.querySelectorAll("li")];
  const [save, load, clear, undo] = ["save", "load", "clear", "undo"].map((name) => place.querySelector(`[data-does=${name}]`));
  const file = place.querySelector("input[type=file]");
  let forgotten = null;

  whenever(() => {
    const all = everything();
    for (const row of rows) {
      const { page, number, predictions, questions } = row.dataset;
      const words = stateOf({ page, number, predictions: Number(predictions), questions: Number(questions) }, all);
      row.querySelector(".sl-kept-state").textContent = words;
      row.toggleAttribute("data-finished", Boolean(all.finished[page]));
    }
    for (const button of [save, clear]) button.disabled = !count(all);
  });

  const say = (text, undoable = null) => {
    forgotten = undoable;
    undo.hidden = !undoable;
    said.textContent = text;
  };
  save.addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([asFile(everything())], { type: "application/json" }));
    const link = Object.assign(document.createElement("a"), { href: address, download: "scalable-python-progress.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    say(`Saved ${entries(everything())} to scalable-python-progress.json. Load it in another browser to go on there.`);
  });
  load.addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = ""; // the same file may be chosen again
    if (!chosen) return;
    try {
      const found = fromFile(await chosen.text());
      const before = everything();
      put(found);
      say(`Loaded ${entries(found)} from ${chosen.name}. What was here besides stays.`, before);
    } catch (error) {
      say(error.message);
    }
  });
  clear.addEventListener("click", () => {
    const before = everything();
    forgetEverything();
    say(`Cleared ${entries(before)}. Until you leave this page you can undo that.`, before);
    undo.focus();
  });
  undo.addEventListener("click", () => {
    const before = forgotten;
    forgetEverything();
    put(before);
    say("It is as it was before.");
    clear.focus();
  });
  if (!works()) say("This browser keeps nothing for this site: storage is switched off. What you predict is shown until you leave the page.");
  place.hidden = false;
}

document.querySelectorAll(".sl-finish").forEach(endOfPage);
document.querySelectorAll(".sl-kept").forEach(panel);
