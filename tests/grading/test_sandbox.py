"""What the sandbox of a kernel promises, tried by code in real kernels: as root, and as an ordinary user."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import KernelManager

if sys.platform != "linux":
    pytest.skip("the sandbox is made of what Linux offers", allow_module_level=True)

from scalelab.grading import cgroups, sandbox, zygote
from scalelab.grading.sandbox import Limits

REPO = Path(__file__).parents[2]
NOBODY = 65534
WAIT_S = 60
LIMITS = Limits(cpu_s=60, memory_mb=512, processes=60, file_mb=8, tmp_mb=16, open_files=128)
SECRET = "5b1e-secret"

OWNER = """
import json, sys
from scalelab.grading.sandbox import Limits
from scalelab.grading.zygote import warm_kernels
with warm_kernels(imports=["numpy", "numpy.random"], limits=Limits(**json.loads(sys.argv[1]))) as given:
    print(json.dumps(given), flush=True)
    sys.stdin.read()
"""

AS_NOBODY = """
set -e
places=$1 uid=$2; shift 2
closed=/nonexistent
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
def owner(kind, hold, limits=LIMITS):
    """Yield a process that has entered `warm_kernels`, as root or as an ordinary user, and what it was given."""
    argv = [sys.executable, "-P", "-c", OWNER, json.dumps(vars(limits))]
    environment = os.environ | {"SECRET_TOKEN": SECRET}
    if kind == "root" and os.geteuid() != 0:
        pytest.skip("only root can make kernels as root")
    if kind == "user" and os.geteuid() == 0:
        argv, more = as_nobody(argv, hold)
        environment |= more
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"no warm kernels as {kind}")
        yield process, json.loads(line)
    finally:
        process.stdin.close()
        process.wait(WAIT_S)
        process.stdout.close()


def as_nobody(argv, hold):
    """Return a command that runs `argv` as an ordinary user, who sees our Python even where root's home holds it."""
    for tool in ("unshare", "setpriv", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing, which makes an ordinary user of root")
    closed = {
        str(folder) for path in sandbox.readable_paths() for folder in path.parents if not folder.stat().st_mode & 0o001
    }
    below = [path for path in sandbox.readable_paths() if any(path.is_relative_to(folder) for folder in closed)]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", AS_NOBODY, "sh"]
    return [*command, " ".join(map(str, below)), str(NOBODY), *argv], {"HOLD": str(hold), "CLOSED": " ".join(closed)}


@pytest.fixture(scope="module", params=["root", "user"])
def given(request, tmp_path_factory):
    with owner(request.param, tmp_path_factory.mktemp("hold")) as (process, environment):
        yield environment | {"kind": request.param, "owner": process.pid}


class Kernel:
    """A warm kernel and its client."""

    def __init__(self, environment):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(zygote.SOCKET, environment[zygote.SOCKET])
            patch.setenv("JUPYTER_PATH", environment["JUPYTER_PATH"])
            self.manager = KernelManager(kernel_name=zygote.KERNEL)
            self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT_S)

    def run(self, code, *arguments):
        """Run the code, after names `a`, `b`, ... for the arguments; return what it prints, or the error's name."""
        names = "".join(f"{name} = {value!r}\n" for name, value in zip("abcdef", arguments, strict=False))
        said = []

        def hear(message):
            content = message["content"]
            said.append(content.get("text", "") or content.get("ename", ""))

        self.client.execute_interactive(
            names + textwrap.dedent(code), timeout=WAIT_S, output_hook=hear, allow_stdin=False
        )
        return "".join(said).strip()

    def dies(self):
        """Return whether the kernel is gone, now or soon."""
        return wait_until(lambda: not self.manager.is_alive())

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def start(given):
    kernels = []

    def make():
        kernels.append(Kernel(given))
        return kernels[-1]

    yield make
    for kernel in kernels:
        kernel.close()


def wait_until(holds):
    until = time.monotonic() + WAIT_S
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def running(mark):
    """Return the processes whose command line holds `mark`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def test_a_kernel_has_no_privilege(start):
    told = start().run("""
        import os
        fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        print({n: int(fields[n], 16) for n in fields if n.startswith("Cap")})
        print(fields["NoNewPrivs"].strip(), fields["Seccomp"].strip())
        print(os.getuid() > 0, os.geteuid() > 0, os.getgid() > 0)
    """)
    assert told == "{'CapInh': 0, 'CapPrm': 0, 'CapEff': 0, 'CapBnd': 0, 'CapAmb': 0}\n1 2\nTrue True True"


def test_a_kernel_reaches_no_network(start):
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


def test_a_kernel_sees_neither_the_course_nor_the_host(start, given):
    folder = Path(given[zygote.SOCKET]).parent
    hidden = [
        *(REPO / name for name in ("solutions", "exercises", "tests", "book", "pyproject.toml", ".git")),
        *(Path.home() / name for name in (".bashrc", ".profile", ".ssh", ".cache")),
        *map(Path, ("/etc/shadow", "/etc/ssh", "/var/log", "/sys", "/dev/kmsg", "/dev/tty", "/home", "/mnt", "/opt")),
        *(folder, folder / zygote.LISTENER, Path(f"/proc/{os.getpid()}/cwd"), Path("/proc/1/cwd/x")),
    ]
    kernel = start()
    assert kernel.run("import os; print([one for one in a if os.path.exists(one)])", [*map(str, hidden)]) == "[]"
    assert kernel.run("print(sorted(os.listdir(a)))", str(REPO)) == str(
        sorted({path.relative_to(REPO).parts[0] for path in sandbox.readable_paths() if path.is_relative_to(REPO)})
    )
    told = kernel.run("""
        import glob
        texts = [open(path).read() for path in glob.glob("/proc/[0-9]*/*") if path.endswith(("/environ", "/cmdline"))
                 and os.access(path, os.R_OK)]
        print([text for text in texts if "secret" in text or "PYTEST" in text or "solutions" in text])
        print(sorted(name for name in os.environ if "TOKEN" in name or "PYTEST" in name or "JPY" in name))
        print(os.getcwd(), os.path.expanduser("~"), os.listdir("/connection") != [])
    """)
    assert told == "[]\n[]\n/tmp /tmp True"


def test_a_kernel_writes_in_its_own_folder_only(start):
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


def test_tmp_is_small_and_private(start):
    first, second = start(), start()
    told = first.run("""
        import errno
        total = 0
        try:
            for number in range(100):
                with open(f"/tmp/part-{number}", "wb", buffering=0) as file:
                    total += file.write(bytes(4 * 2**20))
        except OSError as error:
            print(errno.errorcode[error.errno], total <= 16 * 2**20)
    """)
    assert told == "ENOSPC True"
    assert second.run("import os; print([name for name in os.listdir('/tmp') if 'part' in name])") == "[]"
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
        "clone": (0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
        "clone3": (0, 0),
    }
    numbered = {name: (sandbox._number(name), arguments) for name, arguments in calls.items()}
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
            print(type(error).__name__, 0 < made < 60)
    """)
    assert "BlockingIOError True" in told.splitlines()  # newer Pythons warn of a fork beside threads, before or after
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


def test_memory_is_bounded_for_all_processes_of_a_kernel(start, given):
    bomb, other = start(), start()
    bomb.client.execute("""
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(b"x" * (200 * 2**20))
        time.sleep(1000)
os.wait()
os._exit(1)
""")
    # Linux kills one of them where a control group bounds them, or the sandbox's init ends them all.
    assert bomb.dies()
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


def test_files_and_open_files_are_bounded(start):
    told = start().run("""
        import errno
        try:
            with open("/tmp/large", "wb", buffering=0) as file:
                for _ in range(100):
                    file.write(bytes(2**20))
        except OSError as error:
            print(errno.errorcode[error.errno])
        opened = []
        try:
            while len(opened) < 10_000:
                opened.append(open("/dev/null"))
        except OSError as error:
            made = len(opened)
            [one.close() for one in opened]
            print(errno.errorcode[error.errno], made < 128)
    """)
    assert told == "EFBIG\nEMFILE True"


def test_other_processes_are_out_of_sight_and_reach(start):
    told = start().run(
        """
        import os, signal
        names = {open(f"/proc/{one}/comm").read().strip() for one in os.listdir("/proc") if one.isdecimal()}
        print(sum(one.isdecimal() for one in os.listdir("/proc")), len(names))
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
    assert told == "2 1\nno such process\nsent"


@pytest.mark.parametrize("target", [-1, 0])
def test_kill_all_harms_nobody_outside(start, target):
    killer, other = start(), start()
    # All there is to kill is the kernel itself, which -1 leaves out.
    killer.client.execute(f"import os, signal\ntry: os.kill({target}, signal.SIGKILL)\nfinally: os._exit(1)")
    assert killer.dies()
    assert other.run("print(6 * 7)") == "42"


def test_shared_memory_is_not_shared(start, given):
    first, second = start(), start()
    name = f"scalelab-{os.getpid()}-{given['kind']}"
    made = first.run(
        "from multiprocessing import shared_memory as m; s = m.SharedMemory(a, True, 64); print(s.size)", name
    )
    assert made == "64"
    told = second.run("from multiprocessing import shared_memory as m; m.SharedMemory(a)", name)
    assert told.startswith("FileNotFoundError")
    assert not Path("/dev/shm", name).exists()


def test_a_kernel_inherits_nothing_open(start):
    told = start().run("""
        import os, stat
        print(sorted({os.readlink(f"/proc/self/fd/{one}") for one in (0, "1", "2")}))
        print([os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{one}") and not os.readlink(f"/proc/self/fd/{one}").startswith(
                   ("/dev/null", "socket:", "pipe:", "anon_inode:", "/proc/"))])
        unix = [line.split()[6:] for line in open("/proc/net/unix").read().splitlines()[1:]]
        print(sorted(line[1] for line in unix if len(line) > 1))
    """)
    lines = told.splitlines()
    assert lines[1] == "[]"
    assert all("zygote" not in name for name in lines[2:])


def test_what_is_interrupted_goes_on(start):
    kernel = start()
    # As nbval asks; else a kernel passes over what comes while it answers.
    asked = kernel.client.execute("print('begun')\nwhile True: pass", stop_on_error=False)
    while kernel.client.get_iopub_msg(timeout=WAIT_S)["content"].get("text") != "begun\n":
        pass
    kernel.manager.interrupt_kernel()
    while (reply := kernel.client.get_shell_msg(timeout=WAIT_S))["parent_header"].get("msg_id") != asked:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert kernel.run("print(6 * 7)") == "42"


def test_a_cell_that_awaits_is_awaited(start):
    kernel = start()
    assert kernel.run("import asyncio\nprint(await asyncio.sleep(0, 42))") == "42"
    assert kernel.run("async with asyncio.timeout(0):\n    await asyncio.sleep(9)") == "TimeoutError"
    assert kernel.run("print([one async for one in aiter(())])") == "TypeError"
    assert kernel.run("async def f():\n    await asyncio.sleep(0)\n    return 43\nprint(await f())") == "43"


def test_a_kernel_that_will_not_end_is_ended_with_all_it_started(start, given):
    mark = f"never-{os.getpid()}-{given['kind']}"
    kernel = start()
    kernel.run(
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
    kernel.client.execute("while True: pass")
    kernel.manager.shutdown_kernel(now=True)
    assert not kernel.manager.is_alive()
    assert not running(mark)


def test_an_ended_kernel_leaves_nothing(start, given):
    folder = Path(given[zygote.SOCKET]).parent

    def kept():
        return sorted(path.name for path in folder.iterdir()), Path("/proc/self/mountinfo").read_text()

    # As many as are kept ready, and no more, whatever has run before.
    usual = len(["root", zygote.LISTENER]) + zygote.SPARES
    kernels = [start() for _ in range(3)]
    for kernel in kernels:
        kernel.run("open('/tmp/x', 'w').write('x'); import os; os.fork() or os.setsid()")
        kernel.manager.shutdown_kernel(now=True)
    assert wait_until(lambda: len(kept()[0]) <= usual)
    assert str(folder) not in kept()[1]


CLIENT = """
import sys
from jupyter_client.manager import start_new_kernel
for _ in range(3):
    manager, client = start_new_kernel(kernel_name=sys.argv[1])
    client.execute_interactive(f"print({sys.argv[2]})", timeout=60)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def test_kernels_for_several_clients_at_once(given):
    environment = os.environ | {name: given[name] for name in (zygote.SOCKET, "JUPYTER_PATH")}
    clients = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", CLIENT, zygote.KERNEL, str(number)], stdout=subprocess.PIPE, env=environment
        )
        for number in range(3)
    ]
    assert [client.communicate()[0].split() for client in clients] == [[b"0"] * 3, [b"1"] * 3, [b"2"] * 3]


def test_what_jupyter_clears_away_of_an_ended_kernel_is_no_other_kernels(start):
    ended = start()
    ended.client.execute("import os; os._exit(1)")
    assert ended.dies()
    # Its place is taken before its manager clears away.
    others = [start() for _ in range(zygote.SPARES + 2)]
    ended.client.stop_channels()
    ended.manager.cleanup_resources()
    sockets = [Path(f"{one.manager.ip}-{port}") for one in others for port in zygote.PORTS.values()]
    assert all(path.exists() for path in sockets)


def test_kernels_do_not_draw_the_same_numbers(start):
    code = "import numpy, random, uuid; print(numpy.random.random(), random.random(), uuid.uuid4())"
    first, second = start().run(code).split(), start().run(code).split()
    assert not set(first) & set(second)


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
        print(await ask())
        with ThreadPoolExecutor(8) as pool:
            print(sum(pool.map(abs, range(100))))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(abs, [-1, -2]))
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
        def twice(x):
            return 2 * x
        print(twice(21))
    """)
    assert told.splitlines() == ["SERVED", "4950", "[1, 2]", "[3, 4]", "7", "numpy", "True student True", "42"]


@pytest.mark.parametrize("kind", ["root", "user"])
def test_an_owner_that_is_killed_leaves_nothing(kind, tmp_path):
    with owner(kind, tmp_path, Limits(cpu_s=1)) as (process, environment):
        kernel = Kernel(environment)
        told = kernel.run("import subprocess, sys; print(subprocess.call([sys.executable, '-c', 'while True: pass']))")
        assert told == str(-signal.SIGXCPU)
        folder = Path(environment[zygote.SOCKET]).parent
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 1 + 2  # the zygote, and an init and a kernel at least
        process.kill()
        assert wait_until(lambda: not any(one.is_running() for one in family))
        assert wait_until(lambda: not folder.exists())
        assert not groups_of(folder)
        assert kernel.dies()
        kernel.close()


@pytest.mark.parametrize("kind", ["root", "user"])
def test_a_zygote_that_is_killed_leaves_nothing(kind, tmp_path):
    with owner(kind, tmp_path) as (process, environment):
        kernel = Kernel(environment)
        folder = Path(environment[zygote.SOCKET]).parent
        family = psutil.Process(process.pid).children(recursive=True)
        family[0].kill()
        assert kernel.dies()
        kernel.close()
        assert wait_until(lambda: not any(one.is_running() for one in family[1:]))
    assert not folder.exists()
    assert not groups_of(folder)


def groups_of(folder):
    return [group for parent, _ in cgroups.known("").parents for group in parent.glob(f"{folder.name}*")]


READY = """
import sys
from scalelab.grading import zygote
zygote.make_ready()
print(zygote._begun[0].pid, flush=True)
if sys.argv[1] == "killed":
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["left", "killed"])
def test_a_zygote_that_was_made_ready_for_nothing_ends_with_its_owner(end):
    argv = [sys.executable, "-P", "-c", READY, end]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        if end == "killed":
            owner.kill()
        owner.wait(WAIT_S)
    assert wait_until(lambda: not psutil.pid_exists(pid))


def test_kernels_end_with_their_client(given):
    client = f"""
import os, sys
os.environ.update({ {name: given[name] for name in (zygote.SOCKET, "JUPYTER_PATH")}!r})
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name={zygote.KERNEL!r})
manager.start_kernel()
print(manager.ip, flush=True)
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-P", "-c", client], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    made = Path(ended.stdout.strip()).parent
    before = made.stat().st_ino if made.exists() else None
    assert wait_until(lambda: not made.exists() or made.stat().st_ino != before)


SEALING = """
import os, sys, threading
from pathlib import Path
from scalelab.grading import sandbox

def tried(write):
    try:
        write()
    except OSError as error:
        return error.strerror
    return "done"

names = ["mount"] if sandbox.privileged() else ["mount", "user"]
sandbox._call("unshare", sum(sandbox._NEW_NAMESPACES[name] for name in names))
sandbox._mount("none", Path("/"), None, sandbox._MS_REC | sandbox._MS_PRIVATE)
sandbox.CONNECTION = folder = Path(sys.argv[1])
sandbox._bind(folder, folder)
sandbox.SEAL_S = float(sys.argv[2])
writing = open(folder / "socket", "w")
closing = threading.Timer(0.2, writing.close)
if len(sys.argv) == 4:
    closing.start()
print(tried(sandbox.seal), "|", tried(lambda: open(folder / "another", "w")))
"""


@pytest.mark.parametrize(
    ("seconds", "closes", "told"),
    [("60", ["closes"], f"done | {os.strerror(errno.EROFS)}"), ("0.1", [], f"{os.strerror(errno.EBUSY)} | done")],
)
def test_a_folder_that_is_being_written_is_sealed_afterwards(tmp_path, seconds, closes, told):
    argv = [sys.executable, "-P", "-c", SEALING, str(tmp_path), seconds, *closes]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == told


def test_this_system_can_sandbox():
    assert zygote.missing() == ""


def test_a_system_that_refuses_namespaces_is_told_apart():
    refused = """
import errno, pyseccomp
filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
filter.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
filter.load()
from scalelab.grading.zygote import missing
print(missing())
"""
    told = subprocess.run([sys.executable, "-P", "-c", refused], capture_output=True, text=True, check=True).stdout
    assert "unshare" in told
    assert os.strerror(errno.EPERM) in told


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
    groups = cgroups.known("kernels", groups=str(tmp_path / "groups"), mounts=str(tmp_path / "mounts"))
    assert [(parent, sorted(files)) for parent, files in groups.parents] == [(own.parent, ["memory", "pids"])]
