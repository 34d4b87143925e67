"""The grader's version and settings, stored in each grade; a grade made with others is judged again."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import scalelab

JUDGES = ("nbval", "ipykernel")
PACKAGE = Path(scalelab.__file__).parent


def made_with(*, timeout: float, sandbox: bool) -> dict[str, str]:
    """Return the versions and settings that decide a grade, besides the answers and the reference.

    `timeout` is an answer's processor time per check, in seconds.
    """
    return {
        "scalelab": scalelab.__version__,
        "python": platform.python_version(),
        "grader": grader_digest()[:16],
        "timeout": f"{timeout:g}",
        "sandbox": "yes" if sandbox else "no",
    }


@cache
def grader_digest() -> str:
    """Return a hash of the code of the grader and the checks, with any line endings, and of the versions of JUDGES."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in JUDGES).encode())
    for folder in (PACKAGE / "grading", PACKAGE / "exercises", PACKAGE / "checks", PACKAGE / "answers"):
        for path in sorted(folder.rglob("*.py")):
            text = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{path.relative_to(folder).as_posix()} {len(text)} ".encode() + text)
    return digest.hexdigest()
