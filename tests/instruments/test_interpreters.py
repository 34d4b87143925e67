"""Finding a free-threaded interpreter: by its environment variable, by name, through uv; and never a false one."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from scalelab import free_threaded, missing_free_threaded, run_fresh
from scalelab.measure import FreshProcessError, InterpreterError, interpreters

posix = pytest.mark.skipif(os.name == "nt", reason="stand-ins for programs are shell scripts")
HONEST, LIAR, BROKEN = "echo False", "echo True", "exit 3"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH of the test's own, with no interpreter and no uv on it; this interpreter holds the lock."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(interpreters.FREE_THREADED_VARIABLE, raising=False)
    monkeypatch.setattr(interpreters.sysconfig, "get_path", lambda _: str(tmp_path / "scripts"))
    monkeypatch.setattr(sys, "executable", program(tmp_path / "this", LIAR))
    return tmp_path


def program(path: Path, does: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


@posix
def test_none_is_found_where_none_is(path):
    assert free_threaded() is None
    assert missing_free_threaded().startswith("a free-threaded Python (")


@posix
@pytest.mark.parametrize("name", ["python3.15t", "python3.14t", "python3.13t", "python3t"])
def test_one_is_found_by_its_name(path, name):
    wanted = program(path / name, HONEST)
    assert free_threaded() == wanted
    assert missing_free_threaded() == ""


@posix
def test_this_interpreter_is_the_first_choice(path, monkeypatch):
    program(path / "python3.14t", HONEST)
    monkeypatch.setattr(sys, "executable", program(path / "mine", HONEST))
    assert free_threaded() == str(path / "mine")


@posix
@pytest.mark.parametrize("does", [LIAR, BROKEN])
def test_one_that_holds_the_lock_or_fails_is_passed_over(path, does):
    program(path / "python3.14t", does)
    wanted = program(path / "python3.13t", HONEST)
    assert free_threaded() == wanted


@posix
def test_the_newest_is_taken_and_the_discouraged_one_only_where_there_is_no_other(path):
    program(path / "python3.13t", HONEST)
    managed = program(path / "managed", HONEST)
    program(path / "scripts" / "uv", f'case "$@" in *3.14t) echo {managed};; *) exit 2;; esac')
    assert free_threaded() == managed
    program(path / "python3.14t", HONEST)
    newest = program(path / "python3.15t", HONEST)
    assert free_threaded() == newest


@posix
def test_one_that_never_answers_is_passed_over(path, monkeypatch):
    monkeypatch.setattr(interpreters, "TIMEOUT_S", 0.5)
    program(path / "python3.14t", f"exec {shutil.which('sleep', path=os.defpath)} 60")
    assert free_threaded() is None


@posix
def test_a_pypy_is_found_by_its_name_and_asked_whether_it_is_one(path, monkeypatch):
    monkeypatch.delenv(interpreters.PYPY_VARIABLE, raising=False)
    assert interpreters.pypy() is None
    program(path / "pypy3", "echo cpython 3")
    wanted = program(path / "pypy3.11", "echo pypy 3")
    assert interpreters.pypy() == wanted
    monkeypatch.setenv(interpreters.PYPY_VARIABLE, "pypy3")
    with pytest.raises(InterpreterError, match="got 'pypy3': it is not a PyPy"):
        interpreters.pypy()


@posix
def test_uv_is_asked_and_not_allowed_to_download(path):
    wanted = program(path / "managed", HONEST)
    asked = path / "asked"
    program(path / "scripts" / "uv", f'echo "$@" >> {asked}\ncase "$@" in *3.13t) echo {wanted};; *) exit 2;; esac')
    assert free_threaded() == wanted
    calls = asked.read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["3.15t", "3.14t", "3.13t"]
    assert all("--no-python-downloads" in call for call in calls)


@posix
def test_the_one_you_name_comes_first(path, monkeypatch):
    program(path / "python3.14t", HONEST)
    monkeypatch.setenv(interpreters.FREE_THREADED_VARIABLE, program(path / "mine", HONEST))
    assert free_threaded() == str(path / "mine")


@posix
@pytest.mark.parametrize("does", [LIAR, BROKEN])
def test_one_you_name_that_holds_the_lock_is_refused_in_words(path, monkeypatch, does):
    program(path / "python3.14t", HONEST)
    monkeypatch.setenv(interpreters.FREE_THREADED_VARIABLE, program(path / "mine", does))
    with pytest.raises(InterpreterError, match="does not run with the interpreter lock off"):
        free_threaded()
    with pytest.raises(InterpreterError, match="unset SCALELAB_FREETHREADED"):
        missing_free_threaded()


def test_one_you_name_that_is_not_there_is_refused_in_words(monkeypatch):
    monkeypatch.setenv(interpreters.FREE_THREADED_VARIABLE, "/no/such/python")
    with pytest.raises(InterpreterError, match=r"'/no/such/python': there is no such program"):
        free_threaded()


def test_what_is_found_here_runs_without_the_lock():
    found = free_threaded()
    if found is None:
        pytest.skip(f"this machine lacks {missing_free_threaded()}")

    assert run_fresh(lock_is_on, python=found) is False


def test_the_ordinary_interpreter_is_not_taken_for_one():
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this interpreter is free-threaded")
    assert not interpreters._runs_without_lock(sys.executable)


def lock_is_on():
    import sys

    return sys._is_gil_enabled()


def surroundings():
    import os
    import sys

    return [sys.executable, os.environ.get("PYTHONPATH"), sys.flags.ignore_environment]


def test_a_fresh_process_can_run_another_interpreter_apart_from_this_ones_settings(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    executable, _, apart = run_fresh(surroundings, python=sys.executable)
    assert Path(executable) == Path(sys.executable)
    assert apart == 1
    assert run_fresh(surroundings)[2] == 0


def test_an_interpreter_that_is_none_is_told_so():
    with pytest.raises(FreshProcessError, match="expected the path of a Python interpreter"):
        run_fresh(lock_is_on, python="/no/such/python")
