"""The server that forks answers' processes: what it hands out, and what is left when any part of it ends."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

if sys.platform != "linux":
    pytest.skip("processes are forked and sandboxed on Linux only", allow_module_level=True)

from sandboxed import SETUPS, Box, groups_of, has_ended, owner, wait_until

from scalelab.grading.judging import fork_server
from scalelab.grading.judging.boxes import ADDRESS, NotStarted, connect

LEAVES_SOMETHING = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(9999)
"""
DRAW = "import numpy, random, uuid; print(numpy.random.random(), random.random(), uuid.uuid4())"


@pytest.fixture(scope="module", params=[True, False], ids=["boxed", "unboxed"])
def address(request):
    with fork_server.fork_server(SETUPS, boxed=request.param) as environment:
        yield environment[ADDRESS]


def test_an_answer_finds_the_set_up_of_its_set_alone(address):
    for slug, told in (("numbers", "3"), ("another", "NameError: name 'THREE' is not defined")):
        box = Box(address, slug)
        assert box.run("print(THREE)") == told
        box.close()


def test_each_answer_has_a_process_of_its_own(address):
    first, second = Box(address), Box(address)
    assert first.run("import builtins; builtins.THREE = THREE = 4; print(THREE)") == "4"
    assert second.run("print(THREE)") == "3"
    assert not set(first.run(DRAW).split()) & set(second.run(DRAW).split())
    first.close()
    second.close()


def test_several_clients_at_once(address):
    told = {}

    def ask(number):
        for _ in range(3):
            box = Box(address)
            told.setdefault(number, []).append(box.run("print(a * THREE)", number))
            box.close()

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert told == {number: [str(3 * number)] * 3 for number in range(4)}


def test_an_ended_answer_leaves_nothing():
    others = _servers()
    with fork_server.fork_server(SETUPS, boxed=True) as environment:
        folder = Path(environment[ADDRESS]).parent
        (server,) = _servers() - others

        def kept():
            return sorted(path.name for path in folder.iterdir()), len(server.children()), server.num_fds()

        names = ["answers", "root"]
        assert wait_until(lambda: kept()[:2] == (names, fork_server.SPARES))
        files = kept()[2]
        for _ in range(5):
            box = Box(environment[ADDRESS])
            box.run(LEAVES_SOMETHING)
            box.close()
        assert wait_until(lambda: kept() <= (names, fork_server.SPARES, files)), kept()
        assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def _servers():
    return {one for one in psutil.Process().children() if fork_server.__name__ in " ".join(one.cmdline())}


@pytest.mark.parametrize("kind", ["root", "user"])
@pytest.mark.parametrize("killed", ["owner", "server"])
def test_whatever_is_killed_nothing_is_left(kind, killed, tmp_path):
    with owner(kind, tmp_path) as (process, address):
        box = Box(address)
        folder = Path(address).parent
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 1 + 2  # the server, and an init and an answer at least
        (process if killed == "owner" else family[0]).kill()
        box.close()
        assert wait_until(lambda: all(map(has_ended, family)))
        if killed == "owner":
            assert wait_until(lambda: not folder.exists())
    assert not folder.exists()
    assert not groups_of(folder)


def test_answers_end_with_their_client(address):
    client = f"""
import os, sys
from scalelab.grading.judging.boxes import connect
print(connect({address!r}, "numbers").pid, flush=True)
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-P", "-c", client], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert wait_until(lambda: not psutil.pid_exists(int(ended.stdout)))


def test_a_server_ends_with_its_block():
    others = _servers()
    with fork_server.fork_server({}, boxed=False) as environment:
        folder = Path(environment[ADDRESS]).parent
        (server,) = _servers() - others
        family = [server, *server.children(recursive=True)]
    assert wait_until(lambda: all(map(has_ended, family)))
    assert not folder.exists()
    with pytest.raises(NotStarted, match="does not answer"):
        connect(environment[ADDRESS], "numbers")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "started 1 threads"),
    ],
)
def test_a_set_up_that_cannot_be_forked_is_told(cell, why):
    with pytest.raises(NotStarted, match=why), fork_server.fork_server({"bad": [cell]}, boxed=False):
        pass
