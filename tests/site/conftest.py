"""The built site, served, and a browser that opens its pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Request
from site_reader import DESK, Reading, read
from site_server import Site, Visit, served


@pytest.fixture(scope="session")
def site(built_site: Path) -> Iterator[Site]:
    with served(built_site) as here:
        yield here


def failure(request: Request) -> list[str]:
    """Return what failed; a request that the reader left behind with its page is no failure."""
    return [] if request.failure == "net::ERR_ABORTED" else [f"failed: {request.url}"]


@contextmanager
def visits(browser: Browser, site: Site) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def open_page(path: str, *, until: Literal["load", "networkidle"] = "networkidle", **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": DESK, **options})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        seen = Visit(context.new_page())
        seen.page.on("console", lambda m: seen.errors.append(m.text) if m.type in {"error", "warning"} else None)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("requestfailed", lambda request: seen.errors.extend(failure(request)))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto(site.address + path, wait_until=until)
        return seen

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Visit]]:
    """Open a page of the site in a browser profile of its own, and record what it asks for and complains of."""
    with visits(browser, site) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def readings(browser: Browser, site: Site) -> list[Reading]:
    """What a reader who goes through each page of the site meets, on a desk and on a phone."""
    with visits(browser, site) as open_page:
        return [read(site, path, open_page) for path in site.pages]
