"""Time budgets: how much is done, and what is said about it."""

import pytest
from IPython.utils.capture import capture_output

from scalelab.measure import BudgetError, within


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def worked(costs, seconds, **options):
    """Return how many items were done, each at its cost in virtual seconds, and what was shown."""
    clock, done = Clock(), []
    with capture_output() as shown:
        for cost in within(costs, seconds, clock=clock, **options):
            clock.now += cost
            done.append(cost)
    return done, shown.outputs


def test_what_fits_is_done():
    done, outputs = worked([1, 1, 1], 10)
    assert done == [1, 1, 1]
    last = outputs[-1]
    assert last.data["text/plain"] == "3 of 3 points in 3.0 s"
    assert "<progress" not in last.data["text/html"]
    assert last.metadata["scalelab"] == {
        "kind": "budget",
        "text": "3 of 3 points in 3.0 s",
        "budget": 10,
        "took": 3.0,
    }


def test_what_would_not_fit_is_left_out_and_said():
    done, outputs = worked([1, 4, 1, 1], 8)
    assert done == [1, 4]  # a third could take 4 s again
    assert outputs[-1].data["text/plain"].startswith("Scaled down to this machine: 2 of 4 points in 5.0 s")


def test_the_least_is_done_whatever_it_takes():
    done, _ = worked([10, 10, 10, 10], 5, least=3)
    assert len(done) == 3


def test_progress_is_shown_on_the_way_and_rewrites_itself():
    _, outputs = worked([1, 1, 1, 1], 10, what="loads")
    assert [output.data["text/plain"] for output in outputs[:2]] == ["0 of 4 loads, 0.0 s", "1 of 4 loads, 1.0 s"]
    assert 'value="0.250"' in outputs[1].data["text/html"]
    first, *others = outputs
    assert {output.transient["display_id"] for output in others} == {first.transient["display_id"]}
    assert all(output.update for output in others)


def test_leaving_early_still_says_what_was_done():
    with capture_output() as shown:
        for item in within([1, 2, 3], 10):
            if item == 2:
                break
    assert "1 of 3 points" in shown.outputs[-1].data["text/plain"]


@pytest.mark.usefixtures("no_notebook")
def test_without_a_notebook_the_last_line_is_printed(capsys):
    clock = Clock()
    assert list(within([1, 2], 10, clock=clock)) == [1, 2]
    assert capsys.readouterr().out == "2 of 2 points in 0.0 s\n"


@pytest.mark.parametrize(("seconds", "least"), [(0, 1), (1, 0), (1, 4)])
def test_a_budget_for_nothing_is_refused(seconds, least):
    with pytest.raises(BudgetError, match="least <= 3 points"):
        list(within([1, 2, 3], seconds, least=least))
