// Three laws of scaling on one chart, beside what was measured and what the reader predicted.
//
// The knobs are whole numbers, so that an address holds them exactly: the serial share and contention in thousandths,
// coherency in millionths.
import { dots, explorable, label, make, nice, number, panel, readouts, settings } from "../base.js";
import KNOBS from "./knobs.json" with { type: "json" };

const SAYS = {
  serial: (value) => `${number(value / 10, 1)} %`,
  workers: (value) => number(value),
  contention: (value) => number(value / 1000, 3),
  coherency: (value) => number(value / 1e6, 6),
};

// ---- model ----

/** The three laws for a state, each a function of the number of workers; `rate` is what one worker does. */
function laws({ serial, contention, coherency }, rate = 1) {
  const [s, alpha, beta] = [serial / 1000, contention / 1000, coherency / 1e6];
  return {
    amdahl: (n) => rate / (s + (1 - s) / n),
    gustafson: (n) => rate * (n - s * (n - 1)),
    usl: (n) => (rate * n) / (1 + alpha * (n - 1) + beta * n * (n - 1)),
  };
}

/**
 * Per law: what `workers` do, what each of them does, the most there is (null: no limit) and with how many (null: ever
 * more), and how far the law misses the points, as the root mean square of the relative differences.
 */
function theory(state, { points = [], rate = 1 } = {}) {
  const knobs = settings(KNOBS, state);
  const { amdahl, gustafson, usl } = laws(knobs, rate);
  const [s, alpha, beta] = [knobs.serial / 1000, knobs.contention / 1000, knobs.coherency / 1e6];
  const peak = beta ? Math.max(1, Math.sqrt((1 - alpha) / beta)) : null;
  const row = (law, most, most_at = null) => {
    const square = points.reduce((sum, [n, , median]) => sum + (law(n) / median - 1) ** 2, 0);
    const at = law(knobs.workers);
    return { at, each: at / (knobs.workers * rate), most, most_at, miss: points.length ? Math.sqrt(square / points.length) : null };
  };
  return {
    amdahl: row(amdahl, s ? rate / s : null),
    gustafson: row(gustafson, null),
    usl: row(usl, peak ? usl(peak) : alpha ? rate / alpha : null, peak),
  };
}

// ---- drawing ----

const HEIGHT = 330;
const PLOT = { left: 46, top: 24, floor: HEIGHT - 34 };
const NAMES = { amdahl: "Amdahl", gustafson: "Gustafson", usl: "USL" };
const COLOUR = { amdahl: "c2", gustafson: "c3", usl: "c1" };
const DASH = { amdahl: [7, 3], gustafson: [2, 3], usl: [] };
const short = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);

/** The reader's prediction: from the kernel that made the figure, or what this browser keeps for the page. */
function prediction({ prediction: key, predicted }) {
  if (typeof predicted === "number") return predicted;
  try {
    const kept = key && JSON.parse(localStorage.getItem(`scalelab.prediction.${key}`));
    return typeof kept === "number" ? kept : null;
  } catch {
    return null; // storage switched off, or not ours
  }
}

function line(context, colour, width, dash, places) {
  Object.assign(context, { strokeStyle: colour, lineWidth: width });
  context.setLineDash(dash);
  context.beginPath();
  for (const [x, y] of places) context.lineTo(x, y);
  context.stroke();
  context.setLineDash([]);
}

function drawChart(context, colours, width, knobs, { points = [], rate = 1, unit = "×" }, predicted) {
  const { left, top, floor } = PLOT;
  const right = width - 74;
  const curves = laws(knobs, rate);
  const seen = theory(knobs, { points, rate });
  const widest = Math.max(knobs.workers, ...points.map(([n]) => n));
  const inside = seen.usl.most_at !== null && seen.usl.most_at <= widest;
  const highest = nice(1.12 * Math.max(curves.amdahl(widest), inside ? seen.usl.most : curves.usl(widest), ...points.map((point) => point[3])));
  const x = (n) => left + (n / widest) * (right - left);
  const y = (value) => floor - (value / highest) * (floor - top);
  const steps = Array.from({ length: 121 }, (_, i) => 1 + ((widest - 1) * i) / 120);

  label(context, colours.muted, unit === "×" ? "speed-up" : unit, 0, 11);
  for (let i = 0; i <= 4; i++) {
    const value = (highest * i) / 4;
    context.fillStyle = colours.grid;
    context.fillRect(left, y(value), right - left, 1);
    label(context, colours.muted, short(value), left - 6, y(value) + 4, "right");
    const n = Math.round((widest * i) / 4);
    label(context, colours.muted, number(n), x(n), floor + 15, "center");
  }
  label(context, colours.muted, "workers, N", (left + right) / 2, HEIGHT - 3, "center");

  context.save();
  context.beginPath();
  context.rect(left - 5, top - 5, right - left + 10, floor - top + 6);
  context.clip();
  line(context, colours.grid, 1.5, [], [[x(1), y(rate)], [x(widest), y(rate * widest)]]);
  if (seen.amdahl.most !== null) line(context, colours.c2, 1, [1, 4], [[left, y(seen.amdahl.most)], [right, y(seen.amdahl.most)]]);
  if (points.length) line(context, colours.muted, 1, [3, 3], [[x(knobs.workers), top], [x(knobs.workers), floor]]);
  for (const name of Object.keys(NAMES)) line(context, colours[COLOUR[name]], name === "usl" ? 2.6 : 2, DASH[name], steps.map((n) => [x(n), y(curves[name](n))]));
  if (inside) line(context, colours.c1, 1, [3, 3], [[x(seen.usl.most_at), y(seen.usl.most)], [x(seen.usl.most_at), floor]]);
  for (const [n, low, , high] of points) if (high > low) line(context, colours.ink, 1.4, [], [[x(n), y(low)], [x(n), y(high)]]);
  const marks = points.map(([n, , median]) => [x(n), y(median)]);
  dots(context, colours.ink, marks, 4.5);
  dots(context, colours.surface, marks, 2.4);
  if (inside) dots(context, colours.c1, [[x(seen.usl.most_at), y(seen.usl.most)]], 5);
  context.restore();

  if (inside) {
    const long = `peak: ${short(seen.usl.most)} ${unit} at ${number(seen.usl.most_at)}`;
    const peak = x(seen.usl.most_at);
    const wide = context.measureText(long).width;
    const before = peak + 6 + wide > right && peak - 6 - wide > left; // the peak
    const text = before || peak + 6 + wide <= right ? long : "peak";
    const across = context.measureText(text).width;
    context.fillStyle = colours.surface;
    context.fillRect(before ? peak - 8 - across : peak + 4, floor - 18, across + 4, 15);
    label(context, colours.c1, text, peak + (before ? -6 : 6), floor - 7, before ? "right" : "left");
  }
  if (predicted !== null) {
    const at = Math.min(floor, Math.max(top, y(predicted)));
    line(context, colours.prediction, 1.6, [], [[left, at], [right, at]]);
    label(context, colours.prediction, `you: ${short(predicted)} ${unit}${predicted > highest ? " ↑" : ""}`, right, at < top + 16 ? at + 13 : at - 5, "right");
  }
  // Each curve is named where it leaves the chart, no name over another.
  const ends = Object.entries(NAMES).map(([name, text]) => [text, colours[COLOUR[name]], curves[name](widest)]);
  if (seen.amdahl.most <= highest && seen.amdahl.most !== null) ends.push([`1/s = ${short(seen.amdahl.most)}`, colours.c2, seen.amdahl.most]);
  let free = 0;
  for (const [text, colour, end] of ends.sort((a, b) => b[2] - a[2])) {
    free = Math.max(free, Math.max(top, y(end)) + 4);
    label(context, colour, text, right + 8, free);
    free += 15;
  }
}

function judge({ workers, contention }, { usl }, shown) {
  if (usl.most_at === null) return [false, `No peak: without coherency cost USL ${contention ? `levels off at ${shown(usl.most)}` : "never levels off"}.`];
  const peak = `USL's peak at ${number(usl.most_at)}`;
  if (usl.most_at >= workers) return [false, `Below ${peak}: more workers still do more.`];
  const loss = number((1 - usl.at / usl.most) * 100);
  return [true, `Past ${peak}, each worker more does harm: ${number(workers)} do ${shown(usl.at)}, ${loss} % less than at the peak.`];
}

function rows(seen, cell, measured) {
  const each = Object.values(seen);
  const percent = (share) => `${number(share * 100, share < 0.1 ? 1 : 0)}\u00a0%`;
  return [
    each.map(({ at, each: share }) => [cell(at), `${percent(share)} each`]),
    each.map(({ most, most_at }) => (most === null ? ["no limit", ""] : [cell(most), most_at === null ? "never reached" : `at N = ${number(most_at)}`])),
    ...(measured ? [each.map(({ miss }) => [percent(miss), ""])] : []),
  ];
}

function view(root, given, changed) {
  const { points = [], rate = 1, unit = "×" } = given;
  const chart = panel("USL's peak", HEIGHT, `Curves of the three laws against the number of workers, USL's peak marked${points.length ? `, and ${number(points.length)} measured points` : ""}.`);
  const labels = ["At N workers", "The most there is", ...(points.length ? ["Off the points by"] : [])];
  const shown = (value) => `${short(value)} ${unit}`;
  const cell = unit === "×" ? shown : short; // the caption tells the unit that would not fit
  const table = readouts(`What each law says, by the knobs above${unit === "×" ? "" : `, in ${unit}`}`, Object.values(NAMES), labels);
  const off = points.length ? " Rings: measured. Off: root mean square of the relative differences." : "";
  const note = `Amdahl: 1/(s + (1 − s)/N). Gustafson: N − s(N − 1). USL: N/(1 + α(N − 1) + βN(N − 1)), its peak at √((1 − α)/β). Each: of what one worker alone does.${off}`;
  root.append(make("div", { class: "sl-x-one" }, chart.node), table.node, make("p", { class: "sl-x-note" }, note));
  document.addEventListener("submit", changed); // a prediction that the page has now kept
  return {
    draw: (knobs, colours) =>
      chart.draw((context, width) => {
        context.font = `11.5px ${colours.font}`;
        drawChart(context, colours, width, knobs, given, prediction(given));
      }),
    read(knobs) {
      const seen = theory(knobs, { points, rate });
      const [past, words] = judge(knobs, seen, shown);
      table.write(rows(seen, cell, points.length));
      chart.write(`${number(knobs.workers)} workers`, seen.usl.most_at === null ? "none" : number(seen.usl.most_at), words, past);
      const miss = points.length ? ` USL is off the points by ${number(seen.usl.miss * 100)} %.` : "";
      const each = Object.entries(seen).map(([name, { at }]) => `${NAMES[name]} ${shown(at)}`);
      return { verdict: String(past), speech: `${words} ${number(knobs.workers)} workers: ${each.join(", ")}.${miss}` };
    },
    stop: () => document.removeEventListener("submit", changed),
  };
}

const figure = {
  title: "How much do more workers bring, and when do they bring less?",
  knobs: KNOBS,
  says: SAYS,
  create: (state) => state,
  theory,
  view,
};

export default explorable(figure);
