"""Grade one class with nbgrader, with nbval alone and with this grader, in turn, and print what each took.

All three get the same answers, and the points that they give are compared before any time is believed. What is timed
is one command each, from its start to its end:

- nbgrader: `nbgrader autograde SET` in the environment of `make nbgrader`, on the assignment that it released itself;
- nbval: one pytest with `--nbval-lax` over one notebook per student: our executed reference with the answers in it;
- scalelab: `scalelab grade`, sandbox and all, as an instructor runs it.

What each of our answers costs without nbval is measured as well: its messages, and the processor time of its checks
and of its own process, for the reference's answers. `--scale` grades larger and larger classes with ours alone, and
follows time and memory; `--endless` one in which one student in ten hands in an endless answer; `--class` one over all
sets, and compares every answer's grade with what it was made for. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from classes import ENDLESS, HONEST, RIGHT, Paper, hand_in, hand_in_course, not_as_made
from peers import Nbgrader, Nbval, Points, nbgrader_command

from scalelab.course import Course, find_course
from scalelab.exercises.reference import read_reference
from scalelab.exercises.source import ExerciseSet, read_set, sources
from scalelab.grading.grades import from_json
from scalelab.grading.judging import fork_server, trusted
from scalelab.grading.judging.assemble import assembled, checks_of
from scalelab.measure.machine import machine_card
from scalelab.notebooks.format import text_of

MIB = 2**20
SAMPLE_S = 0.5
MAX_CPU_S = 10.0
"""The processor time that answers of a whole class have for a check."""


@dataclass(frozen=True)
class Job:
    """A class to grade: where its submissions are, by whom, and a folder for what a grader writes.

    `timeout` is in seconds per cell; for ours, in seconds of processor time per check.
    """

    course: Course
    submissions: Path
    papers: Sequence[Paper]
    work: Path
    timeout: float
    options: Sequence[str]


@dataclass(frozen=True)
class OneSet(Job):
    """A class that hands in one exercise set."""

    exercises: ExerciseSet


@dataclass(frozen=True)
class Cost:
    """What a submission costs: seconds and seconds of processor time, by grader."""

    wall: Mapping[str, float]
    cpu: Mapping[str, float]


@dataclass(frozen=True)
class Profile:
    """What the answers of a reference cost without nbval: messages, and processor time of checks and answers."""

    messages: int
    checks_s: float
    answers_s: float


@dataclass(frozen=True)
class Watched:
    """A run of ours: its time, the memory of its processes together (time, MiB), and when each result came."""

    seconds: float
    cpu: float
    memory: list[tuple[float, float]]
    results: list[float]

    @property
    def longest_wait(self) -> float:
        return max(after - before for before, after in pairwise(self.results))

    def peak(self, begin: float = 0.0, end: float = 1.0) -> float:
        """Return the largest memory between two shares of the run, in MiB."""
        return max((size for at, size in self.memory if begin <= at / self.seconds <= end), default=0.0)


def main() -> int:
    """Run what the options ask for; the status is 1 if graders disagree, or an answer is not graded as it was made."""
    options = _parser().parse_args()
    course = find_course(options.course)
    slugs = [path.stem for path in sources(course)] if options.sets == ["all"] else options.sets
    print(machine_card("nbval", "pytest", "ipykernel", "jupyter-client")._repr_mimebundle_()[0]["text/plain"])
    agree = True
    with TemporaryDirectory(prefix="bench-grading-") as name, _cpu_meter() as cpu_seconds:
        root = Path(name)

        def job(slug: str, label: str, students: int, *, timeout: float = 0.0, endless: float = 0.0) -> OneSet:
            exercises = read_set(course.solutions / f"{slug}.md")
            shares = HONEST if options.right is None else _shares(options.right)
            folder = root / f"{slug}-{label}"
            submissions = folder / "submissions"
            papers = hand_in(exercises, submissions, students, seed=options.seed, shares=shares, endless=endless)
            return OneSet(course, submissions, papers, folder, timeout or options.timeout, options.ours, exercises)

        if options.rounds:
            costs = {}
            for slug in slugs:
                same, costs[slug] = _side_by_side(
                    job(slug, "class", options.students), options.only, options.rounds, cpu_seconds
                )
                agree &= same
            _table(costs, {slug: _profile(course, slug) for slug in slugs})
        for slug in slugs:
            if options.endless:
                endless = job(slug, "endless", options.students, timeout=5.0, endless=0.1)
                _endless(job(slug, "honest", options.students, timeout=5.0), endless, cpu_seconds)
            for students in options.scale:
                _scale(job(slug, f"scale-{students}", students), cpu_seconds)
        if options.whole:
            agree &= _whole_class(course, root / "whole", options, cpu_seconds)
    return 0 if agree else 1


def _side_by_side(job: OneSet, only: Sequence[str], rounds: int, cpu_seconds: Callable[[], float]) -> tuple[bool, Cost]:
    """Grade a class with each grader; return whether their points are equal, and the medians per submission."""
    print(f"\n{_about(job)}; load before: {os.getloadavg()[0]:.1f}")
    graders = {name: prepare(job) for name, prepare in PREPARE.items() if name in only}
    seconds: dict[str, list[float]] = {name: [] for name in graders}
    cpu: dict[str, list[float]] = {name: [] for name in graders}
    points: dict[str, Points] = {}
    agree = True
    for number in range(rounds):
        # Each round begins with another one: what a machine does over time is shared by all.
        for name in [*list(graders)[number % len(graders) :], *list(graders)[: number % len(graders)]]:
            began, spent = time.perf_counter(), cpu_seconds()
            read = graders[name](number)
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(cpu_seconds() - spent)
            points[name] = read()
            print(
                f"round {number + 1}: {name} {seconds[name][-1]:.1f} s, of CPU {cpu[name][-1]:.1f} s, "
                f"load after: {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            agree &= _agree(points)
    return agree, Cost(
        *({name: statistics.median(all_) / len(job.papers) for name, all_ in one.items()} for one in (seconds, cpu))
    )


def _about(job: OneSet) -> str:
    answers = [answer.kind for paper in job.papers for answer in paper.answers.values()]
    kinds = ", ".join(f"{answers.count(kind)} {kind}" for kind in dict.fromkeys(answers))
    whole = sum(all(answer.kind == RIGHT for answer in paper.answers.values()) for paper in job.papers)
    return f"{len(job.papers)} submissions of {job.exercises.slug}: {whole} all right; {len(answers)} answers: {kinds}"


def _agree(points: Mapping[str, Points]) -> bool:
    """Say which questions two graders give different points; none is what makes their times comparable."""
    (first, expected), *others = points.items()
    different = [
        f"{student} {exercise}: {first} {mine:g}, {name} {theirs.get(student, {}).get(exercise)}"
        for name, theirs in others
        for student, questions in expected.items()
        for exercise, mine in questions.items()
        if theirs.get(student, {}).get(exercise) != mine
    ]
    for line in different:
        print(f"different points: {line}")
    return not different


def _table(costs: Mapping[str, Cost], profiles: Mapping[str, Profile]) -> None:
    """Print a line for each set. CPU time (nan if it cannot be measured) is what a busy machine changes least."""
    names = list(PREPARE)
    head = "".join(f"{name:>9}" for name in names) + f"{'ratio':>7}"
    print(
        f"\nper submission  {'seconds':>{len(head)}}  {'seconds of CPU':>{len(head)}}    reference's answers, no nbval"
    )
    print(f"set             {head}  {head}    messages  checks  answers")
    for slug, cost in costs.items():
        both = "  ".join(
            "".join(f"{one[name]:9.2f}" if name in one else f"{'':9}" for name in names)
            + (f"{one['nbgrader'] / one['scalelab']:7.1f}" if {"nbgrader", "scalelab"} <= one.keys() else f"{'':7}")
            for one in (cost.wall, cost.cpu)
        )
        own = profiles[slug]
        print(f"{slug:16}{both}    {own.messages:8}  {own.checks_s:6.2f}  {own.answers_s:7.2f}")


def _profile(course: Course, slug: str) -> Profile:
    """Run the checks of a reference on its own answers in this process, the answers in theirs, as the kernel does."""
    reference = read_reference(course.solutions / f"{slug}.ipynb")
    cells = assembled(reference, checks_of(reference, {one.exercise: one.solution for one in reference.questions}))
    set_up, *checks = [text_of(cell["source"]) for cell in cells["cells"]]
    namespace: dict[str, object] = {"__name__": "__main__"}
    setups = {slug: [text_of(cell["source"]) for cell in reference.setup]}
    messages, checks_s = 0, 0.0
    with fork_server.fork_server(setups, boxed=not fork_server.sandbox_missing()) as environment:
        os.environ |= environment
        exec(set_up, namespace)
        for check in checks:
            began = time.process_time()
            with redirect_stdout(io.StringIO()):
                exec(check, namespace)
            checks_s += time.process_time() - began
            answer = trusted._notebook.answer
            assert answer is not None
            messages += answer.channel.frames_sent + answer.channel.frames_received
            answer.close()
        answers_s = sum(sum(psutil.Process(box.pid).cpu_times()[:4]) for box in trusted._notebook.boxes.values())
        del os.environ[fork_server.ADDRESS]
    return Profile(messages, checks_s, answers_s)


@contextmanager
def _cpu_meter() -> Iterator[Callable[[], float]]:
    """Yield what returns the CPU time of all that this process has started, from a control group of its own.

    What `os.times` says of ended processes lacks those that nobody has waited for, as when Linux ends a sandbox.
    """
    own = next((folder for folder in _cpu_groups() if (folder / "cgroup.procs").exists()), None)
    if own is None:
        yield lambda: math.nan
        return
    group = own / f"bench-grading-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text("0", encoding="ascii")
    except OSError:
        yield lambda: math.nan
        return

    def seconds() -> float:
        if (usage := group / "cpuacct.usage").exists():
            return int(usage.read_text(encoding="ascii")) / 1e9
        return int((group / "cpu.stat").read_text(encoding="ascii").split()[1]) / 1e6

    try:
        yield seconds
    finally:
        (own / "cgroup.procs").write_text("0", encoding="ascii")
        with suppress(OSError):
            group.rmdir()


def _cpu_groups() -> Iterator[Path]:
    """Yield the control groups of this process that count CPU time, of version 1 and of version 2."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpuacct" in controllers.split(","):
                yield Path("/sys/fs/cgroup", controllers) / path.lstrip("/")
            elif not controllers:
                yield Path("/sys/fs/cgroup") / path.lstrip("/")


def _nbgrader(job: OneSet) -> Callable[[int], Callable[[], Points]]:
    """Import the set into nbgrader as an instructor does, and hand in the class."""
    command = nbgrader_command(job.course)
    if not command.exists():
        raise SystemExit(f"{command} is not there; run `make nbgrader`, or leave it out: --only nbval,scalelab")
    nbgrader = Nbgrader(job.course, job.exercises, job.work / "nbgrader")
    nbgrader.collect(job.submissions)

    def grade(_: int) -> Callable[[], Points]:
        nbgrader.autograde(job.timeout)
        return nbgrader.points

    return grade


def _nbval(job: OneSet) -> Callable[[int], Callable[[], Points]]:
    nbval = Nbval(job.course, job.exercises, job.papers, job.work / "nbval")

    def grade(_: int) -> Callable[[], Points]:
        nbval.grade(job.timeout)
        return nbval.points

    return grade


def _scalelab(job: OneSet) -> Callable[[int], Callable[[], Points]]:
    def grade(number: int) -> Callable[[], Points]:
        out = job.work / f"grades-{number}"
        subprocess.run(_ours(job, out), cwd=job.work, stdout=subprocess.DEVNULL, check=True)
        return lambda: _our_points(out, job)

    return grade


PREPARE = {"nbgrader": _nbgrader, "nbval": _nbval, "scalelab": _scalelab}


def _ours(job: Job, out: Path) -> list[str]:
    grade = [*(sys.executable, "-m", "scalelab.cli", "grade", str(job.submissions), "--out", str(out)), *job.options]
    return [*grade, "--course", str(job.course.root), "--timeout", f"{job.timeout:g}"]


def _our_points(out: Path, job: OneSet) -> Points:
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["student"]: {one.id: float(row[one.id] or 0) for one in job.exercises.exercises} for row in rows}


def _endless(honest: OneSet, endless: OneSet, cpu_seconds: Callable[[], float]) -> None:
    """Compare a class with its like in which one student in ten hands in an endless answer."""
    print(f"\nEndless answers, with {endless.timeout:g} s of processor time for a check")
    runs = {}
    for job in (honest, endless):
        watched = _watch(job, cpu_seconds)
        own = _seconds_of(job)
        busy = sum(own.values()) / watched.seconds
        print(
            f"{_about(job)}: {watched.seconds:.1f} s; workers busy on average: {busy:.2f}; "
            f"longest wait for the next result: {watched.longest_wait:.1f} s"
        )
        runs[job.submissions] = own
    own, like = runs[endless.submissions], runs[honest.submissions]
    spoiled = [paper.student for paper in endless.papers if ENDLESS in {one.kind for one in paper.answers.values()}]
    costs = [own[student] - like[student] for student in spoiled]
    others = [own[student] - like[student] for student in own if student not in spoiled]
    print(
        f"an endless answer costs {statistics.median(costs):.1f} s (at most {max(costs):.1f} s); "
        f"the other submissions cost {statistics.median(others):+.2f} s beside them"
    )


def _scale(job: OneSet, cpu_seconds: Callable[[], float]) -> None:
    watched = _watch(job, cpu_seconds)
    students = len(job.papers)
    first, last = watched.peak(0.0, 0.25), watched.peak(0.75, 1.0)
    print(
        f"{students} submissions: {watched.seconds:.1f} s, {watched.seconds / students:.3f} s each, "
        f"{60 * students / watched.seconds:.1f} a minute; CPU {watched.cpu / students:.3f} s each; "
        f"memory at most {watched.peak():.0f} MiB ({first:.0f} in the first quarter, {last:.0f} in the last); "
        f"load after: {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _whole_class(course: Course, folder: Path, options: argparse.Namespace, cpu_seconds: Callable[[], float]) -> bool:
    """Grade a class over all sets, one answer of each set endless; say which answers were not graded as made."""
    sets = len(sources(course))
    students = options.whole // sets
    made = hand_in_course(course, folder / "submissions", students, seed=options.seed, endless=1 / students)
    papers = [paper for of_set in made.values() for paper in of_set]
    job = Job(course, folder / "submissions", papers, folder, min(options.timeout, MAX_CPU_S), options.ours)
    print(f"\n{len(papers)} submissions: {students} students, {sets} sets; load before: {os.getloadavg()[0]:.1f}")
    watched = _watch(job, cpu_seconds)
    faults = []
    for slug, of_set in made.items():
        files = (folder / "grades" / slug).glob("*.json")
        faults += not_as_made(of_set, [from_json(json.loads(path.read_bytes())) for path in files])
    answers = sum(len(paper.answers) for paper in papers)
    print("\n".join(faults))
    print(
        f"{answers - len(faults)} of {answers} answers graded as they were made\n{watched.seconds:.0f} s, "
        f"{watched.seconds / len(papers):.2f} s each; CPU {watched.cpu:.0f} s, {watched.cpu / len(papers):.2f} s each; "
        f"memory at most {watched.peak():.0f} MiB; load after: {os.getloadavg()[0]:.1f}"
    )
    return not faults


def _seconds_of(job: OneSet) -> dict[str, float]:
    """Return how long each submission was judged."""
    files = (job.work / "grades" / job.exercises.slug).glob("*.json")
    return {grade["student"]: grade["seconds"] for grade in (json.loads(path.read_bytes()) for path in files)}


def _watch(job: Job, cpu_seconds: Callable[[], float]) -> Watched:
    """Grade the class with ours, and sample the memory of all its processes meanwhile."""
    began, spent = time.perf_counter(), cpu_seconds()
    command = _ours(job, job.work / "grades")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=job.work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        over = threading.Event()
        memory: list[tuple[float, float]] = []
        results = [0.0]

        def sample() -> None:
            while not over.wait(SAMPLE_S):
                memory.append((time.perf_counter() - began, sum(map(_memory, _tree(process.pid))) / MIB))

        sampler = threading.Thread(target=sample)
        sampler.start()
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("["):
                results.append(time.perf_counter() - began)
        status = process.wait()
        over.set()
        sampler.join()
    if status != 0 or len(results) - 1 != len(job.papers):
        raise SystemExit(f"{len(results) - 1} results, status {status}:\n{''.join(said[-20:])}")
    return Watched(time.perf_counter() - began, cpu_seconds() - spent, memory, results)


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _memory(process: psutil.Process) -> float:
    """Return a process's share of the memory in use, in bytes; forked processes share most of theirs."""
    with suppress(psutil.Error, OSError):
        memory = process.memory_full_info()
        return float(getattr(memory, "pss", memory.uss))
    return 0.0


def _shares(right: float) -> dict[str, float]:
    """Return a class's shares of answers with this many right, and the others as they are to each other."""
    return {
        kind: right if kind == RIGHT else share * (1 - right) / (1 - HONEST[RIGHT]) for kind, share in HONEST.items()
    }


def _parser() -> argparse.ArgumentParser:
    def words(text: str) -> list[str]:
        return text.split(",")

    def names(text: str) -> list[str]:
        chosen = words(text)
        if unknown := set(chosen) - set(PREPARE):
            raise argparse.ArgumentTypeError(f"no grader is called {', '.join(unknown)}")
        return chosen

    def sizes(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--course", type=Path, help="the course (default: the folder you are in)")
    parser.add_argument(
        "--sets", type=words, default=["08_asyncio"], help="exercise sets, commas between, or all (default: 08_asyncio)"
    )
    parser.add_argument("--students", type=int, default=36, metavar="N", help="submissions in the class (default: 36)")
    parser.add_argument("--seed", type=int, default=8, help="another seed makes another class (default: 8)")
    parser.add_argument("--right", type=float, metavar="SHARE", help=f"share of right answers ({HONEST[RIGHT]})")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for a cell (default: 30)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds side by side (default: 3)")
    parser.add_argument("--only", type=names, default=list(PREPARE), metavar="NAMES", help="graders, commas between")
    parser.add_argument("--scale", type=sizes, default=[], metavar="SIZES", help="ours alone: 50,200,1000")
    parser.add_argument("--endless", action="store_true", help="ours alone: a class with endless answers")
    parser.add_argument(
        "--class", dest="whole", type=int, default=0, metavar="N", help="ours alone: about N submissions over all sets"
    )
    parser.add_argument("--ours", action="append", default=[], metavar="OPTION", help="an option for `scalelab grade`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
