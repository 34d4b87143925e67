"""Judging, part by part: the fork server, the trusted notebook, nbval's sessions, and the judge over them."""

from __future__ import annotations

import ast
import gc
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbval.plugin import find_comment_markers

from scalelab.answers.monitor import WAITS
from scalelab.checks import AnswerEnded, CheckFailed, Expectation, Verdict, _side
from scalelab.exercises.reference import Question, Reference, read_reference
from scalelab.grading.judging import CPU_S as CPU_LIMIT
from scalelab.grading.judging import RECORDS, fork_server, trusted
from scalelab.grading.judging import judge as judge_module
from scalelab.grading.judging import nbval_run as session
from scalelab.grading.judging.assemble import _given, assembled, checks_of
from scalelab.grading.judging.boxes import ADDRESS, NotStarted
from scalelab.grading.judging.fork_server import sandbox_missing
from scalelab.grading.judging.judge import HIDDEN_ENDED, JUDGED_AGAIN, NO_VERDICT, RAISED_AGAIN, Judge, judging
from scalelab.grading.judging.nbval_run import Record, Stopped
from scalelab.grading.judging.results import ENDED, FAILED, NOT_JUDGED, PASSED, RAISED, TIMED_OUT, Result
from scalelab.notebooks.format import text_of, written
from tiny import FOLDER, RIGHT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="answers' processes are forked on Linux alone")

CPU_S = 1.0
OWNER = "SCALELAB_TEST_OWNER"


@pytest.fixture(scope="module")
def boxed() -> bool:
    return not sandbox_missing()


@pytest.fixture(scope="module")
def tiny() -> Reference:
    return read_reference(FOLDER / "golden" / "reference.ipynb")


# The trusted notebook.

SETUP = ("from scalelab import checks\nbooks = []", "def note(what):\n    books.append(what)")
CHECK = """
with checks.verdict("value") as expect:
    got = value()
    expect(got == {expected!r}, "value gives {expected}", otherwise="It does not.", saw=got)
"""


@dataclass
class TrustedNotebook:
    """The notebook that nbval runs, in this process: its names, and what was recorded of each check."""

    records: Path
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self, source: str) -> str:
        """Run a cell; return what it prints. Raises what it raises."""
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            exec(compile(source, "<cell>", "exec"), self.namespace)
        return printed.getvalue()

    def judge(self, source: str, check: str, key: str = "1-check") -> str:
        return self.run(
            f"from {trusted.__name__} import answer\nanswer('value', ['value'], {source!r}, {key!r})\n{check}"
        )

    def recorded(self, key: str = "1-check") -> dict[str, Any]:
        """Return what was recorded of a check, and forget all records."""
        found: dict[str, Any] = {}
        for line in self.records.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["key"] == key:
                found |= record
        self.records.write_text("", encoding="utf-8")
        return found


@pytest.fixture(scope="module")
def server(boxed: bool) -> Iterator[Mapping[str, str]]:
    with fork_server.fork_server({"set": SETUP}, boxed=boxed) as environment:
        yield environment


@pytest.fixture
def notebook(server: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrustedNotebook]:
    made = TrustedNotebook(tmp_path / "records")
    made.records.touch()
    for name, value in (server | {RECORDS: str(made.records), CPU_LIMIT: str(CPU_S)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trusted, "_notebook", trusted._Notebook())
    monkeypatch.setattr(_side, "current", None)
    before = signal.getsignal(signal.SIGPROF)
    made.run(f"from {trusted.__name__} import set_up\nset_up('set', {SETUP[0]!r}, {SETUP[1]!r})")
    yield made
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    if trusted._notebook.answer is not None:
        trusted._notebook.answer.close()
    for box in trusted._notebook.boxes.values():
        box.close()


def giving(value: int) -> str:
    return f"def value():\n    return {value}"


@pytest.fixture
def next_is_judged(notebook: TrustedNotebook) -> Iterator[None]:
    """After the test, judge two more answers: each by itself, never by the one before."""
    yield
    notebook.judge(giving(7), CHECK.format(expected=7), "2-check")
    assert notebook.recorded("2-check")["verdict"]["passed"]
    with pytest.raises(CheckFailed):
        notebook.judge(giving(8), CHECK.format(expected=7), "3-check")
    assert notebook.recorded("3-check")["verdict"]["expectations"][0]["seen"] == "8"


class TestTrusted:
    """The cells of the notebook, one after another."""

    def test_each_check_begins_anew(self, notebook: TrustedNotebook) -> None:
        notebook.judge(giving(1), "note('first')\nbooks[0] += '!'\nleft = value()\ndel note\nprint = None")
        assert notebook.namespace["books"] == ["first!"]
        notebook.judge("other = 1", "found = {**globals()}")
        found = notebook.namespace["found"]
        assert found["books"] == []
        assert found["note"].__name__ == "note"
        assert not {"left", "value", "print", "other"} & found.keys()

    def test_what_an_answer_prints_costs_nothing_and_is_shown(self, notebook: TrustedNotebook) -> None:
        loud = (
            "import sys, warnings\nprint('at the top')\n"
            "def value():\n    print('in value')\n    print('to stderr', file=sys.stderr)\n"
            "    warnings.warn('mind this')\n    return 5"
        )
        assert notebook.judge(loud, CHECK.format(expected=5)) == "✓ value gives 5\n"
        recorded = notebook.recorded()
        assert recorded["verdict"]["passed"]
        for words in ("at the top\n", "in value\n", "to stderr\n", "UserWarning: mind this\n"):
            assert words in recorded["printed"]

    def test_a_student_has_two_sandboxes_and_each_check_a_fresh_process(self, notebook: TrustedNotebook) -> None:
        counts = "import builtins\nbuiltins.times = getattr(builtins, 'times', 0) + 1\ndef value():\n    return times"
        boxes = []
        for key in ("1-value-check", "1-value-hidden", "1-value-check", "2-value-check"):
            notebook.judge(counts, CHECK.format(expected=1), key)
            assert notebook.recorded(key)["verdict"]["passed"]
            boxes.append(trusted._notebook.boxes[key.rpartition("-")[2]])
        assert boxes[0] is boxes[2]
        assert len(set(boxes)) == 3

    def test_an_answer_that_spoils_its_sandbox_costs_no_other(self, boxed: bool, notebook: TrustedNotebook) -> None:
        if not boxed:
            pytest.skip("without a sandbox there is none to clear")
        spoils = "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\n"
        notebook.judge(spoils + giving(7), CHECK.format(expected=7), "1-value-check")
        before = trusted._notebook.boxes["check"]
        notebook.judge(giving(7), CHECK.format(expected=7), "1-value-check")
        assert notebook.recorded("1-value-check")["verdict"]["passed"]
        assert trusted._notebook.boxes["check"] is not before

    @pytest.mark.usefixtures("next_is_judged")
    def test_an_answer_that_raises(self, notebook: TrustedNotebook) -> None:
        with pytest.raises(ZeroDivisionError):
            notebook.judge("print('so far')\n1/0\n" + giving(7), "note('not reached')")
        recorded = notebook.recorded()
        assert recorded["raised"].startswith("ZeroDivisionError: division by zero")
        assert recorded["printed"] == "so far\n"
        assert "loaded" not in recorded
        assert notebook.namespace["books"] == []

    @pytest.mark.usefixtures("next_is_judged")
    @pytest.mark.parametrize(
        ("source", "state", "words"),
        [
            ("while True:\n    pass", TIMED_OUT, "computed for 1 s of processor time"),
            ("import os\nos._exit(0)", ENDED, "ran out of memory, crashed, or exited"),
            ("import threading\nthreading.Event().wait()", TIMED_OUT, "waits for something that never comes"),
        ],
    )
    def test_an_answer_that_never_loads(self, notebook: TrustedNotebook, source: str, state: str, words: str) -> None:
        for key in ("1-check", "1-hidden"):  # the second time, nobody waits for it
            with pytest.raises(AnswerEnded, match=words):
                notebook.judge(source, "note('not reached')", key)
            recorded = notebook.recorded(key)
            assert recorded["ended"] == state
            assert words in recorded["reason"]

    @pytest.mark.usefixtures("next_is_judged")
    @pytest.mark.parametrize(
        ("body", "state"), [("while True:\n        pass", TIMED_OUT), ("import os\n    os._exit(0)", ENDED)]
    )
    def test_an_answer_that_ends_in_its_check(self, notebook: TrustedNotebook, body: str, state: str) -> None:
        with pytest.raises(CheckFailed):
            notebook.judge(f"def value():\n    {body}", CHECK.format(expected=7))
        verdict = notebook.recorded()["verdict"]
        assert (verdict["ended"], verdict["passed"]) == (state, False)

    @pytest.mark.usefixtures("next_is_judged")
    def test_an_answer_that_leaves_the_check_with_an_exit(self, notebook: TrustedNotebook) -> None:
        with pytest.raises(CheckFailed):
            notebook.judge("def value():\n    raise SystemExit", CHECK.format(expected=7))
        assert "SystemExit" in notebook.recorded()["verdict"]["expectations"][0]["detail"]

    @pytest.mark.usefixtures("next_is_judged")
    def test_without_a_process_nothing_is_judged(
        self, notebook: TrustedNotebook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Least of all on the answer before."""
        notebook.judge(giving(1), CHECK.format(expected=1))
        notebook.recorded()
        for box in trusted._notebook.boxes.values():
            box.close()
        with monkeypatch.context() as patch:
            patch.setenv(ADDRESS, "/nowhere")
            with pytest.raises(NotStarted):
                notebook.judge(giving(1), CHECK.format(expected=1))
        assert notebook.recorded() == {}
        assert "value" not in notebook.namespace

    @pytest.mark.filterwarnings(  # it is ended while it looks at the answer's process
        "ignore:unclosed file <_io.* name='/proc/:ResourceWarning",
        "ignore:Exception ignored in. <_io.* name='/proc/:pytest.PytestUnraisableExceptionWarning",
    )
    @pytest.mark.usefixtures("next_is_judged")
    def test_an_answer_that_keeps_its_check_at_work(
        self, notebook: TrustedNotebook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trusted, "CHECK_CPU_S", 0.2)
        with pytest.raises(CheckFailed):
            notebook.judge(giving(7), CHECK.format(expected=7).replace("got = value()", "while True: got = value()"))
        verdict = notebook.recorded()["verdict"]
        assert verdict["ended"] == TIMED_OUT
        assert "use too much processor time" in verdict["expectations"][-1]["words"]

    def test_nothing_that_an_ended_answer_has_sent_is_kept(self, notebook: TrustedNotebook) -> None:
        """A session judges many answers."""
        source = """
from scalelab.answers import process_threads
data = b'["return",1,[' + b"{}," * 1_000_000 + b"{}]]"
process_threads._turns[0].process.channel._socket.sendall(len(data).to_bytes(4, "big") + data)
"""
        with pytest.raises(AnswerEnded):
            notebook.judge(source, "")
        gc.collect()
        assert max(len(value) for value in gc.get_objects() if type(value) is list) < 1_000_000

    @pytest.mark.usefixtures("next_is_judged")
    def test_an_answer_that_fills_the_memory_of_its_check(self, notebook: TrustedNotebook) -> None:
        def fill() -> None:
            raise MemoryError

        notebook.namespace["_fill"] = fill
        source = "def value(fill):\n    try:\n        fill()\n    except BaseException:\n        pass\n    return 7"
        with pytest.raises(CheckFailed):
            notebook.judge(source, CHECK.format(expected=7).replace("got = value()", "got = value(_fill)"))
        verdict = notebook.recorded()["verdict"]
        assert verdict["ended"] == TIMED_OUT
        assert "use too much memory" in verdict["expectations"][-1]["words"]

    def test_a_check_that_catches_the_end_of_its_answer_fails_all_the_same(self, notebook: TrustedNotebook) -> None:
        check = """
from scalelab import checks
with checks.verdict("value") as expect:
    try:
        value()
    except Exception:
        refused = True
    expect(refused, "it refuses", otherwise="It does not.")
"""
        with pytest.raises(CheckFailed):
            notebook.judge("def value():\n    import os\n    os._exit(0)", check)
        verdict = notebook.recorded()["verdict"]
        assert (verdict["ended"], verdict["passed"]) == (ENDED, False)
        assert verdict["expectations"][-1]["right"] == "your answer runs until its check is over"

    def test_an_answer_cannot_say_that_its_process_has_ended(self, notebook: TrustedNotebook) -> None:
        for name in ("AnswerEnded", "Unmet", "CheckFailed"):
            forged = f"""
class {name}(Exception):
    __module__ = "scalelab.checks"
def value():
    error = {name}("x")
    error.state, error.right, error.words, error.idea, error.detail = 7, "r", "w", 7, "d"
    raise error
"""
            with pytest.raises(CheckFailed):
                notebook.judge(forged, CHECK.format(expected=7))
            verdict = Verdict.from_data(notebook.recorded()["verdict"])
            assert verdict.ended == ""
            assert verdict.expectations[-1].right == "the check can use the answer"
            assert verdict.expectations[-1].detail.startswith(f"{name}: x\nIt was raised in line 7 of your cell")


# The notebook's text.

NASTY = {
    "nbval markers": "# NBVAL_SKIP\n# NBVAL_RAISES_EXCEPTION\n#NBVAL_IGNORE_OUTPUT\n",
    "magics": "%%bash\nexit 1\n%reset -f\n!kill 1\n?print\n%%time\n",
    "triple quotes": "a = '''x''' + \"\"\"y\"\"\"\nb = r'\\'\n'''",
    "NUL": "a = '\0\x01\x1b[2J\r\n\x85\u2028'",
    "surrogates": "a = '\ud83d \udcff'",
    "long": "x" * 100_000,
    "brackets": "')\n1/0\n('" + "]" * 50 + "{}{0!r}%s\\n\\",
    "fences": "```\n````\n~~~\n</div>\n---",
}


class TestAssembled:
    """An answer's text is data in the notebook, whatever it is."""

    @pytest.mark.parametrize("source", NASTY.values(), ids=NASTY)
    def test_an_answer_stays_one_literal(self, tiny: Reference, source: str) -> None:
        self.stays_one_literal(tiny, source)

    @given(st.text(st.characters(), max_size=200))
    def test_any_text_stays_one_literal(self, source: str) -> None:
        self.stays_one_literal(read_reference(FOLDER / "golden" / "reference.ipynb"), source)

    @staticmethod
    def stays_one_literal(tiny: Reference, source: str) -> None:
        checks = checks_of(tiny, {"add": source}, prefix="0-")
        assert [check.key for check in checks] == ["0-add-check", "0-add-hidden"]
        made = assembled(tiny, checks, for_people=True)
        text = written(made)
        assert json.loads(text)["cells"] == made["cells"]
        code = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
        assert len(code) == 3
        for cell, check in zip(code[1:], checks, strict=True):
            first, *rest = cell["source"].split("\n")
            assert first.isascii()
            assert first.isprintable()
            assert "\n".join(rest).endswith(text_of(check.question.check(check.role)["source"]))
            imports, call = ast.parse(first).body
            assert isinstance(imports, ast.ImportFrom)
            assert isinstance(call, ast.Expr)
            assert isinstance(call.value, ast.Call)
            exercise, names, literal, key = map(ast.literal_eval, call.value.args)
            assert (exercise, names, literal, key) == ("add", ["add"], source, check.key)
            assert not list(find_comment_markers(cell["source"]))

    def test_a_hidden_check_gets_what_the_visible_one_defines_and_no_verdict(self) -> None:
        with_verdict = (
            "import math\nlimit = 3\n\ndef double(x):\n    return 2 * x\n\nwith verdict() as e:\n    e(1)\nafter = 1"
        )
        assert _given(with_verdict) == "import math\nlimit = 3\ndef double(x):\n    return 2 * x"
        assert _given("import math\ndef f(): ...\ngot = f()\nclass C: ...") == "import math\ndef f(): ...\nclass C: ..."


# Sessions of nbval.

KILLS_PYTEST = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
SLEEPS = "import time; time.sleep(600)"
LONG_C_CALL = "trusted.KILL_AFTER_S = 0.0; trusted._limit(0.2); sum(range(10**12))"
FILLS_MEMORY = "bytearray(2 * trusted.CHECK_MEMORY_MB * 2**20)"
STARTED_LIGHT = "import sys; assert not {'aiohttp', 'pytest'} & set(sys.modules)"


def sabotaged(reference: Reference, exercise: str, line: str) -> Reference:
    """Return the reference with a line at the top of the exercise's visible check; the hidden one does not take it."""

    def with_line(question: Question) -> Question:
        source = f"{line}\n{text_of(question.visible['source'])}"
        return replace(question, visible=question.visible | {"source": source})

    questions = (with_line(one) if one.exercise == exercise else one for one in reference.questions)
    return replace(reference, questions=tuple(questions))


def first_time(tmp_path: Path, line: str) -> str:
    """Return a line that does this once, and appends to a file each time."""
    file = tmp_path / "times"
    return (
        f"file = open({str(file)!r}, 'a'); times = file.tell(); _ = file.write('x'); file.close()\nif not times: {line}"
    )


class Clock:
    """A clock that leaps far ahead each time that `file` gets a letter: as if a check had been silent for long."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def monotonic(self) -> float:
        leaps = self.file.stat().st_size if self.file.exists() else 0
        return time.monotonic() + 1e6 * leaps


def marks(process: psutil.Process) -> str:
    with suppress(psutil.Error, OSError):
        return process.environ().get(OWNER, "") if process.status() != psutil.STATUS_ZOMBIE else ""
    return ""


ANSWERS = {name: RIGHT[name] for name in ("add", "mend")}


@pytest.fixture(scope="module")
def judge(tiny: Reference, boxed: bool) -> Iterator[Judge]:
    with judging([tiny], sandbox=boxed, cpu_s=10.0) as made:
        yield made


def results(judge: Judge, reference: Reference, *submissions: Mapping[str, str]) -> list[dict[str, Result]]:
    found = dict(judge.judge(reference, submissions, threading.Event()))
    assert list(found) == list(range(len(submissions))), "in order"
    return list(found.values())


def states(found: Mapping[str, Result]) -> dict[str, str]:
    return {name: result.state for name, result in found.items()}


class TestSession:
    """One pytest over one notebook, of which nothing is left."""

    @pytest.fixture(autouse=True)
    def no_process_is_left(self) -> Iterator[None]:
        yield
        left = [one for one in psutil.process_iter(["cmdline"]) if str(os.getpid()) in marks(one)]
        assert not left

    @pytest.fixture(autouse=True)
    def marked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(OWNER, str(os.getpid()))

    def records(self, judge: Judge, reference: Reference, stop: threading.Event | None = None) -> Iterator[Record]:
        notebook = assembled(reference, checks_of(reference, ANSWERS))
        return session.run(notebook, judge.environment, cpu_s=10.0, stop=stop or threading.Event(), last_lines=[])

    def test_the_kernel_starts_without_what_no_check_needs(self, judge: Judge, tiny: Reference) -> None:
        found = list(self.records(judge, sabotaged(tiny, "add", STARTED_LIGHT)))
        assert {record.key: record.passed for record in found}["add-check"]

    def test_a_pytest_that_dies_ends_the_records(self, judge: Judge, tiny: Reference) -> None:
        found = list(self.records(judge, sabotaged(tiny, "mend", KILLS_PYTEST)))
        assert [(record.key, record.passed) for record in found] == [("add-check", True), ("add-hidden", True)]

    def test_a_session_that_falls_silent_is_ended(
        self, judge: Judge, tiny: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session, "time", Clock(tmp_path / "times"))
        found = list(self.records(judge, sabotaged(tiny, "mend", first_time(tmp_path, SLEEPS))))
        assert [record.key for record in found] == ["add-check", "add-hidden"]

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the process")
    def test_a_kernel_that_is_over_its_limit_in_a_c_call_is_ended(self, judge: Judge, tiny: Reference) -> None:
        found = list(self.records(judge, sabotaged(tiny, "mend", LONG_C_CALL)))
        assert [record.key for record in found] == ["add-check", "add-hidden", "mend-check"]
        assert not found[-1].passed
        assert "verdict" not in found[-1].details

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits it")
    def test_the_memory_of_a_check_is_limited(self, judge: Judge, tiny: Reference) -> None:
        found = {record.key: record for record in self.records(judge, sabotaged(tiny, "mend", FILLS_MEMORY))}
        assert not found["mend-check"].passed
        assert found["mend-hidden"].passed, "the kernel goes on"

    def test_an_interrupt_ends_it(self, judge: Judge, tiny: Reference) -> None:
        stop = threading.Event()
        records = self.records(judge, sabotaged(tiny, "mend", SLEEPS), stop)
        next(records)
        stop.set()
        with pytest.raises(Stopped):
            list(records)


PASSES: dict[str, Any] = {"loaded": True, "verdict": Verdict("add", (Expectation("all is well", True),)).as_data()}
FAILS: dict[str, Any] = {
    "loaded": True,
    "verdict": Verdict("add", (Expectation("all is well", False, "It is not."),)).as_data(),
}
FAILS_ENDED = {"loaded": True, "verdict": {**FAILS["verdict"], "ended": ENDED}}
FAILS_TIMED_OUT = {"loaded": True, "verdict": {**FAILS["verdict"], "ended": TIMED_OUT}}
UNREADABLE = {"loaded": True, "verdict": {**FAILS["verdict"], "ended": 7}}
WAITING = {"ended": TIMED_OUT, "reason": WAITS}
DIES = "the session dies"
Judged = Callable[..., tuple[dict[str, Result], list[list[str]]]]


class Sessions:
    """Stands for sessions of nbval: `outcomes` says of a check what each session in turn makes of it.

    An outcome is whether nbval passes it, and what the kernel recorded; or DIES.
    """

    def __init__(self, **outcomes: list[Any]) -> None:
        self.outcomes = outcomes
        self.ran: list[list[str]] = []

    def run(
        self, notebook: dict[str, Any], environment: object, *, last_lines: list[str], **_: Any
    ) -> Iterator[Record]:
        keys = [cell["id"] for cell in notebook["cells"][1:]]
        self.ran.append([])
        for key in keys:
            self.ran[-1].append(key)
            left = self.outcomes.get(key.replace("-", "_").lstrip("_0"), [])
            outcome = left.pop(0) if left else (True, PASSES)
            if outcome == DIES:
                last_lines.append("pytest's last words")
                return
            yield Record(key, outcome[0], 0.5, outcome[1])


class TestJudge:
    """Sessions that fail cost no answer anything, and no other answer either."""

    @pytest.fixture
    def judged(self, tiny: Reference, monkeypatch: pytest.MonkeyPatch) -> Judged:
        """Return what judges two answers in such sessions: the results, and which checks each session began."""

        def judged(**outcomes: list[Any]) -> tuple[dict[str, Result], list[list[str]]]:
            sessions = Sessions(**outcomes)
            monkeypatch.setattr(judge_module, "run", sessions.run)
            (found,) = results(Judge({}, 10.0), tiny, ANSWERS)
            return found, sessions.ran

        return judged

    def test_what_a_session_ended_in_is_judged_again_alone(self, judged: Judged) -> None:
        found, ran = judged(add_hidden=[DIES])
        assert states(found) == dict.fromkeys(ANSWERS, PASSED)
        assert [found["add"].note, found["mend"].note] == [JUDGED_AGAIN, ""]
        alone = ["0-add-hidden"]
        assert ran == [["0-add-check", "0-add-hidden"], alone, ["0-mend-check", "0-mend-hidden"]]

    def test_what_no_session_survives_is_not_judged_and_the_rest_is(self, judged: Judged) -> None:
        found, ran = judged(add_check=[DIES, DIES])
        assert states(found) == {"add": NOT_JUDGED, "mend": PASSED}
        assert found["add"].reason == "pytest's last words"
        assert len(ran) == 3

    def test_an_answer_that_waits_without_end_is_judged_again_alone(self, judged: Judged) -> None:
        found, ran = judged(add_check=[(False, WAITING)])
        assert states(found) == dict.fromkeys(ANSWERS, PASSED)
        assert [found["add"].note, found["mend"].note] == [JUDGED_AGAIN, ""]
        assert ran[:2] == [["0-add-check"], ["0-add-check"]]

    def test_an_answer_that_says_that_it_waits_is_judged_once(self, judged: Judged) -> None:
        found, ran = judged(
            add_check=[(False, {"raised": WAITS})], add_hidden=[(False, {"ended": ENDED, "reason": WAITS})]
        )
        assert states(found) == {"add": RAISED, "mend": PASSED}
        assert len(ran) == 1

    def test_an_answer_that_waits_after_its_session_ended_has_had_its_chance(self, judged: Judged) -> None:
        found, _ = judged(add_check=[DIES, (False, WAITING)])
        assert states(found) == {"add": TIMED_OUT, "mend": PASSED}

    def test_an_answer_has_one_second_chance(self, judged: Judged) -> None:
        found, ran = judged(add_check=[(False, WAITING)], add_hidden=[(False, WAITING)])
        assert states(found) == {"add": TIMED_OUT, "mend": PASSED}
        assert [keys.count("0-add-hidden") for keys in ran] == [0, 0, 1]

    def test_an_answer_that_waits_and_then_computes_without_end_does_not_run_again(self, judged: Judged) -> None:
        computing = {"ended": TIMED_OUT, "reason": "It computed for 10 s."}
        found, ran = judged(add_check=[(False, WAITING), (False, computing)])
        assert states(found) == {"add": TIMED_OUT, "mend": PASSED}
        assert found["add"].reason == "It computed for 10 s."
        assert sum(keys.count("0-add-hidden") for keys in ran) == 0

    @pytest.mark.parametrize("role", ["check", "hidden"])
    def test_an_answer_that_waits_both_times_does_not_run_again(self, judged: Judged, role: str) -> None:
        found, ran = judged(**{f"add_{role}": [(False, WAITING)] * 2})
        assert states(found) == {"add": TIMED_OUT, "mend": PASSED}
        assert found["add"].reason == {"check": WAITS, "hidden": HIDDEN_ENDED[TIMED_OUT]}[role]
        assert ran[-1] == ["0-mend-check", "0-mend-hidden"]
        assert sum(keys.count("0-add-hidden") for keys in ran) == {"check": 0, "hidden": 2}[role]

    def test_two_sessions_that_ended_in_different_checks(self, judged: Judged) -> None:
        found, _ = judged(add_check=[DIES], mend_hidden=[DIES])
        assert states(found) == dict.fromkeys(ANSWERS, PASSED)
        assert {result.note for result in found.values()} == {JUDGED_AGAIN}

    @pytest.mark.parametrize(
        ("first", "again", "words"),
        [
            ((False, PASSES), NOT_JUDGED, "nbval found another output"),
            ((False, {"loaded": True}), FAILED, NO_VERDICT),
        ],
        ids=["later than nbval waits", "interrupted"],
    )
    def test_a_starved_judge_judges_again(self, judged: Judged, first: Any, again: str, words: str) -> None:
        found, _ = judged(add_check=[first])
        assert states(found) == dict.fromkeys(ANSWERS, PASSED)
        assert found["add"].note == JUDGED_AGAIN
        found, _ = judged(add_check=[first, first])
        assert states(found) == {"add": again, "mend": PASSED}
        assert words in found["add"].reason

    @pytest.mark.parametrize("role", ["check", "hidden"])
    def test_a_verdict_that_cannot_be_read_costs_its_own_question_alone(self, judged: Judged, role: str) -> None:
        found, _ = judged(**{f"add_{role}": [(False, UNREADABLE)] * 2})
        assert states(found) == {"add": NOT_JUDGED, "mend": PASSED}
        assert "expected ended to be of type str" in found["add"].reason

    def test_a_check_that_passed_with_an_error_is_told_as_one(self, judged: Judged) -> None:
        found, _ = judged(add_check=[(True, FAILS)] * 2)
        assert states(found) == {"add": NOT_JUDGED, "mend": PASSED}
        assert "nbval found the output of the reference and no error" in found["add"].reason

    def test_without_a_process_for_the_answer_nothing_is_judged(self, judged: Judged) -> None:
        found, ran = judged(add_check=[(False, {})])
        assert states(found) == {"add": NOT_JUDGED, "mend": PASSED}
        assert len(ran) == 1

    @pytest.mark.parametrize(
        ("visible", "hidden", "state", "words"),
        [
            ((True, PASSES), (False, FAILS), FAILED, ""),
            ((False, {"raised": "KeyError: 1"}), (False, {"raised": "KeyError: 2"}), RAISED, "KeyError: 1"),
            ((True, PASSES), (False, {"raised": "KeyError: 2"}), RAISED, RAISED_AGAIN),
            ((False, {"ended": TIMED_OUT, "reason": "It computed."}), (False, FAILS), TIMED_OUT, "It computed."),
            ((False, {"ended": "odd", "reason": "It exited."}), (False, FAILS), ENDED, "It exited."),
            ((False, FAILS), (False, {"ended": ENDED, "reason": "It exited."}), ENDED, HIDDEN_ENDED[ENDED]),
            ((False, FAILS_ENDED), (False, FAILS), ENDED, ""),
            ((True, PASSES), (False, FAILS_ENDED), ENDED, HIDDEN_ENDED[ENDED]),
            ((True, PASSES), (False, FAILS_TIMED_OUT), TIMED_OUT, HIDDEN_ENDED[TIMED_OUT]),
            ((True, PASSES), (False, {"ended": TIMED_OUT, "reason": "4 5 6"}), TIMED_OUT, HIDDEN_ENDED[TIMED_OUT]),
        ],
    )
    def test_a_state_and_its_reason(self, judged: Judged, visible: Any, hidden: Any, state: str, words: str) -> None:
        found, _ = judged(add_check=[visible], add_hidden=[hidden])
        assert (found["add"].state, found["add"].reason) == (state, words)
        assert found["add"].visible.passed == visible[0]
        assert found["add"].seconds == 1.0
        assert states(found)["mend"] == PASSED

    def test_the_next_session_goes_on(self, judge: Judge, tiny: Reference, tmp_path: Path) -> None:
        """With nbval and kernels: the first session dies in the second answer."""
        reference = sabotaged(tiny, "mend", first_time(tmp_path, KILLS_PYTEST))
        first, second = results(judge, reference, ANSWERS, ANSWERS)
        assert states(first) == states(second) == dict.fromkeys(ANSWERS, PASSED)
        assert [first["add"].note, first["mend"].note, second["mend"].note] == ["", JUDGED_AGAIN, ""]
        assert (tmp_path / "times").read_text() == "xxx"

    def test_an_interrupt_stops_it(self, judge: Judge, tiny: Reference) -> None:
        stop = threading.Event()
        stop.set()
        with pytest.raises(Stopped):
            list(judge.judge(tiny, [ANSWERS], stop))

    def test_without_answers_there_are_results_all_the_same(self, judge: Judge, tiny: Reference) -> None:
        assert results(judge, tiny, {}, {}) == [{}, {}]

    def test_any_text_of_an_answer_reaches_its_process_as_it_is(self, judge: Judge, tiny: Reference) -> None:
        """A right answer that holds the text is right: nothing of it is executed or lost on the way."""
        texts = [repr(text) for name, text in NASTY.items()] + ["r'''\n# NBVAL_SKIP\n%%bash\n!ls\n'''"]

        def answer(text: str) -> str:
            length = len(ast.literal_eval(text))
            return f"TEXT = {text}\ndef add(a, b):\n    assert len(TEXT) == {length}\n    return a + b"

        answers = [{"add": answer(text)} for text in texts]
        for text, found in zip(texts, results(judge, tiny, *answers), strict=True):
            assert states(found) == {"add": PASSED}, (text[:100], found)
