"""Interactive figures that need no kernel: one folder each, found by its name.

A folder holds `figure.js`, an ES module that imports `../base.js` and its knobs only and exports `explorable(figure)`;
`knobs.json`, its knobs with their labels and ranges; and `theory.py`: `expected(state)`, what `scalelab.theory` says of
the figure's run, and `describe(state)`, the sentence for a reader without JavaScript. Nothing else names a figure.
"""

from .bundle import BundleError, bundle, names, stylesheet
from .knobs import KnobError
from .widget import Explorable, explorable

__all__ = ["BundleError", "Explorable", "KnobError", "bundle", "explorable", "names", "stylesheet"]
