"""One text for JupyterLab and for the page, and the widget that carries it."""

from __future__ import annotations

import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import traitlets

from scalelab.explorables import BundleError, Explorable, KnobError, bundle, explorable, names, stylesheet
from scalelab.explorables import _bundle as loading
from scalelab.explorables import _event_loop_model as event_loop


@pytest.mark.parametrize("name", names())
def test_a_bundle_imports_nothing_and_names_no_other_host(name: str) -> None:
    text = bundle(name)
    assert not re.search(r"^\s*import\b|\bimport\s*\(|\bfrom\s+[\"']", text, re.MULTILINE)
    assert "//" not in re.sub(r"^\s*//.*|\s//\s.*", "", text, flags=re.MULTILINE)
    assert text.count("export default") == 1


@pytest.mark.parametrize("name", names())
def test_no_name_stands_twice_in_a_bundle(name: str) -> None:
    declared = re.findall(r"^(?:export )?(?:const|let|function|class) (\w+)", bundle(name), re.MULTILINE)
    assert sorted(declared) == sorted(set(declared))


@pytest.mark.parametrize("name", names())
def test_a_module_stays_light(name: str) -> None:
    assert len(gzip.compress(bundle(name).encode())) < 14_000


def test_the_base_is_no_figure() -> None:
    assert "base" not in names()
    assert "event_loop" in names()


@pytest.mark.parametrize("name", ["base", "nothing", "../errors"])
def test_a_name_that_is_no_figure_is_refused(name: str) -> None:
    every = ", ".join(names())
    with pytest.raises(BundleError, match=every):
        bundle(name)
    with pytest.raises(BundleError, match=every):
        explorable(name)


@pytest.mark.parametrize(
    "text",
    [
        'import { a } from "./base.js";\nimport b from "./other.js";\n',
        'import b from "./other.js";\n',
        "export default {};\n",
    ],
)
def test_a_module_with_other_imports_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_read", lambda name: text)
    monkeypatch.setattr(loading, "names", lambda: ["odd"])
    with pytest.raises(BundleError, match=r"odd\.js: expected one import"):
        loading.bundle("odd")


def test_the_widget_and_the_page_have_the_same_text() -> None:
    widget = explorable("event_loop")
    sent = widget.get_state()
    assert sent["_esm"] == bundle("event_loop")
    assert sent["_css"] == stylesheet()


def test_every_figure_can_be_made() -> None:
    for name in names():
        assert isinstance(explorable(name), Explorable)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[str, str | None] = {}
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div":
            self.attributes = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_bundle_of_mime_types_serves_lab_the_page_and_a_reader_without_javascript() -> None:
    shown = explorable("event_loop", rate=300, threads=1)._repr_mimebundle_()
    assert shown is not None
    data, _ = shown
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"]
    reader = Reader()
    reader.feed(data["text/html"])
    assert reader.attributes["class"] == "sl-explorable"
    assert reader.attributes["data-module"] == "event_loop"
    assert json.loads(reader.attributes["data-state"] or "") == {
        "seed": 8, "rate": 300, "wait": 500, "threads": 1, "blocking": False,
    }  # fmt: skip
    run = event_loop.create_model({"rate": 300, "threads": 1, "blocking": True})
    event_loop.advance(run, 10_000)
    assert f"the loop's is {event_loop.readout(run)['loop']['p99_ms']:,.0f} ms" in reader.words
    assert "300 requests/s" in reader.words
    assert "a pool of 1 thread " in reader.words
    assert data["text/plain"] in reader.words


def test_a_state_is_completed_and_checked_when_the_reader_or_the_code_changes_it() -> None:
    figure = explorable("event_loop", seed=3, blocking=True)
    assert figure.state == {"seed": 3, "rate": 400, "wait": 500, "threads": 250, "blocking": True}
    figure.state = {**figure.state, "rate": 500}
    assert figure.state["rate"] == 500
    with pytest.raises(KnobError, match="rate"):
        figure.state = {"rate": 1}
    assert figure.state["rate"] == 500
    with pytest.raises(traitlets.TraitError):
        figure.state = 4


@pytest.mark.parametrize("bad", [{"speed": 2}, {"seed": 2**32}, {"threads": "many"}])
def test_a_knob_that_does_not_exist_or_fit_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(KnobError):
        explorable("event_loop", **bad)
