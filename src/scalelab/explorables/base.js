// What every explorable figure shares: seeded chance, knobs, a run that pauses off screen, colours, read-outs.

/** Tommy Ettinger's mulberry32: a function that gives whole numbers from 0 to 2**32 - 1, the same in every language. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** A queue: first in, first out, without moving what it holds at every turn. */
export class Fifo {
  items = [];
  head = 0;
  get size() {
    return this.items.length - this.head;
  }
  push(item) {
    this.items.push(item);
  }
  shift() {
    const item = this.items[this.head];
    this.items[this.head++] = undefined;
    if (this.head > 1024 && this.head * 2 > this.items.length) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return item;
  }
  list() {
    return this.items.slice(this.head);
  }
}

// A heap of requests by `due`, and by `id` where that is equal.
const sooner = (a, b) => a.due < b.due || (a.due === b.due && a.id < b.id);

export function pushHeap(heap, item) {
  let at = heap.push(item) - 1;
  while (at) {
    const up = (at - 1) >> 1;
    if (!sooner(item, heap[up])) break;
    heap[at] = heap[up];
    at = up;
  }
  heap[at] = item;
}

export function popHeap(heap) {
  const top = heap[0];
  const item = heap.pop();
  if (!heap.length) return top;
  let at = 0;
  for (let down; (down = 2 * at + 1) < heap.length; at = down) {
    if (down + 1 < heap.length && sooner(heap[down + 1], heap[down])) down++;
    if (!sooner(heap[down], item)) break;
    heap[at] = heap[down];
  }
  heap[at] = item;
  return top;
}

/** The bin of a whole number: as wide as 1/64 of what it holds, or narrower; below 128 each has its own. */
export function place(wait) {
  const shift = Math.max(0, 25 - Math.clz32(wait));
  return shift * 64 + (wait >>> shift);
}

export function middle(bin) {
  const shift = Math.max(0, Math.floor(bin / 64) - 1);
  return (bin - shift * 64) * 2 ** shift + (2 ** shift - 1) / 2;
}

/** The 99th percentile of as many as are counted in the bins. */
export function p99(counts, many) {
  let rank = Math.ceil(many * 0.99);
  return middle(counts.findIndex((count) => (rank -= count) <= 0));
}

/** The half-width of the 95 % interval of the batches' mean, widened where neighbours are alike: they are too short then. */
export function spread(batches) {
  const sum = (list) => list.reduce((total, one) => total + one, 0);
  const mean = sum(batches) / batches.length;
  const off = batches.map((batch) => batch - mean);
  const square = sum(off.map((one) => one * one));
  if (!square) return 0;
  const neighbours = sum(off.slice(1).map((one, i) => one * off[i])) / square + 1 / off.length;
  const alike = Math.min(0.9, Math.max(0, neighbours));
  return T_95 * Math.sqrt(((square / (off.length - 1) / off.length) * (1 + alike)) / (1 - alike));
}

const T_95 = 2.1; // Student's t for 16 to 32 batches

/**
 * A complete state from whatever came, an address included: numbers in range and on a step, switches true or false, and
 * choices, which may come by name, by their place.
 */
export function settings(knobs, given = {}) {
  const seed = Number(given.seed ?? 8);
  const state = { seed: Number.isFinite(seed) ? seed >>> 0 : 8 };
  for (const { name, value, min, max, step, choices } of knobs) {
    const raw = given[name] ?? value;
    if (choices) state[name] = [choices.indexOf(raw), Number(raw)].find((place) => place in choices) ?? value;
    else if (typeof value === "boolean") state[name] = raw === true || raw === "true";
    else {
      const wanted = Number.isFinite(Number(raw)) ? Number(raw) : value;
      state[name] = Math.min(max, min + step * Math.max(0, Math.round((wanted - min) / step)));
    }
  }
  return state;
}

const formats = []; // by digits: to make one takes as long as to use it a hundred times
export const number = (value, digits = 0) =>
  (formats[digits] ??= new Intl.NumberFormat("en-GB", { maximumFractionDigits: digits })).format(value);
export const duration = (ms) => (ms < 10_000 ? `${number(ms, ms < 10 ? 1 : 0)} ms` : `${number(ms / 1000, 1)} s`);

/** An element: `make("p", { class: "note" }, "text", child)`. A property that is a function becomes a listener. */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export const write = (node, text) => node.textContent !== text && (node.textContent = text);

/** A table with theory's value below each measured one; `write(rows)` takes, per label and column, `[measured, theory]`. */
export function readouts(caption, columns, labels) {
  const cells = labels.map(() => columns.map(() => [make("b"), make("span")]));
  const head = (scope, text) => make("th", { scope }, text);
  const node = make(
    "table",
    {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, make("td", columns.length > 2 ? { style: "width: 22%" } : {}), ...columns.map((text) => head("col", text)))),
    make("tbody", {}, ...labels.map((label, i) => make("tr", {}, head("row", label), ...cells[i].map((pair) => make("td", {}, ...pair))))),
  );
  return { node, write: (rows) => rows.forEach((row, i) => row.forEach((pair, j) => pair.forEach((text, k) => write(cells[i][j][k], text)))) };
}

/** A canvas as wide as its parent and sharp on every screen; `draw(paint)` calls `paint(context, width, height)`. */
export function surface(height, label) {
  const canvas = make("canvas", { role: "img", "aria-label": label, style: `height:${height}px` });
  const context = canvas.getContext("2d");
  return {
    node: canvas,
    draw(paint) {
      const width = canvas.clientWidth;
      const ratio = window.devicePixelRatio || 1;
      const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      if (width) paint(context, width, height);
    },
  };
}

/** Dots of one radius at `[x, y]`, or each of its own at `[x, y, radius]`. */
export function dots(context, colour, places, radius) {
  context.fillStyle = colour;
  for (const [x, y, own = radius] of places) {
    context.beginPath(); // one path of a thousand dots takes three times as long to fill where no GPU helps
    context.arc(x, y, own, 0, 7);
    context.fill();
  }
}

export function label(context, colour, text, x, y, align = "left") {
  context.fillStyle = colour;
  context.textAlign = align;
  context.fillText(text, x, y);
}

/** The next of 1, 2, 3, 4, 6, 8, 10, 20, … that is no smaller: where an axis may end. */
export function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 3, 4, 6, 8, 10].find((step) => step * power >= most) * power;
}

/** A part of a figure: its name with a value beside it, a sentence of judgement, a canvas, and what is seen on it. */
export function panel(value, height, seen) {
  const [name, now, verdict] = [make("b"), make("b"), make("p", { class: "sl-x-verdict" })];
  const canvas = surface(height, seen);
  const head = make("p", { class: "sl-x-name" }, name, make("span", {}, `${value} `, now));
  const node = make("div", { class: "sl-x-panel" }, head, verdict, canvas.node);
  return {
    node,
    draw: canvas.draw,
    write(title, shown, words, bad) {
      write(name, title);
      write(now, shown);
      write(verdict, words);
      node.classList.toggle("sl-x-bad", bad);
    },
  };
}

const COLOURS = ["ink", "muted", "grid", "surface", "c1", "c2", "c3", "c4", "c5", "prediction"];

/** The colours of the page as a canvas takes them; `read` them again when the figure gets its place on the page. */
function palette(root, changed) {
  const probe = root.appendChild(make("span", { hidden: true }));
  const colours = {};
  const read = () => {
    for (const name of COLOURS) {
      probe.style.color = `var(--x-${name})`;
      colours[name] = getComputedStyle(probe).color;
    }
    colours.font = getComputedStyle(root).fontFamily;
    changed();
  };
  const later = () => (read(), setTimeout(read, 400)); // a theme's style sheet may come after its attribute
  const watcher = new MutationObserver(later);
  for (const node of [document.documentElement, document.body]) watcher.observe(node, { attributes: true });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", later);
  read();
  return { colours, read, stop: () => (watcher.disconnect(), dark.removeEventListener("change", later)) };
}

/** Speech for screen readers: the newest text only, a moment after the reader's last move, four seconds apart. */
function speaker(node) {
  let [timer, last] = [0, -Infinity];
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => ((last = performance.now()), write(node, text)), Math.max(1200, last + 4000 - performance.now()));
  };
}

function knobRow({ name, label, note, unit, min, max, step, value, choices }, says, changed) {
  if (choices) {
    const input = make("select", { name }, ...choices.map((text, i) => make("option", { value: i }, text)));
    input.addEventListener("change", () => changed(name, Number(input.value), true));
    return { node: make("label", { class: "sl-x-knob" }, make("span", {}, label), input), show: (now) => (input.value = now) };
  }
  if (typeof value === "boolean") {
    const input = make("input", { type: "checkbox", name });
    input.addEventListener("change", () => changed(name, input.checked, true));
    const node = make("label", { class: "sl-x-switch" }, input, make("span", {}, make("b", {}, label), ` ${note}`));
    return { node, show: (on) => (input.checked = on) };
  }
  const input = make("input", { type: "range", name, min, max, step });
  const output = make("b", { class: "sl-x-value", "aria-hidden": "true" }); // the slider says it itself
  const show = (now) => {
    const text = says?.(now) ?? `${number(now, 2)} ${unit}`;
    input.value = now;
    input.setAttribute("aria-valuetext", text);
    write(output, text);
  };
  input.addEventListener("input", () => changed(name, Number(input.value), false));
  input.addEventListener("change", () => changed(name, Number(input.value), true));
  return { node: make("label", { class: "sl-x-knob" }, make("span", {}, label, output), input), show };
}

const PREVIEW_MS = 10_000; // a run is shown from here on, so that the first picture is of a system at work

/**
 * Put a figure into `el`, run it if it has a clock, and return what takes it away again (anywidget's contract).
 *
 * `model.get("state")` is where knobs start, and `model.get("given")` what the figure was given besides; every settled
 * change goes to `model.set("state", …)`.
 */
function mount({ model, el, figure }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const { knobs, advance, skip, slower = 1 } = figure;
  const stepMs = 50 / slower;
  let state = settings(knobs, model.get("state"));
  let run;
  let [running, visible, frame, before, readAt, spoken] = [false, false, 0, 0, 0, ""];

  const rows = knobs.map((knob) => [knob.name, knobRow(knob, figure.says?.[knob.name], turn)]);
  const button = (text, click) => make("button", { type: "button", click }, text);
  const toggle = button("", () => play(!running));
  const clock = make("span", { class: "sl-x-clock" });
  const skipping = skip ? [button(skip.label, () => (skip.go(run), show(true)))] : [];
  const controls = make("div", { class: "sl-x-run" }, toggle, button(`Step ${number(stepMs, 1)} ms`, step), ...skipping, button("Reset", reset), clock);
  const live = make("p", { class: "sl-x-hidden", "aria-live": "polite" });
  const body = make("div", { class: "sl-x-body" });
  const root = make(
    "div",
    { class: "sl-x", role: "group", "aria-label": figure.title },
    make("p", { class: "sl-x-title" }, figure.title),
    make("div", { class: "sl-x-knobs" }, ...rows.map(([, row]) => row.node)),
    ...(advance ? [controls] : []),
    body,
    live,
  );
  // JupyterLab would take the arrow keys of a slider for its own.
  for (const control of root.querySelectorAll("input, select, button")) control.setAttribute("data-lm-suppress-shortcuts", "true");
  el.append(root);
  const speak = speaker(live);
  const view = figure.view(body, model.get("given") ?? {}, () => show(false));
  const { colours, read: recolour, stop } = palette(root, () => run && draw());

  function draw(again = false) {
    view.draw(run, colours, again);
  }

  function read(moved) {
    readAt = performance.now();
    const { verdict, speech } = view.read(run);
    const pace = slower > 1 ? `, shown ${number(slower)} times slower` : "";
    if (advance) write(clock, `${number(run.now / 1e6, 1)} s simulated${pace}, seed ${state.seed}`);
    if (moved || verdict !== spoken) speak(speech);
    spoken = verdict;
  }

  function start() {
    run = figure.create(state);
    advance?.(run, PREVIEW_MS);
  }

  function show(moved) {
    for (const [name, row] of rows) row.show(state[name]);
    read(moved);
    draw();
  }

  function turn(name, value, settled) {
    if (state[name] !== value) {
      state = { ...state, [name]: value };
      if (knobs.find((knob) => knob.name === name).look) run.knobs = state;
      else if (calm.matches || !figure.change) start();
      else figure.change(run, state);
      show(true);
    }
    if (!settled) return;
    model.set("state", state);
    model.save_changes();
  }

  function reset() {
    start();
    show(true);
  }

  function step() {
    play(false);
    advance(run, stepMs);
    show(true);
  }

  function play(on) {
    running = Boolean(advance) && on && !calm.matches;
    if (running && figure.ended(run)) start();
    write(toggle, running ? "Pause" : "Run");
    toggle.hidden = calm.matches;
    wake();
  }

  function wake() {
    if (!running || !visible || frame) return;
    before = performance.now();
    frame = requestAnimationFrame(tick);
  }

  function tick(now) {
    frame = 0;
    if (!running || !visible) return;
    advance(run, Math.min(100, Math.max(0, now - before)) / slower);
    before = now;
    draw(true);
    if (now - readAt > 200) read(false);
    if (figure.ended(run)) play(false);
    else frame = requestAnimationFrame(tick);
  }

  const external = () => {
    const next = settings(knobs, model.get("state"));
    if (JSON.stringify(next) === JSON.stringify(state)) return;
    state = next;
    reset();
  };
  const calmed = () => (reset(), play(!calm.matches));
  const onScreen = new IntersectionObserver((entries) => ((visible = entries.at(-1).isIntersecting), wake()));
  const resized = new ResizeObserver(recolour); // the first time, when a notebook has put the figure on the page
  start();
  show(false);
  play(true);
  onScreen.observe(root);
  resized.observe(body);
  calm.addEventListener("change", calmed);
  model.on("change:state", external);
  return () => {
    running = false;
    cancelAnimationFrame(frame);
    onScreen.disconnect();
    resized.disconnect();
    calm.removeEventListener("change", calmed);
    model.off("change:state", external);
    stop();
    view.stop?.();
    root.remove();
  };
}

/**
 * The default export of a figure's module, from `figure`, which holds
 * - `title`, `knobs` (its knobs.json), and `says`: per knob, how its value reads;
 * - `create(state, trace)`, which returns a run, and `theory(state, given)`, what theory says of it;
 * - `view(root, given, changed)`, which fills the figure and returns `draw(run, colours, again)`, for each frame,
 *   `read(run)`, five times a second, which returns `{ verdict, speech }`, and perhaps `stop()`. A screen reader hears the
 *   speech when the verdict has changed or a knob was turned. `again` says that only time has passed since the last
 *   picture; `changed()` asks for a new one.
 *
 * A figure that moves also has `advance(run, ms)`, a run with its simulated `now` in microseconds, `readout(run)`, what
 * the run measured, and `ended(run)`. It may have `slower`, how many times slower than its own clock it is shown;
 * `change(run, state)`, if a knob turned does not start a new run; and `skip`, `{ label, go(run) }`. A knob with `look`
 * only changes what is shown of the same run: it becomes part of `run.knobs`.
 */
export const explorable = (figure) => ({
  render: ({ model, el }) => mount({ model, el, figure }),
  theory: figure.theory,
  /** Play a run without drawing it: a number lets milliseconds pass, a state turns knobs. `trace: true` keeps its events. */
  play(state, acts = [PREVIEW_MS], { trace = false } = {}) {
    const events = trace ? [] : undefined;
    const run = figure.create(state, events);
    for (const act of acts) typeof act === "number" ? figure.advance(run, act) : figure.change(run, act);
    return { readout: figure.readout(run), trace: events };
  },
});
