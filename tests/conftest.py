"""What tests of all parts share: this course, its built site, and a browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, sync_playwright

from longest_first import LongestFirst
from proven import Proven
from scalelab.course import Course, find_course
from support import COMMAND, Served, start, write_small_course

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

# A busy machine takes its time.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell without job control has what it runs in the background ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEEDS = {
    "answers/test_attacks_on_the_protocol.py": ("sandbox",),
    "answers/test_same_words.py": ("sandbox", "kernel"),
    "chapters": ("kernel",),
    "checks/test_help.py": ("kernel",),
    "checks/test_verdict.py": ("kernel",),
    "course/test_build.py": ("kernel",),
    "course/test_check.py": ("kernel",),
    "course/test_exercise_sets.py": ("kernel",),
    "course/test_isolated.py": ("kernel",),
    "course/test_made_up_chapter.py": ("kernel",),
    "course/test_one_chapter.py": ("kernel",),
    "course/test_record.py": ("kernel",),
    "course/test_release.py": ("kernel",),
    "course/test_serve.py": ("lab",),
    "course/test_sync.py": ("kernel",),
    "course/test_watch.py": ("kernel",),
    "explorables/test_cache.py": ("browser",),
    "explorables/test_event_loop.py": ("browser",),
    "explorables/test_explorables_browser.py": ("browser",),
    "explorables/test_explorables_site.py": ("browser",),
    "explorables/test_lock.py": ("browser",),
    "explorables/test_queue.py": ("browser",),
    "explorables/test_scaling_laws.py": ("browser",),
    "grading/test_attacks.py": ("sandbox",),
    "grading/test_class.py": ("sandbox",),
    "grading/test_classes.py": ("sandbox",),
    "grading/test_class_report.py": ("browser",),
    "grading/test_cluster.py": ("sandbox",),
    "grading/test_feedback.py": ("browser",),
    "grading/test_fork_server.py": ("sandbox",),
    "grading/test_grade.py": ("sandbox",),
    "grading/test_hand_in.py": ("kernel",),
    "grading/test_honest.py": ("sandbox",),
    "grading/test_judging.py": ("sandbox",),
    "grading/test_nbgrader.py": ("peer", "sandbox"),
    "grading/test_resume.py": ("sandbox",),
    "grading/test_sandbox.py": ("sandbox",),
    "instruments/test_latency_server.py": ("server",),
    "instruments/test_load.py": ("server",),
    "instruments/test_queueing.py": ("server",),
    "instruments/test_servers.py": ("server",),
    "lab": ("browser", "lab"),
    "site": ("book", "browser"),
    "test_cli.py": ("kernel",),
}
"""The markers of the tests in a folder or a file: what they need besides Python. `make check` runs those without."""
TOLD = "told"


def pytest_configure(config: pytest.Config) -> None:
    root = find_course(Path(__file__).parent).root
    needs = frozenset(marker for markers in NEEDS.values() for marker in markers)
    config.pluginmanager.register(Proven(root))
    config.pluginmanager.register(LongestFirst(root / "_build" / "test-seconds.json", needs))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need."""
    tests = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(tests)
        for key in (path.as_posix(), path.parts[0]):
            for marker in NEEDS.get(key, ()):
                item.add_marker(marker)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a test measured: it is printed after all tests, whichever worker ran it."""
    return lambda text: record_property(TOLD, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests told."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    texts = [text for report in reports for name, text in getattr(report, "user_properties", ()) if name == TOLD]
    if texts:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(dict.fromkeys(map(str, texts))))


@pytest.fixture(scope="session")
def course() -> Course:
    return find_course(Path(__file__).parent)


@pytest.fixture(scope="session")
def built_site(course: Course) -> Path:
    """Build the book from whatever the cache holds, and return the folder of the site."""
    # In a process of its own: a test that waits for a browser has an event loop running in this one.
    command = [*COMMAND, "book", "--course", str(course.root)]
    built = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert built.returncode == 0, f"The book was not built:\n{built.stdout}{built.stderr}"
    return course.html


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium. Without one, skip; where CI is set, fail: there nothing may be left out."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"no browser on this machine: none of {', '.join(BROWSERS)} is on PATH"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI is set; `.ci/run` installs Debian's chromium", pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    # Per module: Playwright's own event loop keeps every other one in this process from running.
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def small_course(tmp_path: Path) -> Course:
    """A course of two chapters with two cells each, which the course's own machinery builds in seconds."""
    return write_small_course(tmp_path / "small course")


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start `scalelab ARGUMENTS`, and return it when it has printed its links; after the test, end it."""
    running: list[Served] = []

    def started(*arguments: str) -> Served:
        running.append(start(*arguments))
        return running[-1]

    yield started
    for served in running:
        if served.process.poll() is None:
            served.stop()
