"""The kernel of chapters, exercises and JupyterLab: this environment's Python, whatever else the machine has."""

from __future__ import annotations

import os
from pathlib import Path

JUPYTER = Path(__file__).parents[1] / "lab" / "jupyter"
"""Our Jupyter files: `kernels/python3` (its `python` is the Python that starts it) and `config` (settings of Lab)."""

IN_WORKSPACES = JUPYTER / "workspace"
"""The files for a student's workspace: a kernel named after the course, and settings of its own."""

KERNEL_NAME = "python3"


def jupyter_environment(base: dict[str, str] | None = None) -> dict[str, str]:
    """Return `base` (default: this process's environment) with our kernel before any other of the same name.

    Pass it to a subprocess that starts kernels by name (nbval, nbconvert, Jupyter): its `python3` is then the Python
    that it runs on itself, even if the machine's `JUPYTER_PATH` or user folder holds another `python3`.
    """
    environment = dict(os.environ if base is None else base)
    paths = [str(JUPYTER), *filter(None, environment.get("JUPYTER_PATH", "").split(os.pathsep))]
    environment["JUPYTER_PATH"] = os.pathsep.join(dict.fromkeys(paths))
    return environment


def transport_encryption() -> str:
    """Return jupyter_client's encryption policy: `auto` if this build of zmq can encrypt, else `disabled`."""
    import zmq  # noqa: PLC0415 (`scalelab grade` does not need it)

    return "auto" if zmq.has("curve") else "disabled"
