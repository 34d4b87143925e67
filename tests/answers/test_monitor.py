"""When an answer's time is over: what it computes and how long it sleeps count, the wall clock does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalelab.answers import monitor
from scalelab.answers.monitor import (
    MAX_ASLEEP_IN_ALL_S,
    MAX_ASLEEP_S,
    POLL_S,
    PROCESS_S,
    SLEEPS,
    WAITS,
    Monitor,
    OutOfTime,
)

Start = Callable[..., subprocess.Popen[bytes]]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the states of threads from /proc")
COMPUTE = "import time\nwhile time.process_time() < {}: pass"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python processes, and end them and their children after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(code: str, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True, **options))
        return processes[-1]

    yield run
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # orphans as well
        process.wait()


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def watch(process: subprocess.Popen[bytes], cpu_s: float) -> str:
    """Watch a process as a channel does, until it ends ("") or is out of time: return why."""
    watches = Monitor(process.pid, cpu_s)
    watches.heard()
    while alive(process):
        time.sleep(POLL_S)
        try:
            watches()
        except OutOfTime as error:
            return f"{error.state}: {error}"
    return ""


@on_linux
def test_a_starved_process_that_needs_half_its_time_lives(start: Start) -> None:
    for _ in range(2 * (os.cpu_count() or 1)):
        start("while True: pass")
    answer = start("import os\nos.nice(19)\n" + COMPUTE.format(2))
    assert watch(answer, cpu_s=4.0) == ""
    assert answer.returncode == 0


@on_linux
@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import threading\nfor _ in range(3): threading.Thread(target=exec, args=('while True: pass',)).start()",
        "import os, time\nfor _ in range(2):\n  if not os.fork():\n    while True: pass\ntime.sleep(1000)",
        # Each child computes for less than a poll, and nobody waits for it: its time is in no parent's.
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n"
        "  if not os.fork():\n    while time.process_time() < 0.05: pass\n    os._exit(0)\n  time.sleep(0.01)",
        "import os, time\nwhile True:\n  if not os.fork(): os._exit(0)\n  os.wait()\n  time.sleep(0.001)",
    ],
    ids=["loop", "threads", "children", "short children", "tiny children"],
)
def test_a_process_that_computes_without_an_end_is_ended(start: Start, code: str) -> None:
    assert watch(start(code), cpu_s=1.0).startswith("timed out: Your answer computed for 1 s")


@on_linux
@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(1000)",
        "import threading; threading.Thread(target=threading.Event().wait).start()",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import time\nwhile True: time.sleep(0.05)",
        "import os, time\nif os.fork(): time.sleep(1000)\nif not os.fork(): exec('while True: pass')",
    ],
    ids=["sleeps", "waits", "stopped", "looks now and then", "leaves a child behind"],
)
def test_a_process_that_sleeps_without_an_end_is_ended(
    start: Start, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "MAX_ASLEEP_S", 1.0)
    process = start(code)
    assert watch(process, cpu_s=100.0) == "timed out: Your answer waits for something that never comes."


@on_linux
def test_every_state_of_a_thread_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "R" in set(monitor._states(os.getpid()))
    assert set(monitor._states(2**22 + 1)) == set()
    threads = [Path("/proc/self/task/a thread that has ended"), *Path("/proc/self/task").iterdir()]
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(threads))
    assert "R" in set(monitor._states(os.getpid()))


@on_linux
def test_a_thread_can_have_any_name(start: Start) -> None:
    named = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'\\xff\\xfe')\nprint(flush=True)\ntime.sleep(1000)"
    process = start(named, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert len(list(monitor._states(process.pid))) == 1


# Without processes.


class Processes:
    """Stand for a tree of processes: what they use per poll, and the states of their threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, states: str, cpu_s: float = 0.0, new: bool = False) -> None:
        self.states, self.cpu_s, self.new = states, cpu_s, new
        self.polls = 0
        monkeypatch.setattr(monitor, "_tree", lambda pid: [self])
        monkeypatch.setattr(monitor, "_states", lambda pid: iter(self.states))

    @property
    def pid(self) -> int:
        return self.polls if self.new else 7

    def ppid(self) -> int:
        return 1

    def create_time(self) -> float:
        return 1.0

    def cpu_times(self) -> Any:
        self.polls += 1
        return type("Times", (), {"user": self.cpu_s * self.polls, "system": 0.0})

    def polls_until_the_end(self, most: int, heard_every: int = 10**9) -> int:
        watches = Monitor(7, cpu_s=10.0)
        watches.heard()
        for poll in range(1, most + 1):
            try:
                watches()
            except OutOfTime:
                return poll
            if poll % heard_every == 0:
                watches.heard()
        return most + 1


class Child:
    """A child of the process 7 that uses nothing."""

    pid = 8

    def ppid(self) -> int:
        return 7

    def create_time(self) -> float:
        return 1.0

    def cpu_times(self) -> Any:
        return type("Times", (), {"user": 0.0, "system": 0.0})


ASLEEP_POLLS = int(MAX_ASLEEP_S / POLL_S) + 1


@pytest.mark.parametrize(
    ("states", "polls"),
    [
        *((state, ASLEEP_POLLS) for state in ("S", "T", "t", "Z", "X", "P", "I", "STZ", "")),
        *((state, 10**9) for state in ("R", "SR", "RD")),
        *((state, 10 * ASLEEP_POLLS) for state in ("D", "SD", "?", "W")),  # "?": macOS and Windows do not say
    ],
)
def test_only_threads_that_cannot_run_are_asleep(monkeypatch: pytest.MonkeyPatch, states: str, polls: int) -> None:
    ended = Processes(monkeypatch, states).polls_until_the_end(1_000)
    assert min(polls, 1_000) - 10 <= ended <= polls


@pytest.mark.parametrize(
    ("of_child", "polls"),
    [("S", ASLEEP_POLLS), ("D", 10 * ASLEEP_POLLS), ("Z", 10 * ASLEEP_POLLS), ("R", 1_001)],
)
def test_a_parent_that_may_wait_for_its_child_is_as_its_child_is(
    monkeypatch: pytest.MonkeyPatch, of_child: str, polls: int
) -> None:
    parent = Processes(monkeypatch, "")
    monkeypatch.setattr(monitor, "_tree", lambda pid: [parent, Child()])
    monkeypatch.setattr(monitor, "_states", lambda pid: iter("D" if pid == 7 else of_child))
    assert polls - 10 <= parent.polls_until_the_end(1_000) <= polls + 1  # the child's start costs something


def test_a_process_that_computes_is_not_asleep_whatever_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Processes(monkeypatch, "?", cpu_s=0.1).polls_until_the_end(1_000) == 101  # all of its 10 s


def test_an_answer_that_says_something_now_and_then_cannot_sleep_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for heard_every in (1, 4):
        polls = Processes(monkeypatch, "S").polls_until_the_end(1_000, heard_every=heard_every)
        assert ASLEEP_POLLS < polls == int(MAX_ASLEEP_IN_ALL_S / POLL_S) + 1


def test_an_answer_that_computes_a_little_cannot_sleep_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Processes(monkeypatch, "S", cpu_s=POLL_S / 5).polls_until_the_end(1_000, heard_every=1)
    assert polls == pytest.approx(MAX_ASLEEP_IN_ALL_S / POLL_S / 0.8, abs=2)


def test_an_answer_whose_message_has_come_by_now_is_not_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    Processes(monkeypatch, "S")
    watches = Monitor(7, cpu_s=10.0)
    watches.has_spoken = lambda: True
    for _ in range(1_000):
        watches()


def test_a_message_that_comes_while_the_time_is_measured_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    Processes(monkeypatch, "S")
    watches = Monitor(7, cpu_s=10.0)
    spoken = [False]
    watches.has_spoken = lambda: spoken[0]
    measured = watches._measured

    def slow() -> Any:
        spoken[0] = True
        return measured()

    def poll() -> None:
        spoken[0] = False
        watches()

    monkeypatch.setattr(watches, "_measured", slow)
    with pytest.raises(OutOfTime):
        [poll() for _ in range(1_000)]


def test_only_a_wait_without_end_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that waits is judged a second time."""
    Processes(monkeypatch, "S")
    for heard, words in ((False, WAITS), (True, SLEEPS)):
        watches = Monitor(7, cpu_s=10.0)

        def watch_it(watches: Monitor = watches, heard: bool = heard) -> None:
            for _ in range(1_000):
                watches()
                if heard:
                    watches.heard()

        with pytest.raises(OutOfTime) as caught:
            watch_it()
        assert str(caught.value) == words


@on_linux
def test_what_was_used_before_the_first_message_does_not_count(start: Start) -> None:
    answer = start(
        "import os, time\nif not os.fork(): exec('while time.process_time() < 0.5: pass'); os._exit(0)\nos.wait()\n"
        "time.sleep(1000)"
    )
    watches = Monitor(answer.pid, cpu_s=0.4)
    while sum(psutil.Process(answer.pid).cpu_times()[2:4]) < 0.4:  # of children
        time.sleep(0.05)
        watches()
    watches.heard()
    watches()


@on_linux
def test_messages_keep_no_look_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    watches = Monitor(start("while True: pass").pid, cpu_s=0.5)

    def hear() -> None:
        for _ in range(2_000):
            watches.heard()
            time.sleep(0.05)

    with pytest.raises(OutOfTime, match=r"computed for 0\.5 s"):
        hear()


def test_every_process_that_is_started_costs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Processes(monkeypatch, "R", new=True).polls_until_the_end(1_000)
    assert polls == pytest.approx(10.0 / PROCESS_S + 1, abs=2)


def test_a_process_that_has_gone_is_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = psutil.Process(os.getpid())
    monkeypatch.setattr(gone, "cpu_times", lambda: (_ for _ in ()).throw(psutil.NoSuchProcess(7)))
    monkeypatch.setattr(monitor, "_tree", lambda pid: [gone])
    watches = Monitor(7, cpu_s=10.0)
    watches.heard()
    with pytest.raises(OutOfTime, match="waits"):
        [watches() for _ in range(ASLEEP_POLLS)]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_have_no_states(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "iterdir", lambda self: pytest.fail("there is no /proc"))
    assert list(monitor._states(os.getpid())) == ["?"]
    assert monitor._tree(os.getpid())[0].pid == os.getpid()
