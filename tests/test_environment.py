"""One environment, described several times: pyproject.toml asks, the locks answer, environment.yml repeats."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml
from jsonschema import validate
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import scalelab
from scalelab.course import Course
from scalelab.servers import KINDS

PINNED = re.compile(
    r"^(?P<requirement>[^\s#][^\\\n]*?)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE
)


@pytest.fixture
def project(course: Course) -> dict[str, Any]:
    return tomllib.loads((course.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def conda(course: Course) -> dict[str, Any]:
    return yaml.safe_load((course.root / "environment.yml").read_text(encoding="utf-8"))


@pytest.fixture
def lock(course: Course) -> str:
    """The student's lock, and what developers need besides."""
    locks = [(course.root / name).read_text(encoding="utf-8") for name in ("requirements.lock", "developers.lock")]
    return "".join(locks)


def pins(lock: str, python: str | None = None) -> dict[str, str]:
    """Return the version that the lock gives each package on Python `python` (default: this one)."""
    environment = {} if python is None else {"python_version": python, "python_full_version": f"{python}.0"}
    found = {}
    for match in PINNED.finditer(lock):
        requirement = Requirement(match["requirement"])
        assert match["hashes"], f"{requirement.name} has no hash"
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            found[canonicalize_name(requirement.name)] = pin.version
    return found


def conda_python(conda: dict[str, Any]) -> str:
    (python,) = [entry for entry in conda["dependencies"] if isinstance(entry, str) and entry.startswith("python=")]
    return python.removeprefix("python=")


def test_environment_yml_is_the_lock(course: Course, conda: dict[str, Any], project: dict[str, Any]) -> None:
    assert conda["channels"] == ["conda-forge", "nodefaults"]
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock"]
    # Nothing else comes from conda: a package from there could be another version than the lock's.
    assert [entry for entry in conda["dependencies"] if isinstance(entry, str)] == [
        f"python={conda_python(conda)}",
        "pip",
    ]
    assert conda_python(conda) in SpecifierSet(project["requires-python"])


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_answers_what_the_project_asks(python: str, lock: str, project: dict[str, Any]) -> None:
    assert python in SpecifierSet(project["requires-python"])
    pinned = pins(lock, python)
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    for text in asked:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is in no lock: run `make lock`"
        assert pinned[name] in requirement.specifier, f"{name} {pinned[name]} is not {requirement}: run `make lock`"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_developers_have_the_students_versions(course: Course, python: str) -> None:
    student, developer = (
        pins((course.root / name).read_text(encoding="utf-8"), python)
        for name in ("requirements.lock", "developers.lock")
    )
    shared = student.keys() & developer.keys()
    assert {name: developer[name] for name in shared} == {name: student[name] for name in shared}


def test_students_install_no_test_tools(course: Course, project: dict[str, Any]) -> None:
    student = pins((course.root / "requirements.lock").read_text(encoding="utf-8"))
    tools = {canonicalize_name(Requirement(text).name) for text in project["optional-dependencies"]["test"]}
    assert not tools & student.keys()


def test_the_lock_names_no_host(lock: str) -> None:
    assert "//" not in lock
    assert "--index" not in lock


def test_this_environment_is_the_lock(lock: str) -> None:
    installed = {
        canonicalize_name(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()
    }
    other = {
        name: (version, installed.get(name)) for name, version in pins(lock).items() if installed.get(name) != version
    }
    assert other == {}, "locked, installed; `make` installs what is locked"


def test_the_citation_names_this_version(course: Course) -> None:
    citation = yaml.safe_load((course.root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == scalelab.__version__ == importlib.metadata.version("scalelab")


@pytest.mark.skipif(sys.platform == "win32", reason="Binder is Linux; files on Windows have no executable bit")
def test_binder_finds_what_it_runs(course: Course) -> None:
    # repo2docker ignores these two where a folder `binder` or `.binder` exists.
    assert not (course.root / "binder").exists()
    assert not (course.root / ".binder").exists()
    script = course.root / "postBuild"
    assert os.access(script, os.X_OK)
    settings = re.search(r"cp (\S+) ", script.read_text(encoding="utf-8"))
    assert settings is not None
    assert (course.root / settings.group(1)).is_file()


def test_binder_installs_the_package_as_make_does(course: Course) -> None:
    install = "--no-deps --no-build-isolation -e ."
    assert f"pip install {install}\n" in (course.root / "postBuild").read_text(encoding="utf-8")
    assert f"pip install --quiet {install}\n" in (course.root / "Makefile").read_text(encoding="utf-8")


COMMANDS = {"type": "string", "minLength": 1}
DEV_CONTAINER: dict[str, Any] = {
    "type": "object",
    "required": ["name", "image", "updateContentCommand"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string", "pattern": r"^[a-z]+:[\w.-]+$"},  # without a host
        "hostRequirements": {
            "additionalProperties": False,
            "properties": {
                "cpus": {"type": "integer", "minimum": 1},
                "memory": {"pattern": r"^\d+[tgmk]b$"},
                "storage": {"pattern": r"^\d+[tgmk]b$"},
            },
        },
        "mounts": {
            "type": "array",
            "items": {
                "required": ["type", "target"],
                "additionalProperties": False,
                "properties": {"type": {"enum": ["bind", "volume"]}, "source": {}, "target": {}},
            },
        },
        "onCreateCommand": COMMANDS,
        "updateContentCommand": COMMANDS,
        "postAttachCommand": COMMANDS,
        "portsAttributes": {
            "additionalProperties": {
                "additionalProperties": False,
                "properties": {"label": {"type": "string"}, "onAutoForward": {"enum": ["notify", "silent", "ignore"]}},
            }
        },
        "customizations": {"type": "object"},
    },
}
"""The fields of a dev container's description that ours has, as its specification types them."""


def test_the_dev_container_is_this_environment(course: Course, conda: dict[str, Any], project: dict[str, Any]) -> None:
    made = json.loads((course.root / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    validate(made, DEV_CONTAINER)
    assert made["image"].partition(":")[2].partition("-")[0] == conda_python(conda)
    stamp = made["updateContentCommand"].removeprefix("make ")
    makefile = (course.root / "Makefile").read_text(encoding="utf-8")
    assert f"STAMP := {stamp}\n" in makefile
    # A .venv of the machine outside would be broken inside, and its stamp would keep make from making another.
    assert [mount["target"] for mount in made["mounts"]] == ["${containerWorkspaceFolder}/.venv"]
    ci = (course.root / ".ci" / "run").read_text(encoding="utf-8")
    packages = "-m scalelab.servers packages debian)"
    assert made["onCreateCommand"].endswith(f" chromium $(PYTHONPATH=src python3 {packages}")
    assert f'packages="$(PYTHONPATH=src "${{PYTHON:-python3}}" {packages}"' in ci


def test_the_packages_of_servers_are_listed_before_the_environment_exists(course: Course) -> None:
    command = [sys.executable, "-S", "-m", "scalelab.servers", "packages", "debian"]  # -S: without site-packages
    done = subprocess.run(command, cwd=course.root / "src", capture_output=True, text=True, check=True)
    here = [line for line in done.stderr.splitlines() if line.startswith("Here: ")]
    packages = {kind.debian for kind in KINDS.values()} - {""}
    assert set(done.stdout.split()) <= packages
    assert len(done.stdout.split()) + len(here) == len(KINDS)
