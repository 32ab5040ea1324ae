"""Tests of the book's own Sphinx extensions, on a book of three chapters and a library of a few lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fingerprints
import nbformat
import pytest
from nbformat import v4

pytestmark = pytest.mark.slow

EXTENSIONS = Path(fingerprints.__file__).parent
LIBRARY = {
    "__init__": "",
    "parts/__init__": "from ssdlib.parts.answer import ANSWER\nfrom ssdlib.parts.question import ask\n",
    "parts/answer": "from ssdlib.base import DIGITS\n\nANSWER = int(DIGITS)\n",
    "parts/question": "def ask():\n    from ssdlib.lazy import TEXT\n\n    return TEXT\n",
    "base": 'DIGITS = "41"\n',
    "lazy": 'TEXT = "why?"\n',
}
CHAPTERS = {
    "index": "from ssdlib.parts import ANSWER\n\nprint(ANSWER)",
    "asking": "from ssdlib.parts import ask\n\nprint(ask())",
    "alone": "print(6 * 7)",
}


class SmallBook:
    """A book in a folder of its own; each chapter notes its runs in a file, and prints what the library says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, source in LIBRARY.items():
            self.write(name, source)
        settings = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["myst_nb", "known_results"]
nb_execution_mode = "off"
exclude_patterns = ["_build", "ssdlib"]
"""
        (folder / "conf.py").write_text(settings, encoding="utf-8")
        for name, source in CHAPTERS.items():
            notes = f"""
import os, sys
open("runs", "a").write("{name}\\n")
assert os.environ["PYTHONHASHSEED"] == "0" and "inline" in os.environ["MPLBACKEND"]
sys.path.insert(0, "")
"""
            text = "# Title\n\n```{toctree}\nasking\nalone\n```" if name == "index" else "# Title"
            cells = [v4.new_markdown_cell(text), v4.new_code_cell(notes + source)]
            output = v4.new_output("stream", name="stdout", text=f"as committed: {name}\n")
            notebook = v4.new_notebook(cells=cells)
            cells[1].outputs, cells[1].execution_count = [output], 1
            notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            notebook.metadata[fingerprints.KEY] = fingerprints.fingerprint(notebook, folder)
            nbformat.write(notebook, folder / f"{name}.ipynb")
        self.committed = self.notebooks()

    def write(self, name: str, source: str) -> None:
        """Write a module of the library."""
        path = self.folder / "ssdlib" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")

    def notebooks(self) -> dict[str, bytes]:
        """The contents of the notebooks."""
        return {path.stem: path.read_bytes() for path in self.folder.glob("*.ipynb")}

    def page(self, name: str) -> str:
        """The text of a built page."""
        return (self.folder / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")

    def build(self, run: str = "") -> tuple[int, list[str], str]:
        """Build as strictly as `make book`, in an untidy environment.

        Returns:
            The exit status, the chapters that were run, in the order of their names, and what was printed.
        """
        options = ["-W", "--keep-going", "-d", "_build/.doctrees", ".", "_build/html"]
        untidy = {**os.environ, "MPLBACKEND": "agg", "PYTHONHASHSEED": "7", "BOOK_RUN": run}
        command = [sys.executable, "-m", "sphinx", *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=untidy)
        runs = self.folder / "runs"
        ran = sorted(runs.read_text(encoding="utf-8").split()) if runs.exists() else []
        runs.unlink(missing_ok=True)
        return done.returncode, ran, done.stdout + done.stderr


@pytest.fixture
def book(tmp_path: Path) -> SmallBook:
    return SmallBook(tmp_path)


def test_first_build_runs_nothing_that_is_known(book: SmallBook) -> None:
    """Neither comments nor dates nor compiled code change what is known."""
    book.write("base", '"""What is known."""\n\n# The answer, nearly.\nDIGITS = "41"  # or 42\n')
    (book.folder / "ssdlib" / "__pycache__").mkdir(exist_ok=True)
    (book.folder / "ssdlib" / "__pycache__" / "other.pyc").write_bytes(b"x")
    status, ran, said = book.build()
    assert (status, ran) == (0, []), said
    for name in CHAPTERS:
        assert f"as committed: {name}" in book.page(name)


def test_exactly_the_chapters_run_that_import_what_changed(book: SmallBook) -> None:
    book.write("base", 'DIGITS = "43"\n')
    status, ran, said = book.build()
    assert (status, ran) == (0, ["index"]), said
    assert "index is run: ssdlib/base.py changed" in said
    assert "43" in book.page("index")
    assert "as committed" not in book.page("index")
    assert "as committed" in book.page("asking")
    assert book.notebooks() == book.committed, "what a build computes is for the page, not for the notebook"

    book.write("lazy", 'TEXT = "how?"\n')
    status, ran, said = book.build()
    assert (status, ran) == (0, ["asking"]), f"what the last build ran is known, too\n{said}"
    assert "how?" in book.page("asking")
    assert "43" in book.page("index")

    book.write("base", LIBRARY["base"])
    status, ran, said = book.build()
    assert (status, ran) == (0, []), said
    assert "as committed: index" in book.page("index"), "the committed outputs are right again"


def test_every_chapter_runs_when_that_is_asked_for(book: SmallBook) -> None:
    for _ in range(2):
        status, ran, said = book.build(run="all")
        assert (status, ran) == (0, ["alone", "asking", "index"]), said
    assert "42" in book.page("alone")
    status, ran, said = book.build(run="most")
    assert status != 0
    assert ran == []
    assert "BOOK_RUN" in said


def test_what_cannot_be_known_runs_and_a_failure_fails_every_build_until_it_is_mended(book: SmallBook) -> None:
    """A chapter without fingerprint, one whose imports cannot be followed, and one that raises."""
    path = book.folder / "alone.ipynb"
    notebook = nbformat.read(path, as_version=4)
    del notebook.metadata[fingerprints.KEY]
    nbformat.write(notebook, path)
    (book.folder / "ssdlib" / "lazy.py").unlink()
    book.write("base", "DIGITS = 1 / 0\n")
    status, ran, said = book.build()
    assert status != 0, "two cells raise, and the build must say so"
    assert ran == ["alone", "asking", "index"]
    assert "alone is run: it has no fingerprint" in said
    assert "asking is run: its imports cannot be followed" in said
    assert "asking.err.log" in said, "the report of what was raised"
    assert "index.err.log" in said

    book.write("lazy", LIBRARY["lazy"])
    status, ran, said = book.build()
    assert status != 0, "a second build must not be silent about the failure that is left"
    assert "index" in ran
    book.write("base", 'DIGITS = "42"\n')
    status, ran, said = book.build()
    assert status == 0, said
    assert "index" in ran
    assert "42" in book.page("index")
