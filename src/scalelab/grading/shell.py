"""ipykernel's kernel for warm kernels: what comes of a cell is the same, with less done for it.

IPython and ipykernel search a cell for magics twice, compile it twice to see whether it awaits, and hash it in Python
for a name. All that takes longer than most answers.
"""

from __future__ import annotations

import os
import re
import threading
from hashlib import blake2b
from typing import Any

from ipykernel.compiler import XCachingCompiler, get_tmp_directory
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.profiledir import ProfileDir
from IPython.paths import get_ipython_dir
from traitlets import Instance, Type
from traitlets.config import Config

from scalelab.grading.plain_python import PlainPython, outside_of_functions

AWAITS = re.compile(r"\bawait\b|\basync\b(?!\s+def\b)")
"""What code has somewhere that awaits."""


class Compiler(XCachingCompiler):
    """ipykernel's compiler of cells, without its hash in Python."""

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """Return what a cell is called in tracebacks: a file's name, as ipykernel's own, by a faster hash."""
        folder: str = get_tmp_directory()  # type: ignore[no-untyped-call]
        return os.path.join(folder, f"{blake2b(raw_code.encode(), digest_size=4).hexdigest()}.py")


class Shell(ZMQInteractiveShell):
    """ipykernel's shell, which compiles a cell to see whether it awaits only where it may."""

    input_transformer_manager = Instance(PlainPython, ())

    @classmethod
    def instance(cls, *args: Any, **given: Any) -> Shell:
        """Return the only shell. One that was made before a fork gets what its kernel would have made it with."""
        made = cls.initialized()
        shell: Shell = super().instance(*args, **given)
        if made and "kernel" in given:
            shell.parent, shell.kernel, shell.profile_dir = given["parent"], given["kernel"], given["profile_dir"]
            shell.ipython_dir, shell.starting_dir = get_ipython_dir(), os.getcwd()
        return shell

    def should_run_async(
        self, raw_cell: str, *, transformed_cell: str | None = None, preprocessing_exc_tuple: Any = None
    ) -> bool:
        """Return whether a cell awaits at its top."""
        if preprocessing_exc_tuple is None and transformed_cell is not None and not may_await(transformed_cell):
            return False
        awaits: bool = super().should_run_async(
            raw_cell, transformed_cell=transformed_cell, preprocessing_exc_tuple=preprocessing_exc_tuple
        )
        return awaits


class _NoThread:
    """Stands where ipykernel's thread for subshells would: false, and yet asked for the thread that started it."""

    parent_thread = threading.main_thread()

    def __bool__(self) -> bool:
        return False


class Kernel(IPythonKernel):
    """ipykernel's kernel with this shell and compiler, which says nothing that a judge has no ear for."""

    shell_class = Type(Shell)
    compiler_class = Type(Compiler)
    _supports_kernel_subshells = False

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        if status != "busy":
            super()._publish_status(status, channel, parent)  # type: ignore[no-untyped-call]

    def _publish_execute_input(self, code: str, parent: Any, execution_count: int) -> None:
        """Say nothing: who sent the cell knows it."""


class Application(IPKernelApp):
    """ipykernel's application, with the parts that take long and no judge needs left out: a command line, files of
    configuration and of a profile, which would also make grades depend on a machine's, and a thread for subshells.
    """

    kernel_class = Type(Kernel)

    def parse_command_line(self, argv: object = None) -> None:
        """There is none."""

    def init_profile_dir(self) -> None:
        """It is there, from `prepare`."""

    def init_config_files(self) -> None:
        """There are none."""

    def load_config_file(self, *_: Any, **__: Any) -> None:
        """There is none."""

    def update_config(self, config: Config) -> None:
        """Take a configuration, unless it is what there is."""
        if config != self.config:
            super().update_config(config)

    def prepare(self) -> None:
        """Do what takes longest, before a fork: make the shell. Nothing of it is on the disk."""
        self.profile_dir = ProfileDir()
        options = {"ipython_dir": os.curdir, "profile_dir": self.profile_dir, "compiler_class": Compiler}
        Shell.instance(config=self.config, **options)

    def init_control(self, context: Any) -> None:
        """Make what controls the kernel, but not the thread for subshells, which every message would pass through."""
        super().init_control(context)  # type: ignore[no-untyped-call]
        self.shell_channel_thread.io_loop.close(all_fds=True)
        self.shell_channel_thread = _NoThread()


def may_await(source: str) -> bool:
    """Return whether a cell may await outside of functions; where that cannot be told at once, it may."""
    if not AWAITS.search(source):
        return False
    outside = outside_of_functions(source)
    return outside is None or bool(AWAITS.search(outside))
