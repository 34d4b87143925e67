"""Find, generate, check, build and serve the parts of the course."""

import sys

# jsonschema, which nbformat uses, would compile a grammar at its import, to check a kind of text that no notebook has.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
