"""Run the cells of a notebook in a kernel of this environment's Python, and end the kernel with all that it started."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import IO

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from scalelab.running import processes
from scalelab.running.kernel import JUPYTER, KERNEL_NAME, transport_encryption

KERNEL_START_S = 60
POLL_S = 1.0
FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)


def _nothing() -> None: ...


def run_notebook(
    notebook: NotebookNode,
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout: int,
    output: IO[str] | int = DEVNULL,
    ready: Callable[[], None] = _nothing,
    tick: Callable[[], None] = _nothing,
    cell: Callable[[], None] = _nothing,
) -> tuple[int, BaseException] | None:
    """Run the cells in place until one fails; return its index and its error (one of `FAILURES`), or None.

    folder, environment: of the kernel. timeout: of each cell, in seconds. output: a file for what the kernel's process
    itself prints. `ready` is called when the kernel has started, `tick` about every second, `cell` at each cell's end.
    """
    # zmq needs an event loop that can watch sockets; the default loop on Windows cannot.
    loop_factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None

    async def run() -> tuple[int, BaseException] | None:
        # Timing would change the metadata of cells, and a cache would no longer match them.
        client = NotebookClient(notebook, timeout=timeout, coalesce_streams=True, record_timing=False)
        async with _kernel(client, folder, environment, output):
            ready()
            cells = [index for index, each in enumerate(notebook.cells) if runs(each)]
            for number, index in enumerate(cells, start=1):
                error = await _run_cell(client, index, number, tick)
                cell()
                if error is not None:
                    return index, error
            client.set_widgets_metadata()
        return None

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(run())


def runs(cell: NotebookNode) -> bool:
    """Return whether the cell is executed: a code cell with more than white space."""
    return bool(cell.cell_type == "code" and cell.source.strip())


async def _run_cell(client: NotebookClient, index: int, number: int, tick: Callable[[], None]) -> BaseException | None:
    """Run a cell, as the one with the execution count `number`; return its failure, or None."""
    running = client.async_execute_cell(client.nb.cells[index], index, execution_count=number)
    task = asyncio.create_task(running)
    try:
        while not task.done():
            tick()
            # Not awaited directly: nbclient takes a cancellation for a dead kernel.
            await asyncio.wait({task}, timeout=POLL_S)
    except asyncio.CancelledError:
        assert isinstance(client.km, AsyncKernelManager)
        await client.km.interrupt_kernel()
        await asyncio.wait({task}, timeout=processes.GRACE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    if (error := task.exception()) is not None and not isinstance(error, FAILURES):
        raise error
    return error


@asynccontextmanager
async def _kernel(
    client: NotebookClient, folder: Path, environment: Mapping[str, str], output: IO[str] | int
) -> AsyncIterator[None]:
    """Start a kernel for `client`; at the end, stop it and all that it started, and close every socket."""
    # Other users must not read its messages. Sockets in a private folder also avoid a race for ports between kernels
    # that start side by side; Windows, which has no such sockets, gets encrypted ports.
    private = {"transport": "ipc"} if os.name == "posix" else {"transport_encryption": transport_encryption()}
    with tempfile.TemporaryDirectory(prefix="scalelab-", ignore_cleanup_errors=True) as own:
        manager = AsyncKernelManager(
            kernel_name=KERNEL_NAME,
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(JUPYTER / "kernels")], ensure_native_kernel=False),
            connection_file=str(Path(own, "kernel.json")),
            **private,
        )
        await manager.start_kernel(
            cwd=str(folder),
            env=dict(environment),
            extra_arguments=["--HistoryManager.hist_file=:memory:"],
            stdout=output,
            stderr=output,
        )
        channels = manager.client()
        try:
            channels.start_channels()
            await channels.wait_for_ready(timeout=KERNEL_START_S)
            client.km, client.kc = manager, channels
            client.reset_execution_trackers()
            info = await channels.kernel_info(reply=True)
            client.nb.metadata["language_info"] = info["content"]["language_info"]
            yield
        finally:
            assert isinstance(manager.provisioner, LocalProvisioner)
            started = processes.descendants(manager.provisioner.pid or 0)
            channels.stop_channels()
            await manager.shutdown_kernel()
            processes.end(started)
