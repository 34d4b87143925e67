// One event loop against a pool of threads, both given the same requests.
//
// A request needs the processor for a slice, waits, needs it for a second slice, and is done. One slice runs at a time:
// on the loop's thread, or under the interpreter lock of the pool's. The pool holds `threads` requests, the rest queue.
// With `blocking`, one request in 200 does not await but blocks: on the loop it keeps the processor, in the pool its own
// thread. Times are whole microseconds, so that the tests can replay the slices of a run with `scalelab.simulate.waits`.
import { Fifo, dots, duration, explorable, label, make, nice, number, panel, popHeap, pushHeap, random, readouts, settings } from "../base.js";
import KNOBS from "./knobs.json" with { type: "json" };

const SLICE_US = 250;
const BLOCK_US = 250_000;
const BLOCK_ONE_IN = 200;
const BIN_US = 100_000;
const WINDOW_BINS = 50;
const KEPT_BINS = 100;
const END_US = 600e6; // a queue that grows for ten minutes has said what it has to say

// ---- model ----

const emptyBin = () => ({ area: 0, busy: 0, latencies: [] });

const createSide = (isPool) => ({
  isPool,
  queue: new Fifo(), // not yet taken by a thread
  ready: new Fifo(), // wants the processor
  waiting: [], // heap: waits for its answer
  running: null, // has the processor, until `ends`
  ends: 0,
  inFlight: 0,
  done: 0,
  touched: 0,
  bin: emptyBin(),
  bins: [],
});

/**
 * A run that has not begun: `{ seed, rate, wait, threads, blocking }`, each with its default. `trace` gets each slice of the
 * processor: `[pool?, request, arrived, blocks?, second?, ready, from, to]`.
 */
function createModel(state, trace) {
  const knobs = settings(KNOBS, state);
  const model = { knobs, trace, now: 0, events: 0, arrived: 0, next: 0, gaps: random(knobs.seed) };
  model.kinds = random((knobs.seed ^ 0x9e3779b9) >>> 0);
  model.loop = createSide(false);
  model.pool = createSide(true);
  model.next = gap(model);
  return model;
}

/** Turn knobs of a run that is under way; the seed stays. */
function setKnobs(model, state) {
  model.knobs = { ...settings(KNOBS, { ...model.knobs, ...state }), seed: model.knobs.seed };
}

const gap = (model) => Math.floor(-Math.log((model.gaps() + 1) / 2 ** 32) * (1e6 / model.knobs.rate) + 0.5);

function touch(side, time) {
  const passed = time - side.touched;
  side.bin.area += passed * side.inFlight;
  if (side.running) side.bin.busy += passed;
  side.touched = time;
}

function dispatch(side, { knobs, trace }, time) {
  while (side.queue.size && (!side.isPool || side.inFlight < knobs.threads)) {
    side.inFlight++;
    const taken = side.queue.shift();
    taken.ready = time;
    side.ready.push(taken);
  }
  if (side.running || !side.ready.size) return;
  const request = (side.running = side.ready.shift());
  side.ends = time + SLICE_US + (request.blocks && !request.resumed && !side.isPool ? BLOCK_US : 0);
  const { id, at, blocks, resumed, ready } = request;
  trace?.push([side.isPool, id, at, blocks, resumed, ready, time, side.ends]);
}

function runSide(model, side, until) {
  for (;;) {
    const ends = side.running ? side.ends : Infinity;
    const due = side.waiting.length ? side.waiting[0].due : Infinity;
    const time = Math.min(ends, due);
    if (time > until) break;
    touch(side, time);
    model.events++;
    if (due <= ends) {
      const request = popHeap(side.waiting);
      request.resumed = true;
      request.ready = time;
      side.ready.push(request);
    } else {
      const request = side.running;
      side.running = null;
      if (request.resumed) {
        side.inFlight--;
        side.done++;
        side.bin.latencies.push(time - request.at);
      } else {
        request.from = time;
        request.due = time + model.knobs.wait * 1000 + (request.blocks && side.isPool ? BLOCK_US : 0);
        pushHeap(side.waiting, request);
      }
    }
    dispatch(side, model, time);
  }
  touch(side, until);
}

/** Let `ms` milliseconds pass. Two halves do what the whole does: how often a page draws changes nothing. */
function advance(model, ms) {
  const until = model.now + Math.round(ms * 1000);
  while (model.now < until) {
    const full = (Math.floor(model.now / BIN_US) + 1) * BIN_US;
    const stop = Math.min(until, full);
    for (; model.next <= stop; model.next += gap(model)) {
      const [id, at] = [model.arrived++, model.next];
      model.events++;
      const blocks = model.kinds() % BLOCK_ONE_IN === 0 && model.knobs.blocking;
      for (const side of [model.loop, model.pool]) {
        runSide(model, side, at);
        side.queue.push({ id, at, blocks, resumed: false, ready: 0, from: 0, due: 0 });
        dispatch(side, model, at);
      }
    }
    for (const side of [model.loop, model.pool]) {
      runSide(model, side, stop);
      if (stop < full) continue;
      side.bins.push(side.bin);
      if (side.bins.length > KEPT_BINS) side.bins.shift();
      side.bin = emptyBin();
    }
    model.now = stop;
  }
}

function sideReadout(side) {
  const bins = side.bins.slice(-WINDOW_BINS);
  const passed = Math.max(1, bins.length) * BIN_US;
  const latencies = Float64Array.from(bins.flatMap((bin) => bin.latencies)).sort();
  const sum = (key) => bins.reduce((total, bin) => total + bin[key], 0) / passed;
  return {
    done: side.done,
    in_flight: side.inFlight,
    queued: side.queue.size,
    ready: side.ready.size,
    mean_in_flight: sum("area"),
    throughput: (latencies.length / passed) * 1e6,
    p99_ms: latencies.length ? latencies[Math.ceil(latencies.length * 0.99) - 1] / 1000 : null,
    busy: sum("busy"),
  };
}

/** Where the run is, and what the last five seconds measured: requests, requests/s, milliseconds, shares of 1. */
function readout(model) {
  const { now, events, arrived } = model;
  return { now_us: now, events, arrived, loop: sideReadout(model.loop), pool: sideReadout(model.pool) };
}

/**
 * What theory says of both sides. Little: in flight = rate × time in flight. A side is stable while its rate is below
 * its ceiling: the loop's is 1 / (processor time per request), the pool's is threads / (time a request keeps one).
 * The loop's delay per slice is Pollaczek and Khinchine's mean wait, which takes arrivals at the loop as independent.
 * An overloaded loop takes first and second slices in the order they come, so it starts the share `kept` of what
 * arrives and finishes the share `kept` of that: rate × (first × kept + second × kept²) = 1 second of work per second.
 */
function theory(state) {
  const { rate, wait, threads, blocking } = settings(KNOBS, state);
  const slice = SLICE_US / 1e6;
  const block = BLOCK_US / 1e6;
  const share = blocking ? 1 / BLOCK_ONE_IN : 0;
  const work = 2 * slice + share * block;
  const held = wait / 1000 + work;
  const load = rate * work;
  const square = ((1 - share) * slice ** 2 + share * (slice + block) ** 2 + slice ** 2) / 2;
  const delay = load < 1 ? (rate * square) / (1 - load) : null;
  const ceiling = Math.min(threads / held, 1 / (2 * slice));
  const first = slice + share * block;
  const kept = load < 1 ? 1 : (Math.sqrt(first ** 2 + (4 * slice) / rate) - first) / (2 * slice);
  const side = (limit, throughput, inFlight, busy) => ({
    stable: rate < limit,
    ceiling: limit,
    throughput,
    growth: rate - throughput,
    in_flight: inFlight,
    busy: Math.min(1, busy),
  });
  return {
    alone_ms: wait + (2 * SLICE_US) / 1000,
    loop: side(1 / work, rate * kept ** 2, delay === null ? null : rate * (held + 2 * delay), load),
    pool: side(ceiling, Math.min(rate, ceiling), Math.min(rate * held, threads), (rate * held) / threads),
  };
}

// ---- drawing ----

const [TOP, FIELD, BAR, CHART, EDGE] = [16, 116, 18, 86, 62];
const HEIGHT = TOP + FIELD + BAR + CHART + 34;
const CHART_BINS = 100;

/** A heap of dots from the floor up; what finds no place is written above it. */
function pile(context, colours, colour, count, left) {
  const [pitch, across] = [5, Math.floor((EDGE - 6) / 5)];
  const fits = across * Math.floor((FIELD - 18) / pitch);
  const places = Array.from({ length: Math.min(count, fits) }, (_, i) => [
    left + 5 + (i % across) * pitch,
    TOP + FIELD - 4 - Math.floor(i / across) * pitch,
  ]);
  dots(context, colour, places, 2);
  if (count > fits) label(context, colours.ink, `+${number(count - fits)}`, left + EDGE / 2, TOP + 12, "center");
}

function bar(context, colours, width, share, colour, text) {
  const y = TOP + FIELD + 4;
  context.fillStyle = colours.grid;
  context.fillRect(0, y, width, 5);
  context.fillStyle = colour;
  context.fillRect(0, y, width * Math.min(1, share), 5);
  label(context, colours.ink, text, 0, y + 18);
}

function drawLoop(context, colours, width, { loop, knobs, now }, busy) {
  const blocked = loop.running?.blocks && !loop.running.resumed;
  const [left, right] = [EDGE, width - EDGE];
  if (blocked) {
    context.globalAlpha = 0.12;
    context.fillStyle = colours.c2;
    context.fillRect(0, TOP, width, FIELD);
    context.globalAlpha = 1;
  }
  const ready = loop.ready.list();
  const answered = ready.filter((request) => request.resumed).length;
  label(context, colours.muted, "not started", 0, 10);
  label(context, colours.muted, `waiting: ${number(loop.waiting.length)}`, width / 2, 10, "center");
  label(context, colours.muted, "answered", width, 10, "right");
  context.fillStyle = colours.grid;
  context.fillRect(left, TOP, 1, FIELD);
  context.fillRect(right, TOP, 1, FIELD);
  const places = loop.waiting.map(({ id, from, due }) => [
    left + 4 + ((now - from) / (due - from)) * (right - left - 8),
    TOP + 4 + ((id * 0.618034) % 1) * (FIELD - 8),
  ]);
  dots(context, colours.c1, places, places.length > 500 ? 1.7 : 2.3);
  pile(context, colours, colours.c1, ready.length - answered, 0);
  pile(context, colours, colours.c1, answered, right);
  const left_ms = (loop.ends - now) / 1000;
  if (blocked) bar(context, colours, width, left_ms / (BLOCK_US / 1000), colours.c2, `the loop is blocked: ${number(left_ms)} ms to go`);
  else bar(context, colours, width, busy, colours.c1, `the loop ${ready.length > 5 ? "catches up" : "is free"} (${number(busy * 100)} % busy over 5 s)`);
}

function drawPool(context, colours, width, { pool, knobs, now }) {
  const active = [...pool.waiting, ...pool.ready.list(), ...(pool.running ? [pool.running] : [])];
  const slots = Math.max(knobs.threads, active.length);
  const taken = new Uint8Array(slots);
  for (const request of active) {
    if (request.slot >= slots || taken[request.slot]) request.slot = undefined;
    else if (request.slot !== undefined) taken[request.slot] = 1;
  }
  let free = 0;
  for (const request of active) {
    if (request.slot !== undefined) continue;
    while (taken[free]) free++;
    taken[(request.slot = free)] = 1;
  }
  const space = Math.max(FIELD / 2, width - EDGE - 8); // a page may leave no room at all
  let size = 22;
  while (Math.floor(space / size) * Math.floor(FIELD / size) < slots) size -= 0.25;
  const across = Math.floor(space / size);
  const corner = (slot) => [EDGE + 8 + (slot % across) * size, TOP + Math.floor(slot / across) * size];
  const side = size - Math.max(1, size * 0.18);
  label(context, colours.muted, "queue", 0, 10);
  label(context, colours.muted, `${number(slots)} ${slots === 1 ? "thread" : "threads"}, one cell each`, width, 10, "right");
  context.strokeStyle = colours.muted;
  context.lineWidth = 0.6;
  for (let slot = 0; slot < slots; slot++) {
    if (taken[slot]) continue;
    const [x, y] = corner(slot);
    context.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
  }
  let blocked = 0;
  for (const request of active) {
    const [x, y] = corner(request.slot);
    const waited = request.due ? Math.min(1, (now - request.from) / (request.due - request.from)) : 0;
    const blocks = request.blocks && now - request.from < BLOCK_US && !request.resumed;
    if (blocks) blocked++;
    context.fillStyle = blocks ? colours.c2 : colours.c3;
    context.globalAlpha = blocks ? 1 : 0.35;
    context.fillRect(x, y, side, side);
    context.globalAlpha = 1;
    context.fillRect(x, y, side * waited, side);
  }
  context.fillStyle = colours.grid;
  context.fillRect(EDGE, TOP, 1, FIELD);
  pile(context, colours, colours.c3, pool.queue.size, 0);
  const text = `${number(pool.inFlight)} of ${number(knobs.threads)} threads busy${blocked ? `, ${blocked} blocked` : ""}`;
  bar(context, colours, width, pool.inFlight / knobs.threads, colours.c3, text);
}

/** At most 20 requests of a bin, in the order they finished, the slowest always among them. */
function sample(bin) {
  if (bin.sample) return bin.sample;
  const stride = Math.ceil(bin.latencies.length / 19);
  const slowest = bin.latencies.reduce((most, value, i, all) => (value > all[most] ? i : most), 0);
  bin.sample = bin.latencies.flatMap((value, i) => (i % stride && i !== slowest ? [] : [[i / bin.latencies.length, value]]));
  bin.most = bin.latencies[slowest] ?? 0;
  return bin.sample;
}

function scale({ loop, pool, knobs }) {
  const bins = [...loop.bins, ...pool.bins];
  bins.forEach(sample);
  return nice(Math.max(knobs.wait * 1600, ...bins.map((bin) => bin.most)));
}

/** Thousands of points on a canvas of their own, drawn again when a bin is full or the scale has changed: in between they slide. */
function chartPoints(side, bin, width, height, most, colour) {
  const ratio = window.devicePixelRatio || 1;
  const key = [bin, side.bins.length, width, most, colour, ratio].join();
  const kept = (side.points ??= { canvas: document.createElement("canvas"), key: "" });
  if (kept.key === key) return kept.canvas;
  kept.key = key;
  Object.assign(kept.canvas, { width: Math.max(1, Math.round(width * ratio)), height: Math.round(height * ratio) });
  const context = kept.canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = colour;
  side.bins.forEach((one, i) => {
    const age = side.bins.length - i;
    for (const [part, us] of sample(one)) {
      context.fillRect(width - ((age - part) / CHART_BINS) * width, height - (us / most) * (height - 8) - 1, 2, 2);
    }
  });
  return kept.canvas;
}

function drawChart(context, colours, width, side, { knobs, now }, most, colour) {
  const [top, floor] = [HEIGHT - CHART, HEIGHT - 4];
  const y = (us) => floor - (us / most) * (floor - top - 4);
  label(context, colours.muted, "latency of each request, last 10 s", width, top - 6, "right");
  label(context, colours.muted, duration(most / 1000), 0, top + 8);
  context.strokeStyle = colours.grid;
  context.lineWidth = 1;
  context.setLineDash([]);
  context.strokeRect(0.5, floor + 0.5, width - 1, 0);
  const since = now / BIN_US - Math.floor(now / BIN_US); // of a bin
  const points = chartPoints(side, Math.floor(now / BIN_US), width, CHART, most, colour);
  context.drawImage(points, (-since / CHART_BINS) * width, floor - CHART, width, CHART);
  context.strokeStyle = colours.ink;
  context.setLineDash([4, 4]);
  context.strokeRect(0, y(knobs.wait * 1000), width, 0);
  context.setLineDash([]);
  const line = y(knobs.wait * 1000);
  const low = floor - line < 16;
  label(context, colours.ink, `the wait: ${number(knobs.wait)} ms`, low ? width : 0, line + (low ? -5 : 13), low ? "right" : "left");
}

const percent = (share) => `${number(share * 100)}\u00a0%`;
const latency = (ms) => (ms === null ? "none yet" : duration(ms));

/** What the two tables say, as `[measured, theory]` per row and side. */
function rows(measured, expected, { rate, threads, blocking }) {
  const both = (cell) => [cell(measured.loop, expected.loop, false), cell(measured.pool, expected.pool, true)];
  const about = (isPool) => (blocking && !isPool ? "≈" : "=");
  return [
    both((now, { stable, in_flight }, isPool) => [
      number(now.mean_in_flight),
      stable ? `λW ${about(isPool)} ${number(in_flight)}` : isPool ? `k = ${number(threads)}` : "grows",
    ]),
    both((now, { stable, throughput, ceiling }, isPool) => [
      `${number(now.throughput)}/s`,
      stable ? `λ = ${number(rate)}/s, at most ${number(ceiling)}/s` : `${isPool ? "k/W =" : "≈"} ${number(throughput)}/s`,
    ]),
    both((now, { stable }) => [latency(now.p99_ms), stable ? `${duration(expected.alone_ms)} with no queue` : "grows"]),
    both((now, { busy }, isPool) => [percent(isPool ? now.mean_in_flight / threads : now.busy), `${isPool ? "λW/k" : "λ × work"} = ${percent(busy)}`]),
    both((now, { stable, growth }, isPool) => [number(isPool ? now.queued : now.ready), stable ? "does not grow" : `+${number(growth)}/s`]),
  ];
}

function verdicts({ rate, threads, blocking }, { loop, pool }) {
  const need = number((rate / pool.ceiling) * threads);
  const unstable = "Unstable, no steady state:";
  return [
    !loop.stable
      ? `${unstable} the work of one second takes ${number(rate / loop.ceiling, 2)} s. The backlog grows by ${number(loop.growth)} requests/s.`
      : blocking
        ? "Slow for all: while one handler blocks the only thread, no other request starts or finishes."
        : `Keeps up: the one thread has ${number(loop.in_flight)} requests waiting at once.`,
    !pool.stable
      ? `${unstable} ${need} requests want a thread, there ${threads === 1 ? "is" : "are"} ${number(threads)}. The queue grows by ${number(pool.growth)} requests/s.`
      : blocking
        ? "Shrugs: a blocking handler costs its own thread, the others go on."
        : `Keeps up: needs ${need} threads at once and has ${number(threads)}.`,
  ];
}

const SEEN = [
  "Dots cross from left to right while they wait, and pile up on both sides while the loop is blocked. Below, the latency of each request.",
  "One cell per thread, which fills while its request waits; requests without a thread pile up on the left. Below, the latency of each request.",
];

function view(root) {
  const panels = SEEN.map((seen) => panel("p99", HEIGHT, seen));
  const table = readouts(
    "Measured over the last 5 s, and below it what theory says",
    ["Event loop", "Thread pool"],
    ["In flight", "Throughput", "p99 latency", "Busy", "Queue"],
  );
  const note = "λ: requests arriving per second. W: time in flight. k: threads. Little's law: in flight = λW, so k threads serve at most k/W. Work: 0.5 ms of the processor per request; on the loop, what blocks as well.";
  root.append(make("div", { class: "sl-x-pair" }, ...panels.map(({ node }) => node)), table.node, make("p", { class: "sl-x-note" }, note));
  let busy = 0;
  return {
    draw(model, colours) {
      const most = scale(model);
      [model.loop, model.pool].forEach((side, i) =>
        panels[i].draw((context, width) => {
          context.font = `11.5px ${colours.font}`;
          if (i) drawPool(context, colours, width, model);
          else drawLoop(context, colours, width, model, busy);
          drawChart(context, colours, width, side, model, most, i ? colours.c3 : colours.c1);
        }),
      );
    },
    read({ knobs, ...rest }) {
      const measured = readout(rest);
      const expected = theory(knobs);
      const words = verdicts(knobs, expected);
      busy = measured.loop.busy;
      table.write(rows(measured, expected, knobs));
      const names = ["One event loop, 1 thread", `Pool of ${number(knobs.threads)} ${knobs.threads === 1 ? "thread" : "threads"}`];
      const p99 = [measured.loop, measured.pool].map((side) => latency(side.p99_ms));
      const bad = [!expected.loop.stable || knobs.blocking, !expected.pool.stable];
      panels.forEach((part, i) => part.write(names[i], p99[i], words[i], bad[i]));
      return {
        verdict: words.join(" "),
        speech: `Event loop: ${words[0]} p99 latency ${p99[0]}. Thread pool: ${words[1]} p99 latency ${p99[1]}.`,
      };
    },
  };
}

const figure = {
  title: "Why does one event loop serve as many waiting requests as hundreds of threads, until one handler blocks?",
  knobs: KNOBS,
  create: createModel,
  advance,
  change: setKnobs,
  ended: ({ now }) => now >= END_US,
  readout,
  theory,
  view,
};

export default explorable(figure);
