"""`python -m scalelab.servers packages debian`: the packages of the servers that this machine lacks.

Runs before the environment exists (`.ci/run`, the dev container), so it needs nothing but Python.
"""

import sys

from scalelab.servers.find import find
from scalelab.servers.kinds import KINDS

SYSTEMS = ("debian", "homebrew")


def main(arguments: list[str]) -> int:
    """Print the packages, one per line, and the servers that were found on standard error; return the exit status."""
    if len(arguments) != 2 or arguments[0] != "packages" or arguments[1] not in SYSTEMS:
        print(f"Expected: python -m scalelab.servers packages {'|'.join(SYSTEMS)}", file=sys.stderr)
        return 2
    for kind in KINDS.values():
        installation = find(kind, own=True)
        if installation is not None and installation.program is not None:
            print(f"Here: {installation.program}", file=sys.stderr)
        elif package := getattr(kind, arguments[1]):
            print(package)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
