"""Publish an output with its metadata to the notebook, or print its text if there is no notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display


def publish(text: str, markup: str, metadata: Mapping[str, Any]) -> None:
    """Display `text` (plain) and `markup` (HTML) as one output, with `metadata` under the key "scalelab"."""
    if not InteractiveShell.initialized():
        print(text)
        return
    data = {"text/plain": text, "text/html": markup}
    display(data, raw=True, metadata={"scalelab": dict(metadata)})  # type: ignore[no-untyped-call]
