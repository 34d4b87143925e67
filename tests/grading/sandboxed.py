"""Start answers' processes in the sandbox, as root and as an ordinary user: what tests of it share."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from scalelab.answers.monitor import Monitor
from scalelab.answers.remote import Answer
from scalelab.checks import AnswerEnded
from scalelab.grading.judging.boxes import ADDRESS, connect
from scalelab.grading.sandbox import cgroups
from scalelab.grading.sandbox import namespaces as sandbox

NOBODY = 65534
WAIT_S = 20
SETUPS = {"numbers": ["import numpy\nTHREE = 3"]}

OWNER = """
import json, sys
from scalelab.grading.judging.fork_server import fork_server
with fork_server(json.loads(sys.argv[1]), boxed=True) as environment:
    print(json.dumps(environment), flush=True)
    sys.stdin.read()
"""

AS_NOBODY = """
set -e
places=$1 uid=$2; shift 2
i=0
for path in $places; do
    i=$((i + 1)); mkdir -p "$HOLD/$i"; mount --bind "$path" "$HOLD/$i"
done
for path in $CLOSED; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
i=0
for path in $places; do
    i=$((i + 1)); mkdir -p "$path"; mount --bind "$HOLD/$i" "$path"
done
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups env HOME=/nonexistent "$@"
"""


@contextmanager
def owner(kind, hold):
    """Yield a process that has entered `fork_server`, as "root" or as an ordinary "user", and the server's address."""
    argv = [sys.executable, "-P", "-c", OWNER, json.dumps(SETUPS)]
    environment = os.environ | {"SECRET_TOKEN": "5b1e-secret"}
    if kind == "root" and os.geteuid() != 0:
        pytest.skip("only root can start sandboxes as root")
    if kind == "user" and os.geteuid() == 0:
        argv, more = _as_nobody(argv, hold)
        environment |= more
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"no fork server as {kind}")
        yield process, json.loads(line)[ADDRESS]
    finally:
        process.stdin.close()
        process.wait(WAIT_S)
        process.stdout.close()


def _as_nobody(argv, hold):
    """Return a command that runs `argv` as an ordinary user, who sees our Python even if root's home holds it."""
    for tool in ("unshare", "setpriv", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing, which makes an ordinary user of root")
    closed = {
        str(folder) for path in sandbox.readable_paths() for folder in path.parents if not folder.stat().st_mode & 0o001
    }
    below = [path for path in sandbox.readable_paths() if any(path.is_relative_to(folder) for folder in closed)]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", AS_NOBODY, "sh"]
    return [*command, " ".join(map(str, below)), str(NOBODY), *argv], {"HOLD": str(hold), "CLOSED": " ".join(closed)}


class Box:
    """An answer's process, in a sandbox."""

    def __init__(self, address, slug="numbers"):
        self.box = connect(address, slug)
        self.pid = self.box.pid
        self.begin()

    def start(self):
        """Be a fresh process in the same sandbox."""
        self.answer.close()
        self.begin()

    def begin(self):
        self.answer = Answer(self.box.start(), {}, (), Monitor(self.pid, 30.0))
        self._run = self.answer.begin("def run(code):\n    exec(code, globals())", ["run"])["run"]

    def run(self, code, *arguments):
        """Run the code, after names `a`, `b`, ... for the arguments; return what it prints, or the error."""
        names = "".join(f"{name} = {value!r}\n" for name, value in zip("abcdef", arguments, strict=False))
        try:
            self._run(names + textwrap.dedent(code))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return self.answer.printed().strip()

    def dies(self, code):
        """Return whether the process is gone once this code has run."""
        with pytest.raises(AnswerEnded):
            self._run(code)
        return wait_until(self.is_gone)

    def is_gone(self):
        try:
            return not psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return True

    def close(self):
        self.answer.close()
        self.box.close()


def wait_until(holds):
    until = time.monotonic() + WAIT_S
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def has_ended(process):
    """Return whether a process is gone, or only waits for its parent to ask how it ended."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def running(mark):
    """Return the processes whose command line holds `mark`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def groups_of(folder):
    return [group for parent, _ in cgroups.mounted_hierarchies("").parents for group in parent.glob(f"{folder.name}*")]
