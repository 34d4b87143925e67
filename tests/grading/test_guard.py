"""The guard: an honest answer leaves the machinery as it is, and what changes it is named, whatever the screen says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scalelab.course.exercises import read_set, sources
from scalelab.course.find import Course, find_course
from scalelab.grading import guard
from scalelab.grading.watch import STATUS
from tiny import FOLDER

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the answers of a set run in forks of one process")

HELPER = Path(__file__).with_name("forked_cells.py")
SETUP = """\
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import numpy

from scalelab import checks

class Account:
    def __init__(self, balance):
        self.balance = balance

def fee(amount):
    return sum(range(amount))
"""
CHECK = "expect(all(sorted(got)) and Account(3).balance == 3 and fee(2), 'right', otherwise='wrong')"

HONEST = {
    "nothing": "",
    "imports": ("import random, statistics, decimal, concurrent.futures.process, asyncio.subprocess, logging.handlers"),
    "own-names": "total = 0\ndef f(x):\n    return x\nclass Account2(Account):\n    pass",
    "data-for-built-ins": "max = 3\nsum_ = 2",
    "imports-again": "import time\nfrom concurrent.futures import ThreadPoolExecutor",
    "own-attributes": "account = Account(1)\naccount.balance = 2\naccount.owner = 'Ann'",
    "threads": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "pools": "with ThreadPoolExecutor(2) as pool:\n    list(pool.map(abs, range(9)))",
    "awaits": "await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(abs, 1))",
    "error": "1 / 0",
    "warning": (
        "import warnings\nwarnings.warn('x')\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')"
    ),
    "a-session": "async with aiohttp.ClientSession() as session:\n    pass",
    "numbers": "import numpy as np\nnp.random.seed(1)\nnp.seterr(all='ignore')\nimport numpy.testing",
    "run": "async def f():\n    await asyncio.sleep(3)\nchecks.run(f)\nchecks.interleave(lambda: time.sleep(1))",
    "help": "checks.hint('add')\nchecks.hint()\nchecks.solution('add', show_me=True)",
    "limits": "import sys\nsys.setrecursionlimit(5000)\nsys.setswitchinterval(0.01)",
    "expressions": (
        "import re, json, functools\nre.compile('x')\njson.dumps({})\n@functools.lru_cache\ndef f(x): return x\nf(1)"
    ),
}

# What the guard must notice: the answer, and words that name what it changed; without words, it ends the process,
# because what the process says can no longer be believed.
TOUCHED = {
    "expect": ("checks.Expect.__call__ = lambda self, good, right, **_: print('✓', right)", "Expect.__call__"),
    "expect-fail": ("checks.Expect.fail = lambda *_: None", "Expect.fail"),
    "expect-close": ("def close(self): pass\nchecks.Expect.close = close", "Expect.close"),
    "code": ("checks.Expect.close.__code__ = (lambda self: None).__code__", "Expect.close"),
    "defaults": ("checks.run.__kwdefaults__ = dict(checks.run.__kwdefaults__, limit=1e9)", "run"),
    "wrapped": (
        "checks.verdict.__wrapped__.__code__ = (lambda name: iter(())).__code__",
        "verdict",
    ),
    "closure": (
        "import contextlib\nchecks.verdict.__closure__[0].cell_contents = lambda name: iter([print])",
        "verdict",
    ),
    "constant": ("import scalelab.checks._run as run\nrun.PATIENCE = 0.0", "_run.PATIENCE"),
    "module-name": ("import scalelab.checks._words as words\nwords.short = lambda _: ''", "_words.short"),
    "shadow": ("import scalelab.checks._verdict as v\nv.isinstance = lambda *_: True", "_verdict.isinstance"),
    "new-method": ("checks.Expect.__getattribute__ = lambda *_: print", "Expect.__getattribute__"),
    "bases": (
        "class A: pass\nclass B(checks.CheckFailed.__bases__[0]): pass\nchecks.CheckFailed.__bases__ = (B,)",
        "CheckFailed",
    ),
    "time": ("time.sleep = lambda _: None", "time.sleep"),
    "clock": ("time.perf_counter = lambda: 0.0", "time.perf_counter"),
    "asyncio": ("async def sleep(_): pass\nasyncio.sleep = sleep", "asyncio.sleep"),
    "loop": ("asyncio.base_events.BaseEventLoop.time = lambda self: 0", "BaseEventLoop.time"),
    "policy": (
        "class P(asyncio.DefaultEventLoopPolicy): pass\nasyncio.set_event_loop_policy(P())",
        "asyncio.set_event_loop_policy",
    ),
    "pool": ("ThreadPoolExecutor.submit = lambda self, f, *a: f(*a)", "ThreadPoolExecutor.submit"),
    "thread": ("import threading\nthreading.Thread.start = threading.Thread.run", "Thread.start"),
    "thread-trace": ("import threading\nthreading.settrace(lambda *_: None)", "threading.settrace"),
    "lock": ("import threading\nthreading.Lock = threading.RLock", "threading.Lock"),
    "session": ("aiohttp.ClientSession.get = None", "ClientSession.get"),
    "connector": ("aiohttp.TCPConnector.__init__ = lambda *_, **__: None", "TCPConnector.__init__"),
    "built-in": ("import builtins\nbuiltins.all = lambda _: True", "builtins.all"),
    "built-ins-of-the-guard": (
        "import builtins\nbuiltins.id = lambda _: 0\nbuiltins.callable = lambda _: False",
        "builtins.",
    ),
    "import": (
        "import builtins\nreal = builtins.__import__\nbuiltins.__import__ = lambda *a, **k: real(*a, **k)",
        "builtins.__import__",
    ),
    "shadowed-built-in": ("def all(_):\n    return True", "all is not"),
    "shadowed-lambda": ("sorted = lambda _: [1]", "sorted is not"),
    "given-class": ("class Account:\n    balance = 3\n    def __init__(self, _): pass", "Account is not"),
    "given-method": ("def init(self, _): self.balance = 3\nAccount.__init__ = init", "Account.__init__"),
    "given-function": ("fee = lambda _: 1", "fee is not"),
    "used-by-given": ("def sum(_):\n    return 1\nfee.__globals__['sum'] = sum\nfee.__code__ = sum.__code__", "fee"),
    "random": ("import random\nrandom.Random.random = lambda self: 0.5", "Random.random"),
    "numpy": ("import numpy\nnumpy.allclose = lambda *_, **__: True", "numpy.allclose"),
    "gc": ("import gc\ngc.callbacks.append(lambda *_: None)", "gc.callbacks"),
    "signal": ("import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)", "signal "),
    "warnings": ("import warnings\nwarnings.showwarning = print", "warnings.showwarning"),
    "linecache": ("import linecache\nlinecache.getline = lambda *_: ''", "linecache.getline"),
    "stdout": ("import io, sys\nsys.stdout = io.StringIO()", ""),
    "redirect": ("import contextlib, io\ncontextlib.redirect_stdout(io.StringIO()).__enter__()", ""),
    "excepthook": ("import sys\nsys.setprofile(lambda *_: None)", ""),
    "trace": ("import sys\nsys.settrace(lambda *_: None)\nsys._getframe(0).f_trace = print", ""),
    "import-hook": ("import sys\nsys.meta_path.insert(0, type('F', (), {'find_spec': lambda *_: None})())", ""),
    "run-cell": (
        "shell = get_ipython()\nreal = shell.run_cell_async\nshell.run_cell_async = lambda *a, **k: real(*a, **k)",
        "",
    ),
    "run-cell-of-class": (
        "kind = type(get_ipython())\nreal = kind.run_code\nkind.run_code = lambda *a, **k: real(*a, **k)",
        "",
    ),
    "showtraceback": ("get_ipython().showtraceback = lambda *_, **__: None", ""),
    "custom-exception": ("get_ipython().set_custom_exc((Exception,), lambda *_, **__: None)", ""),
    "event": ("get_ipython().events.register('pre_run_cell', lambda *_: None)", ""),
    "transformer": ("get_ipython().input_transformers_post.append(lambda lines: lines)", ""),
    "cleanup": ("get_ipython().input_transformers_cleanup.append(lambda lines: lines)", ""),
    "ast-transformer": (
        "import ast\nget_ipython().ast_transformers.append(ast.NodeTransformer())",
        "",
    ),
    "interactivity": ("get_ipython().ast_node_interactivity = 'none'", ""),
    "user-namespace": ("get_ipython().user_ns = dict(get_ipython().user_ns)", ""),
    "compiler": (
        "made = get_ipython().compile\nreal = made.ast_parse\nmade.ast_parse = lambda *a, **k: real(*a, **k)",
        "",
    ),
}


def run(setup: Sequence[str], runs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Run the set-up, then each list of cells in a fork; return what each printed, and the process's status."""
    told = json.dumps({"setup": [*setup, guard.prologue()], "runs": [list(cells) for cells in runs]})
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(HELPER)],
        input=told,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    assert isinstance(results, list)
    return results


def all_sets() -> list[Path]:
    return [*sources(find_course(Path(__file__).parent)), *sources(Course(FOLDER))]


@pytest.mark.parametrize("path", all_sets(), ids=lambda path: path.stem)
def test_no_answer_of_the_course_changes_machinery(path: Path) -> None:
    exercises = read_set(path)
    names, cells = [], []
    for exercise in exercises.exercises:
        answers = {"the starter": exercise.starter, "the solution": exercise.solution}
        answers |= {wrong.name: wrong.source for wrong in exercise.wrongs}
        for name, source in answers.items():
            names.append(f"{exercise.id}, {name}")
            cells += [source, guard.cell(f"{exercise.check}\n{exercise.hidden}")]
    assert len(names) > 15
    (result,) = run(exercises.setup, [cells])
    assert dict(zip(names, result["printed"][1::2], strict=True)) == dict.fromkeys(names, guard.EXPECTED)


@pytest.mark.parametrize("path", all_sets(), ids=lambda path: path.stem)
def test_no_check_of_the_course_changes_machinery(path: Path) -> None:
    """Nor leaves it changed: a check patches clocks, locks and pools while it runs an answer."""
    exercises = read_set(path)
    runs = [[one.solution, one.check, guard.cell(one.check)] for one in exercises.exercises]
    for exercise, result in zip(exercises.exercises, run(exercises.setup, runs), strict=True):
        assert (result["status"], result["printed"][-1]) == (0, guard.EXPECTED), exercise.id


@pytest.fixture(scope="module")
def looked() -> dict[str, dict[str, Any]]:
    """What the guard said after each answer, honest or not."""
    answers = HONEST | {name: answer for name, (answer, _) in TOUCHED.items()}
    results = run([SETUP], [[answer, guard.cell(CHECK)] for answer in answers.values()])
    return dict(zip(answers, results, strict=True))


@pytest.mark.parametrize("name", HONEST)
def test_what_others_made_stays_as_it_is(looked: dict[str, dict[str, Any]], name: str) -> None:
    assert (looked[name]["status"], looked[name]["printed"][-1]) == (0, guard.EXPECTED)


@pytest.mark.parametrize("name", TOUCHED)
def test_what_is_changed_is_noticed(looked: dict[str, dict[str, Any]], name: str) -> None:
    _, words = TOUCHED[name]
    status, printed = looked[name]["status"], looked[name]["printed"]
    if words:
        assert status == 0
        assert words in printed[-1]
        assert printed[-1].endswith(" is not what it was before the answer ran\n")
        assert printed[-1].count("\n") == 1
    else:
        assert (status, printed) == (STATUS, [])


def test_the_guard_leaves_no_name_behind() -> None:
    (result,) = run(
        [SETUP], [["before = set(globals())", guard.cell(CHECK), "print(set(globals()) - before - {'before'})"]]
    )
    assert result["printed"][1:] == [guard.EXPECTED, "set()\n"]
