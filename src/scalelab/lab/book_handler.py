"""The built book at `/book/`, behind the server's own token, with working Lab buttons."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from pathlib import Path

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_escape, url_path_join
from tornado import web

from scalelab.course import Course

BUTTON = re.compile(r'<a class="sl-open-in-lab" data-path="([^"]+)" hidden(?:="[^"]*")?>')
"""The button as the built pages hold it: hidden, so that a published site shows no dead button."""


def with_lab_buttons(page: str, base_url: str, *, in_workspace: bool = False) -> str:
    """Return the page with each Lab button visible and linked to its notebook in the JupyterLab at `base_url`.

    A chapter is a notebook (.ipynb) in a workspace, and a text file in the course's folder.
    """

    def button(match: re.Match[str]) -> str:
        path = match.group(1)
        if in_workspace and path.startswith("chapters/"):
            path = f"{path.removesuffix('.md')}.ipynb"
        href = url_path_join(base_url, "lab/tree", url_escape(path))
        return f'<a class="sl-open-in-lab" data-path="{path}" href="{href}">'

    return BUTTON.sub(button, page)


class BookHandler(JupyterHandler, web.StaticFileHandler):
    """Serves the site's files to users who are logged in, and activates the buttons of each page."""

    auth_resource = "contents"
    in_workspace = False

    @web.authenticated
    @authorized
    def get(self, path: str | None, include_body: bool = True) -> Awaitable[None]:  # type: ignore[override]
        return self._send(path or "", include_body)

    @web.authenticated
    @authorized
    def head(self, path: str | None) -> Awaitable[None]:  # type: ignore[override]
        return self._send(path or "", include_body=False)

    async def _send(self, path: str, include_body: bool) -> None:
        self.path = self.parse_url_path(path)
        absolute = self.validate_absolute_path(self.root, self.get_absolute_path(self.root, self.path))
        if absolute is None:
            return  # Redirected to the folder's own address.
        if not absolute.endswith(".html"):
            await web.StaticFileHandler.get(self, path, include_body)
            return
        self.set_extra_headers(self.path)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.write(
            with_lab_buttons(Path(absolute).read_text(encoding="utf-8"), self.base_url, in_workspace=self.in_workspace)
        )

    def set_extra_headers(self, path: str) -> None:
        # The browser asks again each time, and gets a 304 for files that a rebuild did not change.
        self.set_header("Cache-Control", "no-cache")

    def compute_etag(self) -> str | None:
        return web.RequestHandler.compute_etag(self) if self._write_buffer else super().compute_etag()


class WorkspaceBookHandler(BookHandler):
    """The same handler for a student's workspace."""

    in_workspace = True


def serve_book(app: ServerApp, course: Course, *, in_workspace: bool) -> None:
    """Add the site of `course`, whether it is built yet or not, to a server that is initialised.

    `in_workspace` says whether the server serves a student's workspace or the course's folder.
    """
    route = url_path_join(app.base_url, r"/book(?:/(.*))?")
    site = {"path": str(course.html), "default_filename": "index.html"}
    app.web_app.add_handlers(".*$", [(route, WorkspaceBookHandler if in_workspace else BookHandler, site)])  # type: ignore[no-untyped-call]
