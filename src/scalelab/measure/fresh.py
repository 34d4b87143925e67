"""Run a function in a new interpreter, whose memory contains nothing from the notebook."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from scalelab.errors import ScalelabError

PROGRAM = """
import asyncio, inspect, json, sys
{source}
result = {name}(*json.loads(sys.argv[1]))
if inspect.iscoroutine(result):
    result = asyncio.run(result)
print(json.dumps(result))
"""


class FreshProcessError(ScalelabError):
    """The function failed or timed out in its own process, or that process could not start."""


def run_fresh(function: Callable[..., Any], *arguments: Any, timeout: float = 60.0, python: str | None = None) -> Any:
    """Return the result of `function(*arguments)`, run in a new Python process.

    function: a function or coroutine function that imports everything it needs; only its source is passed on, so it may
    be defined in a notebook cell, from which multiprocessing could not import it. arguments and result: values that
    JSON can hold. timeout: seconds. python: the path of another interpreter, which is started in isolated mode (`-I`),
    without this interpreter's packages and the PYTHON… variables. Raises FreshProcessError, with the process's standard
    error if the function failed.
    """
    program = PROGRAM.format(source=textwrap.dedent(inspect.getsource(function)), name=function.__name__)
    interpreter = [sys.executable] if python is None else [python, "-I"]
    command = [*interpreter, "-c", program, json.dumps(arguments)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except OSError as error:
        raise FreshProcessError(
            f"{interpreter[0]} cannot be started ({error}): expected the path of a Python interpreter."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise FreshProcessError(
            f"{function.__name__}{arguments} did not end within {timeout} s: "
            "pass smaller arguments, or a longer timeout."
        ) from error
    if process.returncode != 0:
        raise FreshProcessError(
            f"{function.__name__}{arguments} failed in its own process "
            f"(it must import all that it uses):\n{process.stderr}"
        )
    return json.loads(process.stdout.splitlines()[-1])
