"""Panels: re-run an experiment in JupyterLab with other numbers, a progress bar and a stop button.

The published page has no kernel, so there the panel shows the rows of the published run.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from scalelab.claims import number
from scalelab.errors import ScalelabError

Row = Mapping[str, object]
Experiment = Callable[..., AsyncIterator[Row]]


class PanelError(ScalelabError):
    """A panel has no knobs, or a knob's value is outside its range."""


@dataclass(frozen=True)
class Knob:
    """A whole number that the reader may choose: from `low` to `high`, initially `value`."""

    label: str
    low: int
    high: int
    value: int

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise PanelError(f"{self.label}: expected {self.low} <= value <= {self.high}; got {self.value}.")


class Panel:
    """The widget of `panel`. rows: the rows in its table; task: the current or last run, or None."""

    def __init__(self, experiment: Experiment, knobs: Mapping[str, Knob], published: Sequence[Row]) -> None:
        self.experiment, self.published = experiment, list(published)
        self.rows: list[Row] = list(published)
        self.task: asyncio.Task[None] | None = None
        self.sliders = {
            name: widgets.IntSlider(
                value=knob.value,
                min=knob.low,
                max=knob.high,
                description=knob.label,
                style={"description_width": "initial"},
                layout={"width": "95%"},
                continuous_update=False,
            )
            for name, knob in knobs.items()
        }
        self.run_button = widgets.Button(description="Run", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.FloatProgress(value=0, min=0, max=1)
        self.status = widgets.Label("The published run is shown. Choose your numbers and run.")
        self.table = widgets.HTML(_table(self.rows))
        self.run_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())

    def start(self) -> None:
        """Run the experiment with the numbers of the sliders, unless a run is in progress."""
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Cancel the current run; its finished rows stay in the table."""
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        self.run_button.disabled, self.stop_button.disabled = True, False
        self.progress.value, self.rows = 0.0, []
        self.status.value, self.table.value = "Running …", ""
        try:
            values = {name: slider.value for name, slider in self.sliders.items()}
            async for row in self.experiment(self._report, **values):
                self.rows.append(row)
                self.table.value = _table(self.rows)
            self.progress.value = 1.0
            self.status.value = "Done: measured here."
        except asyncio.CancelledError:
            self.status.value = "Stopped. The rows that were finished stay."
        except Exception as error:  # shown to the reader: nothing else handles a callback's errors
            self.status.value = f"The run failed: {type(error).__name__}: {error}"
        finally:
            self.run_button.disabled, self.stop_button.disabled = False, True

    def _report(self, share: float) -> None:
        self.progress.value = share

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        buttons = widgets.HBox([self.run_button, self.stop_button, self.progress, self.status])
        box = widgets.VBox([*self.sliders.values(), buttons, self.table])
        bundle: dict[str, Any] = dict(box._repr_mimebundle_())
        bundle["text/plain"] = "\n".join(
            ", ".join(f"{k}: {_cell(v)}" for k, v in row.items()) for row in self.published
        )
        bundle["text/html"] = (
            f'<div class="sl-panel">{_table(self.published)}'
            "<p>This is the published run. In JupyterLab this place has sliders, and runs the experiment "
            "with your own numbers.</p></div>"
        )
        return bundle, {"scalelab": {"kind": "panel"}}


def panel(experiment: Experiment, knobs: Mapping[str, Knob], *, published: Sequence[Row]) -> Panel:
    """Return a panel that re-runs `experiment`; to display it, end the cell with it.

    experiment: an async generator function, called as `experiment(progress, **numbers)` with one number per knob; it
    calls `progress(share)` from time to time with the finished share, up to 1, and yields each row (a mapping of column
    to value) when it is finished. The stop button cancels it, so it must not suppress a cancellation. published: the
    rows of a run with the knobs' initial values, shown at first and on the published page. Raises PanelError if there
    are no knobs.
    """
    if not knobs:
        raise PanelError("Expected at least one knob: without one there is nothing to choose.")
    return Panel(experiment, knobs, published)


def _cell(value: object) -> str:
    return number(value) if isinstance(value, int | float) else str(value)


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f'<table class="sl-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
