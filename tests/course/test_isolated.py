"""Runs in forks of a warm process are as separate from each other as fresh processes are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from scalelab.running import isolated
from scalelab.running.isolated import CAN_FORK, CellRunner, EndedEarly

needs_forks = pytest.mark.skipif(not CAN_FORK, reason="processes are not forked on this system")
LONG = 60.0


@pytest.fixture
def warm() -> Iterator[CellRunner]:
    with CellRunner(["import decimal", "import no_such_module", "from fractions import Fraction"]) as opened:
        yield opened


def printed(warm: CellRunner, *cells: str, timeout: float = LONG) -> str:
    """Run the cells; return what the last of them printed."""
    return warm.run(cells, timeout=timeout)[-1].printed


@needs_forks
def test_runs_find_imports_done_and_share_nothing_else(warm: CellRunner) -> None:
    spoil = "import builtins, os, sys; open('left', 'w'); os.environ['LEFT'] = 'x'; sys.path.clear()"
    look = "import os, sys; print('decimal' in sys.modules, os.listdir(), os.environ.get('LEFT'), len(sys.path) > 1)"
    assert printed(warm, spoil, "builtins.print = None") == ""
    assert printed(warm, look) == "True [] None True\n"
    ours = "import numpy, os, random; print(os.getppid(), os.getpid(), random.random(), numpy.random.random())"
    first, second = (printed(warm, ours).split() for _ in range(2))
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, False, False]


@needs_forks
def test_a_run_is_cut_off_and_the_next_one_goes_well(warm: CellRunner) -> None:
    with pytest.raises(EndedEarly, match="did not end within 1 s") as stopped:
        printed(warm, "while True: pass", timeout=1)
    assert stopped.value.status is None
    assert printed(warm, "print('here')") == "here\n"


@needs_forks
@pytest.mark.parametrize(
    ("cell", "status"),
    [("import os; os._exit(3)", 3), ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", -9)],
    ids=["its own", "the warm one"],
)
def test_a_run_that_ends_its_process_harms_no_other(warm: CellRunner, cell: str, status: int) -> None:
    for _ in range(2):
        with pytest.raises(EndedEarly, match=f"with status {status}") as failed:
            printed(warm, cell, "import time; time.sleep(60)")
        assert failed.value.status == status
    assert printed(warm, "print('here')") == "here\n"


@needs_forks
def test_what_a_run_started_ends_with_it(warm: CellRunner) -> None:
    start = (
        "import os, subprocess, sys, time\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "if not (forked := os.fork()):\n    os.setsid()\n    time.sleep(600)\n    os._exit(0)\n"
        "print(started.pid, forked)"
    )
    said = printed(warm, start)
    left = [psutil.Process(int(pid)) for pid in said.split() if psutil.pid_exists(int(pid))]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left)


def test_where_processes_are_not_forked_each_run_is_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "CAN_FORK", False)
    with CellRunner(["import decimal"]) as warm:
        said = printed(warm, "import os, sys; print('decimal' in sys.modules, os.getppid())")
    assert said == f"False {os.getpid()}\n"
