"""Tests of the fingerprints by which a build knows which chapters it has to run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprints
import nbformat
import pytest
from nbformat import v4
from support.repository import ROOT

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def short(path: Path) -> str:
    """The number of a chapter, the name of an appendix."""
    return path.stem[:2] if path.stem[0].isdigit() else path.stem


NUMBERS = [short(path) for path in NOTEBOOKS]


def chapter(*sources: str) -> Any:
    """A notebook of code cells."""
    return v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])


def modules(root: Path, *sources: str) -> set[str]:
    """The modules that cells depend on, without "ssdlib."."""
    return {name.removeprefix("ssdlib.") for name in fingerprints.closure(sources, root)[0]}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that fingerprints look at, with notebooks whose fingerprints hold."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "ssdlib", root / "ssdlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data" / "sample", root / "data" / "sample")
    for name in ("constraints.txt", fingerprints.ENVIRONMENT):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"][fingerprints.KEY] = fingerprints.fingerprint(notebook, root)
        (root / "book" / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    return root


def stale(root: Path) -> dict[str, list[str]]:
    """The chapters of a copy that a build would run, by their numbers, and why."""
    found = {}
    for path in sorted((root / "book").glob("*.ipynb")):
        if why := fingerprints.changes(json.loads(path.read_text(encoding="utf-8")), root):
            found[short(path)] = why
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_committed_outputs_are_those_of_the_code_as_it_is(path: Path) -> None:
    why = fingerprints.changes(nbformat.read(path, as_version=4), ROOT)
    assert not why, f"{path.name}: {', '.join(why)}; run `make notebooks NB=stale`, and look at what moved"


@pytest.mark.parametrize(
    ("name", "chapters"),
    [
        ("ssdlib/boxes.py", NUMBERS),
        ("ssdlib/widgets/jaccard.py", ["02"]),
        ("ssdlib/widgets/kernel.py", ["11"]),
        ("ssdlib/exercises/nms.py", ["07"]),
        ("ssdlib/cli/train.py", ["12"]),  # by `python -m ssdlib`
        ("ssdlib/training.py", ["11", "12", "13", "20", "21", "22", "23", "appendix_setup"]),
        ("ssdlib/engine/records/tiny_toy.json", ["11", "12", "appendix_speed"]),
        ("ssdlib/engine/records/bench.json", ["12", "17", "appendix_speed"]),  # 12 and the appendix look what there is
        (
            "ssdlib/zoo/weights/ssd_tiny_toy.safetensors",
            ["01", "06", "07", "08", *NUMBERS[9:16], "18", "19", "20", "23", "24", "appendix_setup"],
        ),
        ("ssdlib/family/weights/one_to_one.safetensors", ["20", "21", "23", "24"]),
        ("ssdlib/zoo/outputs/photographs.safetensors", ["01", "03", "05", "07", "14", "21"]),
        ("data/sample/toy.json", [name for name in NUMBERS if name not in ("13", "15", "17", "24", "appendix_speed")]),
        ("constraints.txt", NUMBERS),
        ("book/_ext/kernel_environment.py", NUMBERS),
        ("ssdlib/deploy_later.py", []),  # nobody imports it
        ("ssdlib/widgets/static/jaccard.mjs", []),  # the page has it from elsewhere than the outputs
    ],
)
def test_change_makes_exactly_those_chapters_stale_that_depend_on_it(
    original: Path, name: str, chapters: list[str]
) -> None:
    assert set(chapters) <= set(NUMBERS)
    path = original / name
    before = path.read_bytes() if path.exists() else None
    try:
        addition = b"torch==99 ; python_version > '4'\n" if name == "constraints.txt" else b"\nCHANGED = True\n"
        path.write_bytes((before or b"") + addition)
        found = stale(original)
        assert list(found) == chapters
        for why in found.values():
            assert why in ([f"{name} changed"], [f"{name.rpartition('/')[0]} changed"], ["version of torch changed"])
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    assert stale(original) == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('from ssdlib.book import glue, recorded\nrecorded("speed")["rows"], recorded("steps")', {"speed", "steps"}),
        ('from ssdlib.book import recorded\nrecorded(f"tiny_{1}")', None),
        ('from ssdlib.book import recorded\nprint("recorded by", recorded("steps"))', {"steps"}),
        ('from ssdlib.book import recorded\nlook = recorded\nrecorded("speed"), look("steps")', None),
        ('from ssdlib.book import RECORDS, recorded\nrecorded("speed")', None),
    ],
)
def test_records_are_those_that_are_named(source: str, names: set[str] | None) -> None:
    assert fingerprints.records_named([source], ["ssdlib.book", "ssdlib.boxes"], ROOT) == names


def test_a_module_may_read_any_record(tmp_path: Path) -> None:
    (tmp_path / "ssdlib").mkdir()
    (tmp_path / "ssdlib" / "figures.py").write_text("from ssdlib.book import recorded\n")
    source = 'from ssdlib.book import recorded\nrecorded("speed")'
    assert fingerprints.records_named([source], ["ssdlib.figures"], tmp_path) is None


def test_everything_that_a_chapter_can_read_is_part_of_a_fingerprint(original: Path) -> None:
    known = tuple(f"{folder}/" for folder in fingerprints.DATA) + fingerprints.NO_RESULT
    files = {path.relative_to(original).as_posix() for path in fingerprints.files_of(original / "ssdlib")}
    assert [name for name in files if not name.endswith(".py") and not name.startswith(known)] == []
    for folder, readers in fingerprints.DATA.items():
        assert (original / folder).is_dir()
        for reader in readers:
            module, _, name = reader.rpartition(".")
            _, names = fingerprints.closure([f"from {module} import {name}"], ROOT)
            assert reader in names
    assert fingerprints.pins(ROOT).keys() == {f"version of {name}" for name in fingerprints.PINS}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("import one", {"one"}),
        ("from one import x", {"one"}),
        ("from pack import far", {"far"}),
        ("from pack import near", {"pack.near", "one"}),
        ("import pack", {"pack", "pack.near", "far", "one"}),
        ("from pack import *", {"pack", "pack.near", "far", "one"}),
        ("from busy import x", {"busy", "one"}),
        ("import busy.quiet", {"busy", "busy.quiet", "one"}),
        ("import late", {"late", "one"}),
        ("%pip install nothing\nimport one\n!ls", {"one"}),
        ("import subprocess\nsubprocess.run(['python', '-m', 'ssdlib'])", {"__main__", "one"}),
        ("text = 'import one'", set()),
    ],
)
def test_imports_are_followed_to_the_modules_that_count(tmp_path: Path, cell: str, expected: set[str]) -> None:
    files = {
        "__init__": '"""All."""\n\n__version__ = "1"\n',
        "__main__": "import ssdlib.one\n",
        "one": "x = 1\n",
        "far": "f = 1\n",
        "late": "def g():\n    if True:\n        from ssdlib import one\n",
        "pack/__init__": "from ssdlib.far import f as far\nfrom ssdlib.pack.near import near\n__all__ = []\n",
        "pack/near": "from .. import one\n\nnear = one\n",
        "busy/__init__": "from ssdlib import one\n\nx = print(one)\n",
        "busy/quiet": "",
    }
    for name, source in files.items():
        path = tmp_path / "ssdlib" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    cell = cell.replace("import one", "import ssdlib.one").replace("from one", "from ssdlib.one")
    for name in ("pack", "busy", "late"):
        cell = cell.replace(f"import {name}", f"import ssdlib.{name}").replace(f"from {name}", f"from ssdlib.{name}")
    assert modules(tmp_path, cell) == expected


@pytest.mark.parametrize("cell", ["import ssdlib", "from ssdlib.nowhere import x", "import ssdlib.moon", "if:"])
def test_imports_that_cannot_be_followed_are_a_reason_to_run(cell: str) -> None:
    notebook = chapter(cell)
    notebook.metadata[fingerprints.KEY] = {"code cells": "0"}
    (why,) = fingerprints.changes(notebook, ROOT)
    assert why.startswith("its imports cannot be followed: ")
    assert fingerprints.state(notebook, ROOT) == {}


def test_cell_with_the_address_of_the_repository_does_not_count() -> None:
    door = "import os\nos.environ.get('SSDLIB_SOURCE', '{}')"
    with_address, without = (chapter(door.format(a), "print(1)") for a in ("", "git+https://example.org/a/b"))
    assert fingerprints.fingerprint(with_address, ROOT) == fingerprints.fingerprint(without, ROOT)
    assert fingerprints.fingerprint(chapter("print(2)"), ROOT) != fingerprints.fingerprint(without, ROOT)


CODE = '''"""Module."""

def f(x):  # why
    """What."""
    # how
    text = """a # no comment

    b"""

    return x, text
'''


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda s: s.replace("Module", "Größe\n\nmore"), True),
        (lambda s: s.replace("# why", "").replace("# how\n", "# ä\n    # b\n"), True),
        (lambda s: s.replace('    """What."""\n', ""), True),
        (lambda s: s.replace('"""\n\n    return', '"""\n    return'), True),
        (lambda s: s.replace("return x,", "return  x,"), False),
        (lambda s: s.replace("# no comment", "# a comment"), False),
        (lambda s: s.replace("comment\n\n    b", "comment\n    b"), False),
        (lambda s: s.replace("comment\n", "comment \n"), False),
        (lambda s: s.replace("return x, text", "return text, x"), False),
    ],
)
def test_of_a_python_file_the_code_counts_alone(change: Callable[[str], str], same: bool) -> None:
    assert change(CODE) != CODE
    assert (fingerprints.code_only(change(CODE)) == fingerprints.code_only(CODE)) is same


@pytest.mark.parametrize(
    ("cell", "counts"),
    [
        ("import ssdlib.boxes", False),
        ("import inspect, ssdlib.boxes\nprint(inspect.getsource(ssdlib.boxes))", True),
        ("import ssdlib.boxes\nhelp(ssdlib.boxes)", True),
        ("import ssdlib.boxes\nssdlib.boxes?", True),
        ("import ssdlib.boxes\nprint(ssdlib.boxes.__doc__)", True),
    ],
)
def test_comments_count_where_a_chapter_shows_the_source(original: Path, cell: str, counts: bool) -> None:
    path = original / "ssdlib" / "boxes.py"
    before = path.read_text(encoding="utf-8")
    first = fingerprints.fingerprint(chapter(cell), original)
    try:
        path.write_text(before + "# one more comment\n", encoding="utf-8")
        assert (fingerprints.fingerprint(chapter(cell), original) != first) is counts
    finally:
        path.write_text(before, encoding="utf-8")
