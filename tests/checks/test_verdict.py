"""Verdicts: a line per expectation, and words that a student can act on."""

from __future__ import annotations

import asyncio
import builtins
import json
import linecache
import sys
import textwrap
import types
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from scalelab import checks
from scalelab.checks import _cells, _side, _verdict, _words

cells = 0


def cell(source: str, namespace: dict[str, Any]) -> None:
    """Run a cell as a notebook does: in the student's namespace, with its source at hand for tracebacks."""
    global cells  # noqa: PLW0603
    cells += 1
    file = f"<cell {cells}>"
    source = textwrap.dedent(source).strip() + "\n"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)


CHECK = """
    with checks.verdict("double") as expect:
        run = checks.run(lambda: double([1, 2, 3]), returns=list)
        expect(run.result == [2, 4, 6], "all numbers are doubled", otherwise="Some are not.", saw=run.result)
"""


def told(answer: str, capsys: pytest.CaptureFixture[str], check: str = CHECK) -> str:
    """Run an answer and its check; return what the student reads where it fails, all of it where it does not."""
    namespace: dict[str, Any] = {"__name__": "__main__", "asyncio": asyncio, "checks": checks}
    cell(answer, namespace)
    capsys.readouterr()
    try:
        cell(check, namespace)
    except checks.CheckFailed as failure:
        return capsys.readouterr().out + "\n".join(failure._render_traceback_())
    return capsys.readouterr().out


def flat(text: str) -> str:
    """Return a text without its line breaks: sentences are wrapped."""
    return " ".join(text.split())


def test_a_right_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert told("async def double(numbers): return [2 * n for n in numbers]", capsys) == "✓ all numbers are doubled\n"


def test_a_wrong_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert told("async def double(numbers): return [n + 1 for n in numbers]", capsys) == (
        "✗ all numbers are doubled\n  Some are not.\n  Seen: [2, 3, 4]\n"
        "double: not yet. The lines above that begin with ✗ say what is missing."
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "There is no `double` yet. Run the answer's cell"),
        ("async def double(numbers): raise NotImplementedError", "Not written yet"),
        ("async def double(numbers): ...", "It returned None: it is not written yet, or a `return` is missing."),
        ("async def double(numbers): return ...", "It returned `...`: it is not written yet"),
        ("def double(numbers): return numbers", "It gave [1, 2, 3] at once, and no coroutine"),
        ("async def double(numbers): return (2, 4, 6)", "It returned a tuple: (2, 4, 6)"),
        ("async def double(numbers): return 5", "It returned an int: 5"),
        ("async def double(numbers): return [asyncio.sleep(1)]", "What you return are coroutine objects, not their"),
        ("async def double(numbers): return asyncio.sleep(1)", "What you return is a coroutine object, not its result"),
        ("async def double(numbers): return [asyncio.create_task(asyncio.sleep(1))]", "What you return are tasks"),
        ("async def double(): return []", "compare the names and the number of its arguments"),
        ("async def double(numbers): return asyncio.sleep(1)[0]", "the value comes with `await`"),
        ("async def double(numbers): return [n * faktor for n in numbers]", "Look where `faktor` gets its value"),
        ("async def double(numbers): return asyncio.run(asyncio.sleep(1))", "`await` instead of `asyncio.run`"),
        ("async def double(numbers): await asyncio.Event().wait()", "`double` waits in line 1 of your cell: `async"),
        ("async def double(numbers): await asyncio.sleep(10_000)", "still at work after 3600 virtual seconds"),
        ("async def double(numbers): return [1 / 0]", "ZeroDivisionError: division by zero"),
        ("double = 5", "TypeError: 'int' object is not callable"),
    ],
)
def test_an_answer_without_a_result(answer: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(answer, capsys)
    assert words in flat(text)
    assert text.startswith("✗ ")
    assert text.count("✗") == 2  # the one line, and the sentence at the end


def test_an_error_names_the_students_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(
        """
        def helper(number):
            return int(number)


        async def double(numbers):
            return [helper("x") for _ in numbers]
        """,
        capsys,
    )
    assert "  ValueError: invalid literal for int() with base 10: 'x'\n" in text
    assert "  It was raised in line 2 of your cell: `return int(number)`\n" in text


def test_an_error_in_a_group_is_told_with_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(
        """
        async def fail(number):
            raise ValueError(f"number {number}.")


        async def double(numbers):
            async with asyncio.TaskGroup() as group:
                for number in [*numbers, *numbers]:
                    group.create_task(fail(number))
        """,
        capsys,
    )
    assert 'In the group: ValueError: number 1. It was raised in line 2 of your cell: `raise ValueError(f"' in flat(
        text
    )
    assert "… and 3 more." in text


def test_a_deadlock_in_a_callee_names_every_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(
        """
        async def worker(queue):
            while True:
                await queue.get()


        async def double(numbers):
            queue = asyncio.Queue()
            await asyncio.gather(*(worker(queue) for _ in range(9)))
        """,
        capsys,
    )
    assert text.count("`worker` waits in line 3 of your cell: `await queue.get()`") == 1
    assert text.count("`double` waits in line 8 of your cell") == 1


def test_a_deadlock_names_no_line_of_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    check = """
        async def drive():
            await double([1, 2, 3])

        with checks.verdict("double") as expect:
            run = checks.run(drive, returns=list)
    """
    text = told("async def double(numbers):\n    await asyncio.Event().wait()", capsys, check)
    assert "`double` waits in line 2 of your cell" in text
    assert "drive" not in text


@pytest.mark.parametrize(
    ("otherwise", "words"),
    [
        ('"The author\'s word."', "` The author's word. double"),
        ("lambda run: f'after {run.seconds:g} s'", "` after 3 s double"),
        ('""', "await asyncio.sleep(3); return 1 / 0` double"),
    ],
)
def test_the_authors_word_on_an_error(otherwise: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    check = CHECK.replace("returns=list", f"returns=list, otherwise={otherwise}")
    assert words in flat(told("async def double(numbers): await asyncio.sleep(3); return 1 / 0", capsys, check))


def test_the_general_word_comes_before_the_authors(capsys: pytest.CaptureFixture[str]) -> None:
    check = CHECK.replace("returns=list", "returns=list, otherwise='It divides.'")
    assert "It divides." not in told("async def double(numbers): raise NotImplementedError", capsys, check)


def test_what_the_answer_prints_is_shown_only_where_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    body = "import sys, warnings; print('here'); print('there', file=sys.stderr); warnings.warn('where'); "
    assert "here" not in told("async def double(numbers): " + body + "return [2, 4, 6]", capsys)
    assert "Your code printed:\n  here\n  there\n" in told("async def double(numbers): " + body, capsys)
    text = told("async def double(numbers):\n    for n in range(100): print('line', n)", capsys)
    assert "  line 11\n  … and 88 more lines\n" in text


def test_the_verdict_does_not_need_print(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "print", None)
    assert told("async def double(numbers): return [2 * n for n in numbers]", capsys) == "✓ all numbers are doubled\n"


def test_words_and_values_are_made_only_where_they_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise AssertionError

    with checks.verdict("lazy") as expect:
        assert expect(1, "one is something", otherwise=fail, saw=fail)
    with pytest.raises(checks.CheckFailed), checks.verdict("lazy") as expect:
        assert not expect(0, "nothing is something", otherwise=lambda: "No.", saw=lambda: "word " * 1000)
    out = capsys.readouterr().out
    assert "  No.\n  Seen: word" in out
    assert len(out) < 400
    assert max(map(len, out.splitlines())) <= 92


def test_all_expectations_are_told_and_what_follows_from_a_failure_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    check = """
        with checks.verdict("both") as expect:
            expect(False, "the first", otherwise="One.")
            expect(True, "the second", otherwise="Two.")
            expect(False, "the third", otherwise="Three.")
            raise KeyError("what follows")
    """
    assert (
        told("", capsys, check).rpartition("both: not yet")[0]
        == "✗ the first\n  One.\n✓ the second\n✗ the third\n  Three.\n"
    )


def test_a_check_that_expects_nothing_is_a_mistake() -> None:
    with pytest.raises(checks.EmptyCheck, match="'nothing' expects nothing"), checks.verdict("nothing"):
        pass


def test_a_check_that_stumbles_over_the_answer_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    check = """
        with checks.verdict("double") as expect:
            expect(len(order) == 3, "three entries", otherwise="Write three.")
    """
    assert "There is no `order` yet" in told("", capsys, check)
    text = told("order = 7", capsys, check)
    assert "✗ the check can use the answer\n  TypeError: object of type 'int' has no len()\n" in text


def test_the_stop_button_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt), checks.verdict("stopped"):
        raise KeyboardInterrupt


def test_coroutines_that_nobody_awaits_are_named_where_the_answer_fails(capsys: pytest.CaptureFixture[str]) -> None:
    answer = """
        async def forgotten():
            pass

        async def double(numbers):
            forgotten()
            return {}
    """
    words = "Called, but never awaited, so that nothing of it has run: `forgotten`\n"
    assert words in told(answer.replace("{}", "[1]"), capsys)
    assert words not in told(answer.replace("{}", "[2, 4, 6]"), capsys)


DIRECT = """
    with checks.verdict("square") as expect:
        expect(square(3) == 9, "it squares", otherwise="It does not.", idea="no-power", saw=lambda: square(3))
"""


@pytest.mark.parametrize(
    "body",
    [
        "print('tried', n)",
        "import sys; print('tried', n, file=sys.stderr)",
        "import threading; t = threading.Thread(target=print, args=('tried',)); t.start(); t.join()",
    ],
    ids=["print", "stderr", "thread"],
)
def test_what_a_function_prints_changes_nothing_if_it_is_right(body: str, capfd: pytest.CaptureFixture[str]) -> None:
    answer = f"def square(n):\n    {body}\n    return n * n"
    assert told(answer, capfd, DIRECT) == "✓ it squares\n"
    assert capfd.readouterr().err == ""
    text = told(answer.replace("n * n", "n + n"), capfd, DIRECT)
    assert text.startswith("✗ it squares\n  It does not.\n  Seen: 6\nYour code printed:\n  tried")


def test_an_answer_that_is_stopped_still_shows_what_it_printed(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    check = """
        with checks.verdict("stopped") as expect:
            expect(True, "it turns", otherwise="No.")
            turn()
    """
    with pytest.raises(KeyboardInterrupt):
        told("def turn():\n    print('turn 1')\n    raise KeyboardInterrupt", capsys, check)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "✓ it turns\nturn 1\n"


def test_a_flood_of_prints_takes_little_room(capsys: pytest.CaptureFixture[str]) -> None:
    check = """
        with checks.verdict("flood") as expect:
            flood()
            expect(sys.stdout.tell() < 250_000, "little is kept", otherwise="All is.")
            expect(False, "it fails", otherwise="As it should.")
    """
    text = told("import sys\ndef flood():\n    for _ in range(1000): print('x' * 1000)", capsys, check)
    assert text.startswith("✓ little is kept\n")
    assert len(text) < 5000


def test_a_verdict_in_a_verdict_writes_where_the_outer_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    with checks.verdict("outer") as expect:
        with checks.verdict("inner") as within:
            print("hidden")
            within(True, "inside", otherwise="No.")
        print("hidden, too")
        expect(True, "outside", otherwise="No.")
    assert capsys.readouterr().out == "✓ inside\n✓ outside\n"
    assert [one.exercise for one in checks.verdicts[-2:]] == ["inner", "outer"]


class TestData:
    """The verdict as data: published once, printed from, and read by programs."""

    def test_it_is_what_was_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        heard: list[checks.Verdict] = []
        _verdict.listeners.append(heard.append)
        try:
            text = told("def square(n):\n    print('tried')\n    return n", capsys, DIRECT)
        finally:
            _verdict.listeners.remove(heard.append)
        (verdict,) = heard
        assert checks.verdicts[-1] is verdict
        expectation = checks.Expectation("it squares", False, "It does not.", "3", "no-power")
        assert verdict == checks.Verdict("square", (expectation,), ("tried\ntried",))
        assert text == f"{verdict}\nsquare: not yet. The lines above that begin with ✗ say what is missing."

    def test_it_survives_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        for answer in ("def square(n): return n", "def square(n): return n / 0", "def square(n): return n * n"):
            told(answer, capsys, DIRECT)
            data = json.loads(json.dumps(checks.verdicts[-1].as_data()))
            assert checks.Verdict.from_data(data) == checks.verdicts[-1]
            assert data["passed"] == ("n * n" in answer)

    @pytest.mark.parametrize(
        "change",
        [
            {"passed": True},
            {"exercise": None},
            {"printed": [1]},
            {"never_awaited": "f"},
            {"expectations": []},
            {"expectations": [{}]},
            {"expectations": [{"right": "it", "held": 0, "words": "", "seen": "", "idea": "", "detail": ""}]},
            {"extra": 1},
        ],
        ids=str,
    )
    def test_other_data_are_refused(self, change: dict[str, Any]) -> None:
        data = checks.Verdict("square", (checks.Expectation("it squares", False, "No."),)).as_data()
        assert checks.Verdict.from_data(data).passed is False
        with pytest.raises(ValueError, match="expected"):
            checks.Verdict.from_data({"expectations": data["expectations"]})
        if change == {"expectations": []}:
            change |= {"passed": True}  # a check without an expectation has not passed
        with pytest.raises(ValueError, match="expected"):
            checks.Verdict.from_data(data | change)

    def test_words_are_not_wrapped(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = "A sentence that is much longer than a line, because it goes on and on, and does not stop here yet."
        check = DIRECT.replace('"It does not."', repr(words))
        assert words not in told("def square(n): return n", capsys, check)
        assert checks.verdicts[-1].expectations[0].words == words

    def test_an_idea_is_known_by_its_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        by_condition = "lambda: checks.Idea('adds', 'You add.') if square(3) == 6 else 'Something else.'"
        check = DIRECT.replace('"It does not."', by_condition)
        for answer, idea in (("n + n", "adds"), ("n", "no-power")):
            told(f"def square(n): return {answer}", capsys, check)
            assert checks.verdicts[-1].expectations[0].idea == idea

    @pytest.mark.parametrize(
        "body",
        [
            "raise checks.Unmet('it squares', checks.Idea('adds', 'You add.'))",
            "checks.run(double, otherwise=checks.Idea('adds', 'You add.'))",
            "checks.run(double, otherwise=lambda run: checks.Idea('adds', 'You add.'))",
            "checks.interleave(raises, otherwise=checks.Idea('adds', 'You add.'))",
        ],
    )
    def test_an_idea_of_an_answer_that_raises(self, body: str, capsys: pytest.CaptureFixture[str]) -> None:
        answer = "def raises(): raise ValueError('so it is')\nasync def double(): raises()"
        text = told(answer, capsys, f"with checks.verdict('idea') as expect:\n    {body}")
        assert "  You add.\n" in text
        (expectation,) = checks.verdicts[-1].expectations
        assert (expectation.idea, expectation.words) == ("adds", "You add.")

    @pytest.mark.parametrize(
        "answer",
        [
            "def square(n):\n    print('✗ it squares'); print('  You add.')\n    return 0",
            "def square(n): return 'You add.'",
            "def square(n): raise ValueError('You add.')",
            "def square(n): raise Exception('You add.')  # You add.",
        ],
        ids=["printed", "returned", "raised", "in its text"],
    )
    def test_an_idea_is_not_known_by_what_an_answer_says(self, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
        text = told(answer, capsys, DIRECT.replace(', idea="no-power"', ""))
        assert "You add." in text
        assert _verdict.recognised(checks.verdicts[-1].expectations, [("adds", "You add.")]) == []

    def test_an_idea_is_known_by_the_words_of_its_author(self) -> None:
        wrong = [("adds", "You  add\nthem."), ("other", "Something else.")]
        held = checks.Expectation("a", True, "Something else.")
        missed = checks.Expectation("b", False, "Look closer: You add them. Why?")
        named = checks.Expectation("c", False, "Something else.", idea="third")
        assert _verdict.recognised([held, missed, named, missed], wrong) == ["adds", "third"]

    @pytest.mark.parametrize(
        ("state", "right"),
        [("timed out", "your answer comes to an end"), ("ended", "your answer runs until its check is over")],
    )
    def test_an_answer_whose_process_ended(
        self, state: str, right: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its side of the check says so, whether the check's own code has caught the error or not."""
        monkeypatch.setattr(_side, "current", types.SimpleNamespace(ending=lambda: (state, "It used up its time.")))
        for rest in ("raise checks.AnswerEnded('of its own', 'ended')", "pass"):
            check = f"""
                with checks.verdict("gone") as expect:
                    expect(True, "the first", otherwise="No.")
                    {rest}
            """
            text = told("", capsys, check)
            assert f"✓ the first\n✗ {right}\n  It used up its time.\n" in text
            assert checks.verdicts[-1].ended == state


class TestAssemble:
    def test_lines_in_order(self) -> None:
        names = checks.assemble("async def answer():\n    return await asyncio.sleep(1, 5)", asyncio=asyncio)
        assert checks.run(names["answer"]).result == 5

    @pytest.mark.parametrize(
        ("program", "words"),
        [
            ("def f():\nreturn 1", "Python cannot read line 2: `return 1`"),
            ("x = y", "NameError"),
            (["def f(): ..."], "should be text, and is a list"),
            ("x = '\0'", "Python cannot read"),
        ],
    )
    def test_lines_that_are_no_program(self, program: Any, words: str) -> None:
        with pytest.raises(checks.Unmet) as caught:
            checks.assemble(program)
        assert words in str(caught.value)
        assert caught.value.right == "the lines are a program"

    def test_an_error_names_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        check = """
            with checks.verdict("double") as expect:
                run = checks.run(checks.assemble(program)["double"], returns=list)
        """
        text = told('program = "async def double():\\n    return nothing"', capsys, check)
        assert "It was raised in line 2 of your cell: `return nothing`" in text


def test_in_a_notebook() -> None:
    """In a real kernel, whose own loop is running: output is text alone, and a failure has no frames."""
    sources = [
        "import asyncio, time, aiohttp, numpy\nfrom scalelab import checks",
        "async def fetch(url):\n"
        "    async with aiohttp.ClientSession() as session, session.get(url) as response:\n"
        "        print('asking', url)\n"
        "        time.sleep(1)\n"
        "        return await response.json()",
        "server = checks.Server(latency=0.5)\n"
        "with checks.verdict('kernel') as expect:\n"
        "    run = checks.run(lambda: fetch(server.url('/')), server=server)\n"
        "    expect(run.seconds == 1.5, 'it takes 1.5 s', otherwise='It does not.', saw=run.seconds)",
        "with checks.verdict('kernel') as expect:\n"
        "    expect(run.blocking == (), 'nothing blocks', otherwise='Something does.', saw=run.blocking[0].where)",
        "await asyncio.sleep(0.01, 'the loop of the kernel goes on')",
        "def infinite(x):\n    print('here')\n    return numpy.array([x]) / 0\n"
        "with checks.verdict('direct') as expect:\n"
        "    expect(numpy.isinf(infinite(1.0))[0], 'it is infinite', otherwise='It is not.')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, allow_errors=True, timeout=120).execute()
    passing, failing, after, direct = (notebook.cells[number].outputs for number in (2, 3, 4, 5))
    assert [(output.name, output.text) for output in direct] == [("stdout", "✓ it is infinite\n")]
    assert [(output.name, output.text) for output in passing] == [("stdout", "✓ it takes 1.5 s\n")]
    assert failing[0].text == ("✗ nothing blocks\n  Something does.\n  Seen: line 4 of your cell: `time.sleep(1)`\n")
    sentence = "kernel: not yet. The lines above that begin with ✗ say what is missing."
    assert (failing[1].ename, failing[1].evalue, failing[1].traceback) == ("CheckFailed", sentence, [sentence])
    assert "the loop of the kernel goes on" in after[0].data["text/plain"]


def test_in_a_notebook_whose_answer_has_failed_on_its_last_run() -> None:
    """In a plain kernel, which notes no runs: IPython keeps the text of all cells."""
    check = (
        "with checks.verdict('double') as expect:\n"
        "    got = list(map(lambda n: double(n), [1, 2]))\n"
        "    expect(got == [2, 4], 'all are doubled', otherwise='No.', saw=got)"
    )
    right = "def double(n):\n    return 2 * n"
    sources = ["from scalelab import checks", right, check, right.replace(":", ""), check, "other = 1", check]
    sources += ["1 / 0\n" + right, check, right, check, "def triple(n):\n    return 3 * double(n)", check]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, allow_errors=True, timeout=300).execute()
    texts = [flat(one.outputs[0].text) for one in notebook.cells if one.source == check]
    passed, stale = "✓ all are doubled", "Your last run of the cell that defines `double` failed."
    assert [text == passed for text in texts] == [True, False, False, False, True, True], texts
    assert all(stale in text for text in texts[1:4])


USES = """
    with checks.verdict("use") as expect:
        half = percentile([1, 2], 50)
        expect(len(half) == 1, "there is one", otherwise="No.")
"""


class TestWordsOnTheCause:
    def test_an_answer_of_a_type_that_the_check_cannot_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = told("def percentile(sample, p): return 2.5", capsys, USES)
        assert "TypeError: object of type 'float' has no len()" in text
        assert "The check could not use what your answer gave.\n  `half` is a float: 2.5" in text
        text = told("percentile = 5", capsys, USES)
        assert "`percentile` is an int: 5" in text

    def test_an_answer_that_raises_the_same_error_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = told("def percentile(sample, p): return len(2.5)", capsys, USES)
        assert "It was raised in line 1 of your cell" in text
        assert "could not use" not in text

    @pytest.mark.parametrize(
        "check",
        [
            "percentile([1, 2], 50)",
            "[value for value in (percentile([1], p) for p in [50])]",
            "checks.call_each(percentile, [[1]], [50])",
            "checks.call_each(percentile, [[1]], [50], max_lines=99)",
        ],
        ids=["called", "in a generator", "each", "each, traced"],
    )
    def test_a_next_without_a_value(self, check: str, capsys: pytest.CaptureFixture[str]) -> None:
        answer = "def percentile(sample, p):\n    return next(x for x in sample if x > 9)"
        uses = f"""
            with checks.verdict("use") as expect:
                got = {check}
                expect(len(got if isinstance(got, list) else [got]) == 1, "there is one", otherwise="No.")
        """
        text = flat(told(answer, capsys, uses))
        assert "StopIteration" in text
        assert "It was raised in line 2 of your cell: `return next(x for x in sample if x > 9)`" in text
        assert "`next` found no value: there was none left. Give it a default" in text

    @pytest.mark.parametrize(
        ("line", "version"),
        [
            ("type Pair = tuple[int, int]", (3, 12)),
            ("def first[T](values: list[T]) -> T:", (3, 12)),
            ("class Box[T]:", (3, 12)),
            ('print(f"{prices["boots"]}")', (3, 12)),
            ("except KeyError, ValueError:", (3, 14)),
            ('t"{price}"', (3, 14)),
        ],
    )
    def test_syntax_of_a_later_version(self, line: str, version: tuple[int, int]) -> None:
        error = SyntaxError("invalid syntax", ("<answer>", 1, 1, line))
        words = _words.advice(error, {}) or ""
        if version > sys.version_info[:2]:
            assert f"it came with Python {version[0]}.{version[1]}" in words
        else:
            assert "missing colon, bracket or quote" in words

    @pytest.mark.parametrize(
        "line",
        [
            *("def first(values)", "if price > 3", 'print(f"{price}', "type(price", "values = [1, 2", 'print("a"'),
            *('print(f"{price}" f"{item}"', "except ValueError", "for price in prices", 'set("x"', "class Box"),
        ],
    )
    def test_a_missing_sign(self, line: str) -> None:
        words = _words.advice(SyntaxError("invalid syntax", ("<answer>", 1, 1, line)), {})
        assert words == "Look for a missing colon, bracket or quote: here, or in the line above."

    def test_a_long_line_is_searched_in_time_that_its_length_bounds(self) -> None:
        line = 'f"{' + "a" * 100_000
        assert _words.advice(SyntaxError("invalid syntax", ("<answer>", 1, 1, line)), {})


class TestOlderAnswers:
    """A kernel keeps what earlier runs of a cell have defined."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_cells, "runs", {})
        monkeypatch.setattr(_cells, "definers", {})

    RIGHT = "def square(n):\n    return n * n"

    def test_an_answer_whose_last_run_failed(self, capsys: pytest.CaptureFixture[str]) -> None:
        _cells.note_run("square", self.RIGHT, "")
        assert "✗" not in told(self.RIGHT, capsys, DIRECT)
        _cells.note_run("square", "def square(n)\n    return n + n", "SyntaxError: expected ':'")
        text = flat(told(self.RIGHT, capsys, DIRECT))
        assert text.startswith("✗ this check sees your latest answer Your last run of this cell failed: SyntaxError")
        assert "✓" not in text
        assert not checks.verdicts[-1].passed
        _cells.note_run("square", self.RIGHT, "")
        assert "✗" not in told(self.RIGHT, capsys, DIRECT)

    def test_a_function_with_another_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        _cells.note_run("square", self.RIGHT, "")
        _cells.note_run("square", self.RIGHT.replace("square", "sqare"), "")
        text = flat(told(self.RIGHT, capsys, DIRECT))
        assert "Your last run of this cell did not define `square`." in text
        _cells.note_run("0a1b2c3d", self.RIGHT, "")  # it has moved into another cell
        assert "✗" not in told(self.RIGHT, capsys, DIRECT)

    def test_a_name_from_another_cell(self, capsys: pytest.CaptureFixture[str]) -> None:
        answer = "def square(n):\n    return power(n, TWO) * ONE"
        _cells.note_run("setup-1", "ONE = 1", "")
        _cells.note_run("0a1b2c3d", "def power(n, k):\n    return n ** k", "")
        _cells.note_run("cube", "TWO = 2", "")
        _cells.note_run("square", answer, "")
        text = told(f"def power(n, k):\n    return n ** k\nONE, TWO = 1, 2\n{answer}", capsys, DIRECT)
        assert "✓ it squares" in text
        assert "⚠ `power` stands in a cell of your own: move it into the answer. Answers alone are graded." in text
        assert "⚠ `TWO` stands in another of the course's cells" in text
        assert "`ONE`" not in text
