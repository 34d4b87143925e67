"""Readable anchors of a page's sections, which stay when a later heading is added or the words after a colon change.

`Experiment 2: what a wait costs` is `#experiment-2`, and what stands below it `#experiment-2-run`, `#experiment-2-why`.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

AUTOMATIC = re.compile(r"id\d+")
EXPERIMENT = re.compile(r"(Experiment \d+)\b")


class Anchors(SphinxTransform):
    """Name the sections below a page's title anew."""

    default_priority = 870  # before MyST resolves links to headings

    def apply(self, **_: object) -> None:
        page = next(iter(self.document.findall(nodes.section)), None)
        if page is None:
            return
        taken = {name for node in self.document.findall(nodes.Element) for name in node["ids"]}
        for section in page.children:
            if isinstance(section, nodes.section):
                self._rename(section, "", taken)

    def _rename(self, section: nodes.section, above: str, taken: set[str]) -> None:
        old = section["ids"][0]
        title = section[0].astext()
        experiment = EXPERIMENT.match(title)
        if experiment:
            name = nodes.make_id(experiment[1])
        elif above:
            name = nodes.make_id(f"{above} {title.partition(':')[0]}")
        else:
            name = old
        if AUTOMATIC.fullmatch(name):
            name = nodes.make_id(title)
        if name != old:
            taken.discard(old)
            name = _free(name, taken)
            taken.add(name)
            self._replace(section, old, name)
        for below in section.children:
            if isinstance(below, nodes.section):
                self._rename(below, name if experiment or above else "", taken)

    def _replace(self, section: nodes.section, old: str, new: str) -> None:
        section["ids"] = [new if one == old else one for one in section["ids"]]
        self.document.ids.pop(old, None)
        self.document.ids[new] = section
        for name, target in self.document.nameids.items():
            if target == old:
                self.document.nameids[name] = new
        slugs = getattr(self.document, "myst_slugs", {})
        slugs.update({slug: (line, new, title) for slug, (line, target, title) in slugs.items() if target == old})


def _free(name: str, taken: set[str]) -> str:
    return next(one for one in (name, *(f"{name}-{i}" for i in range(2, 100))) if one not in taken)


def setup(app: Sphinx) -> None:
    app.add_transform(Anchors)
