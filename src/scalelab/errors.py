"""The one base class of every error that this package raises on purpose."""


class ScalelabError(Exception):
    """Says what was expected, what came, and what to do next; a command prints it without a traceback."""
