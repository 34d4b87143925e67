"""Metadata for other sites: a picture and a description for shared links, a sitemap, and the page for dead links.

All three need absolute addresses. A build knows them if `html: baseurl:` in `_config.yml` or the environment variable
SCALELAB_BOOK_URL contains the address of the site. Otherwise pictures have relative addresses, which some sites accept,
and there is no sitemap.
"""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from scalelab.author.sphinx.pages import NUMBERED

ADDRESS_VARIABLE = "SCALELAB_BOOK_URL"
FOLDER = "_static/share"
SIZE = (1200, 630)
SURFACE, PAPER, INK, MUTED, ACCENT = "#ffffff", "#e3efe8", "#17201c", "#56635c", "#0b6b4c"
UNSHARED = {"search", "404"}


def setup(app: Sphinx) -> None:
    app.connect("config-inited", _set_base_url)
    app.connect("html-collect-pages", _add_not_found_page)
    app.connect("html-page-context", _add_sharing_metadata, priority=950)
    app.connect("build-finished", _write_sitemap)


def _set_base_url(app: Sphinx, config: Config) -> None:
    config.html_baseurl = os.environ.get(ADDRESS_VARIABLE) or config.html_baseurl
    if config.html_baseurl and not config.html_baseurl.endswith("/"):
        config.html_baseurl += "/"


def _add_not_found_page(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    yield "404", {"base": app.config.html_baseurl}, "404.html"


def _add_sharing_metadata(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if page in UNSHARED or doctree is None:
        return
    base = app.config.html_baseurl
    number = NUMBERED.match(page)
    title = app.env.titles[page].astext()
    is_landing_page = page == app.config.root_doc
    eyebrow = f"Chapter {number.group(1)}" if number else "" if is_landing_page else str(app.config.html_title)
    file = _sharing_picture(Path(app.outdir), page, eyebrow, title, context["description"])
    context["og_title"] = title
    context["og_type"] = "website" if is_landing_page else "article"
    context["og_image"] = f"{base}{file}" if base else context["pathto"](file, 1)
    context["og_image_alt"] = f"{eyebrow}: {title}" if eyebrow else title
    if base:
        context["pageurl"] = base if is_landing_page else f"{base}{page}.html"


def _sharing_picture(out: Path, page: str, eyebrow: str, title: str, description: str) -> str:
    """Draw the picture of a page if it does not exist yet, and return its path within the site."""
    digest = hashlib.sha256(
        "\n".join([eyebrow, title, description]).encode() + Path(__file__).read_bytes()
    ).hexdigest()[:8]
    name = f"{FOLDER}/{page.replace('/', '-')}-{digest}.png"
    file = out / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob(f"{page.replace('/', '-')}-????????.png"):
            old.unlink()
        _draw(file, eyebrow, title, description)
    return name


def _draw(file: Path, eyebrow: str, title: str, description: str) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, PathPatch, Rectangle
    from matplotlib.path import Path as Line

    width, height = SIZE
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=SURFACE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.vlines(range(0, width, 30), 0, height, color=PAPER, linewidth=1, zorder=0)
    axes.hlines(range(0, height, 30), 0, width, color=PAPER, linewidth=1, zorder=0)
    axes.add_patch(Rectangle((0, 0), 14, height, color=ACCENT, zorder=3))
    text: dict[str, Any] = {"fontfamily": "DejaVu Sans", "va": "top", "linespacing": 1.25}
    lines = textwrap.wrap(title, 28)[:3]
    axes.text(80, 90, eyebrow, color=ACCENT, fontsize=24, fontweight="bold", **text)
    axes.text(80, 150, "\n".join(lines), color=INK, fontsize=44, fontweight="bold", **text)
    description_y = 150 + 80 * len(lines) + 20
    rows = textwrap.wrap(description, 62)[: max(1, int((500 - description_y) / 36))]
    axes.text(80, description_y, "\n".join(rows), color=MUTED, fontsize=21, **text)
    # The logo of the book: a ruler, a curve above it, and a point on the curve.
    ruler = [
        ((80 + 2 * x, 588), (80 + 2 * x, 588 - 2 * rise)) for x, rise in ((0, 5), (6, 3), (12, 5), (18, 3), (24, 5))
    ]
    for line in [((80, 588), (128, 588)), *ruler]:
        axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=2.6)
    curve = Line([(80, 570), (92, 548), (100, 544), (128, 542)], [Line.MOVETO, *[Line.CURVE4] * 3])
    axes.add_patch(PathPatch(curve, fill=False, edgecolor=INK, linewidth=3.6, capstyle="round"))
    axes.add_patch(Circle((98, 548), 5.6, color=ACCENT, zorder=3))
    axes.text(
        150, 565, "Scalable Python, Measured", color=INK, fontsize=21, fontweight="bold", **{**text, "va": "center"}
    )
    figure.savefig(file, metadata={"Software": None})


def _write_sitemap(app: Sphinx, error: Exception | None) -> None:
    base = app.config.html_baseurl
    if error is not None or app.builder.format != "html":
        return
    sitemap = Path(app.outdir, "sitemap.xml")
    if not base:
        sitemap.unlink(missing_ok=True)
        return
    pages = [base, *(f"{base}{page}.html" for page in sorted(app.env.found_docs) if page != app.config.root_doc)]
    rows = "\n".join(f"<url><loc>{escape(page)}</loc></url>" for page in pages)
    sitemap.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}\n</urlset>\n',
        "utf-8",
        newline="\n",
    )
