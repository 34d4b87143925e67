"""The kernels in which answers run: warm and sandboxed, or plain ones where the instructor says so."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from scalelab.course.notebooks import text_of
from scalelab.errors import ScalelabError
from scalelab.grading import guard, zygote
from scalelab.grading.merge import Reference
from scalelab.grading.nbval_run import Kernels

if TYPE_CHECKING:
    from scalelab.course.doctor import Finding

NO_SANDBOX = "--no-sandbox"


class NoSandbox(ScalelabError):
    """This system cannot sandbox answers, and nobody has said that they may run without."""


@contextmanager
def kernels(references: Iterable[Reference], *, sandbox: bool) -> Iterator[Kernels]:
    """Yield the kernels for judging answers to these references: sandboxed and warm, or plain ones.

    Raises NoSandbox where this system cannot sandbox; never are answers run without one unasked.
    """
    if not sandbox:
        yield Kernels()
        return
    with ExitStack() as stack:
        try:
            imports = [*sorted(_imports(references)), guard.WATCH]
            environment = stack.enter_context(zygote.warm_kernels(imports=imports))
        except zygote.NoZygote as error:
            raise NoSandbox(
                f"Answers cannot be sandboxed here. {error}\n"
                f"Nothing was graded. {NO_SANDBOX} grades without a sandbox: answers then run with your rights, can "
                "read and change your files, use your network, and leave processes behind. Use it in a container or "
                "virtual machine that holds nothing else, or for work that you trust."
            ) from error
        yield Kernels(zygote.KERNEL, environment)


def sandbox_finding() -> Finding:
    """Return for `scalelab doctor` how answers are graded here: in a sandbox, which is tried, or how else."""
    from scalelab.course.doctor import Finding, find_engine  # noqa: PLC0415 (a judge needs nothing of it)

    lacks = "only Linux has what it is made of" if sys.platform != "linux" else zygote.missing()
    engine, words = find_engine() if lacks else ("", "")
    found = f"in a container of {Path(engine).stem}'s" if engine else "" if lacks else "kernels start in one"
    get = f"{lacks.rstrip('.')}. To grade without one, in a machine that holds nothing else: {NO_SANDBOX}"
    return Finding("sandbox", "grading what others wrote", found, get=f"{get}; in a container: {words}")


def _imports(references: Iterable[Reference]) -> set[str]:
    """Return what the cells of these references import, as far as it is installed: `module`, or `module:name`."""
    found = set()
    for reference in references:
        cells = [cell for cell in reference.notebook["cells"] if cell["cell_type"] == "code"]
        for node in (node for cell in cells for node in ast.walk(ast.parse(text_of(cell["source"])))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if _installed(alias.name)}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level and _installed(node.module):
                for name in (alias.name for alias in node.names if alias.name != "*"):
                    # It may be a module, or what a module imports once it is asked for.
                    within = f"{node.module}.{name}"
                    found.add(within if _installed(within) else f"{node.module}:{name}")
    return found


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
