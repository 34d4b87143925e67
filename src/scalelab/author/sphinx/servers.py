"""The directive `servers`: a table of the servers that chapters use, and how to get each."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from scalelab.servers import KINDS, ServerKind

HEAD = ("server", "used for", "Debian", "Homebrew", "Python package", "container", "names your own", "names a folder")


class Servers(SphinxDirective):
    """`{servers}`: one row for each kind of `scalelab.servers.kinds`."""

    def run(self) -> list[nodes.Node]:
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in HEAD), cols=len(HEAD))
        group += nodes.thead("", _row([nodes.Text(title) for title in HEAD]))
        group += nodes.tbody("", *(_row(_cells(kind)) for kind in KINDS.values()))
        return [nodes.table("", group)]


def setup(app: Sphinx) -> None:
    app.add_directive("servers", Servers)


def _cells(kind: ServerKind) -> list[nodes.Node]:
    text = kind.title.partition(" ")[2].removesuffix(" server")
    wheel = kind.wheel and (kind.wheel.distribution or kind.wheel.package)
    names = (kind.debian, kind.homebrew, wheel or kind.module, kind.image, kind.url_variable, kind.home_variable)
    return [
        nodes.Text(text),
        nodes.Text(kind.purpose),
        *(nodes.literal("", name) if name else nodes.Text("–") for name in names),
    ]


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))
