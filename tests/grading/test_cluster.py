"""The same batch on a Dask cluster: the same grades, also where a worker is killed half-way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalelab.course import Course
from scalelab.exercises.reference import read_reference
from scalelab.grading import dask_cluster as cluster
from scalelab.grading.batch import Summary, grade
from scalelab.grading.dask_cluster import ClusterFailed
from scalelab.grading.grader_version import made_with
from scalelab.grading.judging.fork_server import sandbox_missing
from scalelab.grading.judging.nbval_run import Stopped
from scalelab.grading.judging.results import PASSED, CheckResult, Result
from scalelab.grading.submissions.layouts import BadInput
from scalelab.notebooks.format import written
from tiny import FOLDER, cell, keep_exercises, load, quiet_sync, reference_path, save, student_path, tiny_course

ADD = "def add(a, b):\n    return a + b"
WRONG = {"s2": "def add(a, b):\n    return a - b", "s4": " "}
STUDENTS = tuple(f"s{number}" for number in range(6))
START_S = 120


@dataclass
class Cluster:
    """A scheduler and workers of one thread each, as processes on this machine."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"log-{len(self.processes)}").open("wb")
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments, "--no-dashboard"]
        with log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        return process

    def begin(self) -> None:
        place = self.folder / "scheduler.json"
        self.start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place))
        deadline = time.monotonic() + START_S
        while not self.address:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            if place.exists() and (text := place.read_text(encoding="utf-8")).endswith("}"):
                self.address = json.loads(text)["address"]

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self.start("dask_worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")

    def end(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


@dataclass
class Class:
    """A class's submissions, graded into folders of one name each."""

    course: Course
    root: Path

    def grade(self, out: str, **settings: Any) -> Summary:
        settings = {"sandbox": not sandbox_missing(), "timeout": 10.0, "report": lambda line: None} | settings
        return grade(self.root / "submissions", self.root / out, course=self.course, **settings)

    def grades(self, out: str) -> dict[str, Any]:
        def timeless(data: Any) -> Any:
            if isinstance(data, list):
                return [timeless(one) for one in data]
            return (
                {key: timeless(one) for key, one in data.items() if key != "seconds"}
                if isinstance(data, dict)
                else data
            )

        found = {path.name: timeless(load(path)) for path in (self.root / out / "01_tiny").glob("*.json")}
        return found | {"csv": (self.root / out / "grades.csv").read_text(encoding="utf-8")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Class:
    root = tmp_path_factory.mktemp("class")
    course = tiny_course(root / "course")
    keep_exercises(course, ["add"])
    quiet_sync(course)
    for student in STUDENTS:
        notebook = load(student_path(course))
        cell(notebook, "add")["source"] = WRONG.get(student, f"# {student}\n{ADD}")
        save(root / "submissions" / f"{student}.ipynb", notebook)
    return Class(course, root)


def judging() -> list[psutil.Process]:
    """Return the processes that judge for workers, of this machine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "scalelab.grading.dask_worker" in (process.info["cmdline"] or []):
            found.append(process)
    return found


def test_a_killed_worker_costs_no_grade(one: Class, local_cluster: Cluster) -> None:
    victim, other = local_cluster.add_worker(), local_cluster.add_worker()
    said: list[str] = []
    before = {process.pid for process in judging()}

    def report(line: str) -> None:
        said.append(line)
        if line.startswith("01_tiny: the "):
            # Both are there before the first submission goes out.
            deadline = time.monotonic() + START_S
            while workers(local_cluster.address) < 2:
                assert time.monotonic() < deadline
        if line.startswith("[2/6]"):
            victim.kill()

    summary = one.grade("on-cluster", dask=local_cluster.address, report=report)
    assert [len(summary.grades), len(summary.refused)] == [6, 0]
    assert victim.wait() != 0
    assert other.poll() is None
    one.grade("here", jobs=2)
    assert one.grades("on-cluster") == one.grades("here")
    assert sorted(grade.total for grade in summary.grades) == [0, 0, 3, 3, 3, 3]

    local_cluster.end()
    left = [process for process in judging() if process.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=START_S)
    assert not alive, "who judged for a worker ends with it"


def workers(address: str) -> int:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.scheduler_info()["workers"])


def at_once() -> Callable[[str], str]:
    """Return what passes every answer, in a worker that starts no process."""
    passed = Result(PASSED, visible=CheckResult(passed=True), hidden=CheckResult(passed=True)).as_data()

    def judge_here(task: str) -> str:
        return json.dumps(
            [(number, dict.fromkeys(answers, passed)) for number, answers in enumerate(json.loads(task)["submissions"])]
        )

    return judge_here


def test_an_interrupted_batch_goes_on_from_the_cluster(
    one: Class, local_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "judge_here", at_once())
    local_cluster.add_worker()

    def report(line: str) -> None:
        if line.startswith("[2/6]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.grade("interrupted", dask=local_cluster.address, report=report)
    assert len(list((one.root / "interrupted" / "01_tiny").glob("*.json"))) == 2
    said: list[str] = []
    summary = one.grade("interrupted", dask=local_cluster.address, report=said.append)
    assert summary.before == 2
    assert len(summary.grades) == 6
    assert said[0] == "2 of 6 submissions graded before, 4 to go."


def test_without_a_scheduler_or_workers_nothing_is_graded(
    one: Class, local_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    monkeypatch.setattr(cluster, "WORKERS_S", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"No Dask scheduler answers at {nobody}"):
            one.grade("none", dask=nobody)
    with pytest.raises(BadInput, match="No Dask scheduler answers at what://is this"):
        one.grade("none", dask="what://is this")
    with pytest.raises(BadInput, match="has no workers; start some with `dask worker "):
        one.grade("none", dask=local_cluster.address)


def test_a_cluster_that_loses_its_workers_is_named(
    one: Class, local_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LOST_S", 3)
    monkeypatch.setattr(cluster, "judge_here", at_once())
    worker = local_cluster.add_worker()

    def report(line: str) -> None:
        if line.startswith("01_tiny: the "):
            worker.kill()

    with pytest.raises(ClusterFailed, match="has had no worker for 3 s"):
        one.grade("lost", dask=local_cluster.address, report=report)
    assert not list((one.root / "lost").rglob("*.json"))


def test_workers_with_another_grader_are_refused(
    one: Class, local_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_cluster.add_worker()
    monkeypatch.setattr(cluster, "made_with", lambda **settings: made_with(**settings) | {"grader": "another"})
    with pytest.raises(BadInput, match=r"The worker tcp://\S+ has grader \w{16} \(this machine has another\); install"):
        one.grade("none", dask=local_cluster.address)


def task(**parts: Any) -> dict[str, Any]:
    reference = read_reference(FOLDER / "golden" / "reference.ipynb")
    given = {"reference": written(reference.notebook), "submissions": [{}], "timeout": 5.0, "sandbox": False}
    return given | {"made_with": cluster._identity()} | parts


def test_a_worker_that_came_later_is_asked_too() -> None:
    with pytest.raises(ClusterFailed, match="A worker has scalelab 0"):
        cluster.judge_here(json.dumps(task(made_with={"scalelab": "99", "python": "3", "grader": "x"})))


def test_the_identity_leaves_out_what_each_batch_chooses() -> None:
    both = made_with(timeout=1, sandbox=False)
    assert cluster._identity() == {name: both[name] for name in ("scalelab", "python", "grader")}


def test_the_hand_of_a_worker_answers_line_by_line_and_ends_with_its_input() -> None:
    lines = ["{", json.dumps(task()), json.dumps(task(reference="{}"))]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "scalelab.grading.dask_worker"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert first["fatal"] is False
    assert first["error"].startswith("JSONDecodeError")
    assert second == {"results": [[0, {}]]}
    assert third["fatal"] is True
    assert "is not a reference" in third["error"]


def test_a_hand_that_ends_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Hand] = []
    answers = iter(["", "{}\n", "", ""])

    class Hand:
        def __init__(self) -> None:
            made.append(self)
            self.closed = False

        def judge(self, task: str) -> str:
            return next(answers)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(cluster, "_JudgeProcess", Hand)
    monkeypatch.setattr(cluster, "_idle", [])
    assert cluster._judge_in_process("task") == "{}\n"
    assert [hand.closed for hand in made] == [True, False]
    with pytest.raises(RuntimeError, match="ended twice"):
        cluster._judge_in_process("task")
    assert all(hand.closed for hand in made)


def test_waiting_ends_when_it_is_told_to() -> None:
    class Never:
        def add_done_callback(self, call: object) -> None: ...

    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        cluster._wait(None, Never(), stop)


def test_a_task_is_judged_as_here(one: Class) -> None:
    reference = read_reference(reference_path(one.course))
    given = {"reference": written(reference.notebook), "submissions": [{"add": ADD}], "sandbox": not sandbox_missing()}
    try:
        ((number, found),) = json.loads(cluster.judge_here(json.dumps(task(**given))))
    finally:
        while cluster._idle:
            cluster._idle.pop().close()
    assert (number, found["add"]["state"]) == (0, PASSED)
