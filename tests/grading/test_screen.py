"""The screen: what reaches for the grader's machinery is named with its line, and what does the task is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab.course.exercises import ExerciseSet, read_set, sources
from scalelab.course.find import Course
from scalelab.course.notebooks import reference, written
from scalelab.grading.merge import Reference, read_reference
from scalelab.grading.screen import HARMLESS_MODULES, LONGEST, Rules, rules, screen
from tiny import FOLDER

# Every answer here reaches for machinery.
BAD = {
    "frames": "import sys\ndef add(a, b):\n    return sys._getframe(1).f_globals['right']",
    "frames-from-error": (
        "def add(a, b):\n"
        "    try:\n"
        "        1 / 0\n"
        "    except ZeroDivisionError as error:\n"
        "        return error.__traceback__.tb_frame.f_back.f_locals"
    ),
    "frames-of-coroutine": "async def ordered(jobs):\n    return jobs[0].cr_frame",
    "frames-of-task": "async def ordered(jobs):\n    return asyncio.current_task().get_stack()",
    "generator-frame": "g = (1 for _ in [1])\nf = g.gi_frame",
    "gc": "import gc\ngc.get_objects()",
    "ctypes": "import ctypes",
    "inspect": "import inspect\ninspect.stack()",
    "from-inspect": "from inspect import currentframe",
    "os": "import os\nos._exit(0)",
    "system": "import os\nos.system('ls')",
    "subprocess": "import subprocess",
    "socket": "import socket",
    "sys-modules": "import sys\nsys.modules['scalelab.checks'].Expect = None",
    "module-in-module": "import random\nrandom._os.system('ls')",
    "module-in-module2": "asyncio.base_events.os.system('ls')",
    "module-in-module3": "import random\no = random\no._os",
    "module-in-module4": "import statistics\nstatistics.sys.stdout = None",
    "module-in-module5": "from random import _os",
    "module-in-module6": "from asyncio.base_events import sys",
    "importlib": "import importlib",
    "dunder-import": "__import__('os')",
    "builtins": "import builtins\nbuiltins.all = lambda x: True",
    "dunder-builtins": "__builtins__['all'] = None",
    "exec": "exec('x = 1')",
    "eval": "e = eval\ne('1')",
    "compile": "compile('1', '', 'eval')",
    "globals": "globals()['asyncio'] = None",
    "vars": "vars(asyncio)['sleep'] = None",
    "getattr-parts": "getattr(asyncio, '_' + '_dict__')",
    "getattr-value": "import functools\nfunctools.reduce(getattr, ['base_events', 'sys'], asyncio)",
    "getattr-name": "getattr(asyncio, '__dict__')",
    "attrgetter": "import operator\noperator.attrgetter('__globals__')",
    "attrgetter-parts": "import operator\noperator.attrgetter('__glo' + 'bals__')",
    "attrgetter-from": "from operator import attrgetter as a\na('__glo' + 'bals__')",
    "methodcaller": "from operator import methodcaller\nmethodcaller('get_stack')",
    "setattr": "setattr(asyncio, 'sleep', None)",
    "get_ipython": "get_ipython().run_cell_async = None",
    "magic": "%run x.py",
    "cell-magic": "%%capture\nx = 1",
    "shell": "!ls",
    "assign-shell": "x = !ls",
    "help": "asyncio?",
    "history": "print(In[-1])",
    "history2": "print(_ih)",
    "history3": "print(_i3)",
    "patch": "asyncio.sleep = None",
    "patch-del": "del asyncio.sleep",
    "patch-aug": "asyncio.sleep += 1",
    "patch-for": "for asyncio.sleep in [None]:\n    pass",
    "patch-with": "import contextlib\nwith contextlib.nullcontext() as asyncio.sleep:\n    pass",
    "patch-tuple": "(asyncio.sleep, x) = 1, 2",
    "patch-alias": "a = asyncio\nb = a\nb.sleep = None",
    "patch-walrus": "(a := asyncio).sleep = None",
    "patch-walrus2": "if (a := asyncio):\n    a.sleep = None",
    "patch-loop": "for m in [asyncio]:\n    m.sleep = None",
    "patch-comp": "[m for m in (asyncio,)][0].sleep = None",
    "patch-comp2": "[setattr(m, 'sleep', None) for m in (asyncio,)]",
    "patch-arg": "def f(m):\n    m.sleep = None\nf(asyncio)",
    "patch-default": "def f(m=asyncio):\n    m.sleep = None",
    "patch-ident": "def i(x):\n    return x\nm = i(asyncio)\nm.sleep = None",
    "patch-class": "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor.submit = None",
    "patch-class-arg": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(c):\n    c.submit = None\nf(ThreadPoolExecutor)"
    ),
    "patch-class-type": "t = type(asyncio.Lock())\nt.acquire = None",
    "patch-class-type2": "type(asyncio.Lock()).acquire = None",
    "patch-match": "match asyncio:\n    case m:\n        m.sleep = None",
    "patch-local-decoy": "if 0:\n    asyncio = 1\nasyncio.sleep = None",
    "patch-class-decoy": "class A:\n    if 0:\n        asyncio = 1\n    asyncio.sleep = None",
    "patch-comp-decoy": "[0 for asyncio in [1]]\nasyncio.sleep = None",
    "patch-self-decoy": "asyncio = (\n    asyncio\n)\nasyncio.sleep = None",
    "patch-same-line": "asyncio.sleep = None; asyncio = 1",
    "patch-def-decoy": "def asyncio(\n    x=asyncio\n):\n    x.sleep = 1",
    "rebind-import-decoy": "from math import floor as verdict\ndef f():\n    from x import verdict",
    "patch-later": "def f():\n    asyncio.sleep = None\nf()\nasyncio = 1",
    "patch-global": "def f():\n    global asyncio\n    asyncio = None",
    "patch-item": "import random\nrandom.x[0] = 1",
    "patch-import-as": "import asyncio.events as e\ne.get_running_loop = None",
    "patch-from": "from asyncio import events\nevents.get_running_loop = None",
    "patch-loop-of-check": "async def ordered(jobs):\n    asyncio.get_running_loop().time = None",
    "patch-loop-of-check2": "async def ordered(jobs):\n    l = asyncio.get_running_loop()\n    l.time = None",
    "rebind-builtin": "def sorted(x):\n    return x\nall = lambda _: True\nstr = lambda x: x",
    "rebind-given": "def verdict(*_):\n    print('\u2713 2 and 3 are 5')",
    "rebind-given2": "verdict = print",
    "rebind-import": "import asyncio as verdict",
    "rebind-for": "for verdict in [print]:\n    pass",
    "rebind-walrus": "(verdict := print)",
    "rebind-class": "class verdict: pass",
    "rebind-except": "try:\n    1/0\nexcept Exception as verdict:\n    pass",
    "rebind-if": "if True:\n    verdict = print",
    "del-given": "del verdict",
    "eq": ("class A:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return A()"),
    "eq-assign": "class A:\n    __eq__ = lambda s, o: True",
    "eq-type": "A = type('A', (), {'__eq__': lambda s, o: True})",
    "eq-type2": "A = type('A', (), {'__e' + 'q__': lambda s, o: True})",
    "eq-setattr": "class A: pass\nsetattr(A, '__eq__', lambda s, o: True)",
    "eq-attr": "class A: pass\nA.__eq__ = lambda s, o: True",
    "eq-dataclass": ("from dataclasses import make_dataclass\nmake_dataclass('A', [], namespace={'__eq__': None})"),
    "bool": "class A:\n    def __bool__(self): return True",
    "lt": "class A:\n    def __lt__(self, o): return True",
    "class-lie": "class A:\n    @property\n    def __class__(self): return int",
    "metaclass": "class A(metaclass=type): pass",
    "list-lie": "class L(list):\n    def index(self, x): return 0",
    "del-dunder": "class A:\n    def __del__(self): pass",
    "subclasses": "object.__subclasses__()",
    "mro": "().__class__.__base__",
    "closure": "verdict.__globals__",
    "code": "verdict.__code__ = None",
    "format": "'{0.__globals__}'.format(verdict)",
    "format-parts": "('{0.__glo' + 'bals__}').format(verdict)",
    "format-map": "f = '{x}'\nf.format_map({})",
    "match-attr": "match verdict:\n    case object(__globals__=g):\n        pass",
    "expected": "def add(a, b):\n    return got",
    "expected-decoy": "got = None\ndef add(a, b):\n    return got",
    "redirect": "import contextlib\ncontextlib.redirect_stdout(None).__enter__()",
    "redirect-from": "from contextlib import redirect_stdout as r",
    "update_wrapper": "import functools\nfunctools.update_wrapper(verdict, print, assigned=['__code__'])",
    "wraps": "import functools\nfunctools.wraps(print, assigned=['x'])(verdict)",
    "atexit": "import atexit",
    "signal": "import signal",
    "open": "open('/etc/passwd').read()",
    "checks": "from scalelab import checks\nchecks.Expect.__call__ = None",
    "checks-private": "from scalelab.checks import _verdict",
    "grading": "from scalelab.grading import judge",
    "scalelab": "import scalelab\nscalelab.checks",
    "mock": "from unittest.mock import ANY",
    "types": "from types import FunctionType",
    "thread-trace": "import threading\nthreading.settrace(print)",
    "threading-os": "import threading\nthreading._os",
    "typing": "import typing\ntyping.get_type_hints",
    "relative": "from . import x",
    "unicode": "\U0001d4f0lobals()",
    "nonlocal-help": "import io\nio.open('x')",
    "io-from": "from io import open_code",
    "pickle": "import pickle",
    "singledispatch": "from functools import singledispatch",
    "subprocess-asyncio": "await asyncio.create_subprocess_exec('ls')",
    "asyncio-subprocess": "import asyncio.subprocess",
    "prompt": ">>> import subprocess",
    "partial-setattr": "import functools\nfunctools.partial(setattr, asyncio)('sleep', 1)",
    "dict-modules": "d = {'a': asyncio}\nd['a'].sleep = None",
    "container-append": "x = []\nx.append(asyncio)\nx[0].sleep = None",
    "star": "from os import *",
    "lambda-default": "(lambda m=asyncio: setattr(m, 'sleep', 0))()",
    "vararg": "def f(*m):\n    m[0].sleep = 0\nf(asyncio)",
}

# And these do their task, if perhaps not well.
GOOD = {
    "sum": "sum = 0\nfor x in range(3):\n    sum += x\ndef add(a, b):\n    return a + b",
    "again": "import asyncio",
    "counts": "import os\nworkers = os.cpu_count()",
    "lru": (
        "from collections import OrderedDict\n"
        "class LRU(OrderedDict):\n"
        "    def __init__(self, size):\n"
        "        super().__init__()\n"
        "        self._size = size\n"
        "    def __getitem__(self, key):\n"
        "        self.move_to_end(key)\n"
        "        return super().__getitem__(key)"
    ),
    "node": (
        "class Node:\n"
        "    __slots__ = ('value', 'next')\n"
        "    def __init__(self, value):\n"
        "        self.value, self.next = value, None\n"
        "head = Node(1)\n"
        "head.next = Node(2)\n"
        "node = head\n"
        "while node:\n"
        "    node = node.next"
    ),
    "thread": ("import threading\nt = threading.Thread(target=print, daemon=True)\nt.name = 'worker'\nt.start()"),
    "doc": "def add(a, b):\n    '''Like a.__add__(b).'''\n    return a + b",
    "main": "def add(a, b):\n    return a + b\nif __name__ == '__main__':\n    print(add(1, 2))",
    "fmt": "text = '{} and {}'\nprint(text.format(1, 2), '{:.2f}'.format(2.0))",
    "getattr": "def f(x):\n    return getattr(x, 'size', 0)",
    "locks": (
        "from collections import defaultdict\nlocks = defaultdict(asyncio.Lock)\ndef f(entry):\n    entry.value = 1"
    ),
    "private": (
        "class A:\n"
        "    def __init__(self):\n"
        "        self._os = 1\n"
        "        self.__lock = asyncio.Lock()\n"
        "    def _next(self):\n"
        "        return self._os"
    ),
    "dataclass": (
        "from dataclasses import dataclass, field\n"
        "@dataclass\n"
        "class P:\n"
        "    x: int = 0\n"
        "    items: list = field(default_factory=list)"
    ),
    "typing": (
        "from math import *\n"
        "from typing import Callable, List, Optional\n"
        "from collections.abc import Callable\n"
        "def f(x: Optional[int], g: 'Callable[[int], int]') -> List[int]: ..."
    ),
    "contexts": (
        "import contextlib\n"
        "@contextlib.contextmanager\n"
        "def f():\n"
        "    yield 1\n"
        "with contextlib.suppress(ValueError), f() as x:\n"
        "    pass"
    ),
    "shadow-local": "def f(asyncio):\n    asyncio.x = 1\n    return g(asyncio)",
    "own": "queue = asyncio.Queue()\nasync def f(queue):\n    queue.tag = 1",
    "param": "def deposit(account, amount):\n    account.balance += amount",
    "not-python": "def add(a, b)\n    return",
    "empty": "",
    "null": "x = '\x00'",
    "asks": "input()",
    "task-name": (
        "async def f():\n    task = asyncio.create_task(g())\n    task.add_done_callback(print)\n    task.label = 1"
    ),
    "timer": "import time\nbegan = time.perf_counter()",
    "match": "match {'a': 1}:\n    case {'a': value}:\n        print(value)",
    "pool": (
        "from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print(list(pool.map(abs, [1])))"
    ),
    "except": (
        "try:\n"
        "    1/0\n"
        "except (ValueError, asyncio.TimeoutError) as error:\n"
        "    print(type(error).__name__, error.args)"
    ),
    "lambda": "key = lambda pair: pair[1]\nprint(max([(1, 2)], key=key))",
    "global": "total = 0\ndef f():\n    global total\n    total += 1",
    "sem": ("limit = asyncio.Semaphore(3)\nasync def f(job):\n    async with limit:\n        return await job"),
    "status": "def f(r):\n    return r.status, r.code, r.email, r.signal",
}


def made_reference(exercises: ExerciseSet, folder: Path) -> Reference:
    """Return the reference of a set, without having run it."""
    checks = [f"{exercise.id}-{role}" for exercise in exercises.exercises for role in ("check", "hidden")]
    path = folder / f"{exercises.slug}.ipynb"
    path.write_text(written(reference(exercises, dict.fromkeys(checks, "not run\n"), "0")), encoding="utf-8")
    return read_reference(path)


@pytest.fixture(scope="module")
def sets(course: Course, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[ExerciseSet, dict[str, Rules]]]:
    """Every exercise set of the course, and the tiny one, with the rules for their answers."""
    folder = tmp_path_factory.mktemp("references")
    read = [read_set(path) for path in (*sources(course), *sources(Course(FOLDER)))]
    return [(exercises, rules(made_reference(exercises, folder))) for exercises in read]


@pytest.fixture(scope="module")
def tiny(sets: list[tuple[ExerciseSet, dict[str, Rules]]]) -> Mapping[str, Rules]:
    return sets[-1][1]


def program_rules(sets: list[tuple[ExerciseSet, dict[str, Rules]]]) -> Rules:
    return next(rules["assemble"] for exercises, rules in sets if exercises.slug == "08_asyncio")


@pytest.mark.parametrize("name", BAD)
def test_what_reaches_for_machinery_is_named(tiny: Mapping[str, Rules], name: str) -> None:
    assert screen(BAD[name], tiny["add"])


@pytest.mark.parametrize("name", GOOD)
def test_what_does_its_task_is_not(tiny: Mapping[str, Rules], name: str) -> None:
    assert screen(GOOD[name], tiny["add"]) == ()


def test_no_starter_solution_or_wrong_answer_of_the_course_is_set_aside(
    sets: list[tuple[ExerciseSet, dict[str, Rules]]], tell: Callable[[str], None]
) -> None:
    seen, spent = 0, 0.0
    for exercises, by_exercise in sets:
        for exercise in exercises.exercises:
            answers = {"the starter": exercise.starter, "the solution": exercise.solution}
            answers |= {wrong.name: wrong.source for wrong in exercise.wrongs}
            for name, source in answers.items():
                began = time.process_time()
                found = screen(source, by_exercise[exercise.id])
                spent += time.process_time() - began
                seen += 1
                assert found == (), f"{exercises.slug}, {exercise.id}, {name}: {'; '.join(map(str, found))}"
    assert seen > 300
    tell(f"screening: {seen} answers, {spent / seen * 1e3:.2f} ms each")


def test_a_finding_names_its_line_and_what_it_saw(tiny: Mapping[str, Rules]) -> None:
    frames = "\n\n# look\nimport random\n\ndef add(a, b):\n    return random._os.getpid()"
    assert [str(found) for found in screen(frames, tiny["add"])] == ["line 7 reaches for the module os"]
    text = "import ctypes\ndef add(a, b):\n    return got"
    assert [str(found) for found in screen(text, tiny["add"])] == [
        "line 1 imports ctypes, which no answer of this set needs",
        "line 3 reads `got`, a variable of the check",
    ]


def test_a_text_that_the_check_runs_is_read_as_well(sets: list[tuple[ExerciseSet, dict[str, Rules]]]) -> None:
    assert program_rules(sets).programs == {"program"}
    inside = 'program = """\nasync def fetch_all(urls):\n    import ctypes\n"""'
    assert [found.line for found in screen(inside, program_rules(sets))] == [3]
    assert screen('program = "".join(["import ", "ctypes"])', program_rules(sets))
    assert screen('program = "x"\nprogram += "import ctypes"', program_rules(sets))
    assert not screen('program = """\n    return x\nno python\n"""', program_rules(sets))


def test_what_the_set_gives_may_be_imported(sets: list[tuple[ExerciseSet, dict[str, Rules]]]) -> None:
    by_slug = {exercises.slug: by_exercise for exercises, by_exercise in sets}
    (caching, *_), (tiny, *_) = by_slug["09_caching"].values(), by_slug["01_tiny"].values()
    for text in ("from aiohttp import web", "from aiohttp.test_utils import make_mocked_request"):
        assert not screen(text, caching)
        assert screen(text, tiny)
    for module in HARMLESS_MODULES:
        assert not screen(f"import {module}", tiny)


def test_too_much_to_read_is_set_aside(tiny: Mapping[str, Rules]) -> None:
    assert screen("x = 1\n" * LONGEST, tiny["add"])
    assert screen("x = " + "-" * 50_000 + "1", tiny["add"])
    assert screen("x = " + "(" * 5_000 + ")" * 5_000, tiny["add"]) == ()  # which Python itself refuses


WORDS = ["import", "from", "def", "class", "lambda", "getattr", "sys", "__eq__", "asyncio", "verdict", "global", "del"]
WORDS += [
    "x",
    ".",
    "(",
    ")",
    "[",
    "]",
    ":",
    "=",
    ":=",
    ",",
    "\n",
    "\n    ",
    "%",
    "!",
    "?",
    "'",
    '"""',
    "{",
    "}",
    "*",
    "@",
]
WORDS += [
    "match",
    "case",
    "type",
    "with",
    "as",
    "for",
    "in",
    "await",
    "async",
    "f'{",
    "\\",
    "\t",
    "0",
    "\0",
    "é",
    "\ud800",
]


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)))
def test_any_text_can_be_screened(tiny: Mapping[str, Rules], text: str) -> None:
    for found in screen(text, tiny["add"]):
        assert found.line >= 1
        assert found.what
