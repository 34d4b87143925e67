"""Find the components on this machine that the course can use, and say how to get the rest."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from scalelab.console import table_lines, terminal_width
from scalelab.cores import cgroup_quota, usable_cores
from scalelab.grading.judging.fork_server import sandbox_missing
from scalelab.grading.judging.judge import NO_SANDBOX
from scalelab.grading.sandbox.container import find_engine
from scalelab.measure import InterpreterError, interpreters, timer_step
from scalelab.measure.compare import duration
from scalelab.servers import KINDS, ServerKind, ServiceError
from scalelab.servers.find import find, how_to_get

OLDEST, NEWEST = (3, 11), (3, 14)
PACKAGES = {
    "jupyter-book": "the book",
    "jupyterlab": "notebooks",
    "nbval": "grading",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ENGINE_FOR = "the dev container, an image for JupyterHub, grading where there is no sandbox"
NOISE_RUNS = 60
NOISE_WORK = 20_000
ENOUGH_MEMORY, ENOUGH_DISK = 2 * 2**30, 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One component of the machine.

    purpose: its use in the course. found: a description or a place; "" if it is missing or does not suffice. version:
    its version, if it has one. get: how to get or mend it. needed: whether the course does not work without it.
    """

    name: str
    purpose: str
    found: str
    version: str = ""
    get: str = ""
    needed: bool = False


def examine() -> list[Finding]:
    """Return a finding for each component, those that the course needs first."""
    needed = [_python(), *_packages(), _memory(), _disk()]

    return [
        *needed,
        _system(),
        _cores(),
        _timer(),
        _noise(),
        *_servers(),
        _free_threaded(),
        _pypy(),
        _browser(),
        _engine(),
    ]


def show(findings: Iterable[Finding], report: Callable[[str], None] = print) -> None:
    """Report a table of the findings, then how to get each missing component."""
    findings = list(findings)
    rows = [("", "component", "", "version", "found", "used for")]
    rows += [
        (_mark(finding), finding.name, _need(finding), finding.version, finding.found or "not found", finding.purpose)
        for finding in findings
    ]
    for line in table_lines(rows, width=terminal_width()):
        report(line)
    lacking = [finding for finding in findings if not finding.found]
    report("")
    for finding in lacking:
        report(f"{finding.name}: {finding.get.rstrip('.')}.")
    needed = [finding.name for finding in lacking if finding.needed]
    if needed:
        report(f"The course does not work without {', '.join(needed)}.")
    elif lacking:
        report("All that the course needs is here. Chapters show a recorded run where they lack the rest.")
    else:
        report("All that the course can use is here.")


def as_json(findings: Iterable[Finding]) -> str:
    """Return the findings as a JSON list of objects with the fields of `Finding`."""
    return json.dumps([asdict(finding) for finding in findings], indent=1)


def all_found(findings: Iterable[Finding]) -> bool:
    """Return whether everything that the course needs was found."""
    return all(finding.found for finding in findings if finding.needed)


def _need(finding: Finding) -> str:
    return "needed" if finding.needed else "optional" if finding.get else ""


def _mark(finding: Finding) -> str:
    return "✓" if finding.found else "✗" if finding.needed else "–"


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
            description, number = "in this environment", version(package)
        except PackageNotFoundError:
            description = number = ""
        get = "install the pinned packages again, as the README says"
        findings.append(Finding(package, purpose, description, number, get, needed=True))
    return findings


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    description = f"{total / 2**30:.1f} GiB" if total >= ENOUGH_MEMORY else ""
    get = f"building takes 2 GiB, and this machine has {total / 2**30:.1f} GiB"
    return Finding("memory", "building the book", description, get=get, needed=True)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    description = f"{free / 2**30:.0f} GiB free here" if free >= ENOUGH_DISK else ""
    return Finding("disk", "what is installed and built", description, get="free 2 GiB on this disk", needed=True)


def _system() -> Finding:
    description = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Finding("system", "what it cannot do is on the page “Run it elsewhere”", description)


def _cores() -> Finding:
    usable = usable_cores()
    description = f"{usable} usable, cgroup quota {cgroup_quota()}" if usable > 1 else ""
    get = "this machine has one core to use; experiments with several processes show their recorded run"
    return Finding("cores", "threads and processes", description, get=get)


def _timer() -> Finding:
    return Finding("timer", "every measurement", f"smallest step {duration(timer_step())}")


def _noise() -> Finding:
    """Time the same work again and again, to show how much equal work differs on this machine now."""
    times = []
    for _ in range(NOISE_RUNS):
        began = time.perf_counter()
        for _ in range(NOISE_WORK):
            pass
        times.append(time.perf_counter() - began)
    times.sort()
    middle, upper, slowest = (duration(times[NOISE_RUNS * part // 20 - 1]) for part in (10, 19, 20))
    description = f"the same work, again and again: median {middle}, 19 of 20 up to {upper}, slowest {slowest}"
    return Finding("noise", "the least difference that a comparison can show", description)


def _servers() -> list[Finding]:
    return [_server(kind) for kind in KINDS.values()]


def _server(kind: ServerKind) -> Finding:
    try:
        server = find(kind)
    except ServiceError as error:
        return Finding(kind.name, kind.purpose, "", get=str(error))
    if server is None:
        return Finding(kind.name, kind.purpose, "", get=how_to_get(kind))
    program = f"{server.program.name} " if server.program else ""
    return Finding(kind.name, kind.purpose, program + server.where, server.version, how_to_get(kind))


def _free_threaded() -> Finding:
    advised, discouraged = interpreters.ADVISED_VERSION, interpreters.DISCOURAGED_VERSION
    get = f"`uv python install {advised}`, or name one in {interpreters.FREE_THREADED_VARIABLE}"
    purpose = "chapter 06: threads without the lock"
    finding = _interpreter("free-threaded Python", purpose, get, interpreters.free_threaded)
    if finding.version.startswith(f"{discouraged.rstrip('t')}."):
        found = f"{finding.found}, discouraged: {discouraged} was an experiment; `uv python install {advised}`"
        finding = replace(finding, found=found)
    return finding


def _pypy() -> Finding:
    get = f"Debian's package pypy3, Homebrew's pypy3, or name one in {interpreters.PYPY_VARIABLE}"
    return _interpreter("PyPy", "hot loops on another interpreter", get, interpreters.pypy)


def _interpreter(name: str, purpose: str, get: str, look: Callable[[], str | None]) -> Finding:
    try:
        path = look()
    except InterpreterError as error:
        return Finding(name, purpose, "", get=str(error).replace(str(Path.home()), "~"))
    return (
        Finding(name, purpose, _at_home(path), interpreters.version_of(path), get)
        if path
        else Finding(name, purpose, "", get=get)
    )


def _at_home(path: str) -> str:
    """Return a path with `~` for the home folder: a report goes to other people, and should not name the user."""
    place, home = Path(path), Path.home()
    return f"~/{place.relative_to(home).as_posix()}" if place.is_relative_to(home) and home != home.parent else path


def _engine() -> Finding:
    engine, note = find_engine()
    if not engine:
        return Finding("container engine", ENGINE_FOR, "", get=note)
    return Finding("container engine", ENGINE_FOR, _at_home(engine), note)


def _browser() -> Finding:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    get = "Debian's chromium, or any Chromium or Chrome on PATH"
    return Finding("browser", "the tests of the site", _at_home(path) if path else "", get=get)


def sandbox_finding() -> Finding:
    """Return the finding on the sandbox, which is tried, and on containers."""
    lacks = "only Linux has what it is made of" if sys.platform != "linux" else sandbox_missing()
    engine, note = find_engine() if lacks else ("", "")
    description = (
        f"in a container of {Path(engine).stem}'s" if engine else "" if lacks else "answers' processes start in one"
    )
    get = f"{lacks.rstrip('.')}. To grade without one, in a machine that holds nothing else: {NO_SANDBOX}"
    return Finding("sandbox", "grading what others wrote", description, get=f"{get}; in a container: {note}")
