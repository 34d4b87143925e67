"""Grading in a container: what an engine is asked for, by a stand-in that writes it down; and a real one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from scalelab import doctor
from scalelab.cli import REFUSED, main
from scalelab.course import Course
from scalelab.grading import batch
from scalelab.grading.judging.judge import NoSandbox
from scalelab.grading.sandbox import container
from scalelab.grading.sandbox.container import find_engine
from scalelab.grading.sandbox.namespaces import DENIED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")

ODD = 'two words, ü and "quotes"'
ENGINE = """#!PYTHON -SE
import json, os, sys, time
told = json.loads(os.environ.get("ENGINE", "{}"))
with open(os.environ["ASKED"], "a") as file:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=file)
asked = sys.argv[1:]
name = os.path.basename(sys.argv[0])
if asked[0] == "--version":
    print(f"{name} version 5.0")
elif asked[0] == "version":
    sys.exit("cannot connect" if name in told.get("silent", ()) else print("5.0"))
elif asked[0] == "info":
    print(told.get("info", "8000000000 false"))
elif asked[0] == "image":
    sys.exit(0 if told.get("built") else 1)
elif asked[0] == "build":
    print("no route to the packages")
    sys.exit(told.get("build", 0))
elif asked[0] == "kill":
    open(os.environ["ASKED"] + "-killed", "w").close()
elif "--entrypoint=python" in asked:
    refused = "--user=0:0" not in asked and told.get("bare") == "refused" or told.get("root") == "refused"
    sys.exit("no namespaces for you" if refused else 0)
elif asked[0] == "run" and "grade" in asked:
    rules = next(one for one in asked if one.startswith("--security-opt=seccomp="))
    print("FILTER", open(rules.partition("seccomp=")[2]).read(), flush=True)
    until = time.monotonic() + told.get("lasts", 0)
    while time.monotonic() < until and not os.path.exists(os.environ["ASKED"] + "-killed"):
        time.sleep(0.02)
    print("[1/1] ann", flush=True)
    sys.exit(told.get("status", 0))
"""
Asked = Callable[[], list[list[str]]]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Put stand-ins of these engines, and nothing else, on PATH; return what reads what they were asked."""

    def put(*names: str, **told: Any) -> Asked:
        programs, asked = tmp_path / "programs", tmp_path / "asked"
        programs.mkdir(exist_ok=True)
        for name in names:
            (programs / name).write_text(ENGINE.replace("PYTHON", sys.executable), encoding="utf-8")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setenv("ASKED", str(asked))
        monkeypatch.setenv("ENGINE", json.dumps(told))
        monkeypatch.delenv(container.BASE, raising=False)
        return lambda: [json.loads(line) for line in asked.read_text().splitlines()] if asked.exists() else []

    return put


@pytest.fixture
def small(tmp_path: Path) -> Course:
    """A course of nothing but what an image is made of."""
    root = tmp_path / "course"
    for name in (
        "_config.yml",
        "_toc.yml",
        *container.SOURCES[:-1],
        "chapters/x",
        "src/scalelab/grading/sandbox/Containerfile",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    return Course(root)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise NoSandbox("Answers cannot be sandboxed here. --no-sandbox grades without.")

    monkeypatch.setattr(batch, "grade", refuse)


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_caller", lambda: (1234, 567))


def grade(course: Course, folder: Path, *options: str) -> int:
    some = folder / ODD / "submissions"
    some.mkdir(parents=True, exist_ok=True)
    return main(["--course", str(course.root), "grade", str(some), "--out", str(folder / ODD / "grades"), *options])


def run_of(asked: Asked) -> list[str]:
    (found,) = [one for one in asked() if one[1] == "run" and "grade" in one]
    return found


@pytest.mark.usefixtures("refusing", "ordinary")
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_the_same_command_runs_inside_and_reaches_nothing_else(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    asked = engines(name, info="8000000000 false" if name == "podman" else "8000000000 [name=seccomp]")
    roster = tmp_path / "roster.csv"
    roster.touch()
    status = grade(
        small,
        tmp_path,
        *(
            "--jobs",
            "3",
            "--timeout",
            "7.5",
            "--again",
            "--keep-notebooks",
            "--roster",
            str(roster),
            "--canvas-id",
            "08_asyncio=12",
        ),
    )
    assert status == 0
    command = run_of(asked)
    before, after = command[: command.index("--course")], command[command.index("--course") :]
    assert before[0] == name
    assert before[-1].startswith("scalelab-grade:")
    assert {"--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--user=1234:567"} <= {*before}
    assert {"--memory=6000000000b", "--pids-limit=4096", "--security-opt=no-new-privileges"} <= {*before}
    assert not [one for one in before if one.startswith("--cap-add") or one == "--privileged"]
    shown = "unmask=ALL" if name == "podman" else "systempaths=unconfined"
    assert f"--security-opt={shown}" in before
    folder = tmp_path.resolve() / ODD
    mounts = [next(csv.reader(io.StringIO(one.partition("=")[2]))) for one in before if one.startswith("--mount=")]
    assert mounts == [
        ["type=bind", f"source={path}", f"target={path}", *only]
        for path, only in (
            (small.root.resolve(), ["readonly"]),
            (folder / "submissions", ["readonly"]),
            (roster.resolve(), ["readonly"]),
            (folder / "grades", []),
        )
    ]
    assert after == [
        *("--course", str(small.root.resolve()), "grade", str(folder / "submissions"), "--out", str(folder / "grades")),
        *(
            "--timeout=7.5",
            "--again",
            "--keep-notebooks",
            "--jobs=3",
            "--canvas-id=08_asyncio=12",
            "--roster",
            str(roster.resolve()),
        ),
    ]


@pytest.mark.usefixtures("refusing", "ordinary")
def test_it_says_what_it_does_and_passes_on_output_and_status(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engines("podman", status=7)
    assert grade(small, tmp_path) == 7
    building, says, rules, result = capfd.readouterr().out.splitlines()
    assert building.startswith("Building the image scalelab-grade:")
    assert says == (
        "This system has no sandbox for answers: grading in a container of podman's, as an ordinary user without "
        "capabilities."
    )
    assert result == "[1/1] ann"
    filter = json.loads(rules.removeprefix("FILTER "))
    (refused,) = filter["syscalls"]
    assert {"bpf", "ptrace", "keyctl", "init_module", "setns"} <= {*refused["names"]} <= {*DENIED}
    assert refused["action"] == "SCMP_ACT_ERRNO"


@pytest.mark.usefixtures("refusing", "ordinary")
def test_as_root_only_where_nothing_less_will_do(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = engines("docker", bare="refused", built=True, info="8000000000 []")
    assert grade(small, tmp_path) == 0
    assert "as its root with the capabilities SYS_ADMIN, " in capfd.readouterr().out
    command = run_of(asked)
    assert "--user=0:0" in command
    assert {one.partition("=")[2] for one in command if one.startswith("--cap-add")} == {*container.AS_ROOT}
    assert not [one for one in command if "systempaths" in one or "unmask" in one]
    mended = asked()[-1]
    assert "--entrypoint=chown" in mended
    assert mended[-3:] == ["-R", "1234:567", str(tmp_path.resolve() / ODD / "grades")]


@pytest.mark.usefixtures("refusing", "ordinary")
@pytest.mark.parametrize(
    ("info", "user"),
    [
        ("true", ["podman", "--userns=keep-id"]),
        ("[name=seccomp name=rootless]", ["docker", "--user=0:0", "--cap-add=SETFCAP"]),
    ],
)
def test_a_rootless_engine_has_its_own_user_write(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, info: str, user: list[str]
) -> None:
    asked = engines(user[0], info=f"8000000000 {info}", built=True)
    assert grade(small, tmp_path) == 0
    told = [one for one in run_of(asked) if one.startswith(("--user", "--cap-add"))]
    assert told == user[1:]


@pytest.mark.usefixtures("refusing", "ordinary")
def test_where_no_container_can_sandbox_either_nothing_is_graded(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = engines("docker", bare="refused", root="refused", built=True, info="8000000000 []")
    assert grade(small, tmp_path) == REFUSED
    assert "nor in a container of docker's. Nothing was graded.\nas an ordinary user" in capfd.readouterr().err
    assert not [one for one in asked() if "grade" in one]


@pytest.mark.usefixtures("refusing", "ordinary")
def test_an_image_is_built_once_for_each_state_of_the_course(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def image() -> str:
        assert grade(small, tmp_path) == 0
        command = run_of(lambda: asked()[before:])
        return command[command.index("--course") - 1]

    asked, before = engines("podman"), 0
    first = image()
    (build,) = [one for one in asked() if one[1] == "build"]
    assert build[build.index("--tag") + 1] == first
    assert not [one for one in build if one.startswith("--build-arg")]
    before = len(asked())
    engines("podman", built=True)
    assert image() == first
    assert not [one for one in asked()[before:] if one[1] == "build"]
    engines("podman")
    (small.root / "src/scalelab/one.py").write_text("changed = True\n", encoding="utf-8")
    before = len(asked())
    second = image()
    monkeypatch.setenv(container.BASE, "other:1")
    before = len(asked())
    assert len({first, second, image()}) == 3
    (build,) = [one for one in asked()[before:] if one[1] == "build"]
    assert "--build-arg=BASE=other:1" in build


@pytest.mark.usefixtures("refusing", "ordinary")
def test_an_image_that_cannot_be_built_says_what_to_do(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = engines("docker", build=1, info="8000000000 []")
    assert grade(small, tmp_path) == REFUSED
    said = capfd.readouterr().err
    assert "cannot be built by docker, and nothing was graded. It said:\nno route to the packages\n" in said
    assert container.BASE in said
    assert not [one for one in asked() if one[1] == "run"]


@pytest.mark.usefixtures("refusing")
def test_without_an_engine_that_answers_it_is_refused(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = engines("docker", silent=["docker"])
    assert grade(small, tmp_path) == REFUSED
    said = capfd.readouterr().err
    assert "--no-sandbox grades without.\nOr let a container engine run" in said
    assert "docker is here, but does not answer: start it; or install Docker or Podman." in said
    assert {one[1] for one in asked()} == {"version"}


@pytest.mark.usefixtures("refusing")
def test_a_cluster_does_not_go_with_a_container(
    engines: Callable[..., Asked], small: Course, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = engines("podman")
    assert grade(small, tmp_path, "--dask", "tcp://127.0.0.1:1") == REFUSED
    assert "--dask does not go with a container" in capfd.readouterr().err
    assert not asked()


def test_a_folder_that_hides_the_containers_system_is_refused(
    engines: Callable[..., Asked], small: Course, tmp_path: Path
) -> None:
    engines("podman")
    for taken in ("/", "/usr/share", "/etc"):
        with pytest.raises(container.NoContainer, match=r"Nothing was graded\. Use another folder"):
            container.grade_in_container("podman", small, Path(taken), tmp_path / "out", options=[])


@pytest.mark.usefixtures("ordinary")
def test_ctrl_c_ends_the_container_by_the_same_signal(
    engines: Callable[..., Asked], small: Course, tmp_path: Path
) -> None:
    asked = engines("podman", built=True, lasts=60)
    code = """
import sys
from pathlib import Path
from scalelab.course import Course
from scalelab.grading.sandbox import container
container.grade_in_container(sys.argv[1], Course(Path(sys.argv[2])), Path(sys.argv[2]), Path(sys.argv[3]), options=[])
"""
    command = [
        sys.executable,
        "-P",
        "-c",
        code,
        *map(str, (tmp_path / "programs/podman", small.root, tmp_path / "out")),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("FILTER"):
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=50)
    assert "[1/1] ann" in out  # what it still said
    assert "KeyboardInterrupt" in err
    assert time.monotonic() - began < 40
    (run,) = [one for one in asked() if "grade" in one]
    (name,) = [one.partition("=")[2] for one in run if one.startswith("--name=")]
    assert [one[1:] for one in asked() if one[1] == "kill"] == [["kill", "--signal=INT", name]]


def test_doctor_says_which_way_grading_has(engines: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "sandbox_missing", lambda: "")
    engines()
    assert doctor.sandbox_finding().found == "answers' processes start in one"
    monkeypatch.setattr(doctor, "sandbox_missing", lambda: "Refused here.")
    lacking = doctor.sandbox_finding()
    assert lacking.found == ""
    assert lacking.get.startswith("Refused here. To grade without one")
    assert lacking.get.endswith("--no-sandbox; in a container: install Docker or Podman")
    engines("podman")
    assert doctor.sandbox_finding().found == "in a container of podman's"


@pytest.mark.skipif(container.BASE not in os.environ, reason=f"{container.BASE} names no image to build on")
def test_a_real_engine_grades(course: Course, tmp_path: Path) -> None:
    engine, how = find_engine()
    if not engine:
        pytest.skip(f"no container engine answers: {how}")
    submissions, out = tmp_path / ODD / "submissions", tmp_path / ODD / "grades"
    submissions.mkdir(parents=True)
    shutil.copy(course.exercises / "08_asyncio.ipynb", submissions / "ann.ipynb")
    said: list[str] = []
    assert container.grade_in_container(engine, course, submissions, out, options=["--jobs=1"], say=said.append) == 0
    assert "grading in a container" in said[-1]
    grade = json.loads((out / "08_asyncio" / "ann.json").read_text(encoding="utf-8"))
    assert grade["made_with"]["sandbox"] == "yes"
    assert {one["state"] for one in grade["questions"]} == {"failed"}
    assert all(path.stat().st_uid == os.getuid() for path in out.rglob("*"))
    left = subprocess.run([engine, "ps", "--all", "--format={{.Names}}"], capture_output=True, text=True, check=True)
    assert container.IMAGE not in left.stdout
