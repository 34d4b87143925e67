"""Readable anchors for the sections of a page: a new heading, or another text after its colon, keeps them the same.

`Experiment 2: what a wait costs` has the anchor `#experiment-2`, its subsections `#experiment-2-run` and so on.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

AUTOMATIC = re.compile(r"id\d+")
EXPERIMENT = re.compile(r"(Experiment \d+)\b")


class Anchors(SphinxTransform):
    """Give new ids to the sections below the title of a page."""

    default_priority = 870  # before MyST resolves links to headings

    def apply(self, **_: object) -> None:
        page = next(iter(self.document.findall(nodes.section)), None)
        if page is None:
            return
        used_ids = {name for node in self.document.findall(nodes.Element) for name in node["ids"]}
        for section in page.children:
            if isinstance(section, nodes.section):
                self._rename(section, "", used_ids)

    def _rename(self, section: nodes.section, prefix: str, used_ids: set[str]) -> None:
        old = section["ids"][0]
        title = section[0].astext()
        experiment = EXPERIMENT.match(title)
        if experiment:
            name = nodes.make_id(experiment[1])
        elif prefix:
            name = nodes.make_id(f"{prefix} {title.partition(':')[0]}")
        else:
            name = old
        if AUTOMATIC.fullmatch(name):
            name = nodes.make_id(title)
        if name != old:
            used_ids.discard(old)
            name = _unused_id(name, used_ids)
            used_ids.add(name)
            self._replace(section, old, name)
        for subsection in section.children:
            if isinstance(subsection, nodes.section):
                self._rename(subsection, name if experiment or prefix else "", used_ids)

    def _replace(self, section: nodes.section, old: str, new: str) -> None:
        section["ids"] = [new if section_id == old else section_id for section_id in section["ids"]]
        self.document.ids.pop(old, None)
        self.document.ids[new] = section
        for name, target in self.document.nameids.items():
            if target == old:
                self.document.nameids[name] = new
        slugs = getattr(self.document, "myst_slugs", {})
        slugs.update({slug: (line, new, title) for slug, (line, target, title) in slugs.items() if target == old})


def _unused_id(name: str, used_ids: set[str]) -> str:
    return next(candidate for candidate in (name, *(f"{name}-{i}" for i in range(2, 100))) if candidate not in used_ids)


def setup(app: Sphinx) -> None:
    app.add_transform(Anchors)
