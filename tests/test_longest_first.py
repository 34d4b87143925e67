"""The files that took longest begin, as far as earlier runs have shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = "pytester"

CONFTEST = f"""\
import sys
from pathlib import Path

sys.path.insert(0, {str(Path(__file__).parent)!r})
from longest_first import LongestFirst

def pytest_configure(config):
    config.addinivalue_line("markers", "browser: slow")
    plugin = LongestFirst(Path(__file__).parent / "_build" / "seconds.json", frozenset(["browser"]))
    config.pluginmanager.register(plugin)
"""


def order(pytester: pytest.Pytester, *options: str) -> list[str]:
    """Run the tests; return their names in order."""
    result = pytester.runpytest_inprocess("-v", "-p", "no:cacheprovider", *options)
    return re.findall(r"::(test_\w+) PASSED", "\n".join(result.outlines))


def test_the_longest_files_begin_and_slow_kinds_before_they_have_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    sleep = "import time, pytest\ndef test_{0}_1(): time.sleep({1})\ndef test_{0}_2(): pass\n"
    pytester.makeconftest(CONFTEST)
    texts = {"test_a": sleep.format("a", 0.3), "test_b": sleep.format("b", 0), "test_c": sleep.format("c", 1.5)}
    pytester.makepyfile(**texts)
    by_name = ["test_a_1", "test_a_2", "test_b_1", "test_b_2", "test_c_1", "test_c_2"]
    by_length = [*by_name[4:], *by_name[:4]]
    assert order(pytester) == by_name
    assert order(pytester) == by_length
    assert order(pytester, "-k", "test_c_2") == ["test_c_2"]
    assert order(pytester) == by_length
    pytester.makepyfile(test_d="import pytest\n@pytest.mark.browser\ndef test_d_1(): pass\n")
    assert order(pytester) == ["test_d_1", *by_length]
