// What the pages do beyond HTML: the theme switch, copy buttons, the mark in "On this page", keyboard scrolling, and in
// the contents which pages the reader has begun and finished.
import { everything, whenever } from "scalebook/kept";

const root = document.documentElement;

function themeSwitch(button) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme === "auto" || !root.dataset.theme ? dark.matches : root.dataset.theme === "dark");
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("scalelab-theme", root.dataset.theme);
    } catch {
      // storage is off: the choice lasts for this page
    }
    show();
  });
  dark.addEventListener("change", show);
  button.hidden = false;
  show();
}

// Paper is light, and what a figure has painted on its canvas must be too. It shows the cards of machines, for it has no
// button to open them.
function readyForPaper() {
  let [theme, opened] = ["", []];
  const open = (are) => opened.forEach((card) => (card.open = are));
  addEventListener("beforeprint", () => {
    [theme, root.dataset.theme] = [root.dataset.theme, "light"];
    opened = [...document.querySelectorAll(".sl-machine:not([open])")];
    open(true);
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    open(false);
  });
}

function copyButtons() {
  if (!navigator.clipboard) return;
  for (const block of document.querySelectorAll(".cell_input div[class*='highlight-'], article > section div.highlight-bash")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sl-copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent.trimEnd());
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.append(button);
  }
}

// The build makes every box that can scroll a tab stop. A box whose content fits is not one, until it no longer fits:
// a chapter has a hundred boxes, and few of them scroll on a wide screen.
function keyboardScrolling() {
  const watch = new ResizeObserver((entries) => {
    for (const { target: box } of entries) {
      const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  });
  for (const box of document.querySelectorAll("pre, .sl-scroll, .sl-equation")) watch.observe(box);
}

function followReading() {
  const links = new Map([...document.querySelectorAll(".sl-places a")].map((link) => [link.hash.slice(1), link]));
  if (!links.size) return;
  const sections = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const mark = () => {
    const line = innerHeight * 0.3;
    const current = sections.findLast((section) => section.getBoundingClientRect().top < line);
    for (const [id, link] of links) {
      if (current && id === current.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      mark();
    });
  }, { passive: true });
  mark();
}

function marksInContents() {
  const links = [...document.querySelectorAll(".sl-nav a[data-page]")].map((link) => [link, link.appendChild(document.createElement("span"))]);
  whenever(() => {
    const { prediction, answer, finished } = everything();
    const begun = new Set(Object.keys({ ...prediction, ...answer }).map((key) => key.split("-")[0]));
    for (const [link, mark] of links) {
      const { page, number } = link.dataset;
      const state = finished[page] ? "finished" : begun.has(number) ? "begun" : "";
      mark.className = state && `sl-state sl-state-${state}`;
      mark.innerHTML = state && `<span class="sl-unseen">, ${state}</span>`;
    }
  });
}

const PARTS = {
  "scalebook/predict": "[data-prediction], [data-shows-prediction]",
  "scalebook/checkpoint": ".sl-question",
  "scalebook/progress": ".sl-finish, .sl-kept",
};
for (const [part, wanted] of Object.entries(PARTS)) if (document.querySelector(wanted)) import(part);
marksInContents();
readyForPaper();
themeSwitch(document.querySelector(".sl-theme"));
copyButtons();
keyboardScrolling();
followReading();
