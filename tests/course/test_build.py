"""The book is built whole from nothing, and then again only where it changed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from scalelab.author import execution_cache as cache
from scalelab.author.build import BookFailed, FolderTaken, _inputs, build, clean, publish
from scalelab.author.execute import ChapterFailed, NotAMystNotebook, execute, recall
from scalelab.console import Progress, seconds
from scalelab.course import Course, chapters
from scalelab.notebooks.lock import locked
from scalelab.running.kernel import jupyter_environment

RAN_AT = re.compile(r"ran at (\d+)")


def told(stream: io.StringIO) -> str:
    """Return what was printed since the last call."""
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def keep(course: Course, *slugs: str) -> None:
    """Remove all other chapters."""
    for chapter in chapters(course):
        if chapter.slug not in slugs:
            chapter.path.unlink()
    listed = f"chapters: [{', '.join(f'{{file: chapters/{slug}}}' for slug in slugs)}]\n" if slugs else ""
    (course.root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\n{listed}", encoding="utf-8")


def page(course: Course, slug: str) -> str:
    return (course.html / "chapters" / f"{slug}.html").read_text(encoding="utf-8")


def ran_at(course: Course, slug: str) -> str:
    """Return when the cell ran whose output the page shows."""
    found = RAN_AT.search(page(course, slug))
    assert found, f"{slug}: the page shows no output"
    return found.group(1)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(stream: io.StringIO) -> Progress:
    return Progress(stream)


def test_a_book_is_built_and_then_only_what_changed(
    small_course: Course, progress: Progress, stream: io.StringIO
) -> None:
    first, second = small_course.chapters / "01_first.md", small_course.chapters / "02_second.md"

    build(small_course, progress)
    said = told(stream)
    assert re.search(r"01_first: executing 2 cells; 1 chapter left\n  cell 1 of 2: .* s\n  cell 2 of 2: .* s\n", said)
    assert re.search(r"02_second: 2 cells, .* s; the last chapter\n", said)
    assert re.search(r"\nWhat executing took:\n  01_first: [^\n]* s\n  02_second: [^\n]* s\nWriting the pages\n", said)
    assert "Executing notebook" not in (small_course.build / "logs" / "pages.log").read_text(encoding="utf-8")
    assert f"cwd {small_course.chapters}" in page(small_course, "01_first")
    assert f"python {sys.executable}" in page(small_course, "01_first")
    before = {slug: ran_at(small_course, slug) for slug in ("01_first", "02_second")}

    build(small_course, progress)
    assert told(stream) == "The book is up to date.\n"

    edit(first, "## One", "## One and only")
    edit(second, "import os", "import math, os")
    build(small_course, progress)
    said = told(stream)
    assert "01_first: executing" not in said
    assert re.search(r"01_first: .* \(kept from an earlier build\)", said)
    assert "One and only" in page(small_course, "01_first")
    assert ran_at(small_course, "01_first") == before["01_first"]
    assert re.search(r"02_second: executing 2 cells, about .* s by the last run; the last chapter", said)
    assert ran_at(small_course, "02_second") > before["02_second"]

    # Another lock is another environment: everything is executed again, and the pages show it.
    (small_course.root / "requirements.lock").write_text("other==1\n", encoding="utf-8")
    build(small_course, progress)
    assert told(stream).count("executing 2 cells") == len(before)
    after = {slug: ran_at(small_course, slug) for slug in before}
    assert all(after[slug] > before[slug] for slug in before)

    # The same text and environment, but new results: the pages show the new ones too.
    shutil.rmtree(small_course.build / ".jupyter_cache")
    (small_course.build / ".built.json").unlink()
    build(small_course, progress)
    assert all(ran_at(small_course, slug) > after[slug] for slug in after)

    keep(small_course, "01_first")
    told(stream)
    build(small_course, progress)
    assert "executing 2 cells" not in told(stream)
    assert not (small_course.html / "chapters" / "02_second.html").exists()


def test_a_download_holds_the_outputs_and_opens_anywhere(
    small_course: Course, progress: Progress, stream: io.StringIO, tmp_path: Path
) -> None:
    keep(small_course, "01_first")
    build(small_course, progress)
    notebook = nbformat.read(small_course.html / "_sources" / "chapters" / "01_first.ipynb", as_version=4)
    nbformat.validate(notebook)
    outputs = [output.text for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(outputs) == 2
    assert ran_at(small_course, "01_first") in outputs[1]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert 'href="../_sources/chapters/01_first.ipynb"' in page(small_course, "01_first")

    out = tmp_path / "site"
    publish(small_course, out)
    assert (out / "index.html").is_file()
    assert (out / ".nojekyll").is_file()
    (out / "left-over.html").touch()
    publish(small_course, out)
    assert not (out / "left-over.html").exists()
    links = [link for path in out.rglob("*.html") for link in re.findall(r'(?:href|src)="(/[^"]*)"', path.read_text())]
    assert links == []
    with pytest.raises(FolderTaken, match="expected a new folder, an empty one, or an earlier book"):
        publish(small_course, small_course.root)
    assert (small_course.root / "_config.yml").is_file()

    told(stream)
    clean(small_course, progress)
    assert not small_course.build.exists()
    clean(small_course, progress)
    assert told(stream).endswith("nothing to remove.\n")


def test_a_failing_cell_is_named_and_the_other_chapters_are_kept(
    small_course: Course, progress: Progress, stream: io.StringIO
) -> None:
    first = small_course.chapters / "01_first.md"
    edit(first, 'print("first chapter, ran at', 'assert 1 > 2, "one is \\033[31mno\\033[0m more than two"\nprint("')
    with pytest.raises(ChapterFailed) as failed:
        build(small_course, progress)
    message = str(failed.value)
    assert message.startswith(
        "1 of 2 chapters failed.\n\nchapters/01_first.md, line 27, code cell 2 of 2:\n    assert 1 > 2"
    )
    assert "\nAssertionError: one is no more than two\n" in message
    assert "More in _build/logs/01_first.failure.log" in message
    assert "AssertionError" in (small_course.build / "logs" / "01_first.failure.log").read_text(encoding="utf-8")
    assert "01_first: failed in cell 2 of 2" in told(stream)
    assert not (small_course.html / "index.html").exists()

    edit(first, "1 > 2", "2 > 1")
    executions = execute(small_course, progress)
    assert [(execution.slug, execution.from_cache) for execution in executions] == [
        ("01_first", False),
        ("02_second", True),
    ]
    assert executions[0].sections.keys() == {"One", "Two"}
    assert executions[1].sections.keys() == {"One", "Two"}
    assert executions[0].seconds == pytest.approx(sum(executions[0].cells))


def test_a_claim_gets_a_second_run_and_no_third(
    small_course: Course, progress: Progress, stream: io.StringIO, tmp_path: Path
) -> None:
    """What disturbed a measurement once is gone the second time; what is false is not."""
    keep(small_course, "02_second")
    runs = tmp_path / "runs"
    count = f'from pathlib import Path\nruns = Path({str(runs)!r})\nruns.open("a").write("x")\n'
    judge = 'from scalelab import claim\nclaim("it ran", len(runs.read_text()), at_least=2)\n'
    edit(small_course.chapters / "02_second.md", 'print("python"', f'{count}{judge}print("python"')
    again = "02_second: a claim does not hold in cell 1 of 2; executing the chapter once more\n"

    execute(small_course, progress)
    assert runs.read_text() == "xx"
    assert again in told(stream)

    edit(small_course.chapters / "02_second.md", "at_least=2", "at_least=5")
    with pytest.raises(ChapterFailed, match=r"This claim does not hold here: it ran\. Measured 4, expected at least 5"):
        execute(small_course, progress)
    assert told(stream).count(again) == 1


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("time.sleep(30)", "The cell ran longer than `execute: timeout` in _config.yml allows."),
        ("os._exit(1)", "The kernel died while it ran the cell"),
    ],
    ids=["too long", "dead kernel"],
)
def test_a_cell_that_does_not_end_well_is_named(
    small_course: Course, progress: Progress, stream: io.StringIO, cell: str, said: str
) -> None:
    keep(small_course, "02_second")
    edit(small_course.root / "_config.yml", "timeout: 60", "timeout: 2")
    edit(small_course.chapters / "02_second.md", 'print("python"', f'{cell}\nprint("python"')
    with pytest.raises(ChapterFailed, match=re.escape(said)) as failed:
        execute(small_course, progress)
    assert "chapters/02_second.md, line 19, code cell 1 of 2:" in str(failed.value)


def test_warnings_are_errors_and_do_not_pass_the_second_time(
    small_course: Course, progress: Progress, stream: io.StringIO
) -> None:
    keep(small_course)
    edit(small_course.root / "book" / "index.md", "# A small course", "# A small course\n\n[nowhere](nowhere.md)")
    for _ in range(2):
        with pytest.raises(BookFailed) as failed:
            build(small_course, progress)
        message = str(failed.value)
        assert "book/index.md:3: WARNING" in message
        assert "nowhere" in message
        assert str(small_course.root) not in message
        assert "Traceback" not in message


def test_results_that_were_cut_off_are_made_again(
    small_course: Course, progress: Progress, stream: io.StringIO
) -> None:
    execute(small_course, progress)
    stored = sorted(cache.cache_path(small_course).glob("executed/*/base.ipynb"))
    assert len(stored) == 2
    stored[0].write_text("{", encoding="utf-8")
    shutil.rmtree(stored[1].parent)
    assert [execution.from_cache for execution in execute(small_course, progress)] == [False, False]
    assert [execution.from_cache for execution in execute(small_course, progress)] == [True, True]


def test_a_chapter_must_be_a_notebook(small_course: Course, progress: Progress) -> None:
    edit(small_course.chapters / "02_second.md", "file_format: mystnb\n", "")
    with pytest.raises(NotAMystNotebook, match=r"02_second\.md: expected a MyST notebook.*file_format: mystnb"):
        execute(small_course, progress)
    assert not (small_course.build / "times.json").exists()


def test_no_other_kernel_of_the_machine_shadows_ours(
    small_course: Course, progress: Progress, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place in ("path", "home"):
        spec = tmp_path / place / "kernels" / "python3" / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-c", "raise SystemExit('the wrong kernel')", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "Wrong", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "home"))
    keep(small_course, "01_first")
    execute(small_course, progress)
    notebook = recall(small_course, chapters(small_course)[0])
    assert notebook is not None
    assert f"python {sys.executable}\n" in "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", [])
    )

    listed = subprocess.run(
        [sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"],
        env=jupyter_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(listed.stdout)["kernelspecs"]["python3"]["spec"]["display_name"] == "Python 3"


def test_the_key_holds_what_chapters_can_import(
    small_course: Course, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "scalelab"
    for name in (
        "measure/clock.py",
        "cli/grade.py",
        "grading/judge.py",
        "author/sync.py",
        "author/execute.py",
        "running/notebook.py",
        "figure.js",
    ):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text("before", encoding="utf-8")
    monkeypatch.setattr(cache, "LIBRARY", library)

    def key_after(name: str) -> str:
        (library / name).write_text(f"after {name}", encoding="utf-8")
        return cache.cache_key(small_course)

    before = cache.cache_key(small_course)
    assert {key_after(name) for name in ("cli/grade.py", "grading/judge.py", "author/sync.py")} == {before}
    (library / "measure" / "__pycache__").mkdir()
    assert key_after("measure/__pycache__/clock.pyc") == before
    counts = ("measure/clock.py", "figure.js", "author/execute.py", "running/notebook.py", "new.py")
    keys = [before, *map(key_after, counts)]
    assert len(set(keys)) == len(keys)


def test_the_cache_in_use_and_the_one_before_are_kept(small_course: Course) -> None:
    current = cache.cache_path(small_course)
    folders = [current, *(current.with_name(name) for name in ("older", "old", "oldest"))]
    for age, folder in enumerate(folders):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - 100 - age, time.time() - 100 - age))
    os.utime(current, (1, 1))
    cache.prune(small_course)
    assert sorted(folder.name for folder in current.parent.iterdir()) == sorted([current.name, "older"])


def test_a_second_build_waits_for_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "_build" / ".lock"
    holder = (
        "import sys, pathlib; from scalelab.notebooks.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), lambda: None): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        waited = []

        def waiting() -> None:
            waited.append(process.poll())
            process.kill()

        with locked(lock, waiting):
            assert waited == [None]
    with locked(lock, pytest.fail):
        pass


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_rewrites_one_line_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal, plain = Terminal(), io.StringIO()
    for stream in (terminal, plain):
        progress = Progress(stream)
        progress.log("a step")
        progress.now("cell 1 of 2, much longer than the terminal is wide")
        progress.now("cell 2 of 2")
        progress.say("done")
    assert plain.getvalue() == "a step\ndone\n"
    wide = "cell 1 of 2, much longer than the terminal is wide"[:19]
    assert terminal.getvalue() == f"{wide}\r{' ' * 19}\rcell 2 of 2\r{' ' * 11}\rdone\n"


def test_durations_are_for_people() -> None:
    assert [seconds(value) for value in (0.04, 9.94, 38.4, 99.4, 125)] == [
        "0.0 s",
        "9.9 s",
        "38 s",
        "99 s",
        "2 min 05 s",
    ]


def test_the_source_of_an_exercise_set_is_an_input_of_the_book(small_course: Course) -> None:
    """The head of an exercise page says how many minutes the set takes, and the notebook does not."""
    source = small_course.solutions / "01_first.md"
    source.parent.mkdir()
    source.write_text("---\nminutes: 20\n---\n", encoding="utf-8")
    before = _inputs(small_course)
    edit(source, "20", "25")
    assert _inputs(small_course) != before
