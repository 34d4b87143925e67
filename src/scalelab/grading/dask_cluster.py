"""Judge on a Dask cluster. Tasks and results are JSON text, so nothing that a student wrote is unpickled."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from asyncio import CancelledError as Cancelled
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distributed import Client

from scalelab.errors import ScalelabError
from scalelab.exercises.reference import Reference
from scalelab.grading.grader_version import made_with
from scalelab.grading.judging.nbval_run import Stopped
from scalelab.grading.judging.results import Result
from scalelab.grading.submissions.layouts import BadInput
from scalelab.notebooks.format import written

if TYPE_CHECKING:
    from scalelab.grading.batch import Judge

CONNECT_S = 20
WORKERS_S = 30
LOST_S = 60
"""How long a cluster may be without any worker before the batch ends."""
POLL_S = 0.5
RETRIES = 2
SETTINGS = {"timeout", "sandbox"}
"""The entries of `made_with` that each task sends along, so workers need not agree on them."""
PREFETCH_PER_THREAD = 2
"""Sessions sent to each thread of a worker: the next one is ready when one is done."""


class ClusterFailed(ScalelabError):
    """The cluster cannot judge submissions."""


@contextmanager
def cluster(address: str, *, timeout: float, sandbox: bool) -> Iterator[tuple[Judge, int]]:
    """Yield a judge that uses the workers of the scheduler at `address`, and its number of sessions side by side.

    Raises BadInput if no scheduler answers, it has no workers, or a worker's grader differs from this machine's.
    """
    try:
        client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"No Dask scheduler answers at {address} ({error}); start one with `dask scheduler`.") from error
    with client:
        threads = _threads(client, address)
        settings = {"made_with": _identity(), "timeout": timeout, "sandbox": sandbox}

        def judges(
            reference: Reference, submissions: Sequence[Mapping[str, str]], stop: threading.Event
        ) -> Iterator[tuple[int, dict[str, Result]]]:
            task = settings | {"reference": written(reference.notebook), "submissions": list(map(dict, submissions))}
            future: Any = client.submit(judge_here, json.dumps(task), pure=False, retries=RETRIES)
            try:
                _wait(client, future, stop)
                judged = json.loads(future.result())
            except (CancelledError, Cancelled, OSError) as error:
                raise ClusterFailed(f"The cluster at {address} was lost ({error}).") from error
            finally:
                future.cancel()
            for number, results in judged:
                yield number, {name: Result.from_data(result) for name, result in results.items()}

        yield judges, PREFETCH_PER_THREAD * threads


def judge_here(task: str) -> str:
    """Judge a task on a worker, and return the results as JSON.

    Raises ClusterFailed if this worker can judge no task, and RuntimeError if only this task failed.
    """
    given = json.loads(task)
    if given["made_with"] != _identity():
        raise ClusterFailed(_differs("A worker", _identity(), given["made_with"]))
    answer = json.loads(_judge_in_process(task))
    if "results" in answer:
        return json.dumps(answer["results"])
    raise (ClusterFailed if answer["fatal"] else RuntimeError)(answer["error"])


def _threads(client: Any, address: str) -> int:
    """Return the workers' number of threads. Raises BadInput if there are none, or if their graders differ."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError as error:
        raise BadInput(
            f"The scheduler at {address} has no workers; start some with `dask worker {address}`."
        ) from error
    try:
        identities = client.run(_identity)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(
            f"The workers of {address} lack this grader ({reason}); install the same scalelab there."
        ) from error
    for worker, identity in identities.items():
        if identity != _identity():
            raise BadInput(_differs(f"The worker {worker}", identity, _identity()))
    return int(sum(client.nthreads().values()))


def _identity() -> dict[str, str]:
    """Return the entries of `made_with` that must be the same on all machines."""
    return {name: value for name, value in made_with(timeout=0, sandbox=True).items() if name not in SETTINGS}


def _differs(machine: str, other: Mapping[str, str], expected: Mapping[str, str]) -> str:
    parts = [
        f"{name} {other.get(name)} (this machine has {expected[name]})"
        for name in expected
        if other.get(name) != expected[name]
    ]
    return f"{machine} has {', '.join(parts)}; install the same scalelab and Python on all."


def _wait(client: Any, future: Any, stop: threading.Event) -> None:
    """Return when the future is done. Raises Stopped soon after `stop`, and ClusterFailed if no worker is left."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    alive = time.monotonic()
    while not done.wait(POLL_S):
        if stop.is_set():
            raise Stopped
        now = time.monotonic()
        if client.status == "running" and client.scheduler_info()["workers"]:
            alive = now
        elif now - alive > LOST_S:
            raise ClusterFailed(f"The cluster has had no worker for {LOST_S} s.")


class _JudgeProcess:
    """A process that judges tasks one after another; it ends when this one does."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scalelab.grading.dask_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # Ctrl-C must reach only the worker: this process ends when the worker does.
            start_new_session=True,
        )

    def judge(self, task: str) -> str:
        """Return the line that answers a task; "" if the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(task + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except OSError:
            return ""

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


_idle: list[_JudgeProcess] = []
"""Warm processes without a task: a worker judges one task per thread at once, each in a process of its own."""


def _judge_in_process(task: str) -> str:
    """Judge a task in an idle process or a new one; if it ends, try another. Raises RuntimeError if both end."""
    for _ in range(2):
        try:
            process = _idle.pop()
        except IndexError:
            process = _JudgeProcess()
        answer = process.judge(task)
        if answer.endswith("\n"):
            _idle.append(process)
            return answer
        process.close()
    raise RuntimeError("the process that judges ended twice")
