"""What a process that judges has to have done once: the fork server imports this, and every judge goes on from it.

Each step saves every judge the time that it takes; none changes what a judge does.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat.v4
import nbformat.validator
import pytest
from _pytest.config import _prepareconfig, default_plugins
from jupyter_client.provisioning.factory import KernelProvisionerFactory

from scalelab.grading.nbval_run import ALONE, OPTIONS, PLUGINS

MODULES = (
    *("nbval.plugin", "nbval.kernel", "jupyter_client.manager", "zmq.asyncio", *PLUGINS),
    *("ipykernel.kernelspec", "IPython.core.interactiveshell"),  # jupyter_client looks for a kernel of this Python
)


@cache
def begun() -> pytest.Session:
    """Return pytest's session, begun before it knows what to judge; to come so far takes longer than an answer.

    What `pytest.main` does, in two steps: this one, and then `judge`.
    """
    os.environ |= ALONE
    # By name, pytest looks for each plugin among all packages that are installed.
    config = _prepareconfig(["-c", os.devnull, "--rootdir", "/", *OPTIONS], [import_module(name) for name in PLUGINS])
    config._do_configure()
    session = pytest.Session.from_config(config)
    config.hook.pytest_sessionstart(session=session)
    return session


def judge(files: Sequence[Path], folder: Path, options: Mapping[str, Any]) -> None:
    """Let nbval judge the notebooks below the folder, with these options: what pytest's session does once it is begun.

    Where that fails, pytest's plugins are told, as by `pytest.main`.
    """
    session = begun()
    config = session.config
    config.args[:] = map(str, files)
    config.pluginmanager._confcutdir = folder
    vars(config.option).update(options)
    try:
        config.hook.pytest_collection(session=session)
        config.hook.pytest_runtestloop(session=session)
    except BaseException:
        config.notify_exception(pytest.ExceptionInfo.from_current(), config.option)


for name in (*MODULES, *(f"_pytest.{name}" for name in default_plugins)):
    import_module(name)
nbformat.validator.validate(nbformat.v4.new_notebook())  # type: ignore[no-untyped-call]
KernelProvisionerFactory.instance()
begun()
# What is here now is never garbage: a judge's collector need not look at it, nor copy its pages.
gc.collect()
gc.freeze()
