"""An explorable as a notebook shows it: a widget in JupyterLab, and markup that the built page's loader wakes."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from . import _event_loop_model as event_loop
from ._bundle import BundleError, bundle, names, stylesheet
from ._knobs import SEED, Knob, State, settings

PREVIEW_MS = 10_000


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
        return settings(_FIGURES[self.module][0], proposal["value"])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        words = _FIGURES[self.module][1](self.state)
        state = html.escape(json.dumps(self.state, separators=(",", ":")), quote=False)
        page = (
            f'<div class="sl-explorable" data-module="{self.module}" data-state=\'{state}\'>'
            f"<p>{html.escape(words)} Turn on JavaScript to turn the knobs yourself.</p></div>"
        )
        data, metadata = shown
        return {**data, "text/plain": words, "text/html": page}, metadata


def explorable(name: str, *, seed: int = SEED, **state: int | bool) -> Explorable:
    """Return the interactive figure `name`, its knobs where `state` puts them: the same state, the same run.

    `event_loop` has the knobs rate (requests/s), wait (ms), threads and blocking (True or False). The figure's text
    and markup tell a reader without JavaScript what it would show. Raises BundleError for a figure that does not
    exist, and KnobError for a knob that it does not have or a value that the knob does not take.
    """
    if name not in _FIGURES:
        raise BundleError(f"expected the name of an explorable ({', '.join(names())}), came {name!r}")
    return Explorable(name, settings(_FIGURES[name][0], {"seed": seed, **state}))


def _event_loop_words(state: Mapping[str, object]) -> str:
    def p99(blocking: bool) -> list[str]:
        run = event_loop.create_model({**state, "blocking": blocking})
        event_loop.advance(run, PREVIEW_MS)
        seen = event_loop.readout(run)
        sides = (seen["loop"], seen["pool"])
        return [f"{side['p99_ms']:,.0f} ms" if side["p99_ms"] else "no answer yet" for side in sides]

    knobs = settings(event_loop.KNOBS, state)
    threads = f"{knobs['threads']} thread{'' if knobs['threads'] == 1 else 's'}"
    (loop, pool), (blocked_loop, blocked_pool) = p99(False), p99(True)
    return (
        f"{knobs['rate']:,} requests/s arrive and wait {knobs['wait']:,} ms each. After 10 simulated seconds the p99 "
        f"latency of one event loop is {loop}, that of a pool of {threads} {pool}. When one handler in "
        f"{event_loop.BLOCK_ONE_IN} blocks for {event_loop.BLOCK_US // 1000} ms, the loop's is {blocked_loop}, "
        f"the pool's {blocked_pool}."
    )


_FIGURES: dict[str, tuple[tuple[Knob, ...], Callable[[Mapping[str, object]], str]]] = {
    "event_loop": (event_loop.KNOBS, _event_loop_words),
}
