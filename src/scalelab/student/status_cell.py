"""Show a student's progress in an exercise notebook of a workspace."""

from __future__ import annotations

import os
from pathlib import Path

from IPython.display import Markdown, display

from scalelab.course import RECORD
from scalelab.errors import ScalelabError
from scalelab.notebooks.files import stored_notebook
from scalelab.student import run_tracker as remember
from scalelab.student.merge import released
from scalelab.student.start_page import progress_markdown
from scalelab.student.status import Live, statuses
from scalelab.student.workspace import Workspace

SESSION = "JPY_SESSION_NAME"
"""The environment variable in which Jupyter's server tells a kernel its notebook."""


class NotInAWorkspace(ScalelabError):
    """The kernel does not run an exercise notebook of a workspace."""


def progress() -> None:
    """Show the state of each exercise of this notebook: from the file as last saved, and from the cells run since.

    Raises NotInAWorkspace in any other notebook.
    """
    notebook = Path.cwd() / os.environ.get(SESSION, "")
    root = next((folder for folder in notebook.parents if (folder / RECORD).is_file()), None)
    out = None if root is None else stored_notebook(Workspace(root).handed_out / "exercises" / notebook.name)
    if out is None:
        raise NotInAWorkspace(
            "progress() shows your progress in an exercise notebook of a workspace; this notebook is not one. "
            "Open one from the start page, or run `scalelab progress` in a terminal."
        )
    live = Live(dict(remember.checks), dict(remember.ran))
    display(Markdown(progress_markdown(statuses(stored_notebook(notebook), released(out), live))))  # type: ignore[no-untyped-call]
