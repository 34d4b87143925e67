"""An explorable as a notebook shows it: a widget in JupyterLab, and markup that the built page's loader wakes."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import anywidget
import traitlets

from . import _event_loop_model, _queue_model
from ._bundle import BundleError, bundle, names, stylesheet
from ._knobs import SEED, State, settings

# Per figure its model: KNOBS, and describe(state), what it shows at first in words.
_FIGURES: dict[str, ModuleType] = {
    "event_loop": _event_loop_model,
    "queue": _queue_model,
}


class Explorable(anywidget.AnyWidget):
    """An interactive figure; make it with `explorable`. `state` holds its seed and knobs, and follows the reader's."""

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, module: str, state: Mapping[str, object]) -> None:
        self.module = module
        super().__init__(_esm=bundle(module), _css=stylesheet(), state=dict(state))

    @traitlets.validate("state")
    def _complete(self, proposal: Mapping[str, Any]) -> State:
        return settings(_FIGURES[self.module].KNOBS, proposal["value"])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        words = _FIGURES[self.module].describe(self.state)
        state = html.escape(json.dumps(self.state, separators=(",", ":")), quote=False)
        page = (
            f'<div class="sl-explorable" data-module="{self.module}" data-state=\'{state}\'>'
            f"<p>{html.escape(words)} Turn on JavaScript to turn the knobs yourself.</p></div>"
        )
        data, metadata = shown
        return {**data, "text/plain": words, "text/html": page}, metadata


def explorable(name: str, *, seed: int = SEED, **state: int | bool) -> Explorable:
    """Return the interactive figure `name`, its knobs where `state` puts them: the same state, the same run.

    `event_loop` has the knobs rate (requests/s), wait (ms), threads and blocking (True or False); `queue` has load (%),
    servers, scv (the service time's squared coefficient of variation) and limit (places in the line; 100 is no limit).
    The figure's text and markup tell a reader without JavaScript what it would show. Raises BundleError for a figure
    that does not exist, and KnobError for a knob that it does not have or a value that the knob does not take.
    """
    if name not in _FIGURES:
        raise BundleError(f"expected the name of an explorable ({', '.join(names())}), came {name!r}")
    return Explorable(name, settings(_FIGURES[name].KNOBS, {"seed": seed, **state}))
