"""What a judge tells of a cell arrives as it was told, and nothing else is taken for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scalelab.grading.records import RECORD, Seen, as_line, read_line

SEEN = st.builds(Seen, st.text(), st.text(), st.text(), st.floats(0, 1e6))


@given(st.text(), st.text(), SEEN)
def test_what_is_told_arrives_on_one_line(notebook: str, cell: str, seen: Seen) -> None:
    line = as_line(notebook, cell, seen)
    assert len(line.splitlines()) == 1
    assert read_line(line) == ((notebook, cell), seen)


@given(st.text().filter(lambda text: not text.startswith(RECORD)))
def test_last_words_are_no_record(words: str) -> None:
    assert read_line(words) is None
