"""The machine card, which describes the machine of a measurement."""

from __future__ import annotations

import html
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import psutil

from scalelab.cores import cgroup_quota, usable_cores


@dataclass(frozen=True)
class MachineCard:
    """Rows of name and value, shown below every published result, without host and user names."""

    rows: Mapping[str, str]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        text = "\n".join(f"{name}: {value}" for name, value in self.rows.items())
        table = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
            for name, value in self.rows.items()
        )
        summary = "<summary>Measured on this machine</summary>"
        page = f'<details class="sl-machine">{summary}<table>{table}</table></details>'
        metadata = {"scalelab": {"kind": "machine", "card": dict(self.rows)}}
        return {"text/plain": text, "text/html": page}, metadata


def machine_card(*packages: str) -> MachineCard:
    """Return the card of this machine, with the versions of the named packages.

    It has three numbers of cores, because programs confuse them: the cores of the machine, the cores that this process
    may use (CPU affinity), and the quota of the container's cgroup.
    """
    rows = {
        "processor": platform.machine() or "unknown",
        "cores": str(os.cpu_count()),
        "usable cores": str(usable_cores()),
        "cgroup quota": cgroup_quota(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.system(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "GIL": "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off",
    }
    rows.update({package: version(package) for package in packages})
    return MachineCard(rows)
