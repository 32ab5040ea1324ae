"""What contributors and hosts read: workflows, hooks, forms, the citation, and the commands that the documents name."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from support.repository import PYTHONS, ROOT

import ssdlib

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "book/testing.md",
    "book/faq.md",
    "book/teaching.md",
]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def targets() -> set[str]:
    """What make can be asked for."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["ci", "nightly", "pages"])
def test_workflow_runs_what_is_there_with_few_rights(name: str) -> None:
    workflow = load(f".github/workflows/{name}.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow[True]  # YAML reads the key `on` as true
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
        else:
            program, *arguments = shlex.split(step["run"])
            assert (program == "make" and set(arguments) <= targets()) or (ROOT / program).is_file(), step["run"]
    for step in steps:
        for key in ("path", "cache-dependency-path"):
            value = step.get("with", {}).get(key)
            assert value in (None, "_build/html") or (ROOT / value).is_file(), value
    for job in workflow["jobs"].values():
        for needed in [job["needs"]] if "needs" in job else []:
            assert needed in workflow["jobs"]


def test_checks_run_on_every_python_system_and_the_lowest_versions() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    assert jobs["all"]["strategy"]["matrix"]["python"] == PYTHONS
    assert jobs["portable"]["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]
    (python,) = (step["with"]["python-version"] for step in jobs["lowest"]["steps"] if "python-version" in str(step))
    assert python == PYTHONS[0]
    for job in jobs.values():  # whatever shell a system has, bash is what the scripts are for
        assert "windows" not in str(job) or all(step.get("shell") == "bash" for step in job["steps"] if "run" in step)


def test_pythons_are_those_of_the_metadata() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text) == PYTHONS
    assert f'requires-python = ">={PYTHONS[0]}"' in text


def test_lowest_versions_are_those_of_the_metadata() -> None:
    """A floor that is raised in pyproject.toml needs a new lock."""
    pinned = dict(
        re.findall(r"^([\w-]+)==([^ \n]+)", (ROOT / "constraints-lowest.txt").read_text(), flags=re.MULTILINE)
    )
    (command,) = re.findall(r"--resolution lowest-direct .*?> constraints", makefile_text(), flags=re.DOTALL)
    extras = ["", *re.findall(r"--extra (\w+)", command)]  # those that the lock is for
    floors = [
        (asked.name, specifier.version)
        for asked in map(Requirement, importlib.metadata.requires("ssdlib") or [])
        if not asked.marker or any(asked.marker.evaluate({"extra": extra}) for extra in extras)
        for specifier in asked.specifier
        if specifier.operator == ">="
    ]
    assert {"torch", "pillow", "pytest", "pycocotools"} <= {name for name, _ in floors}
    for name, floor in floors:
        assert Version(pinned[name]) == Version(floor), f"{name}: run `make constraints`"


def makefile_text() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.slow
def test_hooks_are_our_own_and_pass_on_a_clean_file() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    files = {"notebooks": "book/01_detection.ipynb"}
    for hook in repository["hooks"]:
        program, *arguments = shlex.split(hook["entry"])
        assert hook["language"] == "system"
        program = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or ""
        assert program, hook["entry"]
        look_only = ["--check"] if hook["id"] == "ruff-format" else []
        command = [program, *arguments, *look_only, files.get(hook["id"], "ssdlib/boxes.py")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_notebook_hook_stops_an_unclean_notebook(tmp_path: Path) -> None:
    (hook,) = (h for h in load(".pre-commit-config.yaml")["repos"][0]["hooks"] if h["id"] == "notebooks")
    assert re.search(hook["files"], "book/02_boxes.ipynb")
    assert not re.search(hook["files"], "notes.ipynb")
    text = (ROOT / "book" / "01_detection.ipynb").read_text(encoding="utf-8")
    (tmp_path / "x.ipynb").write_text(text.replace('"metadata": {}', '"metadata": {"collapsed": true}', 1))
    done = subprocess.run([*shlex.split(hook["entry"]), str(tmp_path / "x.ipynb")], cwd=ROOT, capture_output=True)
    assert done.returncode == 1


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")), ids=lambda path: path.name)
def test_forms_for_issues_have_their_head(path: Path) -> None:
    head = yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
    assert set(head) == {"name", "about", "title", "labels"}
    assert head["name"]
    assert head["about"]


def test_citation_is_complete_and_of_this_version() -> None:
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == ssdlib.__version__
    assert citation["type"] == "software"
    assert citation["authors"] == [{"name": load("_config.yml")["author"]}]
    assert citation["title"] == load("_config.yml")["title"]


def test_changelog_has_known_headings() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert versions[0] == "Unreleased" or versions[0].startswith(ssdlib.__version__)
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_files_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    commands = re.findall(r"`make [^`\n]+`|^\$ .*$", text, flags=re.MULTILINE)
    asked = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(commands)))
    assert asked <= targets(), asked - targets()
    for file in re.findall(r"`((?:tools|tests|book|ssdlib|benchmarks)/[\w./-]+\.\w+)`", text):
        assert (ROOT / file).exists() or "NAME" in file, f"{name} names {file}"
    for link in re.findall(r"\]\(([\w./]+\.md)\)", text):
        assert ((ROOT / name).parent / link).is_file(), f"{name} links to {link}"


def test_contributing_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split()) < 1200


def test_the_ways_of_an_image_lead_through_what_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ssdlib/[\w/]+\.py)` \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert len(rows) >= 18
    for file, names in rows:
        there = {getattr(node, "name", "") for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body}
        asked = re.findall(r"`(\w+)`", names)
        assert asked
        assert set(asked) <= there, f"{file} has no {set(asked) - there}"


def test_the_map_names_every_part() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    start = text.index("| part of `ssdlib/` |")
    named = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text[start:].split("\n\n")[0].splitlines()))
    )
    parts = {
        path.stem for path in (ROOT / "ssdlib").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert parts - {"__init__", "__main__", "book"} <= named
