// Predictions on a page without a kernel: kept in this browser, shown on the chart that follows.
import { keep, recall } from "scalebook/kept";

const SVG = "http://www.w3.org/2000/svg";

const words = (answer, unit) => (typeof answer === "number" ? `${answer.toLocaleString("en-GB")} ${unit}`.trim() : answer);

/** Where `value` lies on the chart's y axis, in SVG units, kept inside the axes; null where a log axis has no such place. */
function place(axis, value) {
  const scale = axis.scale === "log" ? Math.log : Number;
  if (axis.scale === "log" && value <= 0) return null;
  const share = (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low));
  return axis.y_low + Math.min(1, Math.max(0, share)) * (axis.y_high - axis.y_low);
}

function element(name, attributes, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

function mark(figure, answer, unit) {
  const svg = figure.querySelector("svg");
  const axis = JSON.parse(figure.dataset.predictionAxis);
  svg.querySelector(".sl-prediction-mark")?.remove();
  const y = place(axis, answer);
  if (y === null) return;
  const group = element("g", { class: "sl-prediction-mark" });
  group.append(
    element("line", { x1: axis.x0, x2: axis.x1, y1: y, y2: y, stroke: "var(--sl-prediction)", "stroke-width": 1.6 }),
    element(
      "text",
      { x: axis.x1, y: y < axis.y_high + 16 ? y + 13 : y - 5, "text-anchor": "end", "font-size": 11, fill: "var(--sl-prediction)" },
      `you: ${words(answer, unit)}`,
    ),
  );
  svg.append(group);
}

function show(form, answer) {
  const { prediction: key, unit } = form.dataset;
  const where = recall("prediction", key) === null ? "Noted until you leave this page" : "Kept in this browser";
  form.querySelector(".sl-predict-said").textContent = `${where}: ${words(answer, unit)}. Read on to see the run.`;
  for (const place of document.querySelectorAll(`[data-shows-prediction="${CSS.escape(key)}"]`)) {
    if (place.matches("figure")) mark(place, answer, unit);
    else place.textContent = `You predicted ${words(answer, unit)}.`;
  }
}

for (const form of document.querySelectorAll("form.sl-predict")) {
  const { prediction: key, kind } = form.dataset;
  const kept = recall("prediction", key);
  if (kept !== null) {
    if (kind === "number") form.elements.answer.value = kept;
    else for (const choice of form.querySelectorAll("input")) choice.checked = choice.value === kept;
    show(form, kept);
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = form.elements.answer.value;
    const answer = kind === "number" ? Number(value) : value;
    keep("prediction", key, answer);
    show(form, answer);
  });
}
