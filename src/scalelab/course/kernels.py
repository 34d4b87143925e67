"""The kernel of chapters, exercises and JupyterLab: this environment's Python, whatever else a machine has."""

from __future__ import annotations

import os
from pathlib import Path

JUPYTER = Path(__file__).parent / "jupyter"
"""Our Jupyter files: `kernels/python3` (its `python` is the Python that starts it) and `config` (settings of Lab)."""

IN_WORKSPACES = JUPYTER / "workspace"
"""What a student's workspace has in place of these: the kernel named after the course, and its own settings."""

KERNEL_NAME = "python3"


def jupyter_environment(base: dict[str, str] | None = None) -> dict[str, str]:
    """Return `base` (default: this process's environment) with our kernel before any other of the same name.

    Give it to a subprocess that starts kernels by name (nbval, nbconvert, Jupyter): its `python3` is then the Python
    it runs on itself, even where the machine's `JUPYTER_PATH` or user folder holds another `python3`.
    """
    environment = dict(os.environ if base is None else base)
    paths = [str(JUPYTER), *filter(None, environment.get("JUPYTER_PATH", "").split(os.pathsep))]
    environment["JUPYTER_PATH"] = os.pathsep.join(dict.fromkeys(paths))
    return environment


def private_transport() -> dict[str, str]:
    """Return the traits of a kernel manager that keep what goes to and from its kernel to this user.

    Sockets in the folder of the connection file, which also spares kernels that start side by side a race for ports;
    on Windows, which has none, ports with encryption.
    """
    return {"transport": "ipc"} if os.name == "posix" else {"transport_encryption": transport_encryption()}


def transport_encryption() -> str:
    """Return jupyter_client's policy: encrypt what goes to and from a kernel wherever this build of zmq can."""
    import zmq  # noqa: PLC0415 (`scalelab grade` has no use for it)

    return "auto" if zmq.has("curve") else "disabled"
