"""Let nbval judge the answers of one submission: every question in its own notebook, folder and kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from scalelab.course.isolated import Family, family
from scalelab.course.notebooks import written
from scalelab.grading import plugin
from scalelab.grading.merge import Question, Reference, question_notebook

JUPYTER = Path(__file__).parent / "jupyter"
KERNEL = "scalelab-judge"
KERNEL_START_S = 60
SILENCE_S = 30
"""How much longer than a cell's and a kernel's own limits the judge may be silent before it is ended."""
TRIES = 2
KEPT_LINES = 20
POLL_S = 0.5

PASSED = "passed"
FAILED = "failed"
RAISED = "raised"
TIMED_OUT = "timed out"
DIED = "kernel died"
JUDGE_ENDED = "judge ended"
NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Verdict:
    """What nbval said of one answer.

    `state` is `passed`, `failed` (one check or both), `raised`, `timed out`, `kernel died`, `judge ended` (twice, the
    answer took the judging process with it) or `not judged` (which is no fault of the answer). `text` says what ended
    the question early; `visible` and `hidden` whether the checks passed; `visible_text` what the failing visible check
    showed; `said` what each failing check printed, and its error's own words.
    """

    state: str
    text: str = ""
    visible: bool = False
    hidden: bool = False
    visible_text: str = ""
    said: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class _Seen:
    """What the plugin reported last of one cell."""

    state: str
    text: str = ""
    said: str = ""


_Records = dict[str, dict[str, _Seen]]


class Stopped(Exception):
    """The batch was interrupted."""


def judge(
    reference: Reference, answers: Mapping[str, str], *, timeout: float, stop: threading.Event | None = None
) -> dict[str, Verdict]:
    """Return nbval's verdict on each of the answers (sources by exercise); `timeout` is in seconds per cell.

    One pytest judges them one after another. Where it ends early, the next one goes on: with the question in hand,
    because a process that an earlier answer left behind may have ended it, and after a second time without it.
    Raises Stopped soon after `stop` is set.
    """
    stop = stop or threading.Event()
    verdicts: dict[str, Verdict] = {}
    tries: Counter[str] = Counter()
    while left := [q for q in reference.questions if q.exercise in answers and q.exercise not in verdicts]:
        records, last_words = _run_pytest(reference, left, answers, timeout, stop)
        if stop.is_set():
            raise Stopped
        # A pytest that began nothing has failed at its first question.
        begun = [question for question in left if question.exercise in records] or left[:1]
        for question in begun:
            name = question.exercise
            tries[name] += 1
            verdict = _verdict(reference, question, records.get(name, {}), timeout, last_words)
            if verdict.state not in {JUDGE_ENDED, NOT_JUDGED} or tries[name] >= TRIES:
                verdicts[name] = verdict
    return verdicts


def _run_pytest(
    reference: Reference,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    timeout: float,
    stop: threading.Event,
) -> tuple[_Records, str]:
    """Run one pytest over the questions; return what it reported until it ended or fell silent, and its last words."""
    records: _Records = {}
    last_words: list[str] = []
    with family() as own:
        files = [_put(own, reference, question, answers[question.exercise]) for question in questions]
        process = subprocess.Popen(
            _command(own, files, timeout),
            cwd=own.folder,
            env=_environment(own),
            stdin=subprocess.DEVNULL,
            # Kernels inherit stdout, and may flood it; stderr is pytest's alone, and carries the records.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Ctrl-C is for us: we end what runs.
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            silence = max(timeout, plugin.SETUP_S) + KERNEL_START_S + SILENCE_S
            for line in _lines(process, process.stderr, silence, stop):
                if not line.startswith(plugin.RECORD):
                    last_words = [*last_words, line][-KEPT_LINES:]
                    continue
                record = json.loads(line.removeprefix(plugin.RECORD))
                seen = _Seen(record["state"], record["text"], record["said"])
                records.setdefault(record["question"], {})[record["cell"]] = seen
        finally:
            own.end()
            process.wait()
            process.stderr.close()
    return records, "\n".join(last_words)


def _put(own: Family, reference: Reference, question: Question, source: str) -> Path:
    path = own.folder / "questions" / question.exercise / "question.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(written(question_notebook(reference, question, source)), encoding="utf-8", newline="\n")
    return path


def _command(own: Family, files: Sequence[Path], timeout: float) -> list[str]:
    settings = own.folder / "pytest.ini"
    settings.write_text("[pytest]\n", encoding="utf-8")
    return [
        *(sys.executable, "-P", "-m", "pytest", "-c", str(settings), "--rootdir", str(own.folder), "--noconftest"),
        *("-p", "no:cacheprovider", "-p", plugin.__name__, "-p", "nbval.plugin"),
        *("--capture=no", "--color=no", "--tb=no", "--quiet", "--nbval-lax", "--nbval-kernel-name", KERNEL),
        *("--nbval-cell-timeout", str(timeout), "--nbval-kernel-startup-timeout", str(KERNEL_START_S)),
        *map(str, files),
    ]


def _environment(own: Family) -> dict[str, str]:
    paths = os.pathsep.join([str(JUPYTER), own.environment["JUPYTER_PATH"]])
    return own.environment | {"JUPYTER_PATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _lines(process: subprocess.Popen[bytes], stream: IO[bytes], silence: float, stop: threading.Event) -> Iterator[str]:
    """Yield the stream's lines until it or the process ends, `silence` s pass without one, or `stop` is set."""
    lines: Queue[str | None] = Queue()

    def read() -> None:
        for line in stream:
            lines.put(line.decode("utf-8", "replace").rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    heard = time.monotonic()
    while time.monotonic() - heard < silence:
        if stop.is_set():
            return
        ended = process.poll() is not None
        try:
            line = lines.get(timeout=POLL_S)
        except Empty:
            if ended:
                return
            continue
        if line is None:
            return
        heard = time.monotonic()
        yield line
    yield f"The judge was silent for {silence:g} s, and was ended."


def _verdict(
    reference: Reference, question: Question, seen: Mapping[str, _Seen], timeout: float, last_words: str
) -> Verdict:
    nothing = _Seen("")
    for setup in (seen.get(cell["id"], nothing) for cell in reference.setup):
        if setup.state != "passed":
            return Verdict(NOT_JUDGED, setup.text or last_words or "The judge ended before this question.")
    answer, visible, hidden = (
        seen.get(cell["id"], nothing) for cell in (question.answer, question.visible, question.hidden)
    )
    if answer.state == "failed":
        return Verdict(RAISED, answer.text)
    passed = (visible.state == PASSED, hidden.state == PASSED)
    early = {
        "begins": (JUDGE_ENDED, "{} ended the process that judged it."),
        "died": (DIED, "{} ended its kernel."),
        "timed out": (TIMED_OUT, f"{{}} ran longer than {timeout:g} s."),
        "no kernel": (NOT_JUDGED, "No kernel could be started."),
        "": (NOT_JUDGED, last_words or "The judge ended before this cell."),
    }
    for cell, what in ((answer, "The answer"), (visible, "The visible check"), (hidden, "The hidden check")):
        if cell.state in early:
            state, text = early[cell.state]
            failed = visible if visible.state == FAILED else nothing
            return Verdict(state, text.format(what), *passed, failed.text, (failed.said, ""))
    return Verdict(PASSED if all(passed) else FAILED, "", *passed, visible.text, (visible.said, hidden.said))
