"""What passed on the same bytes is skipped on request, and nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scalelab.cli.author import SKIP_PROVEN

pytest_plugins = "pytester"

CONFTEST = f"""\
import sys
from pathlib import Path

sys.path.insert(0, {str(Path(__file__).parent)!r})
from proven import Proven

def pytest_configure(config):
    config.pluginmanager.register(Proven(Path(__file__).parents[1]))
"""
TESTS = """\
import pathlib
import pytest
import shared

ROOT = pathlib.Path(__file__).parents[2]

@pytest.fixture
def ends():
    yield
    assert not (ROOT / "teardown-fails").exists()

@pytest.mark.parametrize("name", [
    pytest.param(name, id=name, marks=pytest.mark.proven_by(f"sets/{name}.md", "sets/images")) for name in ("01", "02")
])
def test_set(ends, name):
    assert (ROOT / "sets" / f"{name}.md").read_text() != "wrong"

@pytest.mark.proven_by()
def test_of_code():
    pass

def test_unmarked():
    pass
"""
FILES = {
    "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["proven_by"]\npythonpath = ["tests"]\n',
    "requirements.lock": "one==1\n",
    "src/package/__init__.py": "",
    "src/package/data.json": "{}",
    "tests/conftest.py": CONFTEST,
    "tests/shared.py": "",
    "tests/part/helper.py": "",
    "tests/part/test_it.py": TESTS,
    "tests/other/test_other.py": "",
    "sets/01.md": "a",
    "sets/02.md": "b",
    "sets/images/one.svg": "c",
    "chapters/01.md": "d",
}
ALL = {"set[01]", "set[02]", "of_code", "unmarked"}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Return a function that runs the tests of a project, and returns which were really run and not skipped."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name, text in FILES.items():
        path = pytester.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def ran(*, again: bool = False, workers: bool = False) -> set[str]:
        monkeypatch.setenv(SKIP_PROVEN, "" if again else "1")
        if workers:
            result = pytester.runpytest_subprocess("tests", "-v", "-p", "xdist", "-n2")
        else:
            result = pytester.runpytest_inprocess("tests", "-v", "-p", "no:cacheprovider")
        lines = "\n".join(result.outlines)
        return set(re.findall(r"::test_(\S+) (?:PASSED|FAILED|ERROR)", lines))

    return ran


def test_only_a_marked_test_is_skipped_and_only_on_request(run: Callable[..., set[str]]) -> None:
    assert run() == ALL
    assert run() == {"unmarked"}
    assert run(again=True) == ALL


CHANGES = {
    "sets/01.md": {"set[01]"},
    "sets/images/one.svg": {"set[01]", "set[02]"},
    "sets/images/new.svg": {"set[01]", "set[02]"},
    "chapters/01.md": set(),
    "tests/other/test_other.py": set(),
    "tests/part/test_it.py": ALL,
    "tests/part/helper.py": ALL,
    "tests/shared.py": ALL,
    "src/package/data.json": ALL,
    "src/package/new.py": ALL,
    "requirements.lock": ALL,
    "pyproject.toml": ALL,
}


def test_a_change_to_what_a_test_depends_on_runs_it_again(
    run: Callable[..., set[str]], pytester: pytest.Pytester
) -> None:
    run()
    ran = {}
    for name in CHANGES:
        with (pytester.path / name).open("a", encoding="utf-8") as file:
            file.write("\n")
        ran[name] = run()
    assert ran == {name: again | {"unmarked"} for name, again in CHANGES.items()}


def test_a_failure_proves_nothing(run: Callable[..., set[str]], pytester: pytest.Pytester) -> None:
    text = pytester.path / "sets" / "01.md"
    text.write_text("wrong", encoding="utf-8")
    run()
    assert run() == {"set[01]", "unmarked"}
    text.write_text("right", encoding="utf-8")
    run()
    (pytester.path / "teardown-fails").touch()
    assert run(again=True) == ALL
    (pytester.path / "teardown-fails").unlink()
    assert run() == {"set[01]", "set[02]", "unmarked"}


def test_workers_share_what_they_proved_and_a_broken_record_proves_nothing(
    run: Callable[..., set[str]], pytester: pytest.Pytester
) -> None:
    run(workers=True)
    record = pytester.path / "_build" / "proven.json"
    assert len(json.loads(record.read_text(encoding="utf-8"))) == 3
    assert run() == {"unmarked"}
    record.write_text("[", encoding="utf-8")
    assert run() == ALL
