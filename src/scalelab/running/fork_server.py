"""`python -m scalelab.running.fork_server`: run `running.cells` repeatedly, each time in a fork of this process. Linux.

Reads lines of JSON from stdin. The first is a list of import statements, which are executed here, so that no fork
spends time on them; a statement that fails is ignored. Each other line, `{"folder": …, "timeout": …}`, requests one run
of `cells.main()` with the working directory `folder/work`, the file `folder/in` as stdin, and the file `folder/out` as
stdout and stderr. After each run, one line on stdout gives its exit status, or null if it took longer than `timeout`
seconds.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from scalelab.running import cells

FAILED = 1


def main() -> None:
    """Serve the requests on stdin until it ends."""
    for statement in json.loads(sys.stdin.readline()):
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(statement, {})
    # The threads of a linear algebra library are idle here, and the library restarts them in each fork.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    gc.freeze()  # A fork's garbage collector would touch, and so copy, these objects.
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_status(Path(request["folder"]), request["timeout"])), flush=True)


def _status(folder: Path, timeout: float) -> int | None:
    """Start a run in a fork, and return its exit status, or None if it had to be killed after `timeout` seconds."""
    assert sys.platform == "linux"
    pid = os.fork()
    if pid == 0:
        _run_in_fork(folder)
    pidfd = os.pidfd_open(pid)
    try:
        ended = bool(select.select([pidfd], [], [], timeout)[0])
    finally:
        os.close(pidfd)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if ended else None


def _run_in_fork(folder: Path) -> NoReturn:
    assert sys.platform == "linux"
    status = FAILED
    try:
        os.setsid()
        os.chdir(folder / "work")
        os.environ["IPYTHONDIR"] = str(folder / "ipython")
        stdin = os.open(folder / "in", os.O_RDONLY)
        out = os.open(folder / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for opened, standard in ((stdin, 0), (out, 1), (out, 2)):
            os.dup2(opened, standard)
        os.close(stdin)
        os.close(out)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # Python's own generator is seeded anew in every fork.
        cells.main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
