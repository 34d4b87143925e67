"""An explorable as a notebook shows it: a widget in JupyterLab, and markup that the built page's loader wakes."""

from __future__ import annotations

import html
import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import anywidget
import traitlets

from .bundle import bundle, stylesheet
from .knobs import SEED, State, knobs, settings


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
        return settings(knobs(self.module), proposal["value"])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        words = theory_of(self.module).describe(self.state, *([self.given] if self.given else []))
        given = f" data-given='{_attribute(self.given)}'" if self.given else ""
        page = (
            f'<div class="sl-explorable" data-module="{self.module}" data-state=\'{_attribute(self.state)}\'{given}>'
            f"<p>{html.escape(words)} Turn on JavaScript to turn the knobs yourself.</p></div>"
        )
        data, metadata = shown
        return {**data, "text/plain": words, "text/html": page}, metadata


def explorable(name: str, *, seed: int = SEED, **state: Any) -> Explorable:
    """Return the interactive figure `name`, with its knobs at the values in `state`.

    The same seed and state give the same run. The knobs are those of the figure's knobs.json, with their
    units; a knob that chooses also takes the choice's name ("SIEVE"). A figure may take more, such as measured points:
    the function `given` in its theory.py says what. The figure's markup tells a reader without JavaScript what theory
    says.
    Raises BundleError for a figure that does not exist, and KnobError for a knob that it does not have or a value that
    the knob does not take.
    """
    spec = knobs(name)
    check = getattr(theory_of(name), "given", None)  # a figure that takes more than knobs checks it
    takes = inspect.signature(check).parameters if check else {}
    given = check(**{key: state.pop(key) for key in takes if key in state}) if check else {}
    return Explorable(name, settings(spec, {"seed": seed, **state}), given)


def theory_of(name: str) -> ModuleType:
    """Import the theory.py of the explorable `name`, and no other."""
    return import_module(f".{name}.theory", __package__)


def _attribute(value: Mapping[str, object]) -> str:
    """JSON for a single-quoted attribute."""
    return html.escape(json.dumps(value, separators=(",", ":")), quote=False).replace("'", "&#39;")
