"""What this machine has of all that the course can use, and how to get the rest."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from scalelab.measure import timer_step, usable_cores
from scalelab.measure.compare import duration
from scalelab.measure.machine import cgroup_quota
from scalelab.services import external
from scalelab.services.stores import COMPONENTS

OLDEST, NEWEST = (3, 11), (3, 13)
PACKAGES = {
    "jupyter-book": "the book",
    "jupyterlab": "notebooks",
    "nbval": "grading",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ENOUGH_MEMORY, ENOUGH_DISK = 2 * 2**30, 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One component of the machine.

    purpose: what it is used for. found: what was found, or where; "" for nothing. version: of what was found, where it
    has one. get: how to get or mend it. needed: whether the course does not work without it.
    """

    name: str
    purpose: str
    found: str
    version: str = ""
    get: str = ""
    needed: bool = False


def examine() -> list[Finding]:
    """Return what was found of each component, those that the course needs first."""
    return [_python(), *_packages(), _memory(), _disk(), _cores(), _timer(), *_servers(), _browser()]


def show(findings: Iterable[Finding], report: Callable[[str], None] = print) -> None:
    """Report a table of the findings, then how to get what was not found."""
    findings = list(findings)
    rows = [(_mark(one), one.name, one.version, one.found or "not found", one.purpose) for one in findings]
    head = ("", "component", "version", "found", "used for")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        report("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    lacking = [one for one in findings if not one.found]
    report("")
    for one in lacking:
        report(f"{one.name}: {one.get}.")
    needed = [one.name for one in lacking if one.needed]
    if needed:
        report(f"The course does not work without {', '.join(needed)}.")
    elif lacking:
        report("All that the course needs is here. Chapters show a recorded run where they lack the rest.")
    else:
        report("All that the course can use is here.")


def as_json(findings: Iterable[Finding]) -> str:
    """Return the findings as a JSON list of objects with the fields of `Finding`."""
    return json.dumps([asdict(one) for one in findings], indent=1)


def well(findings: Iterable[Finding]) -> bool:
    """Return whether nothing is lacking that the course needs."""
    return all(one.found for one in findings if one.needed)


def _mark(one: Finding) -> str:
    return "✓" if one.found else "✗" if one.needed else "–"


def _python() -> Finding:
    fits = OLDEST <= sys.version_info[:2] <= NEWEST
    gil = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
    return Finding(
        "Python",
        "everything",
        found=f"{platform.python_implementation()}, GIL {gil}" if fits else "",
        version=platform.python_version(),
        get=f"make the environment with Python {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}",
        needed=True,
    )


def _packages() -> list[Finding]:
    findings = []
    for package, purpose in PACKAGES.items():
        try:
            found, number = "in this environment", version(package)
        except PackageNotFoundError:
            found = number = ""
        get = "install the pinned packages again, as the README says"
        findings.append(Finding(package, purpose, found, number, get, needed=True))
    return findings


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    found = f"{total / 2**30:.1f} GiB" if total >= ENOUGH_MEMORY else ""
    get = f"building takes 2 GiB, and this machine has {total / 2**30:.1f} GiB"
    return Finding("memory", "building the book", found, get=get, needed=True)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    found = f"{free / 2**30:.0f} GiB free here" if free >= ENOUGH_DISK else ""
    return Finding("disk", "what is installed and built", found, get="free 2 GiB on this disk", needed=True)


def _cores() -> Finding:
    usable = usable_cores()
    found = f"{usable} usable, cgroup quota {cgroup_quota()}" if usable > 1 else ""
    get = "this machine has one core to use; experiments with several processes show their recorded run"
    return Finding("cores", "threads and processes", found, get=get)


def _timer() -> Finding:
    return Finding("timer", "every measurement", f"smallest step {duration(timer_step())}")


def _servers() -> list[Finding]:
    findings = []
    for component in COMPONENTS.values():
        found = external.find(component)
        program = f"{found.program.name} " if found is not None and found.program is not None else ""
        where = "" if found is None else f"{program}{found.where}"
        number = "" if found is None else found.version
        findings.append(Finding(component.name, component.purpose, where, number, component.get))
    return findings


def _browser() -> Finding:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    get = "Debian's chromium, or any Chromium or Chrome on PATH"
    return Finding("browser", "the tests of the site", found or "", get=get)
