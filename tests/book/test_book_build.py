"""Tests of the book's own Sphinx extensions, on a book of one notebook and a library of one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

EXTENSIONS = Path(__file__).resolve().parents[2] / "book" / "_ext"


class SmallBook:
    """A book in a folder of its own: `ssdlib/answer.py`, and a notebook that prints what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library = folder / "ssdlib" / "answer.py"
        self.library.parent.mkdir()
        self.library.write_text("ANSWER = 41\n", encoding="utf-8")
        settings = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["myst_nb", "fresh_execution"]
nb_execution_mode = "cache"
exclude_patterns = ["_build", "ssdlib"]
"""
        (folder / "conf.py").write_text(settings, encoding="utf-8")
        source = """
import os, sys
open("runs", "a").write("x")  # a note of each run
assert os.environ["PYTHONHASHSEED"] == "0" and "inline" in os.environ["MPLBACKEND"]
sys.path.insert(0, "")
from ssdlib.answer import ANSWER
print(ANSWER)
"""
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), v4.new_code_cell(source)])
        nbformat.write(notebook, folder / "index.ipynb")

    @property
    def runs(self) -> int:
        """How often the notebook was run so far."""
        return len((self.folder / "runs").read_text(encoding="utf-8"))

    def build(self) -> tuple[int, str]:
        """Build as strictly as `make book`, in an untidy environment; return the exit status and the page."""
        options = ["-q", "-W", "--keep-going", "-d", "_build/.doctrees", ".", "_build/html"]
        untidy = {**os.environ, "MPLBACKEND": "agg", "PYTHONHASHSEED": "7"}
        command = [sys.executable, "-m", "sphinx", *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=untidy)
        page = self.folder / "_build" / "html" / "index.html"
        return done.returncode, page.read_text(encoding="utf-8") if page.is_file() else done.stderr


@pytest.fixture
def book(tmp_path: Path) -> SmallBook:
    return SmallBook(tmp_path)


def test_chapters_run_again_when_the_library_changes_and_only_then(book: SmallBook) -> None:
    status, page = book.build()
    assert status == 0, page
    assert "41" in page
    os.utime(book.library)
    (book.library.parent / "__pycache__").mkdir(exist_ok=True)
    (book.library.parent / "__pycache__" / "other.pyc").write_bytes(b"x")
    assert book.build()[0] == 0
    assert book.runs == 1, "neither a date nor compiled code is a change"
    book.library.write_text("ANSWER = 42\n", encoding="utf-8")
    status, page = book.build()
    assert (status, book.runs) == (0, 2)
    assert "42" in page


def test_failed_chapter_fails_every_build_until_it_is_mended(book: SmallBook) -> None:
    book.library.write_text("ANSWER = 1 / 0\n", encoding="utf-8")
    assert book.build()[0] != 0
    assert book.build()[0] != 0, "a second build must not be silent about the failure"
    book.library.write_text("ANSWER = 42\n", encoding="utf-8")
    status, page = book.build()
    assert status == 0
    assert "42" in page
