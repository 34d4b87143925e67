"""The exercises of chapter 06: right answers of other kinds pass too, and the schedule is what the rules make of it."""

from __future__ import annotations

import linecache
from typing import Any

import pytest

from scalelab.checks import CheckFailed
from scalelab.course import Course
from scalelab.exercises.source import ExerciseSet, read_set


@pytest.fixture(scope="module")
def exercises(course: Course) -> ExerciseSet:
    return read_set(course.solutions / "06_gil.md")


def run_cells(exercises: ExerciseSet, name: str, answer: str) -> dict[str, Any]:
    """Run the set-up, the answer, and both checks of an exercise; a check that fails raises."""
    exercise = next(exercise for exercise in exercises.exercises if exercise.id == name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate((*exercises.setup, answer, exercise.check, exercise.hidden)):
        file = f"<06 {name}, cell {number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for checks.source
        exec(compile(source, file, "exec"), namespace)
    return namespace


def cases(answers: dict[str, dict[str, str]]) -> list[Any]:
    """Return the parameters of a test: answers of several kinds, by exercise."""
    return [
        pytest.param(name, answer, id=f"{name}: {kind}")
        for name, kinds in answers.items()
        for kind, answer in kinds.items()
    ]


RIGHT = {
    "schedule": {
        "lists and floats": """
b_computes = [[7.0, 8.0], [15.0, 16.0]]
a_ends = 22.0
b_ends_beside_hash = 6.0
short_interval = [8.0, 22.0]
""",
    },
    "tools": {
        "lists": """
choice = {
    "prices": ["processes", "holds"], "digests": ["threads", "lets go"], "logs": ["processes", "holds"],
    "feeds": ["coroutines", "awaits"], "ledger": ["threads", "blocks"], "parcels": ["threads", "lets go"],
    "prefixes": ["nobody new", "too small"],
}
""",
    },
    "tickets": {
        "one lock of the class, acquired by hand": """
class Tickets:
    lock = threading.Lock()

    def __init__(self, counter):
        self.counter = counter

    def take(self, count):
        self.lock.acquire()
        try:
            if count < 1:
                raise ValueError(count)
            self.counter.next += count
            return range(self.counter.next - count, self.counter.next)
        finally:
            self.lock.release()
""",
        "a lock that its owner may take again": """
class Tickets:
    def __init__(self, counter):
        self.counter = counter
        self.lock = threading.RLock()

    def one(self):
        with self.lock:
            self.counter.next += 1
            return self.counter.next - 1

    def take(self, count):
        if count < 1:
            raise ValueError(count)
        with self.lock:
            numbers = [self.one() for _ in range(count)]
        return range(numbers[0], numbers[-1] + 1)
""",
        "a semaphore": """
place = threading.Semaphore(1)


class Tickets:
    def __init__(self, counter):
        self.counter = counter

    def take(self, count):
        if count < 1:
            raise ValueError(count)
        with place:
            first = self.counter.next
            self.counter.next = first + count
        return range(first, first + count)
""",
        "a queue whose one token lets a thread in": """
class Tickets:
    def __init__(self, counter):
        self.tokens = queue.Queue()
        self.tokens.put(counter)

    def take(self, count):
        if count < 1:
            raise ValueError(count)
        counter = self.tokens.get()
        first = counter.next
        counter.next = first + count
        self.tokens.put(counter)
        return range(first, first + count)
""",
    },
    "withdraw": {
        "acquired by hand": """
def withdraw(account, amount, receipt):
    account.lock.acquire()
    try:
        enough = account.balance >= amount
        if enough:
            account.balance = left = account.balance - amount
    finally:
        account.lock.release()
    if enough:
        receipt(left)
    return enough
""",
        "a first look that decides nothing but a refusal": """
def withdraw(account, amount, receipt):
    if account.balance < amount:  # at this moment the account cannot pay
        return False
    with account.lock:
        if account.balance < amount:
            return False
        account.balance -= amount
        balance = account.balance
    receipt(balance)
    return True
""",
    },
    "batches": {
        "one lock inside the other": """
def move(batch):
    accounts = sorted({a for move in batch for a in move[:2]}, key=lambda a: a.number)

    def locked(left):
        if left:
            with left[0].lock:
                return locked(left[1:])
        before = {a: a.balance for a in accounts}
        for giver, taker, amount in batch:
            giver.balance -= amount
            taker.balance += amount
        if min(a.balance for a in accounts) < 0:
            for a in accounts:
                a.balance = before[a]
            return False
        return True

    return locked(accounts)
""",
        "tried, and given back": """
import random


def move(batch):
    accounts = list({a for move in batch for a in move[:2]})
    while True:
        held = []
        try:
            for account in accounts:
                if not account.lock.acquire(blocking=False):
                    break
                held.append(account)
            else:
                change = {a: 0 for a in accounts}
                for giver, taker, amount in batch:
                    change[giver] -= amount
                    change[taker] += amount
                if any(a.balance + change[a] < 0 for a in accounts):
                    return False
                for a in accounts:
                    a.balance += change[a]
                return True
        finally:
            for account in held:
                account.lock.release()
        time.sleep(random.random() / 100)
""",
        "from the last account to the first": """
def move(batch):
    accounts = sorted({a for move in batch for a in move[:2]}, key=lambda a: -a.number)
    for account in accounts:
        account.lock.acquire()
    try:
        change = dict.fromkeys(accounts, 0)
        for giver, taker, amount in batch:
            change[giver] -= amount
            change[taker] += amount
        able = all(a.balance + change[a] >= 0 for a in accounts)
        for a in accounts if able else []:
            a.balance += change[a]
        return able
    finally:
        for account in accounts:
            account.lock.release()
""",
    },
    "thread_map": {
        "a tuple of the results": """
def thread_map(function, items, most):
    with ThreadPoolExecutor(most) as pool:
        futures = [pool.submit(function, item) for item in items]
    return tuple(future.result() for future in futures)
""",
        "a list whose end is an error": """
def thread_map(function, items, most):
    todo, found = list(enumerate(items)), {}
    def work():
        while True:
            try:
                number, item = todo.pop(0)
            except IndexError:
                return
            try:
                found[number] = function(item), None
            except Exception as error:
                found[number] = None, error
    threads = [threading.Thread(target=work) for _ in range(most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(items)):
        if found[number][1]:
            raise found[number][1]
    return [found[number][0] for number in range(len(items))]
""",
        "threads that share an iterator": """
def thread_map(function, items, most):
    todo, found = iter(list(enumerate(items))), {}

    def work():
        for number, item in todo:               # the iterator of a list hands out each item once
            try:
                found[number] = function(item), None
            except Exception as error:
                found[number] = None, error

    threads = [threading.Thread(target=work) for _ in range(min(most, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(items)):
        if found[number][1]:
            raise found[number][1]
    return [found[number][0] for number in range(len(items))]
""",
        "a position with a lock": """
def thread_map(function, items, most):
    results, errors, lock, position = [None] * len(items), {}, threading.Lock(), 0

    def work():
        nonlocal position
        while True:
            with lock:
                mine = position
                position += 1
            if mine >= len(items):
                return
            try:
                results[mine] = function(items[mine])
            except Exception as error:
                errors[mine] = error

    with ThreadPoolExecutor(most) as pool:
        for _ in range(most):
            pool.submit(work)
    if errors:
        raise errors[min(errors)]
    return results
""",
        "a semaphore and a thread each": """
def thread_map(function, items, most):
    places, results = threading.Semaphore(most), [None] * len(items)

    def work(number, item):
        with places:
            try:
                results[number] = (function(item), None)
            except Exception as error:
                results[number] = (None, error)

    threads = [threading.Thread(target=work, args=each) for each in enumerate(items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _, error in results:
        if error:
            raise error
    return [result for result, _ in results]
""",
        "a queue with a farewell each": """
def thread_map(function, items, most):
    todo, done = queue.Queue(), queue.SimpleQueue()

    def work():
        while True:
            entry = todo.get()
            if entry is None:
                return
            try:
                done.put((entry[0], function(entry[1]), None))
            except Exception as error:
                done.put((entry[0], None, error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(most)]
    for thread in threads:
        thread.start()
    for entry in enumerate(items):
        todo.put(entry)
    found = dict((number, (result, error)) for number, result, error in (done.get() for _ in items))
    for thread in threads:
        todo.put(None)
    for thread in threads:
        thread.join()
    for number in range(len(items)):
        if found[number][1] is not None:
            raise found[number][1]
    return [found[number][0] for number in range(len(items))]
""",
    },
    "report": {
        "slices": """
from itertools import islice


async def report(rows, value):
    rows, total = iter(rows), 0
    while part := list(islice(rows, 100)):
        total += sum(map(value, part))
        await asyncio.sleep(0)
    return total
""",
        "a count down": """
async def report(rows, value):
    total, left = 0, 100
    for row in rows:
        total += value(row)
        left -= 1
        if not left:
            left = 100
            await asyncio.sleep(0)
    return total
""",
        "a turn after rows 0, 20, 40, …": """
async def report(rows, value):
    total = 0
    for n, row in enumerate(rows):
        total += value(row)
        if n % 20 == 0:
            await asyncio.sleep(0)
    return total
""",
    },
    "service": {
        "an executor": """
class Service:
    def __init__(self, handle, workers):
        self.handle, self.handled, self.failed = handle, 0, []
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(workers)

    def submit(self, job):
        self.pool.submit(self.work, job)

    def work(self, job):
        try:
            self.handle(job)
        except Exception as error:
            self.failed.append((job, error))
        else:
            with self.lock:
                self.handled += 1

    def close(self):
        self.pool.shutdown()
""",
        "an executor in a tuple": """
class Service:
    def __init__(self, handle, workers):
        self.handle, self.handled, self.failed = handle, 0, []
        self.parts = threading.Lock(), ThreadPoolExecutor(workers)
        self.submit_to_pool = self.parts[1].submit

    def submit(self, job):
        self.submit_to_pool(self.work, job)

    def work(self, job):
        try:
            self.handle(job)
        except Exception as error:
            self.failed.append((job, error))
        else:
            with self.parts[0]:
                self.handled += 1

    def close(self):
        self.parts[1].shutdown()
""",
        "a condition and a deque": """
from collections import deque


class Service:
    def __init__(self, handle, workers):
        self.handle, self.jobs, self.closing = handle, deque(), False
        self.handled, self.failed = 0, []
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.work) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def submit(self, job):
        with self.changed:
            if self.closing:
                raise RuntimeError("closed")
            self.jobs.append(job)
            self.changed.notify()

    def work(self):
        while True:
            with self.changed:
                while not self.jobs and not self.closing:
                    self.changed.wait()
                if not self.jobs:
                    return
                job = self.jobs.popleft()
            try:
                self.handle(job)
            except Exception as error:
                with self.changed:
                    self.failed.append((job, error))
            else:
                with self.changed:
                    self.handled += 1

    def close(self):
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()
""",
        "one farewell, handed on": """
class Service:
    def __init__(self, handle, workers):
        self.handle = handle
        self.jobs = queue.SimpleQueue()
        self.door, self.count = threading.Lock(), threading.Lock()
        self.closing = False
        self.handled = 0
        self.failed = []
        self.threads = [threading.Thread(target=self.work) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def submit(self, job):
        with self.door:
            if self.closing:
                raise RuntimeError("closed")
            self.jobs.put(job)

    def work(self):
        while True:
            job = self.jobs.get()
            if job is None:
                self.jobs.put(None)
                return
            try:
                self.handle(job)
            except Exception as error:
                self.failed.append((job, error))
                continue
            with self.count:
                self.handled += 1

    def close(self):
        with self.door:
            self.closing = True
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()
""",
        "a queue that is joined": """
class Service:
    def __init__(self, handle, workers):
        self.handle, self.jobs, self.lock = handle, queue.Queue(), threading.RLock()
        self.closing, self.gone, self.handled, self.failed = False, False, 0, []
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def submit(self, job):
        with self.lock:
            if self.closing:
                raise RuntimeError("closed")
            self.jobs.put(job)

    def work(self):
        while True:
            job = self.jobs.get()
            try:
                if job is None:
                    return
                self.handle(job)
                with self.lock:
                    self.handled += 1
            except Exception as error:
                self.failed.append((job, error))
            finally:
                self.jobs.task_done()

    def close(self):
        with self.lock:
            self.closing = True
        self.jobs.join()
        with self.lock:
            if not self.gone:
                self.gone = True
                for _ in self.threads:
                    self.jobs.put(None)
        for thread in self.threads:
            thread.join()
""",
    },
}


@pytest.mark.parametrize(("name", "answer"), cases(RIGHT))
def test_other_right_answers_pass(exercises: ExerciseSet, name: str, answer: str) -> None:
    run_cells(exercises, name, answer)


WRONG = {
    "tickets": {
        "refuses 0 only": """
class Tickets:
    def __init__(self, counter):
        self.counter = counter
        self.lock = threading.Lock()

    def take(self, count):
        if count == 0:
            raise ValueError(count)
        with self.lock:
            first = self.counter.next
            self.counter.next = first + count
        return range(first, first + count)
""",
    },
    "batches": {
        "locks the givers only": """
import contextlib


def move(batch):
    change = {}
    for giver, taker, amount in batch:
        change[giver] = change.get(giver, 0) - amount
        change[taker] = change.get(taker, 0) + amount
    with contextlib.ExitStack() as stack:
        for account in sorted({giver for giver, _, _ in batch}, key=lambda account: account.number):
            stack.enter_context(account.lock)
        if any(account.balance + difference < 0 for account, difference in change.items()):
            return False
        for account, difference in change.items():
            account.balance += difference
        return True
""",
        "looks before each move": """
import contextlib


def move(batch):
    accounts = {account for giver, taker, amount in batch for account in (giver, taker)}
    with contextlib.ExitStack() as stack:
        for account in sorted(accounts, key=lambda account: account.number):
            stack.enter_context(account.lock)
        before = {account: account.balance for account in accounts}
        for giver, taker, amount in batch:
            if giver.balance < amount:
                for account, balance in before.items():
                    account.balance = balance
                return False
            giver.balance -= amount
            taker.balance += amount
        return True
""",
    },
    "thread_map": {
        "looks, then pops": """
def thread_map(function, items, most):
    todo, found = list(enumerate(items)), {}
    def work():
        while todo:
            number, item = todo.pop(0)
            try:
                found[number] = function(item), None
            except Exception as error:
                found[number] = None, error
    threads = [threading.Thread(target=work) for _ in range(most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(items)):
        if found[number][1]:
            raise found[number][1]
    return [found[number][0] for number in range(len(items))]
""",
        "the first error in time": """
def thread_map(function, items, most):
    with ThreadPoolExecutor(most) as pool:
        futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            future.result()
    return [future.result() for future in futures]
""",
    },
    "report": {
        "guesses the values": """
async def report(rows, value):
    total = 0
    for number, row in enumerate(rows):
        total += value(row) if number < 100 else row % 7
    return total
""",
        "a pause of 0.1 ms": """
async def report(rows, value):
    total = 0
    for number, row in enumerate(rows, start=1):
        total += value(row)
        if number % 50 == 0:
            await asyncio.sleep(1e-4)
    return total
""",
    },
    "service": {
        "closes without the lock": """
class Service:
    def __init__(self, handle, workers):
        self.handle = handle
        self.jobs = queue.Queue()
        self.lock = threading.Lock()
        self.closing = False
        self.handled = 0
        self.failed = []
        self.threads = [threading.Thread(target=self.work) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def submit(self, job):
        with self.lock:
            if self.closing:
                raise RuntimeError("the service is closed")
            self.jobs.put(job)

    def work(self):
        while (job := self.jobs.get()) is not None:
            try:
                self.handle(job)
            except Exception as error:
                self.failed.append((job, error))
            else:
                with self.lock:
                    self.handled += 1

    def close(self):
        if not self.closing:
            self.closing = True
            for _ in self.threads:
                self.jobs.put(None)
        for thread in self.threads:
            thread.join()
""",
    },
}


@pytest.mark.parametrize(("name", "answer"), cases(WRONG))
def test_other_wrong_answers_fail(exercises: ExerciseSet, name: str, answer: str) -> None:
    with pytest.raises(CheckFailed):
        run_cells(exercises, name, answer)


SAID = [
    pytest.param(
        "withdraw",
        """
def withdraw(account, amount, receipt):
    with account.lock:
        if account.balance < amount:
            return
        account.balance -= amount
        balance = account.balance
    receipt(balance)
""",
        "is there a `return` on every way?",
        id="withdraw: no return",
    ),
    pytest.param(
        "tickets",
        """
class Tickets:
    def __init__(self, counter):
        self.counter = counter
        self.lock = threading.Lock()

    def take(self, count):
        if count < 1:
            raise ValueError(count)
        with self.lock:
            first = self.counter.next
        self.counter.next = first + count
        return range(first, first + count)
""",
        "not under one and the same lock",
        id="tickets: locks the read",
    ),
    pytest.param(
        "thread_map",
        """
def thread_map(function, items, most):
    with ThreadPoolExecutor(most) as pool:
        futures = [pool.submit(function, item) for item in items]
    errors = [future.exception() for future in futures if future.exception()]
    if errors:
        raise errors[-1]
    return [future.result() for future in futures]
""",
        "not the first in the order of the items",
        id="thread_map: the last error",
    ),
    pytest.param(
        "report",
        """
async def report(rows, value):
    total = 0
    for number, row in enumerate(rows, start=1):
        total += value(row)
        if number % 250 == 0:
            await asyncio.sleep(0)
    return total
""",
        "the parts are too long",
        id="report: a turn after 250 rows",
    ),
    pytest.param(
        "service",
        """
class Service:
    def __init__(self, handle, workers):
        self.handle = handle
        self.jobs = queue.Queue()
        self.lock = threading.Lock()
        self.closing = False
        self.handled = 0
        self.failed = []
        self.threads = [threading.Thread(target=self.work) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def submit(self, job):
        with self.lock:
            if self.closing:
                raise RuntimeError("the service is closed")
            self.jobs.put(job)

    def work(self):
        while True:
            try:
                job = self.jobs.get(timeout=1)
            except queue.Empty:
                continue
            if job is None:
                return
            try:
                self.handle(job)
            except Exception as error:
                self.failed.append((job, error))
            else:
                with self.lock:
                    self.handled += 1

    def close(self):
        with self.lock:
            if not self.closing:
                self.closing = True
                for _ in self.threads:
                    self.jobs.put(None)
        for thread in self.threads:
            thread.join()
""",
        "the workers look again and again whether one has come",
        id="service: waits a second at most",
    ),
]


@pytest.mark.parametrize(("name", "answer", "words"), SAID)
def test_a_wrong_answer_is_told_what_is_true_of_it(
    exercises: ExerciseSet, capsys: pytest.CaptureFixture[str], name: str, answer: str, words: str
) -> None:
    with pytest.raises(CheckFailed):
        run_cells(exercises, name, answer)
    assert words in " ".join(capsys.readouterr().out.split())


def test_there_is_another_right_answer_to_every_exercise(exercises: ExerciseSet) -> None:
    assert list(RIGHT) == [exercise.id for exercise in exercises.exercises]


def followed(interval: int, work: int = 20) -> tuple[list[tuple[int, int]], int]:
    """Follow exercise 1's two threads, millisecond by millisecond: B's stretches, and when A is done."""
    answer: int | None = 2  # when B's next answer is there
    stretches: list[tuple[int, int]] = []
    now = 0
    wanted: int | None = None
    begun: int | None = None
    while work or len(stretches) < 2:
        if answer is not None and now >= answer:
            wanted, answer = now, None
        if wanted is not None and (now - wanted >= interval or not work):
            begun, wanted = now, None
        now += 1
        if begun is not None:
            stretches.append((begun, now))
            begun = None
            answer = now + 2 if len(stretches) < 2 else None
        else:
            work -= 1 if work else 0
    return stretches, now


def test_the_schedule_is_what_the_rules_make_of_it(exercises: ExerciseSet) -> None:
    said: dict[str, Any] = {}
    exec(exercises.exercises[0].solution, said)
    stretches, end = followed(5)
    assert (said["b_computes"], said["a_ends"]) == (stretches, end)
    stretches, end = followed(1)
    assert said["short_interval"] == (stretches[-1][1], end)
