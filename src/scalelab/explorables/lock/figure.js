// Threads under one interpreter lock; one of them answers requests, the others are busy.
//
// `threads` busy threads compute for `work` ms per turn; then each waits, `io` per cent of its own time, without the lock.
// The thread that answers waits for a request, 20 ms in the mean, needs the lock for 0.1 ms, lets go of it for a call of
// 0.05 ms, and needs it for another 0.1 ms. Who asked for the lock first gets it first. Who holds it lets go when it waits
// itself, or when another thread has asked for longer than `interval` µs. Times are whole microseconds, so that the tests
// can replay who held the lock with `scalelab.simulate.waits`.
import { Fifo, dots, duration, explorable, label, make, middle, nice, number, p99, panel, place, random, readouts, settings, spread } from "../base.js";
import KNOBS from "./knobs.json" with { type: "json" };

const GAP_US = 20_000;
const SLICE_US = 100;
const CALL_US = 50;
const TRUSTED = 0.1;
const LEAST = 1000;
const BATCHES = 16;
const FIRST_BATCH = 10;
const NOBODY = -1;
const plural = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

const SAYS = {
  threads: (value) => plural(value, "thread"),
  interval: (value) => `${number(value / 1000, 1)} ms`,
};

// ---- model ----

const KEPT = 4096; // spells, for the picture
const HELD = 0;
const WAITED = 1;

/**
 * A run that has not begun: `{ seed, threads, work, interval, io }`, each with its default. Thread 0 answers requests.
 * `trace` gets each hold of the lock: `[thread, asked, got, let go]`, the last of them null while it lasts.
 */
function createModel(state, trace) {
  const knobs = settings(KNOBS, state);
  const work = knobs.work * 1000;
  const model = {
    knobs,
    trace,
    gaps: random(knobs.seed),
    busy: random((knobs.seed ^ 0x9e3779b9) >>> 0),
    wakes: new Float64Array(knobs.threads + 1), // infinite where a thread waits for nothing but the lock
    left: new Float64Array(knobs.threads + 1).fill(work), // of its turn
    asked: new Fifo(), // for the lock: [thread, time]
    holder: NOBODY,
    last: NOBODY,
    second: false, // half of the request that is being answered
    counts: new Float64Array(2048), // of waits, per bin
    batches: [],
    batchSize: FIRST_BATCH,
    spells: { who: new Int8Array(KEPT), kind: new Int8Array(KEPT), from: new Float64Array(KEPT), to: new Float64Array(KEPT) },
  };
  for (const count of ["now", "events", "got", "requests", "begun", "requestUs", "waits", "waited", "longest", "held", "computed", "handed", "batch", "batched", "kept"]) model[count] = 0;
  model.wakes[0] = gap(model);
  model.left[0] = SLICE_US;
  for (let i = 1; i <= knobs.threads; i++) model.wakes[i] = model.busy() % work;
  return model;
}

const exponential = (chance, mean) => Math.floor(-Math.log((chance + 1) / 2 ** 32) * mean + 0.5);
const gap = (model) => exponential(model.gaps(), GAP_US);

function keep({ spells, kept }, who, kind, from, to) {
  const at = kept % KEPT;
  spells.who[at] = who;
  spells.kind[at] = kind;
  spells.from[at] = from;
  spells.to[at] = to;
}

/** When the holder lets go: at the end of its turn, or an interval after it has kept the first one waiting. */
function endsAt({ holder, got, left, asked, knobs }) {
  if (holder === NOBODY) return Infinity;
  const turn = got + left[holder];
  return asked.size ? Math.min(turn, Math.max(got, asked.items[asked.head][1]) + knobs.interval) : turn;
}

function ask(model, thread, time) {
  model.events++;
  model.wakes[thread] = Infinity;
  model.asked.push([thread, time]);
  if (!thread && !model.second) model.begun = time;
}

function get(model, time) {
  model.events++;
  const [thread, since] = model.asked.shift();
  model.trace?.push([thread, since, time, null]);
  if (thread !== model.last) model.handed++;
  model.holder = model.last = thread;
  model.got = time;
  keep(model, thread, WAITED, since, time);
  model.kept++;
  if (!thread) count(model, time - since);
}

function letGo(model, time) {
  model.events++;
  const { holder: thread, knobs } = model;
  const spent = time - model.got;
  if (model.trace) model.trace.at(-1)[3] = time;
  keep(model, thread, HELD, model.got, time);
  model.kept++;
  model.holder = NOBODY;
  model.held += spent;
  model.left[thread] -= spent;
  if (thread) model.computed += spent;
  if (model.left[thread]) return ask(model, thread, time);
  if (thread) {
    const work = knobs.work * 1000;
    model.left[thread] = work;
    model.wakes[thread] = time + (knobs.io ? exponential(model.busy(), (work * knobs.io) / (100 - knobs.io)) : 0);
    return;
  }
  model.left[0] = SLICE_US;
  if (model.second) {
    model.requests++;
    model.requestUs += time - model.begun;
  }
  model.second = !model.second;
  model.wakes[0] = time + (model.second ? CALL_US : gap(model));
}

function count(model, wait) {
  model.waits++;
  model.waited += wait;
  model.longest = Math.max(model.longest, wait);
  model.counts[place(wait)]++;
  model.batch += wait;
  if (++model.batched < model.batchSize) return;
  model.batches.push(model.batch);
  model.batch = model.batched = 0;
  if (model.batches.length < 2 * BATCHES) return;
  model.batches = Array.from({ length: BATCHES }, (_, i) => model.batches[2 * i] + model.batches[2 * i + 1]);
  model.batchSize *= 2;
}

const p99Of = ({ counts, waits, longest }) => Math.min(p99(counts, waits), longest);

/** Let `ms` milliseconds pass. Two halves do what the whole does: how often a page draws changes nothing. */
function advance(model, ms) {
  const until = model.now + Math.round(ms * 1000);
  const { wakes } = model;
  for (;;) {
    let first = 0;
    for (let i = 1; i < wakes.length; i++) if (wakes[i] < wakes[first]) first = i;
    const ends = endsAt(model);
    const time = Math.min(ends, wakes[first]);
    if (time > until) break;
    if (ends <= wakes[first]) letGo(model, time);
    else ask(model, first, time);
    if (model.holder === NOBODY && model.asked.size) get(model, time);
  }
  model.now = until;
}

function errorOf(batches) {
  const total = batches.reduce((sum, batch) => sum + batch, 0);
  return batches.length >= BATCHES && total ? spread(batches) / (total / batches.length) : null;
}

/**
 * Where the run is, and what it measured from its start: milliseconds, shares of the time. A wait is that of the thread
 * which answers, from asking for the lock to getting it; there are two to a request. `computed`: a busy thread held the
 * lock. `handed`: the lock went to another thread.
 */
function readout(model) {
  const { now, events, requests, requestUs, waits, waited, holder, got, held, computed, handed, batches } = model;
  const passed = Math.max(1, now);
  const holds = holder === NOBODY ? 0 : now - got;
  return {
    now_us: now,
    events,
    requests,
    waits,
    mean_wait_ms: waits ? waited / waits / 1000 : null,
    p99_wait_ms: waits ? p99Of(model) / 1000 : null,
    error: errorOf(batches),
    mean_request_ms: requests ? requestUs / requests / 1000 : null,
    held: (held + holds) / passed,
    computed: (computed + (holder > 0 ? holds : 0)) / passed,
    handed,
  };
}

/**
 * What no wait and no request can exceed: who asks for the lock stands behind each busy thread once at most, and each
 * keeps it for a switch interval, or for its turn where that is shorter.
 */
function theory(state) {
  const { threads, work, interval } = settings(KNOBS, state);
  const most = threads * Math.min(interval, work * 1000);
  return { most_ms: most / 1000, request_ms: (2 * (most + SLICE_US) + CALL_US) / 1000 };
}

// ---- drawing ----

const HEIGHT = 236;
const PLOT = { left: 40, top: 24, floor: HEIGHT - 32 };

const span = ({ interval }) => Math.max(60_000, interval * 30); // µs that the timeline shows

function drawTimeline(context, colours, width, { knobs, now, spells, kept, holder, got, asked }) {
  const { left: room, top, floor } = PLOT;
  const left = room + 14;
  const right = width - 4;
  const lanes = knobs.threads + 1;
  const pitch = Math.min(58, (floor - top) / lanes);
  const shown = span(knobs);
  const x = (time) => Math.max(left, right - ((now - time) / shown) * (right - left));
  const y = (thread) => top + thread * pitch;
  const paint = (thread, kind, from, to) => {
    if (to <= now - shown) return;
    const [begin, end] = [x(from), x(to)];
    const wide = Math.max(kind === HELD ? 1.2 : 0, end - begin);
    const high = pitch * (kind === HELD ? 0.72 : 0.26);
    context.fillStyle = thread ? (kind === HELD ? colours.c1 : colours.muted) : kind === HELD ? colours.c3 : colours.c2;
    context.globalAlpha = kind === HELD || !thread ? 1 : 0.35;
    context.fillRect(begin, y(thread) + (pitch - high) / 2, wide, high);
    context.globalAlpha = 1;
  };
  for (let thread = 0; thread < lanes; thread++) {
    context.fillStyle = colours.grid;
    context.fillRect(left, y(thread) + pitch / 2, right - left, 1);
    label(context, thread ? colours.muted : colours.ink, thread ? `busy ${thread}` : "answers", 0, y(thread) + pitch / 2 + 4);
  }
  for (const kind of [WAITED, HELD]) {
    for (let i = Math.max(0, kept - KEPT); i < kept; i++) {
      const at = i % KEPT;
      if (spells.kind[at] === kind) paint(spells.who[at], kind, spells.from[at], spells.to[at]);
    }
    if (kind === WAITED) for (const [thread, since] of asked.list()) paint(thread, WAITED, since, now);
  }
  if (holder !== NOBODY) paint(holder, HELD, got, now);
  const bottom = y(lanes);
  for (const [text, share, align] of [[`${number(shown / 1000)} ms ago`, 0, "left"], ["now", 1, "right"]]) label(context, colours.muted, text, left + share * (right - left), bottom + 13, align);
  const signs = [
    ["holds the lock", colours.c1, 9],
    ["waits for it", colours.c2, 3],
    ["neither", colours.grid, 1],
  ];
  let across = 0;
  for (const [text, colour, high] of signs) {
    context.fillStyle = colour;
    context.fillRect(across, 7 - high / 2, 14, high);
    label(context, colours.muted, text, across + 18, 11);
    across += 18 + context.measureText(text).width + 12;
  }
  if (holder !== NOBODY) dots(context, holder ? colours.c1 : colours.c3, [[right, y(holder) + pitch / 2]], 4);
}

function drawWaits(context, colours, width, model, expected, trusted) {
  const { counts, waits } = model;
  const { left, top, floor } = PLOT;
  const right = width - 8;
  const measured = waits ? p99Of(model) / 1000 : 0;
  const most = nice(Math.max(0.2, 1.4 * expected.most_ms)); // room for words on the right of the rule
  const x = (ms) => left + (ms / most) * (right - left);
  const y = (share) => floor - share * (floor - top);
  label(context, colours.muted, "share of the waits that are longer", 0, 11);
  context.lineWidth = 1;
  for (let i = 0; i <= 4; i++) {
    context.fillStyle = colours.grid;
    context.fillRect(left, y(i / 4), right - left, 1);
    label(context, colours.muted, `${25 * i} %`, left - 5, y(i / 4) + 4, "right");
    label(context, colours.muted, number((most * i) / 4, 2), x((most * i) / 4), floor + 14, i === 4 ? "right" : "center");
  }
  label(context, colours.muted, "wait for the lock, ms", (left + right) / 2, HEIGHT - 4, "center");
  if (expected.most_ms) {
    context.strokeStyle = colours.ink;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(x(expected.most_ms), top);
    context.lineTo(x(expected.most_ms), floor);
    context.stroke();
    context.setLineDash([]);
  }
  if (waits) {
    context.strokeStyle = colours.c1;
    context.lineWidth = 2.2;
    context.globalAlpha = trusted ? 1 : 0.55;
    context.beginPath();
    let longer = waits;
    context.moveTo(x(0), y(1));
    for (let bin = 0; longer > 0 && bin < counts.length; bin++) {
      if (!counts[bin]) continue;
      const ms = Math.min(model.longest, middle(bin)) / 1000;
      context.lineTo(x(ms), y(longer / waits));
      longer -= counts[bin];
      context.lineTo(x(ms), y(longer / waits));
    }
    context.stroke();
    context.globalAlpha = 1;
    dots(context, colours.c1, [[x(measured), y(0.01)]], 4.5);
  }
  const key = [["this run", colours.c1], ...(expected.most_ms ? [["rule (dashed)", colours.ink]] : [])];
  key.forEach(([text, colour], i) => label(context, colour, text, right, top + 14 + 15 * i, "right"));
  const from = x(expected.most_ms) - x(measured) > 80 ? x(measured) : x(expected.most_ms);
  if (waits) label(context, colours.c1, `p99 ${duration(measured)}`, from + 8, y(0.01) - 6);
}

const percent = (share) => `${number(share * 100, 1)}\u00a0%`;
const wait = (ms) => (ms === null ? "none yet" : duration(ms));

function rows({ threads, io, work, interval }, seen, expected) {
  const { most_ms: most, request_ms: request } = expected;
  const always = threads && !io;
  const each = Math.min(interval, work * 1000);
  const from = `busy threads × ${each < interval ? "turn" : "interval"}`;
  return [
    [[wait(seen.p99_wait_ms), ""], [`${always ? "≈" : "≤"} ${duration(most)}`, from]],
    [[wait(seen.mean_wait_ms), seen.error === null ? "" : `± ${percent(seen.error)}`], [`≤ ${duration(most)}`, "no wait is longer"]],
    [[wait(seen.mean_request_ms), `needs ${number((2 * SLICE_US) / 1000, 1)} ms of the lock`], [`≤ ${duration(request)}`, "it asks twice"]],
    [[percent(seen.held), `by busy threads ${percent(seen.computed)}`], always ? ["100\u00a0%", "busy threads never wait"] : ["", "as long as one asks"]],
    [[`${number(seen.handed / Math.max(1e-6, seen.now_us / 1e6))}/s`, ""], always && threads > 1 ? [`≥ ${number(1e6 / each)}/s`, `once per ${each < interval ? "turn" : "interval"}`] : ["", "only if one asks"]],
  ];
}

function judge({ threads, work, interval, io }, seen) {
  if (!threads) return ["alone", "Alone with the lock: nobody to wait for."];
  const times = (seen.mean_request_ms ?? 0) / ((2 * SLICE_US + CALL_US) / 1000);
  const yields = work * 1000 <= interval;
  const keeps = yields ? `its turn of ${duration(work)}` : `an interval of ${duration(interval / 1000)}`;
  if (times < 10) return ["brief", `A request takes ${number(times, 1)} × what it would alone.`];
  return ["convoy", `Convoy: each time it lets go it stands behind ${threads === 1 ? "the other" : `${io ? "up to " : ""}all ${threads}`}, ${threads === 1 ? "which keeps" : "and each keeps"} the lock for ${keeps}. A request takes ${number(times)} × what it would alone.`];
}

/** Whether the run is long enough for its p99 to be believed, in words. */
function trust({ waits, error, mean_wait_ms }, { threads }) {
  const after = plural(waits, "wait");
  if (!threads) return ["long", "Nobody waits: there is no other thread."];
  const longest = waits - Math.ceil(waits * 0.99) + 1;
  if (waits < LEAST) return ["short", `Too short to trust: ${after}, and the p99 rests on the ${longest > 1 ? `${longest} longest` : "longest"}. Skip ahead.`];
  if (error === null && mean_wait_ms) return ["short", `Too short to trust: only ${after}.`];
  if (error > TRUSTED) return ["short", `Too short to trust: after ${after} the mean is known to ± ${percent(error)} only. Skip ahead.`];
  return ["long", `Long enough: after ${after} the mean is known to ± ${percent(error ?? 0)}.`];
}

function view(root) {
  const line = panel("mean request", HEIGHT, "One lane per thread, newest on the right: a thick bar where the thread holds the lock, a thin one where it waits for it. One bar ends where the next begins, in another lane.");
  const waits = panel("p99 wait", HEIGHT, "How large a share of the waits for the lock is longer than each time, and as a dashed line the rule: busy threads times switch interval.");
  const table = readouts("This run from its start, and what the rule says", ["This run", "Rule"], ["p99 wait for the lock", "Mean wait", "Mean request", "Lock held", "Changes hands"]);
  const note = "The thread that answers needs the lock for 0.1 ms, lets go for a call of 0.05 ms, and needs it for 0.1 ms again. Here who asked first gets the lock; the real one goes to whoever wakes first, so that a wait may be longer. ±: 95 % interval of the mean, from batch means. Long enough: ± 10 % or less, and 1,000 waits.";
  root.append(make("div", { class: "sl-x-pair" }, line.node, waits.node), table.node, make("p", { class: "sl-x-note" }, note));
  let [expected, trusted] = [null, false];
  return {
    draw(model, colours) {
      const font = `11.5px ${colours.font}`;
      line.draw((context, width) => ((context.font = font), drawTimeline(context, colours, width, model)));
      waits.draw((context, width) => ((context.font = font), drawWaits(context, colours, width, model, expected, trusted)));
    },
    read(model) {
      const { knobs } = model;
      expected = theory(knobs);
      const now = readout(model);
      const [kind, words] = judge(knobs, now);
      const [length, belief] = trust(now, knobs);
      trusted = length === "long";
      table.write(rows(knobs, now, expected));
      line.write(`One answers, ${knobs.threads} busy`, wait(now.mean_request_ms), words, kind === "convoy");
      waits.write("Wait for the lock", wait(now.p99_wait_ms), belief, !trusted);
      return {
        verdict: `${kind} ${length}`,
        speech: `${words} p99 wait for the lock ${wait(now.p99_wait_ms)}, the rule says ${duration(expected.most_ms)}${knobs.io ? " at most" : ""}. Mean request ${wait(now.mean_request_ms)}. ${belief}`,
      };
    },
  };
}

const END_US = 3600e6;
const SKIP_S = 60;

const figure = {
  title: "How long does a thread wait for the interpreter lock when it needs it only for a moment?",
  knobs: KNOBS,
  says: SAYS,
  slower: 20,
  create: createModel,
  advance,
  ended: ({ now }) => now >= END_US,
  skip: { label: `Skip ${SKIP_S} s`, go: (model) => advance(model, Math.min(SKIP_S * 1000, (END_US - model.now) / 1000)) },
  readout,
  theory,
  view,
};

export default explorable(figure);
