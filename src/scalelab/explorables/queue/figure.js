// Requests wait in one line before a number of servers.
//
// They arrive at random (Poisson) and go to the first free server, or to the end of the line; where the line has `limit`
// places and all are taken, they are refused. A service takes 10 ms in the mean; its squared coefficient of variation is
// `scv`: 0 is always 10 ms, 1 exponential, above 1 hyperexponential: many short ones and a few long ones. Times are whole
// microseconds, so that the tests can replay the requests of a run with `scalelab.simulate.waits`.
import { Fifo, dots, duration, explorable, label, make, middle, nice, number, p99, panel, place, random, readouts, settings, spread } from "../base.js";
import KNOBS from "./knobs.json" with { type: "json" };

const SERVICE_US = 10_000;
const NO_LIMIT = 100;
const TRUSTED = 0.1;
const BATCHES = 16;
const FIRST_BATCH = 10;
const plural = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

const SAYS = {
  servers: (value) => plural(value, "server"),
  scv: (value) => `${value}${[", always 10 ms", ", exponential"][value] ?? ""}`,
  limit: (value) => (value === NO_LIMIT ? "no limit" : plural(value, "place")),
};

// ---- model ----

/**
 * A run that has not begun: `{ seed, load, servers, scv, limit }`, each with its default. `trace` gets the requests: when
 * each came (`at`), its service time (`size`), its server (-1: none yet, or refused), and when it began and left.
 */
function createModel(state, trace) {
  const knobs = settings(KNOBS, state);
  const model = {
    knobs,
    trace,
    gaps: random(knobs.seed),
    sizes: random((knobs.seed ^ 0x9e3779b9) >>> 0),
    ends: new Float64Array(knobs.servers).fill(Infinity), // of the service under way, per server
    served: new Array(knobs.servers).fill(null),
    gone: [], // the last to leave, for the picture
    queue: new Fifo(),
    counts: new Float64Array(2048), // of waits, per bin
    batches: [],
    batchSize: FIRST_BATCH,
    short: (1 + Math.sqrt(Math.max(0, knobs.scv - 1) / (knobs.scv + 1))) / 2,
    mean: (SERVICE_US * 100) / (knobs.load * knobs.servers),
  };
  for (const count of ["now", "events", "arrived", "refused", "done", "next", "serving", "started", "waited", "waitingArea", "busyArea", "touched", "batch", "batched"]) model[count] = 0;
  model.next = gap(model);
  return model;
}

const exponential = (chance) => -Math.log((chance + 1) / 2 ** 32);
const gap = (model) => Math.floor(exponential(model.gaps()) * model.mean + 0.5);

/** A service time. Every kind takes two draws, so that the same seed gives the same requests in the same order. */
function serviceTime({ knobs, sizes, short }) {
  const kind = sizes();
  const chance = sizes();
  if (!knobs.scv) return SERVICE_US;
  const share = kind < short * 2 ** 32 ? short : 1 - short;
  return Math.floor(exponential(chance) * (SERVICE_US / (2 * share)) + 0.5);
}

function touch(model, time) {
  const passed = time - model.touched;
  model.waitingArea += passed * model.queue.size;
  model.busyArea += passed * model.serving;
  model.touched = time;
}

function leave(model, request, time) {
  request.left = time;
  model.gone[(model.done + model.refused) % 64] = request;
}

function arrive(model) {
  const time = model.next;
  touch(model, time);
  const request = { at: time, size: serviceTime(model), from: 0, left: 0, server: -1, x: NaN, y: 0 };
  model.trace?.push(request);
  if (model.serving < model.ends.length) {
    model.serving++;
    start(model, model.ends.indexOf(Infinity), time, request);
  } else if (model.knobs.limit === NO_LIMIT || model.queue.size < model.knobs.limit) model.queue.push(request);
  else {
    leave(model, request, time);
    model.refused++;
  }
  model.arrived++;
  model.next += gap(model);
}

function depart(model, server, time) {
  touch(model, time);
  leave(model, model.served[server], time);
  model.done++;
  if (model.queue.size) return start(model, server, time, model.queue.shift());
  model.serving--;
  model.ends[server] = Infinity;
  model.served[server] = null;
}

function start(model, server, time, request) {
  const wait = time - request.at;
  request.from = time;
  request.server = server;
  model.ends[server] = time + request.size;
  model.served[server] = request;
  model.started++;
  model.waited += wait;
  model.counts[place(wait)]++;
  model.batch += wait;
  if (++model.batched < model.batchSize) return;
  model.batches.push(model.batch);
  model.batch = model.batched = 0;
  if (model.batches.length < 2 * BATCHES) return;
  model.batches = Array.from({ length: BATCHES }, (_, i) => model.batches[2 * i] + model.batches[2 * i + 1]);
  model.batchSize *= 2;
}

/** Let `ms` milliseconds pass. Two halves do what the whole does: how often a page draws changes nothing. */
function advance(model, ms) {
  const until = model.now + Math.round(ms * 1000);
  const { ends } = model;
  for (;;) {
    let first = 0;
    for (let i = 1; i < ends.length; i++) if (ends[i] < ends[first]) first = i;
    if (Math.min(ends[first], model.next) > until) break;
    if (ends[first] <= model.next) depart(model, first, ends[first]);
    else arrive(model);
    model.events++;
  }
  touch(model, until);
  model.now = until;
}

function errorOf(batches) {
  const total = batches.reduce((sum, batch) => sum + batch, 0);
  return batches.length >= BATCHES && total ? spread(batches) / (total / batches.length) : null;
}

/** Where the run is, and what it measured from its start: requests, milliseconds, shares of 1. */
function readout(model) {
  const { now, events, arrived, refused, done, queue, serving, started, waited, ends } = model;
  const passed = Math.max(1, now);
  return {
    now_us: now,
    events,
    arrived,
    refused,
    done,
    waiting: queue.size,
    serving,
    mean_wait_ms: started ? waited / started / 1000 : null,
    p99_wait_ms: started ? p99(model.counts, model.started) / 1000 : null,
    error: errorOf(model.batches),
    mean_waiting: model.waitingArea / passed,
    busy: model.busyArea / (passed * ends.length),
  };
}

/** The probability that all servers are busy when a request comes, without a limit: by Erlang's recurrence. */
function delayed(servers, load) {
  let lost = 1;
  for (let k = 1; k <= servers; k++) lost = (load * servers * lost) / (k + load * servers * lost);
  return lost / (1 - load * (1 - lost));
}

/** The share that waits longer than `time` services at full work: who finds i in line waits for i + 1 of them. */
function limitedTail(lines, time) {
  let term = Math.exp(-time); // a Poisson number of services ends within that time
  let atMost = term;
  return lines.reduce((total, share, i) => {
    total += share * atMost;
    atMost += term *= time / (i + 1);
    return total;
  }, 0);
}

/** Where `tail`, which falls, comes down to `share`. */
function crossing(tail, share, step) {
  if (tail(0) <= share) return 0;
  let [low, high] = [0, step];
  while (tail(high) > share) [low, high] = [high, 2 * high];
  for (let i = 0; i < 50; i++) {
    const half = (low + high) / 2;
    if (tail(half) > share) low = half;
    else high = half;
  }
  return high;
}

/**
 * What theory says of a run that never ends, `tail(ms)` being the share that waits longer. Without a limit: Erlang C
 * where services are exponential; else Kingman's formula (exact here: with Poisson arrivals it is Pollaczek and
 * Khinchine's) and for several servers Allen and Cunneen's; their p99 takes the wait of those who wait as exponential.
 * With a limit: M/M/c/K; with no place to wait, Erlang's loss formula, which holds for every service distribution.
 */
function theory(state) {
  const { servers, scv, limit, ...knobs } = settings(KNOBS, state);
  const load = knobs.load / 100;
  const service = SERVICE_US / 1000;
  const perService = service / servers;
  const answer = { kind: "none", mean_wait_ms: null, p99_wait_ms: null, mean_waiting: null, busy: null, refused: null, growth: 0, tail: null };
  if (limit === NO_LIMIT && load >= 1) return { ...answer, kind: "unstable", busy: 1, refused: 0, growth: ((load - 1) * servers * 1000) / service };
  if (limit === NO_LIMIT) {
    const waits = delayed(servers, load);
    const mean = ((waits * service) / (servers * (1 - load))) * ((1 + scv) / 2);
    const kind = scv === 1 ? "erlang" : servers === 1 ? "kingman" : "allen-cunneen";
    const tail = (ms) => waits * Math.exp((-ms * waits) / mean);
    return { kind, mean_wait_ms: mean, p99_wait_ms: Math.max(0, (mean / waits) * Math.log(100 * waits)), mean_waiting: (load * mean) / perService, busy: load, refused: 0, growth: 0, tail };
  }
  if (scv !== 1 && limit) return answer;
  const weights = [1];
  for (let n = 1; n <= servers + limit; n++) weights.push((weights[n - 1] * load * servers) / Math.min(n, servers));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const refused = weights.at(-1) / total;
  const lines = weights.slice(servers, -1).map((weight) => weight / (total - weights.at(-1))); // an admitted one finds i in line
  const mean = lines.reduce((sum, share, i) => sum + share * (i + 1), 0) * perService;
  const tail = (ms) => limitedTail(lines, ms / perService);
  return { kind: limit ? "limit" : "loss", mean_wait_ms: mean, p99_wait_ms: crossing(tail, 0.01, perService), mean_waiting: (load / perService) * (1 - refused) * mean, busy: load * (1 - refused), refused, growth: 0, tail };
}

// ---- drawing ----

const HEIGHT = 236;
const [TOP, FLOOR] = [20, HEIGHT - 4];
const PITCHES = [13, 11, 9, 7.5, 6, 5, 4.2];
const FADE_US = 8_000;

/** Where everything stands: the servers in columns on the right, the line winding before them, its head next to them. */
function layout(width, servers, places, before) {
  const rows = Math.min(8, servers);
  const size = Math.min(34, (FLOOR - TOP) / rows - 2);
  const columns = Math.ceil(servers / rows);
  const left = Math.max(width * 0.4, width - 22 - columns * (size + 3));
  const middleY = (TOP + FLOOR) / 2;
  const space = Math.max(20, left - 34);
  const holds = (pitch) => Math.floor(space / pitch) * Math.floor((FLOOR - TOP - 8) / pitch);
  // A wider pitch comes back only with room to spare, or the dots would jump to and fro.
  const pitch = PITCHES.find((one) => holds(one) >= places * (one > before ? 1.3 : 1)) ?? PITCHES.at(-1);
  const across = Math.max(1, Math.floor(space / pitch));
  const lines = Math.min(Math.ceil(places / across), Math.floor((FLOOR - TOP - 8) / pitch));
  return {
    size,
    pitch,
    holds: holds(pitch),
    entry: [-6, middleY],
    server: (i) => [left + Math.floor(i / rows) * (size + 3), middleY + ((i % rows) - Math.min(rows, servers) / 2) * (size + 2)],
    place(i) {
      const row = Math.floor(i / across);
      const along = row % 2 ? across - 1 - (i % across) : i % across;
      return [left - 12 - along * pitch, middleY + ((lines - 1) / 2 - row) * pitch];
    },
  };
}

function drawSystem(context, colours, width, model, seen) {
  const { knobs, now, queue, served } = model;
  const limited = knobs.limit < NO_LIMIT;
  const waiting = queue.list();
  const at = layout(width, knobs.servers, Math.max(waiting.length, limited ? knobs.limit : 0, 1), seen.pitch);
  const passed = seen.model === model && seen.width === width ? now - seen.now : Infinity; // all else is drawn afresh
  const share = 1 - Math.exp(-passed / Math.min(3_000, (2 * SERVICE_US) / knobs.servers)); // of its way that a dot goes
  Object.assign(seen, { model, width, pitch: at.pitch, now });
  const go = (request, [x, y]) => {
    if (Number.isNaN(request.x)) [request.x, request.y] = now - request.at < 20_000 ? at.entry : [x, y];
    request.x += (x - request.x) * share;
    request.y += (y - request.y) * share;
  };
  const radius = ({ size }) => at.pitch * Math.min(0.8, Math.max(0.16, 0.32 * Math.sqrt(size / SERVICE_US)));
  const dot = (request) => [request.x, request.y, radius(request)];

  if (limited) {
    context.fillStyle = colours.grid;
    for (let i = waiting.length; i < knobs.limit; i++) {
      const [x, y] = at.place(i);
      context.fillRect(x - 1, y - 1, 2, 2);
    }
  }
  context.lineWidth = 1;
  served.forEach((request, i) => {
    const [x, y] = at.server(i);
    context.strokeStyle = colours.muted;
    context.strokeRect(x + 0.5, y + 0.5, at.size - 1, at.size - 1);
    if (!request) return;
    context.fillStyle = colours.c3;
    context.globalAlpha = 0.4;
    context.fillRect(x, y, at.size * Math.min(1, (now - request.from) / request.size), at.size);
    context.globalAlpha = 1;
    go(request, [x + at.size / 2, y + at.size / 2]);
  });
  const shown = Math.min(waiting.length, at.holds);
  for (let i = 0; i < shown; i++) go(waiting[i], at.place(i));
  dots(context, colours.c1, waiting.slice(0, shown).map(dot));
  dots(context, colours.c3, served.filter(Boolean).map((request) => [request.x, request.y, Math.min(at.size * 0.45, radius(request))]));
  for (const request of model.gone) {
    const since = (now - request.left) / FADE_US;
    if (since > 1) continue;
    context.globalAlpha = 1 - since;
    if (request.server < 0) dots(context, colours.c2, [[10 + since * 6, at.entry[1] + since ** 2 * (FLOOR - at.entry[1]), Math.max(3, radius(request))]]);
    else {
      const [x, y] = at.server(request.server).map((edge) => edge + at.size / 2);
      dots(context, colours.c3, [[x + since * (width + 6 - x), y, Math.min(at.size * 0.45, radius(request))]]);
    }
    context.globalAlpha = 1;
  }
  const more = waiting.length > shown ? `, ${number(shown)} drawn` : "";
  label(context, colours.muted, `in line: ${number(waiting.length)}${limited ? ` of ${number(knobs.limit)}` : more}`, 0, 11);
  label(context, colours.muted, `${number(model.serving)} of ${plural(knobs.servers, "server")} busy`, width, 11, "right");
  if (model.refused) label(context, colours.c2, `refused: ${number(model.refused)}`, 0, FLOOR);
}

const DECADES = 3; // the axis of shares goes from all to one in a thousand
const PLOT = { left: 40, top: 22, floor: HEIGHT - 32 };

function drawWaits(context, colours, width, model, expected, trusted) {
  const { counts, started } = model;
  const { left, top, floor } = PLOT;
  const right = width - 8;
  const measured = started ? p99(model.counts, model.started) / 1000 : 0;
  const most = nice(Math.max(1, 1.4 * measured, 1.4 * (expected.p99_wait_ms ?? 0)));
  const x = (ms) => left + (ms / most) * (right - left);
  const y = (share) => top + (Math.min(9, -Math.log10(share)) / DECADES) * (floor - top);
  label(context, colours.muted, "share of requests that wait longer", 0, 11);
  context.lineWidth = 1;
  for (let decade = 0; decade <= DECADES; decade++) {
    const line = y(10 ** -decade);
    context.fillStyle = colours.grid;
    context.fillRect(left, line, right - left, 1);
    label(context, decade === 2 ? colours.ink : colours.muted, `${number(100 / 10 ** decade, 1)} %`, left - 5, line + 4, "right");
  }
  for (let i = 0; i <= 4; i++) label(context, colours.muted, number((most * i) / 4, 2), x((most * i) / 4), floor + 14, i === 4 ? "right" : "center");
  label(context, colours.muted, "wait in line, ms", (left + right) / 2, HEIGHT - 4, "center");

  context.save();
  context.beginPath();
  context.rect(left, top - 3, right - left + 3, floor - top + 3);
  context.clip();
  if (expected.tail) {
    context.strokeStyle = colours.ink;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    for (let i = 0; i <= 120; i++) {
      const share = expected.tail((most * i) / 120);
      context.lineTo(x((most * i) / 120), y(share));
    }
    context.stroke();
    context.setLineDash([]);
  }
  if (started) {
    context.strokeStyle = colours.c1;
    context.lineWidth = 2.2;
    context.globalAlpha = trusted ? 1 : 0.55;
    context.beginPath();
    let longer = started;
    context.moveTo(x(0), y(1));
    for (let bin = 0; longer > 0 && bin < counts.length; bin++) {
      if (!counts[bin]) continue;
      const ms = middle(bin) / 1000;
      context.lineTo(x(ms), y(longer / started));
      longer -= counts[bin];
      context.lineTo(x(ms), y(longer / started));
      if (ms > most) break;
    }
    context.stroke();
    context.globalAlpha = 1;
    dots(context, colours.c1, [[x(measured), y(0.01)]], 4.5);
  }
  context.restore();
  const key = [["this run", colours.c1], ...(expected.tail ? [["theory (dashed)", colours.ink]] : [])];
  key.forEach(([text, colour], i) => label(context, colour, text, right, top + 13 + 15 * i, "right"));
  if (started) {
    const late = measured > most * 0.3; // below the curve there is room
    label(context, colours.c1, `p99 ${duration(measured)}`, x(measured) + (late ? -8 : 8), y(0.01) + (late ? 15 : -7), late ? "right" : "left");
  }
}

const percent = (share, digits = 0) => `${number(share * 100, digits)}\u00a0%`;
const few = (value) => number(value, value < 100 ? 1 : 0);
const wait = (ms) => (ms === null ? "none yet" : duration(ms));
const SOURCES = {
  erlang: "M/M/c (Erlang C)",
  kingman: "Kingman",
  "allen-cunneen": "≈ Allen–Cunneen",
  limit: "M/M/c/K",
  loss: "Erlang B",
};

/** What the table says: per row, the run's value and theory's, each with how well it is known or where it is from. */
function rows(seen, expected) {
  const { kind } = expected;
  const source = SOURCES[kind] ?? "";
  const about = kind === "kingman" || kind === "allen-cunneen" ? "≈ from the mean" : source;
  const say = (value, shape, from) => (kind === "unstable" ? ["grows", ""] : value === null ? ["no simple formula", ""] : [shape(value), from]);
  const plain = (value, shape) => (value === null ? ["no simple formula", ""] : [shape(value), ""]);
  return [
    [[wait(seen.mean_wait_ms), seen.error === null || kind === "unstable" ? "" : `± ${percent(seen.error)}`], say(expected.mean_wait_ms, duration, source)],
    [[wait(seen.p99_wait_ms), ""], say(expected.p99_wait_ms, duration, about)],
    [[few(seen.mean_waiting), `now ${number(seen.waiting)}`], say(expected.mean_waiting, few, "Little's law")],
    [[percent(seen.busy, 1), ""], plain(expected.busy, (share) => percent(share, 1))],
    [[percent(seen.refused / Math.max(1, seen.arrived), 1), number(seen.refused)], plain(expected.refused, (share) => percent(share, 1))],
  ];
}

function judge({ load, limit, servers }, seen, expected) {
  if (expected.kind === "unstable")
    return ["unstable", `No steady state: ${load === 100 ? "the servers have no slack to catch up in, and the line has no length to return to." : `the line grows by ${number(expected.growth)} requests/s.`}`];
  const refused = expected.refused ?? seen.refused / Math.max(1, seen.arrived);
  const when = expected.refused === null ? "So far" : "In the long run";
  const longest = limit ? `nobody waits behind more than ${plural(limit - 1, "other")}.` : "nobody waits.";
  if (limit < NO_LIMIT) return ["limited", `${when} ${percent(refused, refused < 0.01 ? 2 : 1)} are refused; ${longest}`];
  const times = expected.mean_wait_ms / (SERVICE_US / 1000);
  const idle = `${servers === 1 ? "The server is" : "The servers are"} idle ${percent(1 - load / 100)} of the time`;
  return ["stable", `${idle}, ${times < 1 ? "and" : "yet"} a request waits ${number(times, times < 1 ? 2 : 1)} × the time its service takes.`];
}

/** Whether the run is long enough for its mean to be believed, in words. */
function trust({ arrived, error, mean_wait_ms }, { kind }, { limit }) {
  const after = `${number(arrived)} requests`;
  if (kind === "unstable") return ["never", "No value to settle on: the longer the run, the longer the wait."];
  if (!limit) return ["long", "Nobody waits: there is no line."];
  if (error === null) return ["short", mean_wait_ms ? `Too short to trust: only ${after}.` : `Too short to trust: none of ${after} has waited.`];
  if (error > TRUSTED) return ["short", `Too short to trust: after ${after} the mean wait is known to ± ${percent(error)} only. Skip ahead.`];
  return ["long", `Long enough: after ${after} the mean wait is known to ± ${percent(error)}.`];
}

function view(root) {
  const system = panel("mean wait", HEIGHT, "Requests as dots, larger where their service takes longer: they enter on the left, stand in line, are served in the boxes and leave on the right. Refused ones fall down.");
  const waits = panel("p99", HEIGHT, "How large a share of the requests waits longer than each time, this run as a line and theory dashed.");
  const table = readouts("This run from its start, and what theory says of one that never ends", ["This run", "Theory"], ["Mean wait", "p99 wait", "Requests in line", "Servers busy", "Refused"]);
  const note = "The wait is the time in line; service comes on top, 10 ms in the mean. Variability: squared coefficient of variation of the service time. ±: 95 % interval of the mean, from batch means. Long enough: ± 10 % or less.";
  root.append(make("div", { class: "sl-x-pair" }, system.node, waits.node), table.node, make("p", { class: "sl-x-note" }, note));
  const seen = { model: null, width: 0, pitch: 0, now: 0 };
  let [state, expected, trusted, frames] = [null, null, false, 0];
  return {
    draw(model, colours, again) {
      const font = `11.5px ${colours.font}`;
      system.draw((context, width) => ((context.font = font), drawSystem(context, colours, width, model, seen)));
      if (again && frames++ % 6) return; // this curve does not move, it grows
      waits.draw((context, width) => ((context.font = font), drawWaits(context, colours, width, model, expected, trusted)));
    },
    read(model) {
      if (state !== model.knobs) [state, expected] = [model.knobs, theory(model.knobs)];
      const now = readout(model);
      const [kind, words] = judge(state, now, expected);
      const [length, belief] = trust(now, expected, state);
      trusted = length === "long";
      table.write(rows(now, expected));
      system.write(`${plural(state.servers, "server")} at ${state.load} %`, wait(now.mean_wait_ms), words, kind === "unstable");
      waits.write("Wait in line", wait(now.p99_wait_ms), belief, !trusted);
      const says = expected.mean_wait_ms === null ? "" : `, theory ${duration(expected.mean_wait_ms)}`;
      return {
        verdict: `${kind} ${length}`,
        speech: `${words} Mean wait ${wait(now.mean_wait_ms)}${says}. p99 wait ${wait(now.p99_wait_ms)}. ${belief}`,
      };
    },
  };
}

const MOST = 1_000_000;
const SKIP = 100_000;

/** On by so many requests, at once. */
function skip(model, requests = SKIP) {
  const until = Math.min(MOST, model.arrived + requests);
  while (model.arrived < until) advance(model, ((until - model.arrived) * model.mean) / 1000 + 1);
}

const figure = {
  title: "Why do requests wait while servers stand idle, and for how long?",
  knobs: KNOBS,
  says: SAYS,
  slower: 20,
  create: createModel,
  advance,
  ended: ({ arrived }) => arrived >= MOST,
  skip: { label: `Skip ${number(SKIP)} requests`, go: skip },
  readout,
  theory,
  view,
};

export default explorable(figure);
