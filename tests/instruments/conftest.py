"""Instruments publish into a notebook: give them IPython's shell, without a kernel."""

import atexit

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


@pytest.fixture(autouse=True, scope="module")
def shell():
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings)
    yield shell
    InteractiveShell.clear_instance()
    # Otherwise the end of the process resets each shell in turn, which takes minutes.
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def no_notebook(monkeypatch):
    """Make the instruments see a plain Python process."""
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: False)
