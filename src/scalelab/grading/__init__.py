"""Grade submissions: their answers go into the executed references, and nbval judges them.

`submissions` finds and reads them, `answers` finds their answers, `merge` reads references, `judging` lets nbval judge,
`report` says what a grade is, `keeper` keeps the grades, and `batch` does all this for a whole class.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalelab.grading.batch import Summary, grade
    from scalelab.grading.merge import BadReference
    from scalelab.grading.report import Grade, QuestionGrade
    from scalelab.grading.submissions import BadInput, Refused

__all__ = ["BadInput", "BadReference", "Grade", "QuestionGrade", "Refused", "Summary", "grade"]


_HOMES = {
    "batch": ("Summary", "grade"),
    "merge": ("BadReference",),
    "report": ("Grade", "QuestionGrade"),
    "submissions": ("BadInput", "Refused"),
}


def __getattr__(name: str) -> Any:
    """Import a name on first use: every pytest that judges loads `plugin`, which must not import the rest."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
