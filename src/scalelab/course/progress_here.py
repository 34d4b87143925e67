"""In a workspace's notebook: show where its exercises stand."""

from __future__ import annotations

import os
from pathlib import Path

from IPython.display import Markdown, display

from scalelab.course import remember
from scalelab.course.find import RECORD
from scalelab.course.standing import Live, standings
from scalelab.course.start_page import in_words
from scalelab.course.stored import stored_notebook
from scalelab.course.updating import released
from scalelab.course.workspace import Workspace
from scalelab.errors import ScalelabError

SESSION = "JPY_SESSION_NAME"
"""Where Jupyter's server tells a kernel which notebook it runs for."""


class NotInAWorkspace(ScalelabError):
    """The kernel runs for no exercises of a workspace."""


def progress() -> None:
    """Show where each exercise of this notebook stands: from the file as last saved, and from what has run since.

    Raises NotInAWorkspace in any other notebook.
    """
    notebook = Path.cwd() / os.environ.get(SESSION, "")
    root = next((folder for folder in notebook.parents if (folder / RECORD).is_file()), None)
    out = None if root is None else stored_notebook(Workspace(root).handed_out / "exercises" / notebook.name)
    if out is None:
        raise NotInAWorkspace(
            "progress() shows where the exercises of the notebook stand that it is called in; this is none of a "
            "workspace. Open one from the start page, or run `scalelab progress` in a terminal."
        )
    live = Live(dict(remember.checks), dict(remember.ran))
    display(Markdown(in_words(standings(stored_notebook(notebook), released(out), live))))  # type: ignore[no-untyped-call]
