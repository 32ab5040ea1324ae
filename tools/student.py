"""Make the student version of the chapters: the same notebooks without outputs and without solutions.

    python tools/student.py [FILE ...] [--to FOLDER]     all of book/ into build/student by default

Texts of solutions are left out. Of their code stay the imports, the signatures and docstrings of the functions, and the
calls of the checkers (`check_...`), so that the student fills in the rest and runs the cell.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import notebooks
from nbformat import NotebookNode, v4

from ssdlib.data.files import write_text

TEXT_PLACE = "*Your answer:*"
CODE_PLACE = "# your answer"

DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,})\{(?P<name>exercise|solution|solution-start|solution-end)\}(?P<title>.*)\n"
    r"(?P<body>(?:.*\n)*?)(?P=fence)`*[ \t]*$",
    flags=re.MULTILINE,
)
OPTION = re.compile(r"^:[\w-]+:.*\n", flags=re.MULTILINE)
TERM = re.compile(r"\{term\}`([^`<]+?)(?: <[^`]*>)?`")
GLUED = re.compile(r"\{glue:text\}`([^`]+)`")


class StudentError(Exception):
    """A chapter whose solutions cannot be told from the rest."""


def student_version(notebook: NotebookNode) -> NotebookNode:
    """Copy a chapter for students.

    Raises:
        StudentError: if a solution does not end, or begins inside of another.
    """
    glued = glued_values(notebook)
    cells: list[NotebookNode] = []
    solution: list[str] | None = None  # the code cells of the solution that we are in
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if solution is None:
                cells.append(v4.new_code_cell(cell.source, metadata=cell.metadata))
            else:
                solution.append(cell.source)
            continue
        text = ""
        for kind, piece in pieces(cell.source):
            if kind == "solution-start":
                if solution is not None:
                    raise StudentError(f"a solution begins inside of another: {piece!r}")
                solution = []
            elif kind == "solution-end":
                if solution is None:
                    raise StudentError("a solution ends that did not begin")
                cells += [v4.new_markdown_cell(text), *places(solution)]
                text, solution = "", None
            elif solution is None:
                text += readable(piece) if kind == "exercise" else TEXT_PLACE if kind == "solution" else piece
        cells.append(v4.new_markdown_cell(text))
    if solution is not None:
        raise StudentError("the last solution does not end")
    for cell in cells:
        if cell.cell_type == "markdown":
            text = GLUED.sub(lambda m: glued.get(m[1], m[0]), cell.source)
            cell.source = TERM.sub(r"*\1*", text).strip()
    return notebooks.clean(v4.new_notebook(cells=cells, metadata=notebook.metadata))


def pieces(source: str) -> Iterator[tuple[str, str]]:
    """Cut a text at its exercises and solutions: ("text" or a directive's name, the piece)."""
    at = 0
    for found in DIRECTIVE.finditer(source):
        yield "text", source[at : found.start()]
        yield found["name"], found["title"].strip() + "\n" + found["body"]
        at = found.end()
    yield "text", source[at:]


def readable(exercise: str) -> str:
    """An exercise as ordinary Markdown: Jupyter does not know the directive."""
    title, body = exercise.split("\n", 1)
    return f"### Exercise{': ' if title else ''}{title}\n\n{OPTION.sub('', body).strip()}"


def places(code: list[str]) -> list[NotebookNode]:
    """The cells for the student's answer, made from the code cells of the solution."""
    if not code:
        return [v4.new_markdown_cell(TEXT_PLACE)]
    kept = [stub for source in code if (stub := skeleton(source))]
    return [v4.new_code_cell(source) for source in kept or [CODE_PLACE]]


def skeleton(source: str) -> str:
    """What the student sees of a code cell: imports, functions without a body, and the checkers with their values."""
    lines = source.splitlines()
    statements = ast.parse(source).body
    calls = [s for s in statements if is_checker_call(s)]
    checked = {node.id for call in calls for node in ast.walk(call) if isinstance(node, ast.Name)}
    kept: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.FunctionDef):
            kept.append("\n".join(stub(statement, lines)) + "\n\n")
        elif isinstance(statement, ast.Assign) and checked & set(names(statement)):
            kept.append(f"{' = '.join(ast.unparse(t) for t in statement.targets)} = ...  {CODE_PLACE}")
        elif isinstance(statement, ast.Import | ast.ImportFrom) or statement in calls:
            kept.append("\n".join(lines[statement.lineno - 1 : statement.end_lineno]))
    return "\n".join(kept).strip("\n")


def is_checker_call(statement: ast.stmt) -> bool:
    """Whether a statement is a call of a `check_...` function."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name.startswith("check_")
    return False


def names(statement: ast.Assign) -> Iterator[str]:
    """The names that a statement gives a value to."""
    for target in statement.targets:
        yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def stub(function: ast.FunctionDef, lines: list[str]) -> Iterator[str]:
    """The lines of a function without its body."""
    first = function.body[0]
    yield from (line for line in lines[function.lineno - 1 : first.lineno - 1] if not line.lstrip().startswith("#"))
    if ast.get_docstring(function) is not None:
        yield from lines[first.lineno - 1 : first.end_lineno]
    yield f"{' ' * first.col_offset}...  {CODE_PLACE}"


def glued_values(notebook: NotebookNode) -> dict[str, str]:
    """The numbers of the saved outputs that the text quotes by name."""
    values = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            glued = output.get("metadata", {}).get("scrapbook")
            if glued:
                values[glued["name"]] = ast.literal_eval(output.data[glued["mime_prefix"] + "text/plain"])
    return values


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--to", type=Path, default=notebooks.ROOT / "build" / "student")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    files = options.files or sorted(notebooks.BOOK.glob("*.ipynb"))
    for path in files:
        try:
            student = student_version(nbformat.read(path, as_version=4))
        except (StudentError, SyntaxError) as error:
            sys.exit(f"{path}: {error}")
        write_text(options.to / path.name, notebooks.dump(student))
    print(f"{len(files)} notebooks without solutions in {options.to}")


if __name__ == "__main__":
    main()
