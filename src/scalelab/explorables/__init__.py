"""Interactive figures that need no kernel: one ES module each, with the same model in Python beside it."""

from ._bundle import BundleError, bundle, names, stylesheet
from ._knobs import KnobError
from ._widget import Explorable, explorable

__all__ = ["BundleError", "Explorable", "KnobError", "bundle", "explorable", "names", "stylesheet"]
