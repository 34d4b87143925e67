"""What the sandbox of an answer's process promises, tried by answers in it: as root, and as an ordinary user."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

if sys.platform != "linux":
    pytest.skip("the sandbox is made of what Linux offers", allow_module_level=True)

from sandboxed import Box, owner, running, wait_until

import scalelab
from scalelab.exercises.source import read_set, sources
from scalelab.grading.judging import boxes, fork_server
from scalelab.grading.sandbox import cgroups
from scalelab.grading.sandbox import namespaces as sandbox

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["root", "user"])
def address(request, tmp_path_factory):
    with owner(request.param, tmp_path_factory.mktemp("hold")) as (_, where):
        yield where


@pytest.fixture
def start(address):
    boxes = []

    def make():
        boxes.append(Box(address))
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()


def test_an_answer_has_no_privilege(start):
    told = start().run("""
        import os
        fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        print({n: int(fields[n], 16) for n in fields if n.startswith("Cap")})
        print(fields["NoNewPrivs"].strip(), fields["Seccomp"].strip())
        print(os.getuid() > 0, os.geteuid() > 0, os.getgid() > 0)
    """)
    assert told == "{'CapInh': 0, 'CapPrm': 0, 'CapEff': 0, 'CapBnd': 0, 'CapAmb': 0}\n1 2\nTrue True True"


def test_an_answer_is_in_namespaces_of_its_own(start):
    names = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    told = start().run("import os; print([os.readlink(f'/proc/self/ns/{name}') for name in a])", names)
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert not set(json.loads(told.replace("'", '"'))) & set(ours)


def test_an_answer_reaches_no_network(start):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        name = f"\0scalelab-{os.getpid()}"
        abstract.bind(name)
        abstract.listen()
        socket.create_connection(("127.0.0.1", port)).close()
        told = start().run(
            """
            import errno, socket
            def tried(family, address):
                with socket.socket(family) as one:
                    one.settimeout(10)
                    return errno.errorcode[one.connect_ex(address)]
            print(tried(socket.AF_INET, ("127.0.0.1", a)), tried(socket.AF_UNIX, b))
            print(tried(socket.AF_INET, ("192.0.2.1", 80)), tried(socket.AF_INET6, ("2001:db8::1", 80)))
            print([name for _, name in socket.if_nameindex()])
            for family in (socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG):
                try:
                    socket.socket(family, socket.SOCK_STREAM)
                except OSError as error:
                    print(errno.errorcode[error.errno], end=" ")
            """,
            port,
            name,
        )
    assert told.splitlines() == [
        "ECONNREFUSED ECONNREFUSED",
        "ENETUNREACH ENETUNREACH",
        "['lo']",
        "EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT",
    ]


def test_an_answer_sees_neither_the_course_nor_the_host(start, address):
    folder = Path(address).parent
    hidden = [
        *(REPO / name for name in ("solutions", "exercises", "tests", "book", "pyproject.toml", ".git")),
        *(Path.home() / name for name in (".bashrc", ".profile", ".ssh", ".cache")),
        *map(Path, ("/etc/shadow", "/etc/ssh", "/var/log", "/sys", "/dev/kmsg", "/dev/tty", "/home", "/mnt", "/opt")),
        *(folder, Path(address), Path(f"/proc/{os.getpid()}/cwd"), Path("/proc/1/cwd/x")),
    ]
    box = start()
    assert box.run("import os; print([one for one in a if os.path.exists(one)])", [*map(str, hidden)]) == "[]"
    shown = [*sandbox.readable_paths(), Path(scalelab.__file__)]
    assert box.run("print(sorted(os.listdir(a)))", str(REPO)) == str(
        sorted({path.relative_to(REPO).parts[0] for path in shown if path.is_relative_to(REPO)})
    )
    told = box.run(
        """
        import glob
        texts = [open(path).read() for path in glob.glob("/proc/[0-9]*/*") if path.endswith(("/environ", "/cmdline"))
                 and os.access(path, os.R_OK)]
        print([text for text in texts if "secret" in text or "PYTEST" in text or "solutions" in text])
        print(os.environ.keys() - set(a), os.getcwd(), os.path.expanduser("~"))
    """,
        [*fork_server.ENVIRONMENT, "PATH", "LC_CTYPE"],
    )
    assert told == "[]\nset() /tmp /tmp"


def test_an_answer_cannot_import_what_would_solve_its_exercise(course):
    """Of the package it has what runs it and what checks run on: no helper of the chapters, no solution."""
    package = Path(scalelab.__file__).parent
    setups = {path.stem: [*read_set(path).setup] for path in sources(course)}
    others = {path.stem for path in package.iterdir()} - {Path(name).stem for name in fork_server.MODULES}
    assert {"measure", "theory", "simulate", "caches", "grading", "author"} <= others
    with fork_server.fork_server(setups, boxed=True) as environment:
        for slug in setups:
            box = Box(environment[boxes.ADDRESS], slug)
            visible = sorted({name.partition("/")[0] for name in fork_server.MODULES})
            assert box.run(LOOK, str(package), sorted(others - {"grading"})) == LOOKED.format(visible)
            box.close()


def test_an_answer_that_asks_for_help_is_told_that_there_is_none(start):
    told = start().run("""
        from scalelab import checks
        checks.hint("add")
        checks.solution("add", show_me=True)
    """)
    assert "There are no hints on 'add' here" in told
    assert "There is no solution of 'add' here" in told


LOOK = """
import importlib, os, sys, scalelab.checks, scalelab.answers, scalelab.errors
print(sorted(os.listdir(a)))
print([name for name in sys.modules if name.startswith("scalelab.") and name.split(".")[1] in b])
print(sorted(name for name in sys.modules if name.startswith("scalelab.grading.")))  # what has started this process
for name in b:
    try:
        print(importlib.import_module(f"scalelab.{name}"))
    except ModuleNotFoundError:
        pass
"""
LOOKED = """\
{}
[]
['scalelab.grading.judging', 'scalelab.grading.judging.boxes', 'scalelab.grading.sandbox', \
'scalelab.grading.sandbox.cgroups', 'scalelab.grading.sandbox.namespaces']"""


def test_an_answer_writes_in_its_own_folder_only(start):
    told = start().run("""
        import os
        written = set()
        for here, folders, names in os.walk("/"):
            if here.count("/") >= 4 or here.startswith(("/proc/", "/tmp/.")):
                folders.clear()
            for name in ("scalelab-probe", *names[:3]):
                path = os.path.join(here, name)
                try:
                    with open(path, "a" if name == "scalelab-probe" else "r+"):
                        pass
                except OSError:
                    continue
                if not os.path.realpath(path).startswith("/dev/") or here == "/dev/shm":
                    written.add(here)
                if name == "scalelab-probe":
                    os.unlink(path)
        print(sorted(place for place in written if not place.startswith("/tmp/")))
    """)
    assert told == "['/dev/shm', '/tmp']"


def test_files_are_bounded_and_private(start):
    first, second = start(), start()
    told = first.run("""
        import errno, resource
        print(resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 64 * 2**20)
        def fill(path, number):
            total = 0
            try:
                for part in range(number):
                    with open(path.format(part), "ab", buffering=0) as file:
                        total += file.write(bytes(4 * 2**20))
            except OSError as error:
                print(errno.errorcode[error.errno], total <= 64 * 2**20)
        fill("/tmp/part-{}", 100)
        fill("/dev/shm/part-{}", 100)
        opened = []
        try:
            while len(opened) < 10_000:
                opened.append(open("/dev/null"))
        except OSError as error:
            made = len(opened)
            opened.clear()
            print(errno.errorcode[error.errno], made < 256)
    """)
    assert told == "True\nENOSPC True\nENOSPC True\nEMFILE True"
    assert second.run("import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'))") == "[] []"
    assert second.run("print(open('/tmp/mine', 'w').write('still room'))") == "10"


def test_system_calls_for_breaking_out_are_refused(start):
    calls = {
        "ptrace": (16, 0, 0, 0),  # PTRACE_ATTACH to the child, whose number is put in place of the first 0
        "process_vm_readv": (0, 0, 0, 0, 0, 0),
        "mount": (b"none", b"/tmp", b"tmpfs", 0, 0),
        "unshare": (0x10000000,),
        "setns": (0, 0),
        "chroot": (b"/tmp",),
        "keyctl": (0, 0),
        "add_key": (b"user", b"x", b"y", 1, -3),
        "bpf": (0, 0, 0),
        "perf_event_open": (0, 0, 0, 0, 0),
        "userfaultfd": (0,),
        "io_uring_setup": (1, 0),
        "kexec_load": (0, 0, 0, 0),
        "finit_module": (0, b"", 0),
        "reboot": (0, 0, 0, 0),
        "swapon": (b"/tmp/x", 0),
        "personality": (0,),
        "open_by_handle_at": (0, 0, 0),
        "move_mount": (0, b"", 0, b"", 0),
        "memfd_create": (b"x", 0),
        "shmget": (0, 4096, 0o1600),
        "mq_open": (b"left", 0o100 | 2, 0o600, 0),
        "prlimit64": (1, 7, 0, 0),
        "clone": (0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
        "clone CLONE_PARENT": (0x8000 | signal.SIGCHLD, 0, 0, 0, 0),
        "clone CLONE_VFORK | CLONE_THREAD": (0x14000, 0, 0, 0, 0),
        "clone3": (0, 0),
    }
    numbered = {name: (sandbox._number(name.split()[0]), arguments) for name, arguments in calls.items()}
    told = start().run(
        """
        import ctypes, errno, json, subprocess, sys
        libc = ctypes.CDLL(None, use_errno=True)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        found = {}
        for name, (number, given) in a.items():
            if name == "ptrace":
                given = (16, child.pid, 0, 0)
            result = libc.syscall(number, *(ctypes.c_long(one) if isinstance(one, int) else one for one in given))
            found[name] = errno.errorcode[ctypes.get_errno()] if result == -1 else "allowed"
        child.communicate(b"\\n")
        print(json.dumps(found))
        """,
        numbered,
    )
    assert json.loads(told) == dict.fromkeys(calls, "EPERM") | {"clone3": "ENOSYS"}


def test_buffers_of_sockets_stay_small(start):
    told = start().run("""
        import socket
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            for made in (*socket.socketpair(), socket.socket()):
                try:
                    made.setsockopt(socket.SOL_SOCKET, option, 2**22)
                except PermissionError:
                    print("refused")
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        client.setblocking(False)
        sent = 0
        try:
            while sent < 2**22:
                sent += client.send(bytes(2**16))
        except BlockingIOError:
            print(sent < 2**19)
    """)
    assert told.split() == ["refused"] * 6 + ["True"]


def test_memory_counts_when_the_first_thread_has_ended():
    code = """
import ctypes, threading, time
def hold():
    held = bytearray(b"x" * (60 * 2**20))
    print(len(held), flush=True)
    time.sleep(1000)
threading.Thread(target=hold).start()
ctypes.CDLL(None).syscall({exit}, 0)
""".format(exit=sandbox._number("exit"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        assert wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        held = cgroups._share(Path("/proc", str(process.pid)), os.sysconf("SC_PAGE_SIZE"))
        process.kill()
    assert held > 60 * 2**20


def test_a_fork_bomb_is_bounded_and_disturbs_nobody(start):
    bomb, other = start(), start()
    told = bomb.run("""
        import os, time
        made = 0
        try:
            while made < 10_000:
                if os.fork() == 0:
                    while True:
                        time.sleep(1000)
                made += 1
        except OSError as error:
            print(type(error).__name__, 0 < made < 64)
    """)
    assert told.splitlines()[-1] == "BlockingIOError True"
    assert other.run("import subprocess, sys; print(subprocess.call([sys.executable, '-c', 'print()']))") == "0"


def test_a_memory_bomb_is_bounded_and_disturbs_nobody(start):
    bomb, other = start(), start()
    told = bomb.run("""
        held = []
        try:
            while len(held) < 100:
                held.append(bytearray(b"x" * (20 * 2**20)))
        except MemoryError:
            made = len(held)
            held.clear()
            print(made * 20 <= 512)
        try:
            import mmap
            shared = [mmap.mmap(-1, 2**30) for _ in range(20)]
        except OSError:
            print("shared memory too")
    """)
    assert told == "True\nshared memory too"
    assert other.run("print(len(bytes(50 * 2**20)))") == str(50 * 2**20)


def test_memory_is_bounded_for_all_processes_of_an_answer(start):
    bomb, other = start(), start()
    # Linux kills one of them if a control group bounds them, or the sandbox's init ends them all.
    assert bomb.dies("""
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(b"x" * (200 * 2**20))
        time.sleep(1000)
os.wait()
os._exit(1)
""")
    assert other.run("print(len(bytes(50 * 2**20)))") == str(50 * 2**20)


def test_many_processes_may_share_what_they_hold(start):
    told = start().run("""
        import os, time
        held = bytearray(b"x" * (200 * 2**20))
        made = []
        for _ in range(5):
            made.append(os.fork())
            if made[-1] == 0:
                time.sleep(2)
                os._exit(0)
        print([os.waitpid(pid, 0)[1] for pid in made])
    """)
    assert told.splitlines()[-1] == "[0, 0, 0, 0, 0]"


def test_other_processes_are_out_of_sight_and_reach(start):
    told = start().run(
        """
        import os, signal
        print(sum(one.isdecimal() for one in os.listdir("/proc")))
        for pid in (a, 1):
            try:
                os.kill(pid, signal.SIGKILL)
                print("sent")
            except ProcessLookupError:
                print("no such process")
        """,
        2**22 - 1,
    )
    # Linux lets nobody kill process 1 of a namespace from within, and says nothing.
    assert told == "2\nno such process\nsent"


@pytest.mark.parametrize("target", [-1, 0])
def test_kill_all_harms_nobody_outside(start, target):
    killer, other = start(), start()
    # All there is to kill is the answer's own process, which -1 leaves out.
    assert killer.dies(f"import os, signal\ntry: os.kill({target}, signal.SIGKILL)\nfinally: os._exit(1)")
    assert other.run("print(6 * 7)") == "42"


def test_an_answer_inherits_nothing_open(start):
    told = start().run("""
        import os
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}").partition(":")[0]
            except OSError:
                pass  # of the listing itself
        print(found)
        print([line.split()[7:] for line in open("/proc/net/unix").read().splitlines()[1:]])
    """)
    nowhere = "/dev/null"
    assert told == f"{ {0: nowhere, 1: nowhere, 2: nowhere, 4: 'socket'} }\n[]"


def test_shared_memory_is_not_shared(start):
    first, second = start(), start()
    name = f"scalelab-{os.getpid()}"
    made = first.run(
        "from multiprocessing import shared_memory as m; s = m.SharedMemory(a, True, 64); print(s.size)", name
    )
    assert made == "64"
    told = second.run("from multiprocessing import shared_memory as m; m.SharedMemory(a)", name)
    assert told.startswith("FileNotFoundError")
    assert not Path("/dev/shm", name).exists()


def test_all_that_an_answer_started_ends_with_it(start, address):
    mark = f"never-{os.getpid()}"
    box = start()
    box.run(
        """
        import os, signal, subprocess, sys, threading, time
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        code = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.fork() or os.setsid(); time.sleep(9999)"
        started = [subprocess.Popen([sys.executable, "-c", code, a], start_new_session=True) for _ in range(3)]
        threading.Thread(target=time.sleep, args=(9999,)).start()
        """,
        mark,
    )
    assert wait_until(lambda: len(running(mark)) == 6)
    box.close()
    assert wait_until(lambda: not running(mark))


LEAVES_MUCH = """
import builtins, os, pathlib, signal, socket, subprocess, sys, tempfile
builtins.THREE = THREE = 4
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import os, time; os.fork() or os.setsid(); time.sleep(9999)", a])
for folder in ("/tmp", "/dev/shm"):
    pathlib.Path(folder, "file").write_text("a note")
    pathlib.Path(folder, "link").symlink_to("/usr")
    inner = pathlib.Path(folder, "one/two")
    inner.mkdir(parents=True)
    inner.joinpath("file").touch()
    inner.chmod(0)
    inner.parent.chmod(0o500)
os.chdir(tempfile.mkdtemp())
server = socket.create_server(("127.0.0.1", 5000))
"""
FINDS_NOTHING = """
import os, socket
socket.create_server(("127.0.0.1", 5000)).close()
processes = [int(pid) for pid in os.listdir("/proc") if pid.isdecimal()]
print(os.listdir("/tmp"), os.listdir("/dev/shm"), os.getcwd(), processes == [1, os.getpid()], THREE)
"""


def test_an_answer_finds_nothing_of_the_one_before_it(start):
    mark = f"left-{os.getpid()}"
    box = start()
    for _ in range(3):
        box.run(LEAVES_MUCH, mark)
        assert running(mark)
        box.start()
        assert not running(mark)
        assert box.run(FINDS_NOTHING) == "[] [] /tmp True 3"
        box.start()


def test_a_mount_below_tmp_is_kept(tmp_path, monkeypatch):
    """Such as that of a course which lies there: it cannot be removed."""
    home, shared = tmp_path / "home", tmp_path / "shm"
    (home / "course").mkdir(parents=True)
    shared.mkdir()
    monkeypatch.setattr(sandbox, "HOME", home)
    monkeypatch.setattr(sandbox, "SHARED_MEMORY", shared)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    monkeypatch.setattr(os, "wait", lambda: (_ for _ in ()).throw(ChildProcessError))
    kept = sandbox.contents()
    (home / "course" / "source.py").touch()
    (home / "left").mkdir()
    (home / "left" / "file").touch()
    (shared / "segment").touch()
    sandbox.clear(kept)
    assert sandbox.contents() == kept == {home / "course"}
    assert (home / "course" / "source.py").exists()


def test_a_sandbox_that_cannot_be_cleared_ends(start):
    box = start()
    box.run("""
        import os
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
    """)
    with pytest.raises(boxes.NotStarted, match="ended"):
        box.start()
    assert wait_until(box.is_gone)


def test_what_a_course_needs_works(start):
    told = start().run("""
        import asyncio, getpass, multiprocessing, os, subprocess, sys, tempfile
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from multiprocessing import shared_memory
        async def answer(reader, writer):
            writer.write((await reader.readline()).upper())
            writer.close()
        async def ask():
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            async with server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"served\\n")
                text = await reader.read()
                writer.close()
                return text.decode().strip()
        print(asyncio.run(ask()))
        with ThreadPoolExecutor(8) as pool:
            print(sum(pool.map(abs, range(100))))
        def twice(x):
            return 2 * x
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(twice, [1, 2]))
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            print(list(pool.map(abs, [-3, -4])))
        memory = shared_memory.SharedMemory(create=True, size=1000)
        memory.buf[0] = 7
        again = shared_memory.SharedMemory(memory.name)
        print(again.buf[0])
        again.close(); memory.close(); memory.unlink()
        print(subprocess.check_output([sys.executable, "-c", "import numpy; print('numpy')"], text=True).strip())
        with tempfile.NamedTemporaryFile() as file:
            print(file.name.startswith("/tmp/"), getpass.getuser(), os.cpu_count() > 0)
        import numba
        @numba.njit
        def square(x):
            return x * x
        print(square(9))
    """)
    assert told.splitlines() == ["SERVED", "4950", "[2, 4]", "[3, 4]", "7", "numpy", "True student True", "81"]


def test_this_system_can_sandbox():
    assert fork_server.sandbox_missing() == ""


def test_a_system_that_refuses_namespaces_is_told_apart():
    refused = """
import errno, pyseccomp
filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
filter.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
filter.load()
from scalelab.grading.judging.fork_server import sandbox_missing
print(sandbox_missing())
"""
    told = subprocess.run([sys.executable, "-P", "-c", refused], capture_output=True, text=True, check=True).stdout
    assert "unshare" in told
    assert os.strerror(1) in told


def test_the_advice_names_the_setting(tmp_path, monkeypatch):
    setting = tmp_path / "max_user_namespaces"
    setting.write_text("0\n")
    monkeypatch.setattr(sandbox, "_SETTINGS", ((str(setting), "0", "see sysctl user.max_user_namespaces"),))
    monkeypatch.setattr(sandbox, "_CONTAINERS", (str(tmp_path),))
    assert "sysctl user.max_user_namespaces" in sandbox.advice()
    assert "--security-opt seccomp=unconfined" in sandbox.advice()


def test_groups_of_version_2_are_made_where_they_are_delegated(tmp_path):
    point = tmp_path / "cgroup"
    own = point / "user" / "app" / "shell"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("")
    (own.parent / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "groups").write_text("0::/user/app/shell\n")
    (tmp_path / "mounts").write_text(f"30 23 0:26 / {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    groups = cgroups.mounted_hierarchies("answers", groups=str(tmp_path / "groups"), mounts=str(tmp_path / "mounts"))
    assert [(parent, sorted(files)) for parent, files in groups.parents] == [(own.parent, ["memory", "pids"])]
