"""What a process that judges has to have done once: the fork server imports this, and every judge begins with it.

Each line saves every judge the time that it takes; none changes what a judge does.
"""

from __future__ import annotations

import gc
from importlib import import_module

import nbformat.v4
import nbformat.validator
from _pytest.config import default_plugins
from jupyter_client.provisioning.factory import KernelProvisionerFactory

from scalelab.grading import nbval_run, plugin

MODULES = (
    *("nbval.plugin", "nbval.kernel", "jupyter_client.manager", "zmq.asyncio", plugin.__name__),
    *("ipykernel.kernelspec", "IPython.core.interactiveshell"),  # jupyter_client looks for a kernel of this Python
)

for name in (*MODULES, *(f"_pytest.{name}" for name in default_plugins)):
    import_module(name)
nbformat.validator.validate(nbformat.v4.new_notebook())  # type: ignore[no-untyped-call]
KernelProvisionerFactory.instance()
nbval_run.configured()
# What is here now is never garbage: a judge's collector need not look at it, nor copy its pages.
gc.collect()
gc.freeze()
