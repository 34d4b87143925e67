"""Threads that take turns by a seed: what can go wrong does, in every run, and nothing is left behind."""

from __future__ import annotations

import linecache
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scalelab import checks
from scalelab.checks import _interleave, _run
from scalelab.errors import ScalelabError

SEEDS = range(12)

ANSWER = """
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from time import sleep
from threading import Lock

from_before = threading.Lock()
condition = threading.Condition()
jobs_from_before = queue.Queue()
in_a_list = [threading.RLock()]


def guarded():
    inside = threading.Lock()

    def add(counter):
        with inside:
            counter.value += 1

    return add


in_a_closure = guarded()


class Counter:
    of_the_class = threading.Lock()

    def __init__(self):
        self.value = 0
        self.own = threading.RLock()
        self.other = Lock()

    def unsafe(self):
        self.value += 1

    def with_own(self):
        with self.own, self.own:
            self.value += 1

    def with_other(self):
        self.other.acquire()
        try:
            self.value += 1
        finally:
            self.other.release()

    def with_class(self):
        with self.of_the_class:
            self.value += 1

    def with_global(self):
        with from_before:
            self.value += 1

    def with_condition(self):
        with condition:
            self.value += 1

    def with_list(self):
        with in_a_list[0]:
            self.value += 1

    def with_closure(self):
        in_a_closure(self)


def times(call, count):
    for _ in range(count):
        call()


def counted(method, threads=3, count=15):
    counter = Counter()
    checks.together(*[partial(times, getattr(counter, method), count)] * threads)
    return counter.value


def two_orders():
    first, second = threading.Lock(), threading.Lock()

    def take(one, other):
        with one:
            sleep(0.1)
            with other:
                pass

    checks.together(partial(take, first, second), partial(take, second, first))


def holds_it_itself():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def not_given_back():
    lock = threading.Lock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    lock.acquire()


def spins():
    while True:
        pass


def stubborn():
    while True:
        try:
            sleep(1)
        except:
            pass


def left_alone():
    threading.Thread(target=threading.Event().wait).start()
    threading.Thread(target=sleep, args=(5,)).start()
    return 1


def dies():
    thread = threading.Thread(target=int, args=("x",))
    thread.start()
    thread.join()
    return thread.is_alive()


class Worker(threading.Thread):
    def run(self):
        sleep(2)
        self.found = threading.current_thread() is self


def subclass():
    worker = Worker(name="w")
    assert not worker.is_alive()
    worker.start()
    assert worker.is_alive()
    worker.join(1)
    early = worker.is_alive()
    worker.join()
    return early, worker.found, worker.name, threading.current_thread().name


def squares(count, most):
    def square(n):
        sleep(1)
        return n * n

    with ThreadPoolExecutor(most) as pool:
        return list(pool.map(square, range(count)))


def completed():
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(lambda n=n: (sleep(3 - n), n)[1]) for n in range(3)]
        return [future.result() for future in as_completed(futures)]


def handed_over(jobs, count):
    found = []

    def work():
        while (job := jobs.get()) is not None:
            found.append(job)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for job in range(count):
        jobs.put(job)
    for thread in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()
    return sorted(found)


def patience():
    lock = threading.Lock()
    lock.acquire()
    found = [lock.acquire(timeout=2), lock.acquire(blocking=False), threading.Event().wait(3)]
    try:
        queue.Queue().get(timeout=4)
    except queue.Empty:
        found.append("empty")
    with condition:
        found.append(condition.wait(5))
    barrier = threading.Barrier(2)
    checks.together(barrier.wait, barrier.wait)
    return found, time.monotonic()


def wakes():
    said = []

    def wait():
        with condition:
            while not said:
                condition.wait()

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    with condition:
        said.append(1)
        condition.notify_all()
    for thread in threads:
        thread.join()
    return len(said)


def misuse():
    thread = threading.Thread(target=int)
    found = []
    for act in (thread.join, thread.start, thread.start, threading.current_thread().join, threading.Lock().release,
                threading.RLock().release):
        try:
            act()
        except RuntimeError as error:
            found.append(str(error))
    return found


def helper_in_a_check():
    pass
"""

CHECK = """
def run(program, seed=0, **options):
    return checks.interleave(program, seed=seed, **options)
"""


@pytest.fixture
def cell() -> dict[str, Any]:
    """A notebook's namespace with two cells."""
    namespace: dict[str, Any] = {"__name__": "__main__", "checks": checks}
    for number, source in enumerate((ANSWER, CHECK)):
        file = f"<interleave, cell {number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), namespace)
    return namespace


def text_of(call: Callable[[], object]) -> str:
    with pytest.raises(checks.Unmet) as failure:
        call()
    return str(failure.value)


def test_an_update_without_a_lock_is_lost(cell: dict[str, Any]) -> None:
    found = [cell["run"](lambda: cell["counted"]("unsafe"), seed).result for seed in SEEDS]
    assert min(found) < 45
    assert sum(value < 45 for value in found) >= len(SEEDS) // 2


@pytest.mark.parametrize("kind", ["own", "other", "class", "global", "condition", "list", "closure"])
def test_a_lock_keeps_every_update_wherever_it_was_made(cell: dict[str, Any], kind: str) -> None:
    for seed in SEEDS:
        run = cell["run"](lambda: cell["counted"](f"with_{kind}"), seed)
        assert run.result == 45
        assert run.acquired == (0 if kind == "condition" else 90 if kind == "own" else 45)
    assert run.locks == (kind != "condition")


def test_a_seed_deals_the_same_turns_each_time(cell: dict[str, Any]) -> None:
    def look(seed: int) -> tuple[Any, ...]:
        run = cell["run"](lambda: cell["counted"]("unsafe"), seed)
        return run.result, run.switches, run.steps

    found = [look(seed) for seed in SEEDS]
    assert found == [look(seed) for seed in SEEDS]
    assert len(set(found)) > len(SEEDS) // 2


def test_locks_taken_in_two_orders_are_told(cell: dict[str, Any]) -> None:
    for seed in SEEDS:
        text = text_of(lambda: cell["run"](cell["two_orders"], seed, otherwise="Mind the order."))  # noqa: B023
        assert "Every thread waits, and none is left that could wake another." in text
        assert {"Thread 1 holds lock 1", "Thread 1 holds lock 2"} & {line.split(",")[0] for line in text.splitlines()}
        assert "`with other:`" in text
        assert text.endswith("Mind the order.")


def test_a_lock_that_a_thread_holds_itself_is_told(cell: dict[str, Any]) -> None:
    text = text_of(lambda: cell["run"](cell["holds_it_itself"]))
    assert "The main thread waits for lock 1, which it holds itself, in line" in text


def test_a_lock_that_its_thread_has_kept_is_told(cell: dict[str, Any]) -> None:
    text = text_of(lambda: cell["run"](cell["not_given_back"]))
    assert "waits for lock 1, which thread 1 has not given back and, being at its end, never will" in text


@pytest.mark.parametrize("name", ["spins", "stubborn"])
def test_what_never_ends_is_ended(cell: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interleave, "STEPS", 2_000)
    before = threading.active_count()
    assert "NeverEnds" in text_of(lambda: cell["run"](cell[name]))
    assert threading.active_count() == before


def test_a_thread_that_stands_in_a_real_wait_is_given_up(cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interleave, "PATIENCE", 0.2)
    monkeypatch.setattr(_interleave, "LET_GO", 0.05)
    real = threading.Lock()
    real.acquire()
    hidden = (real,)  # nothing looks into a tuple
    assert "Stuck" in text_of(lambda: cell["run"](hidden[0].acquire))
    real.release()


def test_threads_that_outlive_the_program_are_counted(cell: dict[str, Any]) -> None:
    run = cell["run"](cell["left_alone"])
    assert (run.result, run.threads, run.left, run.stuck, run.seconds) == (1, 2, 2, 1, 0.0)


def test_an_error_that_ends_a_thread_is_kept_and_told(cell: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = cell["run"](cell["dies"])
    assert run.result is False
    assert [type(error) for error in run.died] == [ValueError]

    def failing() -> None:
        with checks.verdict("dies") as expect:
            cell["run"](cell["dies"])
            expect(False, "it holds", otherwise="It does not.")

    with pytest.raises(checks.CheckFailed):
        failing()
    assert "Thread 1 was ended by an error. ValueError: invalid literal" in capsys.readouterr().out


def test_a_subclass_of_thread_takes_turns(cell: dict[str, Any]) -> None:
    run = cell["run"](cell["subclass"])
    assert run.result == (True, True, "w", "MainThread")
    assert run.seconds == 2


def test_pools_and_queues_are_those_of_the_library(cell: dict[str, Any]) -> None:
    for seed in SEEDS:
        run = cell["run"](lambda: cell["squares"](7, 3), seed)
        assert run.result == [n * n for n in range(7)]
        assert (run.seconds, run.threads, run.left) == (3, 3, 0)
        assert cell["run"](cell["completed"], seed).result == [2, 1, 0]
        for jobs in ("queue.Queue()", "queue.Queue(2)", "queue.SimpleQueue()", "jobs_from_before"):
            found = cell["run"](lambda: cell["handed_over"](eval(jobs, cell), 9), seed)  # noqa: B023
            assert found.result == list(range(9))
        assert cell["run"](cell["wakes"], seed).result == 1


def test_waiting_takes_virtual_time(cell: dict[str, Any]) -> None:
    began = time.monotonic()
    run = cell["run"](cell["patience"])
    assert run.result == ([False, False, False, "empty", False], 14)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("seconds", [0.1, 0.01, 1 / 3, 0.25])
def test_waits_with_a_time_limit_end_one_after_another(cell: dict[str, Any], seconds: float) -> None:
    """0.1 + 0.1 + 0.1 is a little more than 0.3."""

    def wait() -> int:
        empty = 0
        for _ in range(40):
            try:
                cell["jobs_from_before"].get(timeout=seconds)
            except queue.Empty:
                empty += 1
        return empty

    cell["wait"] = wait
    run = checks.interleave(wait, seed=1)
    assert run.result == 40
    assert run.seconds == pytest.approx(40 * seconds)


def test_misuse_raises_what_the_library_raises(cell: dict[str, Any]) -> None:
    assert cell["run"](cell["misuse"]).result == [
        "cannot join thread before it is started",
        "threads can only be started once",
        "cannot join current thread",
        "release unlocked lock",
        "cannot release un-acquired lock",
    ]


def test_all_is_as_before_when_it_is_over(cell: dict[str, Any]) -> None:
    names = [(threading, "Lock"), (threading, "RLock"), (threading, "current_thread"), (time, "sleep"),
             (queue, "SimpleQueue"), (threading.Thread, "start"), (threading.Thread, "join"),
             (ThreadPoolExecutor, "__init__")]  # fmt: skip
    before = [getattr(owner, name) for owner, name in names]
    threads = threading.active_count()
    for program in ("two_orders", "left_alone", "wakes", "completed"):
        cell["run"](cell[program], may_raise=Exception)
    assert [getattr(owner, name) for owner, name in names] == before
    assert threading.active_count() == threads
    for lock in (cell["from_before"], cell["condition"]._lock, cell["Counter"].of_the_class, cell["in_a_list"][0]):
        assert type(lock).__module__ == "_thread"
        assert lock.acquire(blocking=False)
        lock.release()


def test_other_threads_of_the_process_notice_nothing(cell: dict[str, Any]) -> None:
    over, kinds = threading.Event(), set()

    def bystander() -> None:
        while not over.is_set():
            kinds.add((type(threading.Lock()).__module__, time.monotonic() > 100 or time.monotonic() > 0))
            time.sleep(0.001)

    thread = threading.Thread(target=bystander)
    thread.start()
    for seed in SEEDS:
        cell["run"](lambda: cell["counted"]("with_own"), seed)
    over.set()
    thread.join()
    assert kinds == {("_thread", True)}


def test_the_cell_of_a_check_keeps_its_turn() -> None:
    source = """
def add():
    global value
    value += 1

def program():
    global value
    value = 0
    checks.together(*[lambda: [add() for _ in range(15)]] * 3)
    return value

found = []
with checks.verdict("own turn") as expect:
    for seed in range(12):
        found.append(checks.interleave(program, seed=seed).result)
    expect(True, "it runs", otherwise="")
"""
    namespace: dict[str, Any] = {"__name__": "__main__", "checks": checks}
    exec(compile(source, "<the cell of a check>", "exec"), namespace)
    assert namespace["found"] == [45] * 12


def test_it_runs_after_an_interrupted_run(cell: dict[str, Any]) -> None:
    _run.raise_in(threading.get_ident(), None)  # on 3.11 it leaves a note in the interpreter
    assert cell["run"](lambda: cell["counted"]("with_own")).result == 45


def test_one_run_at_a_time(cell: dict[str, Any]) -> None:
    found = []

    def program() -> None:
        with pytest.raises(ScalelabError, match="wait for their end"):
            checks.interleave(lambda: None)
        found.append(1)

    cell["run"](program)
    assert found == [1]


def test_an_error_of_the_program_is_told_with_its_line(cell: dict[str, Any]) -> None:
    assert "ZeroDivisionError" in text_of(lambda: cell["run"](lambda: 1 / 0))
    assert isinstance(cell["run"](lambda: 1 / 0, may_raise=ZeroDivisionError).error, ZeroDivisionError)


def test_together_returns_results_in_order_and_raises_the_first_error() -> None:
    assert checks.together(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        checks.together(lambda: 1, lambda: 1 / 0, lambda: int("x"))


def test_threads_of_a_pool_end_without_a_word_to_the_log() -> None:
    """One that is ended again while it logs its end would keep the lock of logging, for which all others wait."""
    heard: list[logging.LogRecord] = []
    log, handler = logging.getLogger("concurrent.futures"), logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    log.addHandler(handler)
    try:

        def left_behind() -> list[None]:
            pool = ThreadPoolExecutor(5)
            pools.append(pool)
            return [future.result() for future in [pool.submit(time.sleep, 1) for _ in range(9)]]

        pools: list[ThreadPoolExecutor] = []
        run = checks.interleave(left_behind)
        assert (run.left, heard) == (5, [])
        assert not log.disabled
    finally:
        log.removeHandler(handler)
