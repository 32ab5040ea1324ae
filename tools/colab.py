"""Write the chapters in a form that is right in every notebook editor: build/colab, for Colab, Lab and VS Code.

    python tools/colab.py [FILE ...] [--to FOLDER]     all of book/ into build/colab by default

The chapters are written in MyST, which only the builder of the pages understands. In this form numbers are filled in,
terms carry their meaning, citations and references are links or words, solutions are folded, and the code that makes
figures, quizzes and settings is closed. Where _config.yml names the repository (tools/address.py), links lead there.
"""

from __future__ import annotations

import argparse
import ast
import base64
import copy
import mimetypes
import re
import sys
from html import escape
from pathlib import Path

import address
import nbformat
import notebooks
import plain_markdown
from nbformat import NotebookNode, v4
from plain_markdown import MarkupError, Words
from pybtex.database import parse_file
from student import glued_values

from ssdlib.data.files import write_text

BRANCH = "colab"  # where the workflow puts this form, and the launch buttons of the pages look for it
CLOSED = {"hide-input", "remove-input"}
SCRIPT = re.compile(r'<script type="application/json".*?</script>', re.DOTALL)
EQUATION = re.compile(r"\$\$[ \t]*\(([\w-]+)\)[ \t]*$", re.MULTILINE)
FIGURE = re.compile(r"^:name: (fig-[\w-]+)$", re.MULTILINE)
SOLUTION = re.compile(r"^`{3,}\{solution-(start|end)\}.*\n(?:.*\n)*?`{3,}[ \t]*$", re.MULTILINE)


def words_of(root: Path) -> Words:
    """What the chapters refer to, read from the sources of the book."""
    titles: dict[str, str] = {}
    figures: dict[str, tuple[str, int]] = {}
    equations: dict[str, tuple[str, int]] = {}
    for path in sorted((root / "book").glob("*.md")):
        found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        titles[path.name] = found[1] if found else path.stem
    for path in sorted((root / "book").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        titles[path.name] = re.findall(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)[0]
        numbers = {"figure": 0, "equation": 0}
        for cell in notebook.cells:
            named = FIGURE.findall(cell.source) if cell.cell_type == "markdown" else []
            if name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
                named.append(name)
            for name in named:
                numbers["figure"] += 1
                figures[name] = (path.name, numbers["figure"])
            for name in EQUATION.findall(cell.source) if cell.cell_type == "markdown" else []:
                numbers["equation"] += 1
                equations[name] = (path.name, numbers["equation"])
    config = (root / "_config.yml").read_text(encoding="utf-8")
    url, site = address.address_in(config), address.site_in(config)
    return Words(
        titles=titles,
        meanings=plain_markdown.glossary_of((root / "book" / "glossary.md").read_text(encoding="utf-8")),
        sources=parse_file(root / "book" / "references.bib"),
        figures=figures,
        equations=equations,
        link=lambda file: linked(file, url, site),
    )


def linked(file: str, url: str, site: str) -> str | None:
    """The address of a file of the book: a chapter lies beside, on GitHub opens in Colab; other pages are the site's.

    Args:
        file: its name in `book`.
        url: address of the repository, or empty.
        site: address of the built site, or empty: then there is no address for a page.
    """
    if file.endswith(".ipynb"):
        if not url.startswith("https://github.com/"):
            return file
        return f"https://colab.research.google.com/github/{url.split('/', 3)[3]}/blob/{BRANCH}/book/{file}"
    return f"{site}/book/{Path(file).stem}.html" if site else None


def colab_version(notebook: NotebookNode, file: str, words: Words, folder: Path) -> NotebookNode:
    """Copy a chapter in the plain form.

    Args:
        notebook: the chapter.
        file: its name.
        words: what it refers to.
        folder: in which it lies, for its pictures.

    Raises:
        MarkupError: if it has markup without a plain form.
    """
    words = Words(**{**vars(words), "glued": glued_values(notebook), "file": file})
    cells: list[NotebookNode] = []
    in_solution = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for kind, text in _cut(cell.source):
                if kind == "text" and text.strip():
                    plain = plain_markdown.plain(text, words)
                    cells.append(
                        v4.new_markdown_cell(plain_markdown.folded("Solution", plain) if in_solution else plain)
                    )
                    _attach_pictures(cells[-1], folder)
                elif kind in ("start", "end"):
                    in_solution = kind == "start"
            continue
        code = _code_cell(cell, in_solution)
        if code is not None:
            cells.append(code)
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if caption:
            number = words.figures[cell.metadata["mystnb"]["figure"]["name"]][1]
            cells.append(v4.new_markdown_cell(f"*Figure {number}.* {plain_markdown.plain(caption, words)}"))
    made = notebooks.clean(v4.new_notebook(cells=cells, metadata=copy.deepcopy(notebook.metadata)))
    made.metadata.pop("fingerprint", None)
    for old, new in zip((cell for cell in cells if cell.source.strip()), made.cells, strict=True):
        new.metadata = old.metadata  # also what Colab reads
    return made


def _cut(source: str) -> list[tuple[str, str]]:
    """A text at the beginnings and ends of solutions with code."""
    pieces, at = [], 0
    for found in SOLUTION.finditer(source):
        pieces += [("text", source[at : found.start()]), (found[1], "")]
        at = found.end()
    return [*pieces, ("text", source[at:])]


def _code_cell(cell: NotebookNode, in_solution: bool) -> NotebookNode | None:
    """A code cell without glue, closed where its code is not the point; None where nothing is left of it."""
    tags = set(cell.metadata.get("tags", []))
    door = "SSDLIB_SOURCE" in cell.source
    source = without_glue(cell.source)
    outputs = [new for output in cell.outputs if (new := _output(output, cell)) is not None]
    if not source.strip() or ("remove-cell" in tags and not door):
        return None
    what = "Install the book's package, where it is missing" if door else ""
    if "Quiz(" in source:
        what = "A quiz: run this cell to answer it"
    elif in_solution:
        what = "The code of the solution"
    elif not door and tags & CLOSED and "remove-output" not in tags:  # pages lack both of what only a kernel can do
        what = "The code of the figure" if cell.metadata.get("mystnb", {}).get("figure") else "Settings and helpers"
    metadata: dict[str, object] = {}
    if what:
        metadata = {"jupyter": {"source_hidden": True}, "cellView": "form"}
        source = f"# @title {what}\n{source}"
    if "guess" in tags:
        metadata["jupyter"] = {**metadata.get("jupyter", {}), "outputs_hidden": True}  # type: ignore[dict-item]
    return v4.new_code_cell(source, metadata=metadata, outputs=outputs, execution_count=cell.execution_count)


def without_glue(source: str) -> str:
    """Code without the lines that keep numbers for the text of the pages."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a command such as %pip
        return source
    lines: list[str | None] = [*source.split("\n")]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(name.name == "glue" for name in node.names):
            node.names = [name for name in node.names if name.name != "glue"]
            new = ast.unparse(node) if node.names else None
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _is_glue(node.value):
            new = None if node.col_offset == 0 else f"{' ' * node.col_offset}pass"
        else:
            continue
        lines[node.lineno - 1 : node.end_lineno] = [new] + [None] * ((node.end_lineno or node.lineno) - node.lineno)
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(line for line in lines if line is not None)).strip("\n")


def _is_glue(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "glue"


def _output(output: NotebookNode, cell: NotebookNode) -> NotebookNode | None:
    """An output that every editor shows, before the cell is run too: drawings as pictures with their description."""
    if output.get("metadata", {}).get("scrapbook"):
        return None
    new = copy.deepcopy(output)
    data = new.get("data", {})
    if "image/svg+xml" in data:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        picture = base64.b64encode(data.pop("image/svg+xml").encode()).decode("ascii")
        data["text/html"] = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{picture}">'
    if 'class="ssd-widget-place"' in data.get("text/html", ""):
        data["text/html"] = SCRIPT.sub("", data["text/html"]) + "\n<p>Run this cell to play with it.</p>"
    return new


def _attach_pictures(cell: NotebookNode, folder: Path) -> None:
    """Pictures of the book inside of the cell that shows them."""
    for alt, name in re.findall(r"!\[([^\]]*)\]\((?!https?:|attachment:)([^)]+)\)", cell.source):
        path = folder / name
        kind = mimetypes.guess_type(path.name)[0] or "image/png"
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        cell.setdefault("attachments", {})[path.name] = {kind: content}
        cell.source = cell.source.replace(f"![{alt}]({name})", f"![{alt}](attachment:{path.name})")


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--to", type=Path, default=notebooks.ROOT / "build" / "colab")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    words = words_of(notebooks.ROOT)
    files = options.files or sorted(notebooks.BOOK.glob("*.ipynb"))
    for path in files:
        try:
            made = colab_version(nbformat.read(path, as_version=4), path.name, words, path.parent)
        except MarkupError as error:
            sys.exit(f"{path}: {error}")
        write_text(options.to / path.name, notebooks.dump(made))
    print(f"{len(files)} notebooks in plain Markdown in {options.to}")


if __name__ == "__main__":
    main()
