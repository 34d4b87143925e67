"""Predictions: asked with a kernel and without, kept, and checked."""

import pytest
from IPython.utils.capture import capture_output

from scalelab import predict
from scalelab.predictions import Prediction, PredictionError


def test_the_page_without_a_kernel_gets_a_form_and_the_lab_a_widget():
    with capture_output() as captured:
        predict("08-x", "How <many>?", unit="requests/s")
    (output,) = captured.outputs
    assert 'data-prediction="08-x"' in output.data["text/html"]
    assert "How &lt;many&gt;?" in output.data["text/html"]
    assert 'type="number"' in output.data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in output.data
    assert output.data["text/plain"] == "Predict: How <many>?"


def test_choices_become_radio_buttons():
    with capture_output() as captured:
        predict("08-x", "Which?", choices=["a", "b & c"])
    page = captured.outputs[0].data["text/html"]
    assert page.count('type="radio"') == 2
    assert 'value="b &amp; c"' in page


def test_a_number_is_kept():
    prediction = Prediction("k", "?", "requests/s", ())
    assert prediction.committed is None
    prediction.commit("1200")
    assert prediction.number == 1200
    assert prediction.committed == "1,200 requests/s"


def test_a_choice_is_kept():
    prediction = Prediction("k", "?", "", ["a", "b"])
    prediction.commit("b")
    assert prediction.committed == "b"


@pytest.mark.parametrize(("choices", "answer"), [((), "many"), (("a", "b"), "c")])
def test_an_answer_that_is_none_is_refused(choices, answer):
    with pytest.raises(PredictionError, match="Expected"):
        Prediction("k", "?", "", choices).commit(answer)


def test_a_choice_of_one_is_refused():
    with pytest.raises(PredictionError, match="one choice only"):
        predict("k", "?", choices=["a"])


def test_the_widget_keeps_what_the_reader_commits():
    from scalelab.predictions import _widget

    prediction = Prediction("k", "?", "", ["a", "b"])
    box = _widget(prediction)
    radio, row = box.children[1].children
    button, said = row.children
    button.click()
    assert said.value == "Choose one first."
    radio.value = "b"
    button.click()
    assert prediction.choice == "b"
    assert "Kept: b" in said.value


def test_a_simulated_outcome_is_not_called_measured():
    prediction = Prediction("02-x", "How many?", "cores", ())
    assert "Simulated: <b>14.4 cores</b>" in prediction.outcome_html(14.4, "Simulated")
    assert "Measured: <b>14.4 cores</b>" in prediction.outcome_html(14.4)
