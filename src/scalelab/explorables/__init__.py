"""Interactive figures that need no kernel: one ES module each, with the same model in Python beside it.

A new figure is a module `NAME.js` that imports from `./base.js` only and hands its `figure` to `mount`, a Python model
`_NAME_model.py` with its `KNOBS` and `describe`, a line in `_widget._FIGURES`, and vectors that both models are tested
with.
"""

from ._bundle import BundleError, bundle, names, stylesheet
from ._knobs import KnobError
from ._widget import Explorable, explorable

__all__ = ["BundleError", "Explorable", "KnobError", "bundle", "explorable", "names", "stylesheet"]
