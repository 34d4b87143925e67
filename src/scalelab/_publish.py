"""Publish an output with its metadata: to the notebook where there is one, else its text to standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display


def publish(text: str, page: str, metadata: Mapping[str, Any]) -> None:
    """Display `text` (plain) and `page` (HTML) as one output whose metadata's key "scalelab" holds `metadata`."""
    if not InteractiveShell.initialized():
        print(text)
        return
    data = {"text/plain": text, "text/html": page}
    display(data, raw=True, metadata={"scalelab": dict(metadata)})  # type: ignore[no-untyped-call]
