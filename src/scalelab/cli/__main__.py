"""`python -m scalelab.cli` is the command `scalelab`."""

import sys

from scalelab.cli import main

sys.exit(main())
