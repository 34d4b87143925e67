"""The code keeps its own rules: style, types, and imports that point one way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from scalelab.course import Course

CHECKS = {
    "style": ("-m", "ruff", "check", "."),
    "format": ("-m", "ruff", "format", "--check", "."),
    "types": ("-m", "mypy"),
    "layers": ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
}


@pytest.mark.parametrize("arguments", CHECKS.values(), ids=CHECKS)
def test_code(course: Course, arguments: Sequence[str]) -> None:
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=course.root, capture_output=True, text=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stdout + run.stderr
