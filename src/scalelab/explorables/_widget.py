"""An explorable as a notebook shows it: a widget in JupyterLab, and markup that the built page's loader wakes."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anywidget
import traitlets

from . import _cache_model as cache
from . import _event_loop_model as event_loop
from . import _lock_model as lock
from . import _queue_model as queue
from . import _scaling_laws_model as scaling_laws
from ._bundle import BundleError, bundle, names, stylesheet
from ._knobs import SEED, Knob, State, settings


@dataclass(frozen=True)
class _Figure:
    """`describe` says in words what the figure shows at first; `given` checks what it takes besides its knobs."""

    knobs: tuple[Knob, ...]
    describe: Callable[..., str]
    takes: tuple[str, ...] = ()
    given: Callable[..., Mapping[str, object]] = dict


_FIGURES = {
    "cache": _Figure(cache.KNOBS, cache.describe),
    "event_loop": _Figure(event_loop.KNOBS, event_loop.describe),
    "lock": _Figure(lock.KNOBS, lock.describe),
    "queue": _Figure(queue.KNOBS, queue.describe),
    "scaling_laws": _Figure(
        scaling_laws.KNOBS, scaling_laws.describe, takes=scaling_laws.GIVEN, given=scaling_laws.given
    ),
}


class Explorable(anywidget.AnyWidget):
    """An interactive figure; make it with `explorable`. `state` holds its seed and knobs, and follows the reader's.

    `given` holds what it was given besides, such as measured points.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    given = traitlets.Dict().tag(sync=True)

    def __init__(self, module: str, state: Mapping[str, object], given: Mapping[str, object]) -> None:
        self.module = module
        super().__init__(_esm=bundle(module), _css=stylesheet(), state=dict(state), given=dict(given))

    @traitlets.validate("state")
    def _complete(self, proposal: Mapping[str, Any]) -> State:
        return settings(_FIGURES[self.module].knobs, proposal["value"])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        words = _FIGURES[self.module].describe(self.state, *([self.given] if self.given else []))
        given = f" data-given='{_attribute(self.given)}'" if self.given else ""
        page = (
            f'<div class="sl-explorable" data-module="{self.module}" data-state=\'{_attribute(self.state)}\'{given}>'
            f"<p>{html.escape(words)} Turn on JavaScript to turn the knobs yourself.</p></div>"
        )
        data, metadata = shown
        return {**data, "text/plain": words, "text/html": page}, metadata


def explorable(name: str, *, seed: int = SEED, **state: Any) -> Explorable:
    """Return the interactive figure `name`, its knobs where `state` puts them: the same state, the same run.

    `event_loop` has the knobs rate (requests/s), wait (ms), threads and blocking (True or False); `queue` has load (%),
    servers, scv (the service time's squared coefficient of variation) and limit (places in the line; 100 is no limit);
    `cache` has policy (a name, such as "SIEVE"), size (keys), skew (hundredths of Zipf's α) and scan (%);
    `lock` has threads (busy ones), work (ms per turn), interval (the switch interval, µs) and io (%);
    `scaling_laws` has serial and contention (thousandths), coherency (millionths) and workers, and takes besides
    points (pairs of workers and what they did: a number or an Interval), rate and unit (what one worker does; 1 and "×"
    where the points are speed-ups), and prediction (made by `predict`, or its key).
    The figure's text and markup tell a reader without JavaScript what it would show. Raises BundleError for a figure
    that does not exist, and KnobError for a knob that it does not have or a value that the knob does not take.
    """
    if name not in _FIGURES:
        raise BundleError(f"expected the name of an explorable ({', '.join(names())}), came {name!r}")
    figure = _FIGURES[name]
    given = figure.given(**{key: state.pop(key) for key in figure.takes if key in state})
    return Explorable(name, settings(figure.knobs, {"seed": seed, **state}), given)


def _attribute(value: Mapping[str, object]) -> str:
    """JSON for a single-quoted attribute."""
    return html.escape(json.dumps(value, separators=(",", ":")), quote=False).replace("'", "&#39;")
