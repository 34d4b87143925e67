"""Predictions: the reader commits an answer before a run, then sees it beside the measured result.

In JupyterLab the kernel holds the answer. On the published page the same cell's output is a form, and the reader's
browser stores the answer.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from scalelab._publish import publish
from scalelab.claims import number
from scalelab.errors import ScalelabError


class PredictionError(ScalelabError):
    """A question offers only one choice, or an answer is not one of the expected ones."""


class Prediction:
    """A question, and the reader's answer once it is committed.

    number: the committed number, or None; choice: the committed choice, or None.
    """

    def __init__(self, key: str, question: str, unit: str, choices: Sequence[str]) -> None:
        self.key, self.question, self.unit, self.choices = key, question, unit, tuple(choices)
        self.number: float | None = None
        self.choice: str | None = None

    @property
    def numeric(self) -> bool:
        return not self.choices

    @property
    def committed(self) -> str | None:
        """The reader's answer with its unit, or None."""
        if self.numeric:
            return None if self.number is None else f"{number(self.number)} {self.unit}".strip()
        return self.choice

    def outcome_html(self, outcome: float | str | None, word: str = "Measured") -> str:
        """Return the sentence that shows `outcome` beside the prediction; `word` is, e.g., "Simulated"."""
        parts = []
        if outcome is not None:
            value = outcome if isinstance(outcome, str) else f"{number(outcome)} {self.unit}".strip()
            parts.append(f"{word}: <b>{html.escape(value)}</b>.")
        answer = f"You predicted {html.escape(self.committed)}." if self.committed else ""
        parts.append(f'<span class="sl-predicted" data-shows-prediction="{html.escape(self.key)}">{answer}</span>')
        return " ".join(parts)

    def show_outcome(self, outcome: float | str) -> None:
        """Display a measured outcome beside the prediction, for an experiment that draws no chart."""
        text = f"Measured: {outcome if isinstance(outcome, str) else number(outcome)} {self.unit}".strip()
        page = f'<p class="sl-outcome">{self.outcome_html(outcome)}</p>'
        publish(text, page, {"kind": "outcome", "prediction": self.key})

    def commit(self, answer: float | str) -> None:
        """Keep the reader's answer. Raises PredictionError if it is not a number, or not one of the choices."""
        if self.numeric:
            try:
                self.number = float(answer)
            except ValueError as error:
                raise PredictionError(f"Expected a number ({self.unit or 'a count'}); got {answer!r}.") from error
        elif answer in self.choices:
            self.choice = str(answer)
        else:
            raise PredictionError(f"Expected one of {', '.join(self.choices)}; got {answer!r}.")

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        box = _widget(self)
        bundle = {"text/plain": f"Predict: {self.question}", "text/html": _form(self)}
        bundle.update(box._repr_mimebundle_() or {})
        bundle["text/plain"] = f"Predict: {self.question}"
        return bundle, {"scalelab": {"kind": "prediction", "key": self.key, "question": self.question}}


def predict(key: str, question: str, *, unit: str = "", choices: Sequence[str] = ()) -> Prediction:
    """Display a question to which the reader commits an answer, and return it.

    key: unique in the book, e.g. "08-knee"; the browser stores the answer under it. unit: the unit of a numeric answer.
    choices: the possible answers, for a question without a numeric answer. Raises PredictionError if there is only one
    choice.
    """
    if len(choices) == 1:
        raise PredictionError(f"The question {question!r} has one choice only: give two or more, or none for a number.")
    prediction = Prediction(key, question, unit, choices)
    display(prediction)  # type: ignore[no-untyped-call]
    return prediction


def _widget(prediction: Prediction) -> widgets.Widget:
    """Return the form as a widget, for a reader with a kernel."""
    question = widgets.HTML(f"<b>Predict:</b> {html.escape(prediction.question)}")
    if prediction.numeric:
        answer: Any = widgets.FloatText(description="Your number", style={"description_width": "initial"})
    else:
        answer = widgets.RadioButtons(options=prediction.choices, value=None, layout={"width": "max-content"})
    unit = widgets.Label(prediction.unit)
    button = widgets.Button(description="Commit", button_style="primary")
    status = widgets.Label()

    def commit(_: object) -> None:
        if answer.value is None:
            status.value = "Choose one first."
            return
        prediction.commit(answer.value)
        status.value = f"Kept: {prediction.committed}. Now run the next cells."

    button.on_click(commit)
    controls = [answer, unit, button, status] if prediction.numeric else [answer, widgets.HBox([button, status])]
    return widgets.VBox([question, widgets.HBox(controls) if prediction.numeric else widgets.VBox(controls)])


def _form(prediction: Prediction) -> str:
    """Return the same form as HTML, for a page without a kernel; `predict.js` of the site stores the answer."""
    key = html.escape(prediction.key)
    if prediction.numeric:
        fields = (
            f'<label>Your number <input type="number" name="answer" step="any" inputmode="decimal" required></label> '
            f"<span>{html.escape(prediction.unit)}</span>"
        )
    else:
        fields = "".join(
            f'<label><input type="radio" name="answer" value="{choice}" required> {choice}</label>'
            for choice in map(html.escape, prediction.choices)
        )
    return (
        f'<form class="sl-predict" data-prediction="{key}" data-unit="{html.escape(prediction.unit)}" '
        f"data-kind={json.dumps('number' if prediction.numeric else 'choice')}>"
        f"<fieldset><legend><strong>Predict.</strong> {html.escape(prediction.question)}</legend>"
        f'<div class="sl-predict-answer">{fields} <button type="submit">Commit</button></div>'
        f'<p class="sl-predict-said" role="status"></p></fieldset></form>'
    )
