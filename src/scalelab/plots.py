"""Charts in the style of the book: theory as a line, measurements as points, a mark for the reader's prediction.

A chart is inline SVG whose colours are CSS variables, so that one picture suits light and dark pages, phones and
JupyterLab. Screen readers and search engines can read its text, and a page without a kernel can draw the reader's
prediction into it.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scalelab._publish import publish
from scalelab.claims import number
from scalelab.errors import ScalelabError
from scalelab.measure import Interval
from scalelab.predictions import Prediction
from scalelab.recordings import Run

# Placeholder colours for matplotlib, and the CSS variable (with its light value) that replaces each of them.
INK, MUTED, GRID, SURFACE = "#010101", "#020202", "#030303", "#fefefe"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005")
PREDICTION = "#0b0001"
CSS_COLOURS = {
    INK: "var(--sl-ink, #1c2430)",
    MUTED: "var(--sl-muted, #5b6472)",
    GRID: "var(--sl-grid, #d9dee5)",
    SURFACE: "var(--sl-surface, #ffffff)",
    SERIES[0]: "var(--sl-c1, #0067a5)",
    SERIES[1]: "var(--sl-c2, #c2500a)",
    SERIES[2]: "var(--sl-c3, #00794f)",
    SERIES[3]: "var(--sl-c4, #a0408a)",
    SERIES[4]: "var(--sl-c5, #7a6000)",
    PREDICTION: "var(--sl-prediction, #b3123f)",
}
MARKERS = ("o", "s", "^", "D", "v")
POINTS_PER_INCH = 72
WIDTH_IN, HEIGHT_IN = 5.2, 3.5
FEW_DECADES = 50  # below this ratio of its limits, a logarithmic axis also labels 2 and 5 in each decade

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scalelab",
    "font.size": 11,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


class ChartError(ScalelabError):
    """A chart has no alternative text."""


@mpl.rc_context(STYLE)
def chart(
    title: str, *, x: str, y: str, log: str = "", height: float = HEIGHT_IN, categories: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    """Return an empty figure and its axes in the house style.

    title: the message of the chart in one sentence, which becomes the caption. x, y: axis labels with units. log: the
    axes with a logarithmic scale: "", "x", "y" or "xy". height: inches; the width is 5.2. categories: tick labels of
    the x axis, at 0, 1, 2, …
    """
    figure = Figure(figsize=(WIDTH_IN, height), dpi=POINTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if name in log:
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(LogLocator(base=10, numticks=12))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    if categories:
        axes.set_xticks(range(len(categories)), categories)
        axes.grid(visible=False, axis="x")
    figure.scalelab_title = title  # type: ignore[attr-defined]
    return figure, axes


@mpl.rc_context(STYLE)
def theory(axes: Axes, x: Iterable[float], y: Iterable[float], label: str) -> None:
    """Draw a theory as a dashed line."""
    axes.plot(list(x), list(y), color=MUTED, linestyle=(0, (5, 2.5)), label=label, zorder=2)


@mpl.rc_context(STYLE)
def measured(
    axes: Axes,
    x: Iterable[float],
    y: Iterable[Interval | float],
    label: str,
    *,
    series: int = 0,
    join: bool = True,
    recorded: Run | None = None,
) -> None:
    """Draw measurements as points, and an Interval with a bar from low to high.

    series: number of the colour and marker, 0–4. join: connect the points with a line. recorded: the run that the
    points come from; if it is a recorded one, the points are hollow and the legend says so.
    """
    xs, values = list(x), [value if isinstance(value, Interval) else Interval(value, value, value) for value in y]
    axes.errorbar(
        xs,
        [value.median for value in values],
        yerr=[[v.median - v.low for v in values], [v.high - v.median for v in values]],
        color=SERIES[series % len(SERIES)],
        marker=MARKERS[series % len(MARKERS)],
        linestyle="-" if join else "none",
        linewidth=1.4,
        elinewidth=1.4,
        capsize=3,
        label=recorded.label(label) if recorded else label,
        markerfacecolor=SURFACE if recorded and recorded.recorded else None,
        zorder=3,
    )


@mpl.rc_context(STYLE)
def show(
    figure: Figure,
    *,
    alt: str,
    prediction: Prediction | None = None,
    outcome: float | str | None = None,
    simulated: bool = False,
    recorded: Run | None = None,
) -> None:
    """Display a chart with its caption, its alternative text, and the reader's prediction.

    alt: the finding in words, for readers who cannot see the picture. prediction: if the reader committed a number, a
    line across the chart marks it on the y axis. outcome: the measured answer, in the unit of the prediction, for the
    caption. simulated: the caption calls the outcome simulated. recorded: the run that the outcome comes from; if it is
    a recorded one, the caption says so. Raises ChartError if `alt` is empty.
    """
    if not alt.strip():
        raise ChartError('This chart has no alternative text: say its finding in words, with alt="…".')
    axes = figure.axes[0]
    title: str = getattr(figure, "scalelab_title", "")
    if axes.get_legend() is None and axes.get_legend_handles_labels()[0]:
        axes.legend()
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log" and high / low < FEW_DECADES and isinstance(axis.get_major_locator(), LogLocator):
            axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    if prediction is not None and prediction.number is not None:
        axes.axhline(prediction.number, color=PREDICTION, linewidth=1.6)
    for label in figure.findobj(Text):  # a chapter's own texts are black by default
        if label.get_color() == "black":
            label.set_color(INK)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = _apply_theme(buffer.getvalue(), alt)
    attributes, outcome_html = "", ""
    source = "Simulated" if simulated else "Recorded run" if recorded and recorded.recorded else "Measured"
    if prediction is not None:
        outcome_html = f'<p class="sl-outcome">{prediction.outcome_html(outcome, source)}</p>'
        if prediction.numeric:
            attributes = f" data-prediction-axis='{json.dumps(_axis_geometry(figure, axes))}'"
            attributes += f' data-shows-prediction="{html.escape(prediction.key)}"'
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    page = f'<figure class="sl-figure"{attributes}>{caption}{svg}{outcome_html}</figure>'
    publish(f"[chart] {title}\n{alt}", page, {"kind": "figure", "title": title, "alt": alt})


def _apply_theme(svg: str, alt: str) -> str:
    """Return matplotlib's SVG without its preamble, with CSS colours, page fonts and alternative text."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for placeholder, colour in CSS_COLOURS.items():
        svg = re.sub(placeholder, colour, svg, flags=re.IGNORECASE)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("xlink:href", "href")
    # Matplotlib gives equal shapes equal ids, but ids must be unique on a page with several charts.
    prefix = f"sl{hashlib.sha256(alt.encode()).hexdigest()[:6]}"
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    label = html.escape(alt).replace("\\", r"\\")
    head = rf'<svg viewBox="\1" role="img" aria-label="{label}" stroke-linejoin="round">'
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', head, svg, count=1)
    return re.sub(r"\n\s*", "\n", svg)


def _axis_geometry(figure: Figure, axes: Axes) -> dict[str, float | str]:
    """Return the position of the y axis in the SVG, so that a page can later draw a value into the chart.

    Keys: scale ("linear" or "log"); low, high: the axis limits in data units; y_low, y_high: their positions, and x0,
    x1: the left and right sides of the axes, all in the SVG's own units with y downwards.
    """
    height = figure.get_size_inches()[1] * POINTS_PER_INCH
    box = axes.get_window_extent()
    low, high = axes.get_ylim()
    return {
        "scale": axes.get_yscale(),
        "low": low,
        "high": high,
        "y_low": round(height - box.y0, 1),
        "y_high": round(height - box.y1, 1),
        "x0": round(box.x0, 1),
        "x1": round(box.x1, 1),
    }
