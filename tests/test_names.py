"""The names that chapters import: written once, in `__init__.pyi`, and imported on first use."""

from __future__ import annotations

import subprocess
import sys

import scalelab


def test_importing_the_package_imports_no_part_of_it() -> None:
    code = "import sys, scalelab; print([name for name in sys.modules if name.startswith('scalelab.')])"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout == "[]\n"


def test_each_public_name_can_be_imported() -> None:
    assert len(scalelab.__all__) > 30
    for name in scalelab.__all__:
        namespace: dict[str, object] = {}
        exec(f"from scalelab import {name}", namespace)
        assert namespace[name] is getattr(scalelab, name)
    assert set(scalelab.__all__) <= set(dir(scalelab))
