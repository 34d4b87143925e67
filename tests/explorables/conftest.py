"""A page that holds one explorable, without any server, and the runs that its module plays there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from scalelab.explorables import bundle, names, stylesheet

HOST = "http://explorables.test"
THEME = """
:root { color-scheme: light; --sl-ink: #1c2430; --sl-muted: #5b6472; --sl-grid: #d9dee5; --sl-surface: #ffffff }
:root[data-theme=dark] {
  color-scheme: dark; --sl-ink: #e6ebf2; --sl-muted: #a6b0be; --sl-grid: #3a424e; --sl-surface: #161b22;
  --sl-c1: #5cb3ea; --sl-c2: #ff9b57; --sl-c3: #4cc593; --sl-prediction: #f04a8a;
}
body { font: 17px/1.6 sans-serif; max-width: 46rem; margin: 0 auto; padding: 0 16px;
  background: var(--sl-surface); color: var(--sl-ink) }
"""
# The model a widget gives its module, with what the module did to it kept for the test.
MOUNT = """
import figure from "./NAME.js";
const listeners = new Set();
let state = STATE;
window.saved = [];
window.setState = (next) => { state = next; for (const listener of listeners) listener(); };
const model = {
  get: (key) => (key === "state" ? state : GIVEN),
  set: (_, next) => { state = next; }, save_changes: () => window.saved.push(state),
  on: (_, listener) => listeners.add(listener), off: (_, listener) => listeners.delete(listener),
};
window.listeners = listeners;
window.takeAway = figure.render({ model, el: document.getElementById("place") });
"""
PLAY = """
async ([name, runs, trace]) => {
  const { default: figure } = await import(`./${name}.js`);
  return JSON.stringify(runs.map(([state, acts]) => figure.play(state, acts, { trace })));
}
"""
THEORY = """
async ([name, cases]) => {
  const { default: figure } = await import(`./${name}.js`);
  return cases.map(([state, given]) => figure.theory(state, given ?? undefined));
}
"""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page with one explorable; after the test, no page may have had an error or asked another host."""
    with opening(browser) as opened:
        yield opened


@pytest.fixture(scope="module")
def look_at(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Return the page with this explorable that stands still for all tests that change nothing on it."""
    with opening(browser) as opened:
        yield cache(lambda name: opened(name, reduced_motion="reduce"))


@pytest.fixture(scope="module")
def play(look_at: Callable[[str], Page]) -> Callable[..., list[dict[str, Any]]]:
    """Play runs of a figure, each a state and its acts: milliseconds that pass, or states that turn knobs."""

    def played(name: str, runs: list[tuple[dict[str, Any], list[Any]]], *, trace: bool = True) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = json.loads(look_at(name).evaluate(PLAY, [name, runs, trace]))
        return seen

    return played


@pytest.fixture(scope="module")
def theory(look_at: Callable[[str], Page]) -> Callable[..., list[dict[str, Any]]]:
    """Return what the figure's module says that theory expects, for each state."""

    def said(name: str, cases: list[dict[str, Any]], given: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = look_at(name).evaluate(THEORY, [name, [[state, given] for state in cases]])
        return seen

    return said


@contextmanager
def opening(browser: Browser) -> Iterator[Callable[..., Page]]:
    contexts, troubles = [], []

    def opened(
        name: str,
        state: dict[str, Any] | None = None,
        *,
        given: dict[str, Any] | None = None,
        theme: str = "light",
        above: int = 0,
        text: str | None = None,
        **options: Any,
    ) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        script = MOUNT.replace("NAME", name)
        script = script.replace("STATE", json.dumps(state or {})).replace("GIVEN", json.dumps(given or {}))
        document = (
            f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><title>An explorable</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f"<style>{THEME}{stylesheet()}</style><body><main><h1>An explorable</h1>"
            f'<div style="height:{above}px"></div><div id="place"></div></main>'
            f'<script type="module">{script}</script>'
        )

        def serve(route: Route) -> None:
            address = route.request.url
            asked = address.removeprefix(f"{HOST}/").removesuffix(".js")
            if asked == name or asked in names():
                route.fulfill(body=text or bundle(asked), content_type="text/javascript")
            elif address == f"{HOST}/":
                route.fulfill(body=document, content_type="text/html")
            else:
                troubles.append(f"asked for {address}")
                route.abort()

        page.route("**/*", serve)
        page.goto(f"{HOST}/")
        page.locator(".sl-x").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles
