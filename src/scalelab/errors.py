"""The base class of all errors that this package raises on purpose."""


class ScalelabError(Exception):
    """Its message says what was expected, what came, and what to do next; a command prints it without a traceback."""
