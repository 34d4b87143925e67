"""Recorded runs: made on demand, shown only as what they are."""

import json
import re

import pytest
from IPython.utils.capture import capture_output

from scalelab import claim, plots, recorded, recordings
from scalelab.predictions import Prediction
from scalelab.recordings import RecordingError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Recorded runs are read from and written to a folder of the test's own."""
    monkeypatch.setattr(recordings, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def elsewhere(folder, monkeypatch):
    """A run was recorded; return it as a machine that lacks something gets it."""
    monkeypatch.setenv(recordings.FOLDER_VARIABLE, str(folder))
    recorded("02-cores", lambda: {"n": [1, 2], "speedup": [1.0, 1.9]}, packages=("aiohttp",))
    monkeypatch.delenv(recordings.FOLDER_VARIABLE)
    return lambda: recorded("02-cores", lambda: pytest.fail("must not be run"), lacks="a second core")


def test_with_all_it_needs_an_experiment_is_run_here(folder):
    with capture_output() as shown:
        run = recorded("02-cores", lambda: {"n": (1, 2)})
    assert run.data == {"n": [1, 2]}  # as it would come back from a file
    assert not run.recorded
    assert run.label("speed-up") == "speed-up"
    assert run.origin == ""
    assert not shown.outputs
    assert not list(folder.iterdir())


def test_a_recorded_run_is_marked_wherever_it_is_shown(elsewhere):
    with capture_output() as shown:
        run = elsewhere()
        claim("two cores are faster than one", run.data["speedup"][1], at_least=1.2, unit="×", recorded=run)
        figure, axes = plots.chart("Speed-up", x="processes", y="times")
        plots.measured(axes, run.data["n"], run.data["speedup"], "speed-up", recorded=run)
        plots.show(figure, alt="it rises", prediction=Prediction("02-x", "How?", "×", ()), outcome=1.9, recorded=run)
    notice, judged, chart = shown.outputs
    assert run.recorded
    assert run.data["speedup"] == [1.0, 1.9]
    assert "This machine lacks a second core" in notice.data["text/html"]
    assert "Recorded on this machine" in notice.data["text/html"]
    assert "Measured on this machine" not in notice.data["text/html"]
    assert "aiohttp" in notice.data["text/html"]
    assert notice.metadata["scalelab"]["state"] == "shown"
    assert judged.data["text/plain"] == "✓ two cores are faster than one (recorded run)"
    assert re.search(
        r"recorded run \(\d+ cores, Python 3\.\d+\.\d+, \d{4}-\d\d-\d\d\): measured", judged.data["text/html"]
    )
    assert judged.metadata["scalelab"]["recorded"] == run.origin
    assert "speed-up (recorded run)" in chart.data["text/html"]
    assert "Recorded run: <b>1.9 ×</b>" in chart.data["text/html"]


def test_a_run_made_here_is_marked_nowhere(folder):
    with capture_output() as shown:
        run = recorded("02-cores", lambda: [1.0, 1.9])
        claim("two cores are faster than one", run.data[1], at_least=1.2, recorded=run)
        figure, axes = plots.chart("Speed-up", x="processes", y="times")
        plots.measured(axes, [1, 2], run.data, "speed-up", recorded=run)
        plots.show(figure, alt="it rises")
    assert not any("recorded" in output.data["text/html"].lower() for output in shown.outputs)


def test_the_file_holds_data_day_and_machine(elsewhere, folder):
    content = json.loads((folder / "02-cores.json").read_text())
    assert content.keys() == {"name", "day", "machine", "data"}
    assert {"usable cores", "Python", "GIL", "numpy", "aiohttp"} <= content["machine"].keys()
    assert [path.name for path in folder.iterdir()] == ["02-cores.json"]


def test_recording_says_so_and_leaves_what_it_cannot_make(elsewhere, folder, monkeypatch):
    before = (folder / "02-cores.json").read_bytes()
    monkeypatch.setenv(recordings.FOLDER_VARIABLE, str(folder))
    with capture_output() as shown:
        elsewhere()
        recorded("02-other", lambda: 1)
    assert [output.metadata["scalelab"]["state"] for output in shown.outputs] == ["shown", "renewed"]
    assert (folder / "02-cores.json").read_bytes() == before


def test_without_a_recording_it_is_said_how_to_get_one(folder):
    with pytest.raises(RecordingError, match=r"lacks a second core, and there is no recorded run.*scalelab record 02"):
        recorded("02-none", list, lacks="a second core")


@pytest.mark.parametrize("content", ["", "{}", '{"data": 1, "day": "', "[]"])
def test_a_damaged_recording_is_named(folder, content):
    (folder / "02-cores.json").write_text(content)
    with pytest.raises(RecordingError, match=r"damaged.*Take 02-cores\.json"):
        recorded("02-cores", list, lacks="a second core")


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object()])
def test_data_that_no_file_could_hold_is_refused_at_once(folder, data):
    with pytest.raises(RecordingError, match="JSON can hold"):
        recorded("02-cores", lambda: data)


@pytest.mark.parametrize("name", ["cores", "../02-cores", "02-Cores", "02_cores", "02-"])
def test_a_name_says_chapter_and_experiment(folder, name):
    with pytest.raises(RecordingError, match="02-amdahl"):
        recorded(name, list)


def test_a_failing_experiment_fails_as_itself(folder, monkeypatch):
    monkeypatch.setenv(recordings.FOLDER_VARIABLE, str(folder))
    with pytest.raises(ZeroDivisionError):
        recorded("02-cores", lambda: 1 / 0)
    assert not list(folder.iterdir())


def test_every_recording_of_the_course_can_be_shown():
    for path in recordings.FOLDER.glob("*.json"):
        with capture_output():
            assert recorded(path.stem, list, lacks="something").recorded
