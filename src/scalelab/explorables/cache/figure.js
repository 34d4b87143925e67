// The same requests go to five caches with five policies; one of the caches is looked at.
//
// A thousand requests arrive per second, evenly. They ask for 10,000 keys by Zipf's law: key k in proportion to
// 1/(k+1)^α, where α is `skew` hundredths. Of each 2,000 requests the last `scan` per cent are a scan: keys that are asked
// for once, one after the other. Every cache has `size` slots, is empty at first and takes in what it misses.
// The tests replay the requests of a run with the caches of `scalelab.caches`, hit for hit.
import { dots, explorable, label, make, nice, number, panel, random, readouts, settings, spread } from "../base.js";
import KNOBS from "./knobs.json" with { type: "json" };

const KEYS = 10_000;
const REQUEST_US = 1000;
const PERIOD = 2000;
const TRUSTED = 0.01;
const BATCHES = 32;
const POLICIES = KNOBS.find(({ name }) => name === "policy").choices;
const FIRST_BATCH = 100;

const SAYS = {
  size: (value) => `${number(value)} of ${number(KEYS)} keys`,
  skew: (value) => `${(value / 100).toFixed(1)}${value ? "" : ", all alike"}`,
};

// ---- model ----

/** Lists of numbered nodes, each a ring that begins and ends at its head. */
class Rings {
  constructor(nodes, rings = 1) {
    this.nodes = nodes;
    this.after = Int32Array.from({ length: nodes + rings }, (_, i) => i);
    this.before = this.after.slice();
  }
  first(ring = 0) {
    return this.after[this.nodes + ring];
  }
  unlink(node) {
    const [after, before] = [this.after[node], this.before[node]];
    this.after[before] = after;
    this.before[after] = before;
  }
  append(node, ring = 0) {
    const head = this.nodes + ring;
    const last = this.before[head];
    this.after[node] = head;
    this.before[node] = last;
    this.after[last] = this.before[head] = node;
  }
}

/** What every policy has: slots, the key in each, and where a key is. A scanned key is never looked for again. */
class First {
  used = 0;
  hits = 0;
  hand = 0;
  constructor(size) {
    this.size = size;
    this.keys = new Int32Array(size).fill(-1);
    this.where = new Int16Array(KEYS).fill(-1);
    this.asked = new Uint8Array(size);
    this.came = new Int32Array(size); // for the picture: when the key came, was last asked for, and which left for it
    this.hit = new Int32Array(size).fill(-1e9);
    this.left = new Int32Array(size).fill(-1);
  }
  ask(key, at) {
    const found = key < KEYS ? this.where[key] : -1;
    if (found >= 0) {
      this.hits++;
      this.hit[found] = at;
      this.touch(found);
      return true;
    }
    const slot = this.used < this.size ? this.used++ : this.free(key);
    const old = this.keys[slot];
    if (old >= 0 && old < KEYS) this.where[old] = -1;
    if (key < KEYS) this.where[key] = slot;
    this.keys[slot] = key;
    this.asked[slot] = 0;
    this.left[slot] = old;
    this.came[slot] = at;
    this.hit[slot] = -1e9;
    this.enter(slot);
    return false;
  }
  /** The slot whose key goes next, and where the search for it begins. */
  free() {
    const slot = this.hand;
    this.hand = slot + 1 < this.size ? slot + 1 : 0;
    return slot;
  }
  next() {
    return this.hand;
  }
  touch() {}
  enter() {}
}

class Clock extends First {
  touch(slot) {
    this.asked[slot] = 1;
  }
  free() {
    while (this.asked[this.hand]) this.asked[super.free()] = 0;
    return super.free();
  }
}

class Lru extends First {
  constructor(size) {
    super(size);
    this.order = new Rings(size);
  }
  touch(slot) {
    this.order.unlink(slot);
    this.order.append(slot);
  }
  free() {
    const slot = this.order.first();
    this.order.unlink(slot);
    return slot;
  }
  next() {
    return this.order.first();
  }
  enter(slot) {
    this.order.append(slot);
  }
}

class Sieve extends Lru {
  constructor(size) {
    super(size);
    this.hand = size; // the ring's head: begins with the oldest
  }
  next() {
    return this.hand === this.size ? this.order.first() : this.hand;
  }
  touch(slot) {
    this.asked[slot] = 1;
  }
  free() {
    let slot = this.next();
    while (this.asked[slot]) {
      this.asked[slot] = 0;
      this.hand = this.order.after[slot];
      slot = this.next();
    }
    this.hand = this.order.after[slot];
    this.order.unlink(slot);
    return slot;
  }
}

/** A small queue (ring 0), a main one (ring 1), and the keys that the small one threw out lately, the ghosts. */
class S3Fifo extends First {
  constructor(size) {
    super(size);
    this.room = Math.max(Math.floor(size * 0.1), 1);
    this.order = new Rings(size, 2);
    this.small = new Uint8Array(size);
    this.count = [0, 0];
    const ghosts = Math.floor(size * 0.9);
    this.ghosts = new Rings(ghosts);
    this.spare = Array.from({ length: ghosts }, (_, i) => i);
    this.ghostKey = new Int32Array(ghosts);
    this.ghostOf = new Int16Array(KEYS).fill(-1);
    this.evicted = this.known = false;
  }
  next() {
    return this.order.first(this.fromMain() ? 1 : 0);
  }
  fromMain() {
    return this.count[1] > this.size - this.room || !this.count[0];
  }
  touch(slot) {
    if (this.asked[slot] < 3) this.asked[slot]++;
  }
  take(ring) {
    const slot = this.order.first(ring);
    this.order.unlink(slot);
    this.count[ring]--;
    return slot;
  }
  put(slot, ring) {
    this.order.append(slot, ring);
    this.small[slot] = 1 - ring;
    this.count[ring]++;
  }
  forget(ghost) {
    const key = this.ghostKey[ghost];
    if (key < KEYS) this.ghostOf[key] = -1;
    this.ghosts.unlink(ghost);
    this.spare.push(ghost);
  }
  remember(key) {
    if (!this.spare.length) this.forget(this.ghosts.first());
    const ghost = this.spare.pop();
    this.ghostKey[ghost] = key;
    if (key < KEYS) this.ghostOf[key] = ghost;
    this.ghosts.append(ghost);
  }
  free(key) {
    this.evicted = true;
    this.known = key < KEYS && this.ghostOf[key] >= 0;
    if (this.known) this.forget(this.ghostOf[key]);
    let main = this.fromMain();
    for (;;) {
      if (!this.count[main ? 1 : 0]) main = !main;
      const slot = this.take(main ? 1 : 0);
      if (main) {
        if (!this.asked[slot]) return slot;
        this.asked[slot]--;
        this.put(slot, 1);
      } else if (this.asked[slot] > 1) {
        this.asked[slot] = 0;
        this.put(slot, 1);
      } else {
        this.remember(this.keys[slot]);
        return slot;
      }
    }
  }
  enter(slot) {
    this.put(slot, this.known || (!this.evicted && this.count[0] >= this.room) ? 1 : 0);
    this.known = false;
  }
}

const MACHINES = [First, Lru, Clock, Sieve, S3Fifo];
const TALLIES = MACHINES.length + 1; // the last: the best static set
const BIN = 250;
const BINS = 80;

/** A run that has not begun: `{ seed, policy, size, skew, scan }`, each with its default. `trace` gets `[key, …hit per policy]` of each request. */
function createModel(state, trace) {
  const knobs = settings(KNOBS, state);
  const upTo = new Float64Array(KEYS); // per key, of 2 ** 32
  let total = 0;
  for (let key = 0; key < KEYS; key++) upTo[key] = total += (key + 1) ** (-knobs.skew / 100);
  for (let key = 0; key < KEYS; key++) upTo[key] = Math.floor((upTo[key] / total) * 2 ** 32 + 0.5);
  const guide = new Int32Array(4097); // where the search for a chance begins, by its first 12 bits
  for (let i = 0, key = 0; i <= 4096; i++) {
    while (key < KEYS - 1 && upTo[key] <= i * 2 ** 20) key++;
    guide[i] = key;
  }
  return {
    knobs,
    trace,
    upTo,
    guide,
    draws: random(knobs.seed),
    caches: MACHINES.map((Machine) => new Machine(knobs.size)),
    batchSize: knobs.scan ? PERIOD : FIRST_BATCH,
    length: (PERIOD * knobs.scan) / 100,
    batch: new Int32Array(TALLIES),
    batches: [],
    bin: new Int32Array(TALLIES + 1), // the last: requests that were no scan
    bins: [],
    now: 0,
    events: 0,
    requests: 0,
    scanned: 0,
    fullAt: null,
    staticHits: 0,
  };
}

function draw({ draws, upTo, guide }) {
  const chance = draws();
  let low = guide[chance >>> 20];
  let high = guide[(chance >>> 20) + 1];
  while (low < high) {
    const half = (low + high) >> 1;
    if (upTo[half] > chance) high = half;
    else low = half + 1;
  }
  return low;
}

function request(model) {
  const { caches, batch, bin, knobs } = model;
  const scans = model.requests % PERIOD >= PERIOD - model.length;
  const key = scans ? KEYS + model.scanned++ : draw(model);
  const at = model.requests++;
  const played = model.trace && [key];
  for (let i = 0; i < caches.length; i++) {
    const hit = caches[i].ask(key, at);
    played?.push(hit);
    if (!hit) continue;
    batch[i]++;
    bin[i]++;
  }
  model.trace?.push(played);
  if (key < knobs.size) {
    model.staticHits++;
    batch[TALLIES - 1]++;
    bin[TALLIES - 1]++;
  }
  if (!scans) bin[TALLIES]++;
  model.events += caches.length;
  if (model.fullAt === null && caches[0].used === knobs.size) model.fullAt = model.requests;
  if (model.requests % BIN === 0) {
    model.bins.push(bin);
    if (model.bins.length > BINS) model.bins.shift();
    model.bin = new Int32Array(TALLIES + 1);
  }
  if (model.requests % model.batchSize) return;
  model.batches.push(batch);
  model.batch = new Int32Array(TALLIES);
  if (model.batches.length < 2 * BATCHES) return;
  model.batches = Array.from({ length: BATCHES }, (_, i) => model.batches[2 * i].map((hits, k) => hits + model.batches[2 * i + 1][k]));
  model.batchSize *= 2;
}

/** Let `ms` milliseconds pass. Two halves do what the whole does: how often a page draws changes nothing. */
function advance(model, ms) {
  const until = model.now + Math.round(ms * 1000);
  while ((model.requests + 1) * REQUEST_US <= until) request(model);
  model.now = until;
}

function seenOf({ knobs, batches, batchSize }, i, hits, keys) {
  const later = batches.slice(batches.length >> 1).map((batch) => batch[i]);
  const each = (batchSize * (100 - knobs.scan)) / 100;
  return {
    hits,
    rate: later.length ? later.reduce((total, one) => total + one, 0) / (later.length * each) : null,
    error: batches.length >= BATCHES ? spread(later) / each : null,
    popular: keys.reduce((count, key) => count + (key >= 0 && key < knobs.size), 0),
    scanned: keys.reduce((count, key) => count + (key >= KEYS), 0),
  };
}

/**
 * Where the run is, and what it measured: per cache its hits, the hit rate of the requests that were no scan over the
 * later half of the run, its 95 % interval (±), and how many slots hold one of the most popular keys or a scanned one.
 * `settled`: the caches were full when the later half began.
 */
function readout(model) {
  const { now, events, requests, scanned, caches, batches, batchSize, fullAt, knobs } = model;
  return {
    now_us: now,
    events,
    requests,
    scanned,
    held: caches[0].used,
    settled: fullAt !== null && fullAt <= (batches.length >> 1) * batchSize,
    caches: Object.fromEntries(caches.map((cache, i) => [POLICIES[i], seenOf(model, i, cache.hits, cache.keys)])),
    static: seenOf(model, TALLIES - 1, model.staticHits, Int32Array.from({ length: knobs.size }, (_, key) => key)),
  };
}

/**
 * What theory says of a run that never ends, of the requests that are no scan: LRU's hit rate by Che, FIFO's, and that of
 * the most popular keys, held for good. The first two take the scan's requests as strewn among the others.
 */
function theory(state) {
  const { size, skew, scan } = settings(KNOBS, state);
  const weights = Float64Array.from({ length: KEYS }, (_, key) => (key + 1) ** (-skew / 100));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const popularity = weights.map((weight) => weight / total);
  const others = 1 - scan / 100;
  const [lru, fifo] = [(asked) => -Math.expm1(-asked), (asked) => asked / (1 + asked)].map((there) => {
    const filled = (time) => popularity.reduce((sum, p) => sum + there(p * others * time), (scan / 100) * time);
    let [low, high] = [0, size];
    while (filled(high) < size) high *= 2;
    for (let i = 0; i < 40; i++) {
      const half = (low + high) / 2;
      if (filled(half) < size) low = half;
      else high = half;
    }
    return popularity.reduce((sum, p) => sum + p * there(p * others * high), 0);
  });
  return { lru, fifo, static: popularity.subarray(0, size).reduce((sum, p) => sum + p, 0) };
}

// ---- drawing ----

const HEIGHT = 250;
const [TOP, FLOOR] = [22, HEIGHT - 22];
const FLASH = 60; // requests for which a hit is seen
const FALL = 90; // and an eviction
const SHADES = [1, 0.8, 0.62, 0.46];

const shade = (key, size) => Math.min(SHADES.length - 1, Math.floor((SHADES.length * Math.log1p(key)) / Math.log1p(size)));

function drawSlots(context, colours, width, { knobs, caches, requests }) {
  const { size } = knobs;
  const cache = caches[knobs.policy];
  let pitch = 34;
  const across = () => Math.max(1, Math.floor(width / pitch));
  while (pitch > 2 && Math.ceil(size / across()) * pitch > FLOOR - TOP) pitch -= 0.25;
  const wide = across();
  const side = pitch - Math.max(1, pitch * 0.14);
  const corner = (slot) => [(slot % wide) * pitch, TOP + Math.floor(slot / wide) * pitch];
  const square = (x, y, edge, key) => {
    const [left, top] = [x + (side - edge) / 2, y + (side - edge) / 2];
    if (key < KEYS) context.fillRect(left, top, edge, edge);
    else context.strokeRect(left + 0.75, top + 0.75, Math.max(0.5, edge - 1.5), Math.max(0.5, edge - 1.5));
  };
  const kinds = [[], [], [], [], [], []]; // four shades of the popular ones, the others, the scanned
  const kind = (key) => (key >= KEYS ? 5 : key >= size ? 4 : shade(key, size));
  const style = (i, fade = 1) => {
    context.fillStyle = i < 4 ? colours.c1 : colours.muted;
    context.globalAlpha = fade * (SHADES[i] ?? (i === 4 ? 0.3 : 1));
  };
  for (let slot = 0; slot < cache.used; slot++) kinds[kind(cache.keys[slot])].push(slot);
  context.strokeStyle = colours.c2;
  context.lineWidth = 1.5;
  kinds.forEach((slots, i) => {
    style(i);
    for (const slot of slots) square(...corner(slot), side * (cache.small?.[slot] ? 0.72 : 1), cache.keys[slot]);
  });
  context.globalAlpha = 1;
  context.fillStyle = colours.grid;
  for (let slot = cache.used; slot < size; slot++) {
    const [x, y] = corner(slot);
    context.fillRect(x + side / 2 - 1, y + side / 2 - 1, 2, 2);
  }
  for (let slot = 0; slot < cache.used; slot++) {
    const [hit, gone] = [(requests - cache.hit[slot]) / FLASH, (requests - cache.came[slot]) / FALL];
    const [x, y] = corner(slot);
    if (hit < 1) {
      context.strokeStyle = colours.ink;
      context.globalAlpha = 1 - hit;
      context.lineWidth = 2;
      context.strokeRect(x, y, side, side);
    }
    if (gone < 1 && cache.left[slot] >= 0) {
      context.strokeStyle = colours.c2;
      context.lineWidth = 1.5;
      style(kind(cache.left[slot]), 1 - gone);
      square(x, y + gone ** 2 * (HEIGHT - y), side * (1 - 0.5 * gone), cache.left[slot]);
    }
  }
  context.globalAlpha = 1;
  if (cache.used === size) {
    const [x, y] = corner(cache.next());
    context.strokeStyle = colours.c5;
    context.lineWidth = 2.5;
    context.strokeRect(x - 1, y - 1, side + 2, side + 2);
  }
  const signs = [
    ["popular", () => (SHADES.forEach((_, i) => (style(i), context.fillRect(i * 9, 3, 8, 9))), 4)],
    ["others", () => (style(4), context.fillRect(0, 3, 8, 9), 1)],
    ["scanned", () => ((context.globalAlpha = 1), (context.strokeStyle = colours.c2), (context.lineWidth = 1.5), context.strokeRect(0.75, 3.75, 7, 7.5), 1)],
    ["next", () => ((context.globalAlpha = 1), (context.strokeStyle = colours.c5), (context.lineWidth = 2.5), context.strokeRect(1, 3.5, 7, 8), 1)],
  ];
  let left = 0;
  for (const [text, sign] of signs) {
    context.save();
    context.translate(left, 0);
    const cells = sign();
    context.restore();
    label(context, colours.muted, text, left + cells * 9 + 4, 12);
    left += cells * 9 + 4 + context.measureText(text).width + Math.min(16, width / 30);
  }
}

const PLOT = { left: 40, top: 22, floor: HEIGHT - 34 };

function drawRates(context, colours, width, { knobs, bins, requests }, expected, trusted) {
  const { left, top, floor } = PLOT;
  const right = width - 8;
  const seen = bins.map((bin) => Array.from({ length: TALLIES }, (_, i) => (bin[TALLIES] ? bin[i] / bin[TALLIES] : NaN)));
  const peak = Math.max(expected.static, ...seen.flat().filter((rate) => rate >= 0));
  const most = Math.min(100, nice(Math.max(0.4, 108 * peak)));
  const x = (place) => left + (place / BINS) * (right - left);
  const y = (share) => floor - ((share * 100) / most) * (floor - top);
  context.lineWidth = 1;
  for (let i = 0; i <= 4; i++) {
    context.fillStyle = colours.grid;
    context.fillRect(left, y((most / 400) * i), right - left, 1);
    label(context, colours.muted, `${number((most * i) / 4, 1)} %`, left - 5, y((most / 400) * i) + 4, "right");
  }
  const start = Math.floor(requests / BIN) - BINS;
  if (knobs.scan) {
    context.fillStyle = colours.c2;
    context.globalAlpha = 0.16;
    const length = (PERIOD * knobs.scan) / 100;
    for (let period = Math.floor((start * BIN) / PERIOD); period * PERIOD < requests; period++) {
      const ends = Math.min(requests, (period + 1) * PERIOD) / BIN - start;
      const begins = Math.max(0, ((period + 1) * PERIOD - length) / BIN - start);
      if (ends > begins && period >= 0) context.fillRect(x(begins), top, x(Math.min(BINS, ends)) - x(begins), floor - top);
    }
    context.globalAlpha = 1;
  }
  const level = (rate, colour, dash) => {
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(left, y(rate));
    context.lineTo(right, y(rate));
    context.stroke();
    context.setLineDash([]);
  };
  const line = (i) => {
    context.beginPath();
    seen.forEach((rates, k) => {
      if (Number.isNaN(rates[i])) return; // nothing but a scan
      const [across, up] = [x(BINS - seen.length + k + 0.5), y(rates[i])];
      if (k && !Number.isNaN(seen[k - 1][i])) context.lineTo(across, up);
      else context.moveTo(across, up);
    });
    context.stroke();
  };
  context.strokeStyle = colours.muted;
  context.globalAlpha = 0.45;
  for (let i = 0; i < POLICIES.length; i++) if (i !== knobs.policy) line(i);
  context.globalAlpha = 1;
  level(expected.static, colours.c3, [2, 3]);
  const says = expected[POLICIES[knobs.policy].toLowerCase()];
  if (says !== undefined) level(says, colours.ink, [6, 4]);
  context.strokeStyle = colours.c1;
  context.lineWidth = 2.2;
  context.globalAlpha = trusted ? 1 : 0.75;
  line(knobs.policy);
  context.globalAlpha = 1;
  const last = seen.at(-1)?.[knobs.policy];
  if (last >= 0) dots(context, colours.c1, [[x(BINS - 0.5), y(last)]], 4);
  const key = [
    [POLICIES[knobs.policy], colours.c1],
    ["the other policies", colours.muted],
    ["best static set (dotted)", colours.c3],
    ...(says === undefined ? [] : [[`theory${knobs.scan ? ", scan strewn" : ""} (dashed)`, colours.ink]]),
  ];
  const low = y(expected.static) > (top + floor) / 2; // the lines are low: the key goes above them
  let [across, up] = [left + 6, low ? top + 12 : floor - (width < 300 ? 36 : 22)];
  context.font = context.font.replace("11.5px", "11px");
  for (const [text, colour] of key) {
    const room = context.measureText(text).width;
    if (across + room > right) [across, up] = [left + 6, up + 14];
    label(context, colour, text, across, up);
    across += room + 12;
  }
  label(context, colours.muted, `hit rate, per ${BIN} requests`, 0, 11);
  if (knobs.scan) label(context, colours.c2, "scan shaded", width, 11, "right");
  label(context, colours.muted, `the last ${number(BIN * BINS)} requests`, (left + right) / 2, HEIGHT - 14, "center");
}

const percent = (share) => (share === null ? "none yet" : `${(share * 100).toFixed(1)}\u00a0%`);

function rows({ scan }, seen, expected) {
  const row = ({ rate, error }, ...says) => [[percent(rate), error === null ? "" : `± ${number(error * 100, 1)}`], says];
  const strewn = scan ? ", scan strewn" : "";
  const says = { FIFO: [percent(expected.fifo), `as RANDOM${strewn}`], LRU: [percent(expected.lru), `Che${strewn}`] };
  return [
    ...POLICIES.map((policy) => row(seen.caches[policy], ...(says[policy] ?? ["no simple formula", ""]))),
    row(seen.static, percent(expected.static), "the sum of their shares"),
  ];
}

function judge({ policy, size, scan, skew }, seen) {
  const name = POLICIES[policy];
  const { popular, scanned } = seen.caches[name];
  if (seen.held < size) return ["filling", `Still filling: ${number(seen.held)} of ${number(size)} slots are taken, nothing had to go yet.`];
  if (!skew) return ["alike", "All keys are asked for alike: no policy can know which to keep."];
  const keeps = `${name} holds ${number(popular)} of the ${number(size)} most popular keys`;
  if (!scan) return ["no scan", `${keeps}; the other ${number(size - popular)} slots go to passers-by.`];
  return [scanned > size / 2 ? "flooded" : "scan", `${keeps}, and ${number(scanned)} ${scanned === 1 ? "key" : "keys"} of a scan that nobody will ask for again.`];
}

/** Whether the run is long enough for its hit rates to be believed, in words. */
function trust({ requests, settled, held, caches }, { size }) {
  const error = Math.max(...Object.values(caches).map((cache) => cache.error ?? Infinity));
  const after = `after ${number(requests)} requests`;
  if (held < size) return ["short", `Too short to trust: ${after} the caches are not full.`];
  if (!settled || error === Infinity) return ["short", `Too short to trust: only ${number(requests)} requests. Skip ahead.`];
  if (error > TRUSTED) return ["short", `Too short to trust: ${after} the rates are known to ± ${number(error * 100, 1)} points only. Skip ahead.`];
  return ["long", `Long enough: ${after} each rate is known to ± ${number(error * 100, 1)} points or better.`];
}

function view(root) {
  const slots = panel("hit rate", HEIGHT, "The slots of the cache, one square each: darker where the key in it is asked for more often, pale for keys too rare to be worth a slot, hollow for scanned ones. A hit frames its slot; what is thrown out falls down.");
  const rates = panel("best", HEIGHT, "Hit rate over the last requests, for the policy you look at, the four others, and as theory says.");
  const table = readouts("Hit rate of the requests for known keys, over the later half of this run, and what theory says of one that never ends", ["This run", "Theory"], [...POLICIES, "Best static set"]);
  const note = "All five get the same requests. Popular: among as many keys as fit. Next: where the policy looks first when one must go; it may spare it. Small squares: S3-FIFO's small queue. A scan's own requests cannot hit and are not counted. Scan strewn: as if its requests came one by one. ±: 95 % interval in percentage points, from batch means. Long enough: ± 1 or less.";
  root.append(make("div", { class: "sl-x-pair" }, slots.node, rates.node), table.node, make("p", { class: "sl-x-note" }, note));
  let [state, expected, trusted] = ["", null, false];
  return {
    draw(model, colours) {
      const font = `11.5px ${colours.font}`;
      slots.draw((context, width) => ((context.font = font), drawSlots(context, colours, width, model)));
      rates.draw((context, width) => ((context.font = font), drawRates(context, colours, width, model, expected, trusted)));
    },
    read({ knobs, ...rest }) {
      const given = `${knobs.size} ${knobs.skew} ${knobs.scan}`;
      if (state !== given) [state, expected] = [given, theory(knobs)];
      const now = readout({ knobs, ...rest });
      const name = POLICIES[knobs.policy];
      const { rate } = now.caches[name];
      const best = POLICIES.reduce((a, b) => (now.caches[b].rate > now.caches[a].rate ? b : a));
      const [kind, words] = judge(knobs, now);
      const [length, belief] = trust(now, knobs);
      trusted = length === "long";
      table.write(rows(knobs, now, expected));
      slots.write(name, percent(rate), words, kind === "flooded");
      rates.write("Five policies, the same requests", rate === null ? "none yet" : best, belief, !trusted);
      const says = expected[name.toLowerCase()];
      return {
        verdict: `${name} ${kind === "flooded" ? "scan" : kind} ${length}`,
        speech: `${words} Hit rate ${percent(rate)}${says === undefined ? "" : `, theory ${percent(says)}`}, best static set ${percent(expected.static)}. ${belief}`,
      };
    },
  };
}

const MOST = 2_000_000;
const SKIP = 100_000;

/** On by so many requests, at once. */
function skip(model, requests = SKIP) {
  advance(model, (Math.min(MOST, model.requests + requests) * REQUEST_US - model.now) / 1000);
}

const figure = {
  title: "Which cache keeps what is asked for again, and what does a scan do to it?",
  knobs: KNOBS,
  says: SAYS,
  slower: 2,
  create: createModel,
  advance,
  ended: ({ requests }) => requests >= MOST,
  skip: { label: `Skip ${number(SKIP)} requests`, go: skip },
  readout,
  theory,
  view,
};

export default explorable(figure);
