"""The tests themselves: where they lie, and that each module of them stands alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.repository import ROOT

TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("test_*.py"))
MIRRORED = {"core": ROOT / "ssdlib", **{name: ROOT / "ssdlib" / name for name in ("data", "engine", "zoo")}}
"""Folders of tests whose modules are named after those of a folder of the package."""


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def test_names_are_used_once() -> None:
    """A name says where it is: `support`, `tools` and `tests` are all on the path."""
    names = [path.stem for path in MODULES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_test_module_imports_another(path: Path) -> None:
    """Helpers live in tests/support, and fixtures there or in conftest.py."""
    others = {other.stem for other in MODULES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        parts = {part for name in names for part in name.split(".")}
        assert not parts & (others | {"conftest", "tests", ""}), f"line {node.lineno}: {names}"


@pytest.mark.parametrize("folder", MIRRORED)
def test_modules_of_tests_are_named_after_modules_of_the_package(folder: str) -> None:
    """test_MODULE.py, or test_MODULE_ASPECT.py where one file would be too long."""
    there = {path.stem for path in MIRRORED[folder].iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__"}
    for path in sorted((TESTS / folder).glob("test_*.py")):
        words = path.stem.removeprefix("test_").split("_")
        prefixes = {"_".join(words[: n + 1]) for n in range(len(words))}
        assert prefixes & there, f"{name_of(path)} is named after no module of {MIRRORED[folder].relative_to(ROOT)}"
