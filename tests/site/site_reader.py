"""Go through a page of the site once, as a reader would, and gather what tests ask about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from site_server import Site, Visit

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

GO_THROUGH = """
async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
    scrollTo({top: y, behavior: "instant"});
    await new Promise((done) => requestAnimationFrame(done));
  }
}
"""
FIGURES_ARE_HERE = "[...document.querySelectorAll('.sl-explorable')].every((place) => place.querySelector('.sl-x'))"
TWO_FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
OPEN_BOXES = "document.querySelectorAll('details').forEach((box) => (box.open = true))"

# Of all texts on the page that look the same, axe holds one against the rule of contrast: a page of code has thousands.
# Alike is what the rule looks at: the text's colour, size and weight, and what is painted behind it.
LOOKS = """
() => {
  const behind = new Map([[null, ""]]);
  const background = (element) => {
    if (!behind.has(element)) {
      const style = getComputedStyle(element);
      const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.position, style.zIndex].join();
      const below = background(element.parentElement);
      behind.set(element, own === "rgba(0, 0, 0, 0),none,1,static,auto" ? below : `${below}|${own}`);
    }
    return behind.get(element);
  };
  const seen = new Set();
  for (const element of document.body.querySelectorAll("*")) {
    element.removeAttribute("data-look");
    const text = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text && !element.matches("input, select, textarea")) continue;
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const { color, fontSize, fontWeight, textShadow } = getComputedStyle(element);
    const look = [color, fontSize, fontWeight, textShadow, background(element)].join();
    if (!seen.has(look)) element.setAttribute("data-look", "");
    seen.add(look);
  }
}
"""
ONE_OF_EACH_LOOK = "axe.configure({ rules: [{ id: 'color-contrast', selector: '[data-look]' }] })"
CONTRAST = {"runOnly": ["color-contrast"]}
LAYOUT = ("color-contrast", "link-in-text-block", "region", "scrollable-region-focusable", "target-size")
"""The rules whose verdict a narrower window can change."""
RULES: dict[int, dict[str, dict[str, Any]]] = {
    DESK["width"]: {"light": {}, "dark": CONTRAST},
    PHONE["width"]: {"light": {"runOnly": LAYOUT}, "dark": CONTRAST},
}
"""What is held against the page at which width and in which theme: colours in all, what nothing changes once."""


@dataclass(frozen=True)
class Reading:
    """What one page loaded (`requests`, `kilobytes`) and had loaded at its end (`asked`, `whole_kilobytes`), how many
    explorables it has, and what is wrong with it."""

    path: str
    requests: int
    kilobytes: float
    whole_kilobytes: float
    figures: int
    asked: tuple[str, ...]
    errors: tuple[str, ...]
    violations: tuple[str, ...]
    width_on_phone: int


def read(site: Site, path: str, open_page: Callable[..., Visit]) -> Reading:
    """Load the page, scroll through it to its end, and hold axe against it, on a desk and then on a phone."""
    site.sent.clear()
    seen = open_page(path, color_scheme="light")
    page = seen.page
    requests, kilobytes = len(seen.requests), sum(site.sent.values()) / 1000
    page.evaluate(GO_THROUGH)
    page.wait_for_function(FIGURES_ARE_HERE)  # They are fetched when the reader comes near.
    whole, figures = sum(site.sent.values()) / 1000, page.locator(".sl-explorable").count()
    page.emulate_media(reduced_motion="reduce")
    violations = []
    for screen in (DESK, PHONE):
        page.set_viewport_size(screen)
        page.wait_for_function("(width) => innerWidth === width", arg=screen["width"])
        page.evaluate(TWO_FRAMES)  # after the first, the page's resize observers have run
        violations += [f"{path}, {screen['width']} px wide, {said}" for said in broken_rules(page)]
    page.evaluate(OPEN_BOXES)
    width = int(page.evaluate("document.documentElement.scrollWidth"))
    page.context.close()
    return Reading(
        path,
        requests,
        kilobytes,
        whole,
        figures,
        tuple(seen.requests),
        tuple(seen.errors),
        tuple(violations),
        width_on_phone=width,
    )


def broken_rules(page: Page) -> Iterator[str]:
    """Yield axe's report of the rules that the page breaks, in the light theme and in the dark one."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(Axe().axe_script)
        page.evaluate(ONE_OF_EACH_LOOK)
    assert page.viewport_size is not None
    for theme, rules in RULES[page.viewport_size["width"]].items():
        page.emulate_media(color_scheme=theme)
        page.evaluate(LOOKS)
        found = AxeResults(page.evaluate("(options) => axe.run(options)", {"resultTypes": ["violations"], **rules}))
        if found.violations_count:
            yield f"{theme} theme: {found.generate_report()}"
