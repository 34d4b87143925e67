"""One text for JupyterLab and for the page, and the widget that carries it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import traitlets
from figure_states import OpenPage, extremes

import scalelab
from scalelab.explorables import BundleError, KnobError, bundle, explorable, names, stylesheet
from scalelab.explorables.knobs import knobs

IMPORTS = 'import { make } from "../base.js";\nimport KNOBS from "./knobs.json" with { type: "json" };\n'
# A figure that nothing but its folder knows of.
MADE_UP = {
    "figure.js": """// A number, larger where its knob is turned up.
import { explorable, make, settings, write } from "../base.js";
import KNOBS from "./knobs.json" with { type: "json" };

const figure = {
  title: "A made-up figure",
  knobs: KNOBS,
  create: (state) => state,
  theory: (state) => ({ twice: 2 * settings(KNOBS, state).size }),
  view(root) {
    const shown = make("output");
    root.append(shown);
    const read = ({ size }) => (write(shown, `twice: ${2 * size}`), { verdict: "", speech: "" });
    return { draw() {}, read };
  },
};

export default explorable(figure);
""",
    "knobs.json": '[{ "name": "size", "label": "Size", "unit": "m", "min": 1, "max": 9, "step": 2, "value": 3 }]',
    "theory.py": """def expected(state):
    return {"twice": 2.0 * state["size"]}


def describe(state):
    return f"Twice the size is {2 * state['size']} m."
""",
}
SHOW = """
import json
from scalelab.author.sphinx.explorables import _files
from scalelab.explorables import bundle, explorable, names
widget = explorable("made_up", size=5)
data, _ = widget._repr_mimebundle_()
print(json.dumps({"names": names(), "bundle": bundle("made_up"), "esm": widget.get_state()["_esm"],
                  "html": data["text/html"], "files": _files()}))
"""
THEORIES = (
    "print(sorted(name for name in sys.modules if name.startswith('scalelab.explorables.') and 'theory' in name))"
)


@pytest.mark.parametrize("name", names())
def test_a_bundle_imports_nothing_and_names_no_other_host(name: str) -> None:
    text = bundle(name)
    assert not re.search(r"^\s*import\b|\bimport\s*\(|\bfrom\s+[\"']", text, re.MULTILINE)
    assert "//" not in re.sub(r"\s//\s.*", "", text)
    assert "/*" not in text
    assert text.count("export default") == 1


@pytest.mark.parametrize("name", names())
def test_no_name_stands_twice_in_a_bundle(name: str) -> None:
    declared = re.findall(r"^(?:export )?(?:const|let|function|class) (\w+)", bundle(name), re.MULTILINE)
    assert sorted(declared) == sorted(set(declared))


@pytest.mark.parametrize("name", names())
def test_a_module_stays_light(name: str) -> None:
    assert len(gzip.compress(bundle(name).encode())) < 13_000


def test_the_figures_are_the_folders() -> None:
    folders = {path.parent.name for path in Path(scalelab.__path__[0], "explorables").glob("*/*") if path.is_file()}
    assert names() == sorted(folders - {"__pycache__"})
    assert len(names()) >= 5


@pytest.mark.parametrize("name", names())
def test_a_figure_has_four_knobs_at_most_and_each_takes_its_first_value(name: str) -> None:
    assert 1 <= len(knobs(name)) <= 4
    assert all(knob.takes(knob.value) for knob in knobs(name))


def run(code: str, source: Path | None = None) -> str:
    """Run Python with this `src`, or with another one, and return what it prints."""
    before = [f"import sys; sys.path.insert(0, {str(source)!r})"] if source else ["import sys"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*before, code])],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_figure_is_one_folder(tmp_path: Path, open_page: OpenPage) -> None:
    package = Path(scalelab.__path__[0])
    shutil.copytree(package, tmp_path / "scalelab", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "scalelab" / "explorables" / "made_up"
    folder.mkdir()
    for name, text in MADE_UP.items():
        (folder / name).write_text(text, "utf-8")
    seen = json.loads(run(SHOW, tmp_path))
    assert seen["names"] == sorted([*names(), "made_up"])
    assert seen["esm"] == seen["bundle"] == seen["files"]["made_up.js"]
    others = {"explorables.css": stylesheet(), **{f"{name}.js": bundle(name) for name in names()}}
    assert seen["files"] == {**others, "made_up.js": seen["bundle"]}
    assert 'data-module="made_up" data-state=\'{"seed":8,"size":5}\'' in seen["html"]
    assert "Twice the size is 10 m. Turn on JavaScript" in seen["html"]
    page = open_page("made_up", {"size": 5}, text=seen["bundle"])
    assert page.locator("output").inner_text() == "twice: 10"
    page.get_by_role("slider", name="Size").press("ArrowRight")
    assert page.locator("output").inner_text() == "twice: 14"


@pytest.mark.parametrize("name", names())
def test_a_figure_loads_its_own_theory_only(name: str) -> None:
    assert run(f"import scalelab.explorables\n{THEORIES}").strip() == "[]"
    shown = f"from scalelab import explorable\nexplorable({name!r})._repr_mimebundle_()\n{THEORIES}"
    assert run(shown).strip() == f"['scalelab.explorables.{name}.theory']"


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
        f'{IMPORTS}import b from "./other.js";\n',
        f'{IMPORTS}import "./other.js";\n',
        IMPORTS.splitlines(keepends=True)[0],
        "export default {};\n",
    ],
)
def test_a_module_with_other_imports_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["scalelab.explorables.bundle"], "read", lambda name, file: text)
    with pytest.raises(BundleError, match=r"odd/figure\.js: expected one import from each"):
        bundle("odd")


def test_the_widget_and_the_page_have_the_same_text() -> None:
    widget = explorable("event_loop")
    sent = widget.get_state()
    assert sent["_esm"] == bundle("event_loop")
    assert sent["_css"] == stylesheet()


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


@pytest.mark.parametrize("name", names())
def test_the_bundle_of_mime_types_serves_lab_the_page_and_a_reader_without_javascript(name: str) -> None:
    texts = set()
    for state in ({}, *extremes(name)):
        shown = explorable(name, **state)._repr_mimebundle_()
        assert shown is not None
        data, _ = shown
        assert data["application/vnd.jupyter.widget-view+json"]["model_id"]
        reader = Reader()
        reader.feed(data["text/html"])
        assert reader.attributes["class"] == "sl-explorable"
        assert reader.attributes["data-module"] == name
        defaults = {knob.name: knob.value for knob in knobs(name)}
        assert json.loads(reader.attributes["data-state"] or "") == {"seed": 8, **defaults, **state}
        assert reader.words == f"{data['text/plain']} Turn on JavaScript to turn the knobs yourself."
        assert re.fullmatch(r"[A-Z0-9][^{}]{80,}\.", data["text/plain"])
        assert not re.search(r"\b(nan|inf|None)\b", data["text/plain"])
        texts.add(data["text/plain"])
    assert len(texts) > len(extremes(name)) / 2


@pytest.mark.parametrize(
    ("name", "state", "says"),
    [
        ("queue", {}, "the mean wait is 40 ms and the p99 wait 219 ms."),
        ("queue", {"load": 120, "servers": 4}, "no steady state: the line grows by 80 requests/s"),
        ("queue", {"scv": 3, "limit": 5}, "The line has 5 places. No simple formula"),
        (
            "queue",
            {"load": 90, "servers": 4, "limit": 0},
            "the mean wait is 0.0 ms; 27.1 % of the requests are refused",
        ),
        ("cache", {"scan": 20}, "47 % for LRU (Che), 42 % for FIFO, and 60 % for the best static set. Here, 20 %"),
        ("lock", {"threads": 1, "interval": 500, "io": 5}, "1 busy thread, which wait 5 % of their own time, at a"),
        ("lock", {"threads": 4, "work": 2}, "busy threads × turn, says that it waits for the lock 8 ms at most"),
        ("event_loop", {"rate": 300, "threads": 1}, "so that 150 wait at once (Little's law)"),
        ("event_loop", {"rate": 300, "threads": 1}, "a pool of 1 thread 2. If one handler in 200 blocks"),
    ],
)
def test_the_words_say_what_theory_says(name: str, state: dict[str, Any], says: str) -> None:
    shown = explorable(name, **state)._repr_mimebundle_()
    assert shown is not None
    assert says in shown[0]["text/plain"]


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


@pytest.mark.parametrize(
    ("name", "state", "says"),
    [
        ("event_loop", {"rate": 405}, "steps of 10"),
        ("event_loop", {"rate": 1010}, "50 to 1000"),
        ("event_loop", {"wait": 500.0}, r"500\.0"),
        ("event_loop", {"threads": 0}, "1 to 500"),
        ("event_loop", {"threads": "many"}, "1 to 500"),
        ("event_loop", {"blocking": 1}, "True or False"),
        ("event_loop", {"seed": -1}, "seed"),
        ("event_loop", {"seed": True}, "seed"),
        ("event_loop", {"seed": 2**32}, "seed"),
        ("event_loop", {"workers": 4}, "expected only blocking, rate, seed, threads, wait, got workers"),
        ("cache", {"policy": "MRU"}, "one of FIFO, LRU, CLOCK, SIEVE, S3-FIFO"),
        ("cache", {"policy": 5}, "one of FIFO"),
        ("cache", {"policy": True}, "one of FIFO"),
        ("cache", {"policy": None}, "one of FIFO"),
        ("cache", {"size": 1005}, "10 to 1000 keys in steps of 10"),
        ("queue", {"scv": 0.5}, "0 to 8 in steps of 1"),
        ("queue", {"limit": None}, "0 to 100 places"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(name: str, state: dict[str, Any], says: str) -> None:
    with pytest.raises(KnobError, match=says):
        explorable(name, **state)
