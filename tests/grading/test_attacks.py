"""Attacks on the grader: each costs its own question, gains nothing, and leaves nothing behind.

Every answer that goes for the machinery is graded twice: as it is, where the screen sets it aside, and with the screen
switched off, to see what the guard and the sandbox hold by themselves. What only the screen holds is listed as such.
All are graded in two batches, one with the screen and one without, beside honest submissions: so each attack has the
others to go for.
"""

from __future__ import annotations

import json
import multiprocessing.util
import os
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalelab.course.find import Course
from scalelab.course.stored import digest_of
from scalelab.grading import Grade, QuestionGrade, Summary, grade, zygote
from scalelab.grading.guard import WATCH
from scalelab.grading.merge import read_reference
from tiny import (
    POINTS,
    RIGHT,
    cell,
    keep_exercises,
    load,
    quiet_sync,
    reference_path,
    save,
    source,
    student_path,
    tiny_course,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(zygote.missing()), reason="answers cannot be sandboxed on this system"
)

TIMEOUT = 3.0
TOGETHER_S = 1.0
"""A cell that takes longer beside others is judged again alone: this short, endless answers cost the tests less."""
FULL = sum(POINTS.values())
WRONG = "def add(a, b):\n    return None\n\nasync def ordered(jobs):\n    return None\n\n"
SECRET = "the-launch-code-is-0000"
MARK = "scalelab-attack-left-behind"

# What the two checks of `add` are here: they take the course's own way of judging.
CHECKS = {
    "check": 'with checks.verdict("add") as expect:\n'
    '    expect(add(2, 3) == 5, "2 and 3 are 5", otherwise="Not the sum of both.")',
    "hidden": 'with checks.verdict("add, others") as expect:\n'
    '    expect(add(-4, 9) == 5, "-4 and 9 are 5", otherwise="The sign is lost.")',
}

# Answers to `add` that are wrong and want its points. Screen off, the guard must end each: as "tampered" (it says what
# was changed), or with the kernel, where what the kernel says could not be believed any more.
FORGERIES = {
    "Expect patched": (
        "checks.Expect.__call__ = lambda self, good, right, **_: print('✓', right) or setattr(self, 'held', 1)"
    ),
    "Expect closed": "checks.Expect.fail = lambda *_: None\nchecks.Expect.close = lambda *_: None",
    "code swapped": ("checks.Expect.__call__.__code__ = (lambda self, good, right, **_: print('✓', right)).__code__"),
    "built-in patched": "import builtins\nbuiltins.print = builtins.bool = lambda *_: True",
    "checks replaced": "class expect:\n    held = 1\nclass checks:\n    verdict = None",
    "verdict replaced": "import scalelab.checks as c\nc.verdict = None",
    "sys.modules": "import sys, types\nsys.modules['scalelab.checks'].verdict = None",
    "asserts skipped": (
        "import ast\nclass Skip(ast.NodeTransformer):\n"
        "    def visit_Call(self, node):\n        return ast.Constant(True)\n"
        "get_ipython().ast_transformers.append(Skip())"
    ),
    "hidden checks read": (
        "def tell(info):\n    global seen\n    seen = info.raw_cell\n"
        "get_ipython().events.register('pre_run_cell', tell)"
    ),
    "cells rewritten": (
        "get_ipython().input_transformers_cleanup.append(lambda lines: ['print(\"✓ 2 and 3 are 5\")\\n'])"
    ),
    "run_cell patched": (
        "shell = get_ipython()\nreal = shell.run_cell_async\n"
        "shell.run_cell_async = lambda code, *a, **k: real('print(\"✓ 2 and 3 are 5\")', *a, **k)"
    ),
    "run_code patched": (
        "kind = type(get_ipython())\nreal = kind.run_code\nkind.run_code = lambda *a, **k: real(*a, **k)"
    ),
    "errors hidden": "get_ipython().showtraceback = lambda *_, **__: None",
    "stdout replaced": "import io, sys\nsys.stdout = io.StringIO()",
    "stdout patched": (
        "import sys\nreal = sys.stdout.write\nsys.stdout.write = lambda text: real(text.replace('✗', '✓'))"
    ),
    "display hooked": "get_ipython().display_pub.publish = lambda *_, **__: None",
    "trace": "import sys, threading\nsys.settrace(lambda *_: None)\nthreading.settrace(lambda *_: None)",
    "profile": "import sys\nsys.setprofile(lambda *_: None)",
    "import hook": "import sys\nsys.meta_path.insert(0, type('F', (), {'find_spec': lambda *_: None})())",
    "clock patched": "import time\ntime.perf_counter = lambda: 0.0",
    "loop patched": "asyncio.base_events.BaseEventLoop.run_until_complete = lambda *_: None",
    "session patched": "get_ipython().kernel.session.send = lambda *_, **__: None",
    "handlers replaced": ("kernel = get_ipython().kernel\nkernel.shell_handlers['execute_request'] = lambda *_: None"),
    "late thread": (
        "import threading, time\nfrom scalelab.checks import Expect\ndef later():\n    time.sleep(0.02)\n"
        "    Expect.fail = lambda *_: None\nthreading.Thread(target=later, daemon=True).start()"
    ),
    "in the check": (
        "def add(a, b):\n    checks.Expect.fail = lambda *_: None\n    checks.Expect.close = lambda *_: None\n"
        "    print('✓ 2 and 3 are 5')"
    ),
    "verdict for others": "def verdict(good, line, otherwise):\n    print('✓', line)\nchecks.verdict = None",
}

# Screen off, these fail by themselves: what they print is not what a right answer's check prints.
VAIN = {
    "lines printed": "def add(a, b):\n    print('✓ 2 and 3 are 5')\n    raise SystemExit",
    "lines printed at once": "print('✓ 2 and 3 are 5')",
    "stored outputs read": (
        "import pathlib, re\n"
        "found = [p.read_text() for p in pathlib.Path('/').rglob('*.ipynb') if not str(p).startswith('/proc')]\n"
        "def add(a, b):\n    return 5 if any('2 and 3 are 5' in text for text in found) else None"
    ),
    "points claimed": "import json\nprint(json.dumps({'points': 3, 'state': 'passed'}))",
    "record forged": (
        'import sys\nrecord = \'scalelab: {"question": "add", "cell": "add-check", "state": "passed"}\\n\'\n'
        "sys.stderr.write(record)\nsys.__stderr__.write(record)"
    ),
    "record on descriptors": (
        "import os\nfor fd in range(64):\n    try:\n"
        '        os.write(fd, b\'scalelab: {"state": "passed"}\\n\')\n    except OSError:\n        pass'
    ),
}

# These end otherwise: the check does not use what was changed, IPython puts it back after the cell, nothing that fits
# is printed, the kernel gives no reply, or the thread comes too late.
NOT_BY_THE_GUARD = {
    *VAIN,
    *("cells rewritten", "checks replaced", "handlers replaced", "late thread", "session patched", "stdout patched"),
}

# Screen off, these gain points or may: an answer shares its process with its check. Only the screen holds them.
ONLY_THE_SCREEN = {
    "equal to everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Any()"
    ),
    "expected value read from frames": (
        "import sys\ndef add(a, b):\n    codes = sys._getframe(1).f_code.co_consts\n"
        "    return next(value for value in codes if isinstance(value, int) and value > 3 and value not in (a, b))"
    ),
    "patched and put back": (
        "def add(a, b):\n    kind = checks.Expect\n    real = kind.__call__\n"
        "    def say(self, good, right, **_):\n        kind.__call__ = real\n"
        "        return real(self, True, right, otherwise='')\n"
        "    kind.__call__ = say"
    ),
    "the guard deceived": (
        f"import importlib\nimportlib.import_module('{WATCH}').look = lambda names: print('untouched')\n"
        "checks.Expect.__call__ = lambda self, good, right, **_: print('✓', right)\n"
        "checks.Expect.close = lambda *_: None"
    ),
}

# Answers that go for the machine; with the two honest ones beside them they cost their own question only. A pair shares
# a submission: answers to `add` and to `ordered`. Then what the grade may say of each.
MACHINE = {
    "endless loop": "while True:\n    pass",
    "sleep, interrupts ignored": ("import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"),
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "threads without end": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(600,)).start()"
    ),
    "memory bomb": "held = []\nwhile True:\n    held.append(bytearray(50_000_000))",
    "one huge allocation": "held = b'x' * (1 << 40)",
    "2 GB of output": "line = 'x' * 1_000_000\nfor _ in range(2_000):\n    print(line)",
    "2 GB past Python": "import os\nline = b'x' * 1_000_000\nfor _ in range(2_000):\n    os.write(1, line)",
    "disk filled": ("with open('/tmp/full', 'wb') as file:\n    while True:\n        file.write(bytes(10_000_000))"),
    "files without end": "n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'w').close()",
    "exit": "import os\nos._exit(0)",
    "crash": "import ctypes\nctypes.string_at(0)",
    "recursion in C": "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(): f()\nf()",
    "parent killed": (
        "import os, signal\n"
        "os.kill(os.getppid(), signal.SIGKILL)\n"
        "import time\n"
        "time.sleep(1)\n"
        "raise ValueError('alive')"
    ),
    "everyone killed": "import os, signal\nos.kill(-1, signal.SIGKILL)\nraise ValueError('alive')",
    "process group killed": "import os, signal\nos.killpg(0, signal.SIGKILL)\nraise ValueError('alive')",
}

# Answers that say in an error what they could read or reach; nothing of it may come out.
SPIES = {
    "environment": "import os\nraise ValueError(dict(os.environ))",
    "environments of others": (
        "import pathlib\nraise ValueError([p.read_bytes() for p in pathlib.Path('/proc').glob('[0-9]*/environ')])"
    ),
    "solutions": "raise ValueError(open('SOLUTIONS').read())",
    "other submissions": "import os\nraise ValueError(os.listdir('SUBMISSIONS'))",
    "a secret file": "raise ValueError(open('SECRET_FILE').read())",
    "a symlink to it": (
        "import os\nos.symlink('SECRET_FILE', '/tmp/link')\nraise ValueError(open('/tmp/link').read())"
    ),
    "/proc/1/root": "import os\nraise ValueError(open('/proc/1/root' + 'SECRET_FILE').read())",
    "passwords": "raise ValueError(open('/etc/passwd').read() + open('/etc/shadow').read())",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', PORT), timeout=1).send(b'hello')",
    "gradebook": "with open('OUT/grades.csv', 'a') as file:\n    file.write('mallory,8')",
    "course": "with open('SOLUTIONS', 'a') as file:\n    file.write('x')",
    "shell": (
        "import subprocess\n"
        "raise ValueError(subprocess.run('cat SECRET_FILE; touch OUT/evil', shell=True, capture_output=True))"
    ),
    "ptrace": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "found = [libc.ptrace(16, pid, 0, 0) for pid in (os.getppid(), 1)]\nassert found == [-1, -1], found\n"
        "raise ValueError('ptrace is refused')"
    ),
    "namespaces": (
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == -1\nraise ValueError('unshare is refused')"
    ),
    "remount": (
        "import ctypes\n"
        "assert ctypes.CDLL(None).mount(b'/', b'/', b'', 32, b'') == -1\n"
        "raise ValueError('mount is refused')"
    ),
    "root": "import os\nos.setuid(0)",
    "escape by chroot": "import os\nos.chroot('/tmp')",
    "devices": (
        "import os\nos.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))\nraise ValueError(open('/tmp/disk', 'rb').read(9))"
    ),
}

# Answers that leave something behind, and are right otherwise.
LEAVERS = {
    "daemon": (
        "import os, sys\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', '{MARK}'])\n"
        "    os._exit(0)"
    ),
    "process in a session": (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{MARK}'], start_new_session=True)"
    ),
    "shared memory": (
        "from multiprocessing import resource_tracker, shared_memory\n"
        f"held = shared_memory.SharedMemory('{MARK}', create=True, size=1_000_000)\n"
        "resource_tracker.unregister(held._name, 'shared_memory')"
    ),
    "files": f"import tempfile\nopen(tempfile.gettempdir() + '/{MARK}', 'w').close()",
    "a server": "import socket\nserver = socket.create_server(('127.0.0.1', 0))",
}


@dataclass
class Class:
    """A class's submissions, and what grading them came to."""

    course: Course
    root: Path
    said: list[str] = field(default_factory=list)
    summary: Summary | None = None

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    @property
    def out(self) -> Path:
        return self.root / "grades"

    def hand_in(self, student: str, answers: Mapping[str, str], edit: Callable[[dict[str, Any]], object] = str) -> Path:
        notebook = load(student_path(self.course))
        for name, text in (RIGHT | dict(answers)).items():
            cell(notebook, name)["source"] = text
        edit(notebook)
        return save(self.submissions / f"{student}.ipynb", notebook)

    def grade(self) -> None:
        for honest in ("ann", "zoe"):
            self.hand_in(honest, {})
        self.summary = grade(self.submissions, self.out, course=self.course, timeout=TIMEOUT, report=self.said.append)

    def grade_of(self, student: str) -> Grade:
        assert self.summary is not None
        (found,) = [one for one in self.summary.grades if one.student == student]
        return found

    def written(self) -> str:
        """Return all that was written, except what lies beside the results for the grader itself."""
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in self.out.rglob("*") if path.is_file()]
        return "\n".join([*texts, *self.said])


def question(one: Grade, name: str) -> QuestionGrade:
    return next(question for question in one.questions if question.exercise == name)


def points(one: Grade) -> dict[str, int | None]:
    return {question.exercise: question.points for question in one.questions}


def serves_this_process(process: psutil.Process) -> bool:
    """Whether it is one of multiprocessing's own, which live as long as this process."""
    with suppress(psutil.NoSuchProcess):
        line = " ".join(process.cmdline())
        return "multiprocessing.forkserver" in line or "multiprocessing.resource_tracker" in line
    return False


@contextmanager
def nothing_is_left(root: Path) -> Iterator[None]:
    """See to it that, when all is over, no process, temporary file, shared memory or other file is left."""
    multiprocessing.util.get_temp_dir()  # is this process's, and stays
    # A short name: the paths of sockets below it may have 107 bytes.
    temporary = Path(tempfile.mkdtemp(prefix="sl-"))
    mine = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield
    new = [process for process in psutil.Process().children(recursive=True) if process.pid not in mine]
    _, left = psutil.wait_procs([process for process in new if not serves_this_process(process)], timeout=10)
    assert not [process.cmdline() for process in left]
    assert not [process for process in psutil.process_iter(["cmdline"]) if MARK in (process.info["cmdline"] or [])]
    assert not [path for path in Path("/dev/shm").glob("*") if MARK in path.name]
    assert not list(temporary.iterdir())
    temporary.rmdir()
    assert {path.name for path in root.iterdir()} <= {"submissions", "grades", "secret.txt"}
    assert {path.suffix for path in (root / "submissions").rglob("*") if path.is_file()} == {".ipynb"}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The tiny course, in which `add` is checked by the course's own verdict."""
    course = tiny_course(tmp_path_factory.mktemp("attacked") / "course")
    keep_exercises(course, POINTS)
    text = source(course).read_text(encoding="utf-8")
    text = text.replace("import asyncio\n", "import asyncio\n\nfrom scalelab import checks\n", 1)
    for role, check in CHECKS.items():
        text = re.sub(
            rf"(role: {role}\npoints: \d\n---\n)got = add\(.*?\n(?=```)", rf"\1{check}\n", text, count=1, flags=re.S
        )
    source(course).write_text(text, encoding="utf-8")
    quiet_sync(course)
    return course


def table(title: str, rows: list[tuple[str, str, float]]) -> str:
    width = max(len(name) for name, _, _ in rows)
    return "\n".join([title, *(f"  {name.ljust(width)}  {held}, {seconds:.1f} s" for name, held, seconds in rows)])


def hand_in_pairs(one: Class, kind: str, attacks: Mapping[str, str], after: str = "") -> dict[str, tuple[str, str]]:
    """Hand two attacks in at a time, as answers to `add` and `ordered`; return each one's student and question."""
    texts = {name: f"{text}\n{after}" for name, text in attacks.items()}
    places = {}
    names = list(attacks)
    for number, pair in enumerate(zip(names[::2], [*names[1::2], ""], strict=False)):
        questions = dict(zip(("add", "ordered"), filter(None, pair), strict=False))
        one.hand_in(f"{kind}-{number}", {question: texts[name] for question, name in questions.items()})
        places |= {name: (f"{kind}-{number}", question) for question, name in questions.items()}
    return places


def hand_in_alone(one: Class, kind: str, attacks: Mapping[str, str], before: str) -> dict[str, str]:
    """Hand each attack in as the only answer of a student, so that it is judged once; return each one's student."""
    students = {name: f"{kind}-{number}" for number, name in enumerate(attacks)}
    for name, student in students.items():
        one.hand_in(student, {"add": f"{before}{attacks[name]}", "ordered": " ", "mend": " "})
    return students


def judged(one: Class, places: Mapping[str, tuple[str, str]], worth: int = 0) -> dict[str, QuestionGrade]:
    """Return what became of each attack; each earns what it is worth, and the honest answers beside it their points."""
    found = {}
    for name, (student, exercise) in places.items():
        graded = one.grade_of(student)
        attacked = {question for other, question in places.values() if other == student}
        assert points(graded) == POINTS | {question: worth * POINTS[question] for question in attacked}, (name, graded)
        found[name] = question(graded, exercise)
    return found


# Nothing in these is out of a student's reach; they run into the limits.
PASS_THE_SCREEN = {"endless loop", "threads without end", "memory bomb", "one huge allocation", "2 GB of output"}


def aimed() -> dict[str, str]:
    """Return the attacks that the screen must see."""
    attacks = FORGERIES | ONLY_THE_SCREEN | MACHINE | SPIES | LEAVERS
    return {name: text for name, text in attacks.items() if name not in PASS_THE_SCREEN}


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port of this machine; yield the port, and a list of what is heard."""
    heard: list[bytes] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def listen() -> None:
            while not over.is_set():
                with suppress(TimeoutError), server.accept()[0] as connection:
                    heard.append(connection.recv(100))

        listener = threading.Thread(target=listen)
        listener.start()
        yield server.getsockname()[1], heard
        over.set()
        listener.join()


HOSTILE = "<script>alert(1)</script>"
NAMES = ("=cmd()", "+1+1", "@SUM(A1)", "-2+3", "zoë", "\u202egnp.nb", "a\nb", "\x1b[2J", HOSTILE, "..", "...", "CON")


def hostile(notebook: dict[str, Any]) -> None:
    """Say all that could mislead a grader or a page, around right answers."""
    notebook["metadata"] |= {
        "kernelspec": {"name": "../../evil", "display_name": HOSTILE, "language": "sh", "argv": ["touch", "evil"]},
        "language_info": {"name": "../../x"},
        "scalelab": notebook["metadata"]["scalelab"] | {"exercises": "01_tiny", "points": 1000},
        "widgets": {"state": {"x": HOSTILE}},
    }
    for one in notebook["cells"]:
        one["metadata"] |= {"tags": ["nbval-skip", "raises-exception"], "editable": HOSTILE}
        one["metadata"].get("nbgrader", {}).update(points=1000, grade=True)
        if one["cell_type"] == "code":
            one["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": HOSTILE}}]
            if one["id"].endswith("-check"):
                one["source"] = "raise SystemExit"


def refused(course: Course, secret: Path) -> dict[str, Callable[[Path], object]]:
    """Return what makes files that no grader should read, by name."""
    whole = json.dumps(load(student_path(course)))
    cells = json.loads(whole)
    cells["cells"] = [{"cell_type": "raw", "metadata": {}, "source": ""}] * 1_000_000
    return {
        "huge": lambda path: (path.write_text("{", encoding="utf-8"), os.truncate(path, 200_000_000)),
        "cells": lambda path: path.write_text(json.dumps(cells), encoding="utf-8"),
        "nested": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
        "outputs": lambda path: path.write_text(
            whole[:-1] + ', "x": ' + "[" * 500 + "]" * 500 + "}" * 2, encoding="utf-8"
        ),
        "link": lambda path: path.symlink_to(secret),
        "link-to-a-solution": lambda path: path.symlink_to(course.solutions / "01_tiny.ipynb"),
        "link-to-itself": lambda path: path.symlink_to(path),
        "device": lambda path: path.symlink_to("/dev/zero"),
        "pipe": os.mkfifo,
        "folder": lambda path: path.mkdir(),
        "empty": lambda path: path.touch(),
        "zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1_000_000)),
    }


@dataclass
class Screened:
    """The batch with the screen: attacks as they are, by name each one's student; hostile names, metadata and files."""

    batch: Class
    attackers: Mapping[str, str]
    refused: frozenset[str]


@pytest.fixture(scope="module")
def screened(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Screened:
    root = tmp_path_factory.mktemp("screened")
    one = Class(course, root)
    secret = root / "secret.txt"
    secret.write_text(SECRET, encoding="utf-8")
    attackers = {name: f"attacker-{number}" for number, name in enumerate(aimed())}
    with nothing_is_left(root):
        for name, text in aimed().items():
            one.hand_in(attackers[name], dict.fromkeys(POINTS, text))
        for name in NAMES:
            one.hand_in(f"{name}/work" if name.strip(".") else f"x{name}x", {})
        one.hand_in("metadata", {}, hostile)
        one.hand_in("page", {"add": f"raise ValueError('{HOSTILE}<img src=x onerror=alert(1)>=1+1')"})
        files = refused(course, secret)
        for name, make in files.items():
            make(one.submissions / f"{name}.ipynb")
        (one.submissions / "out").symlink_to(course.root)
        one.grade()
    return Screened(one, attackers, frozenset(files))


@dataclass
class Unscreened:
    """The batch without the screen: each attack's student, and question where it is not the only one."""

    batch: Class
    forgers: Mapping[str, str]
    only_the_screen: Mapping[str, str]
    machine: Mapping[str, tuple[str, str]]
    spies: Mapping[str, tuple[str, str]]
    leavers: Mapping[str, tuple[str, str]]
    heard: list[bytes]


@pytest.fixture(scope="module")
def unscreened(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Unscreened:
    root = tmp_path_factory.mktemp("unscreened")
    one = Class(course, root)
    secret = root / "secret.txt"
    secret.write_text(SECRET, encoding="utf-8")
    with nothing_is_left(root), listening() as (port, heard), pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalelab.grading.judge.screen", lambda *_: ())
        patch.setattr("scalelab.grading.judge.TOGETHER_S", TOGETHER_S)
        patch.setenv("SCALELAB_TEST_SECRET", SECRET)
        places = {
            "SOLUTIONS": str(source(course)),
            "SUBMISSIONS": str(one.submissions),
            "SECRET_FILE": str(secret),
            "OUT": str(one.out),
            "PORT": str(port),
        }
        spies = {
            name: re.sub("|".join(places), lambda found: places[found.group()], text) for name, text in SPIES.items()
        }
        # Files are taken in the order of their names: what waits for its limit begins first.
        handed_in = Unscreened(
            one,
            machine=hand_in_pairs(one, "a-machine", MACHINE),
            forgers=hand_in_alone(one, "forger", FORGERIES | VAIN, before=WRONG),
            only_the_screen=hand_in_alone(one, "only", ONLY_THE_SCREEN, before=WRONG),
            spies=hand_in_pairs(one, "spy", spies),
            leavers=hand_in_pairs(one, "leaver", LEAVERS, after=f"{RIGHT['add']}\n{RIGHT['ordered']}"),
            heard=heard,
        )
        one.grade()
    return handed_in


def test_the_screen_sets_aside_what_reaches_for_machinery(screened: Screened, tell: Callable[[str], None]) -> None:
    for name, student in screened.attackers.items():
        graded = screened.batch.grade_of(student)
        assert {(asked.state, asked.points) for asked in graded.questions} == {("set aside", None)}, name
        assert graded.total == 0
    number = len(screened.attackers)
    tell(f"attacks, as they are: {number} of {number} set aside by the screen, before anything ran")


def test_the_guard_holds_forgeries_without_the_screen(unscreened: Unscreened, tell: Callable[[str], None]) -> None:
    rows = []
    for name, student in unscreened.forgers.items():
        graded = unscreened.batch.grade_of(student)
        assert graded.total == 0, name
        asked = question(graded, "add")
        by_guard = asked.state in {"tampered", "kernel died"}
        assert by_guard or name in NOT_BY_THE_GUARD, (name, asked)
        rows.append((name, f"{'guard' if by_guard else 'nbval'}: {asked.state}", asked.seconds))
    tell(table("attacks on the check, screen off", rows))


def test_what_only_the_screen_holds_costs_nobody_else(unscreened: Unscreened, tell: Callable[[str], None]) -> None:
    graded = {name: unscreened.batch.grade_of(student) for name, student in unscreened.only_the_screen.items()}
    assert all(points(grade) | {"add": 0} == dict.fromkeys(POINTS, 0) for grade in graded.values())
    gained = [name for name, grade in graded.items() if question(grade, "add").points]
    tell(f"screen off, these would gain points: {', '.join(gained) or 'none'}")


def test_the_sandbox_holds_the_machine(unscreened: Unscreened, tell: Callable[[str], None]) -> None:
    rows = []
    for name, asked in judged(unscreened.batch, unscreened.machine).items():
        assert asked.state in {"timed out", "kernel died", "raised", "failed", "judge ended"}, (name, asked)
        rows.append((name, f"limits: {asked.state}", asked.seconds))
    tell(table("attacks on the machine, screen off", rows))


def test_nothing_of_the_machine_is_seen_or_written(
    course: Course, unscreened: Unscreened, tell: Callable[[str], None]
) -> None:
    one = unscreened.batch
    rows = []
    for name, asked in judged(one, unscreened.spies).items():
        assert asked.state == "raised", (name, asked)
        if "is refused" in SPIES[name]:
            assert "is refused" in asked.feedback, (name, asked)
        rows.append((name, f"sandbox: {asked.feedback.strip().splitlines()[-1][:70]}", asked.seconds))
    assert unscreened.heard == []
    assert read_reference(reference_path(course)).digest == digest_of(source(course)), "its source is as it was"
    assert SECRET not in one.written()
    assert "mallory" not in (one.out / "grades.csv").read_text(encoding="utf-8")
    assert not list(one.out.rglob("evil*"))
    tell(table("what answers can see and reach, screen off", rows))


def test_what_is_left_behind_ends_with_its_question(unscreened: Unscreened, tell: Callable[[str], None]) -> None:
    found = judged(unscreened.batch, unscreened.leavers, worth=1)
    rows = [(name, "gone with its kernel", asked.seconds) for name, asked in found.items()]
    tell(table("left behind, screen off", rows))


@pytest.mark.parametrize("batch", ["screened", "unscreened"])
def test_the_honest_beside_them_get_their_points(request: pytest.FixtureRequest, batch: str) -> None:
    one = request.getfixturevalue(batch).batch
    assert one.grade_of("ann").total == one.grade_of("zoe").total == FULL


def test_files_cost_nobody_anything(screened: Screened, tell: Callable[[str], None]) -> None:
    one = screened.batch
    assert one.summary is not None
    attackers = set(screened.attackers.values())
    by_student = {graded.student: graded for graded in one.summary.grades if graded.student not in attackers}
    assert not by_student.keys() & screened.refused
    assert {refusal.file for refusal in one.summary.refused} >= {
        f"{name}.ipynb" for name in screened.refused if name != "folder"
    }
    assert len(by_student) == len(NAMES) + 4
    assert {graded.total for graded in by_student.values() if graded.student != "page"} == {FULL}
    assert by_student["page"].total == FULL - POINTS["add"]
    pages = [path.read_text(encoding="utf-8") for path in one.out.rglob("*.html")]
    assert pages
    assert not any(HOSTILE in page or "<img src=x" in page for page in pages)
    tables = [path.read_text(encoding="utf-8") for path in one.out.rglob("*.csv")]
    assert not [line for text in tables for line in text.splitlines() if re.search(r'(^|,)"?[=+@]', line)]
    assert SECRET not in one.written()
    assert not [line for line in one.said if re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", line)]
    assert not list(one.root.rglob("evil*"))
    tell(
        f"hostile files: {len(screened.refused)} refused by name, {len(NAMES) + 1} with hostile names and metadata "
        "graded as any"
    )
