"""Panels: run again with other numbers, stop at once, and show the published run where there is no kernel."""

import asyncio

import pytest

from scalelab import Knob, panel
from scalelab.panels import PanelError

PUBLISHED = [{"client": "one <at> a time", "requests per second": 9.87654}]


def make(experiment):
    return panel(experiment, {"n": Knob("how many", 1, 10, 3)}, published=PUBLISHED)


async def counts(progress, n):
    for i in range(n):
        progress((i + 1) / n)
        yield {"i": i}


async def waits(progress, n):
    yield {"i": 0}
    await asyncio.Event().wait()


async def breaks(progress, n):
    yield {"i": 0}
    raise ValueError("no server")


def test_the_page_shows_the_published_run():
    data, _ = make(counts)._repr_mimebundle_()
    assert "<td>one &lt;at&gt; a time</td><td>9.88</td>" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "requests per second: 9.88" in data["text/plain"]


def test_a_run_uses_the_sliders_and_shows_its_rows():
    async def use():
        shown = make(counts)
        shown.sliders["n"].value = 5
        shown.run_button.click()
        assert shown.run_button.disabled or shown.task is not None
        await shown.task
        return shown

    shown = asyncio.run(use())
    assert shown.rows == [{"i": i} for i in range(5)]
    assert shown.progress.value == 1
    assert "measured here" in shown.status.value
    assert not shown.run_button.disabled
    assert shown.stop_button.disabled


def test_stop_cancels_at_once_and_keeps_the_finished_rows():
    async def use():
        shown = make(waits)
        shown.run_button.click()
        first = shown.task
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        shown.run_button.click()
        assert shown.task is first, "a second run started beside the first"
        shown.stop_button.click()
        await asyncio.wait([shown.task], timeout=30)
        return shown

    shown = asyncio.run(use())
    assert shown.task.done()
    assert shown.rows == [{"i": 0}]
    assert "Stopped" in shown.status.value
    assert not shown.run_button.disabled


def test_an_error_is_told_to_the_reader():
    async def use():
        shown = make(breaks)
        shown.run_button.click()
        await shown.task
        return shown

    assert "ValueError: no server" in asyncio.run(use()).status.value


def test_a_knob_outside_its_range_is_refused():
    with pytest.raises(PanelError, match="expected 1 <= value <= 10; got 11"):
        Knob("n", 1, 10, 11)


def test_a_panel_without_knobs_is_refused():
    with pytest.raises(PanelError, match="at least one knob"):
        panel(counts, {}, published=PUBLISHED)
