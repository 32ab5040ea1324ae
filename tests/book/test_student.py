"""Tests of the student version of the chapters: what is left out, what stays, and that it can be worked with."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import jupytext
import nbformat
import notebooks
import pytest
import student
from nbformat import NotebookNode, v4

from ssdlib import exercises

CHAPTERS = sorted(notebooks.BOOK.glob("[0-9][0-9]_*.ipynb"))
CHAPTER = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)

EXERCISES = """\
Before.

```{exercise} By hand: a sum
:label: ex-sum
What is $1 + 1$?
```

````{solution} ex-sum
:class: dropdown
It is two, as `{glue:text}` would say.
```
still the solution
```
````

Between.

```{exercise}
:label: ex-double
Write `double`.
```

```{solution-start} ex-double
:class: dropdown
```

Add it to itself.
"""
CODE = '''\
import math
from operator import (
    add,
)

# the secret is to add
helper = 12


def double(x):
    # the secret is to add
    """Twice the number.

    Of any type.
    """
    return add(x, x)


class Doubler:
    secret = 1


answer = double(21)
check_double(double)
check_value(
    answer,
)
print(answer)
'''
SKELETON = '''\
import math
from operator import (
    add,
)
def double(x):
    """Twice the number.

    Of any type.
    """
    ...  # your answer


answer = ...  # your answer
check_double(double)
check_value(
    answer,
)'''


def chapter(*cells: NotebookNode) -> NotebookNode:
    """A notebook with the two exercises, and these cells in the solution of the second."""
    words = "{term}`After <after>` {glue:text}`there`, {glue:text}`nowhere`, {term}`IoU`."
    end = v4.new_markdown_cell(f"The end.\n\n```{{solution-end}}\n```\n\n{words}")
    glued = v4.new_output("display_data", {"application/papermill.record/text/plain": "'5 %'"})
    glued.metadata = {"scrapbook": {"name": "there", "mime_prefix": "application/papermill.record/"}}
    first = v4.new_code_cell("x = 1", execution_count=1, outputs=[glued], metadata={"tags": ["hide-input"]})
    return v4.new_notebook(cells=[first, v4.new_markdown_cell(EXERCISES), *cells, end])


@functools.cache
def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def text_of(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells)


def outside_and_inside(path: Path) -> tuple[set[str], set[str]]:
    """The lines of a chapter outside of all solutions, and those inside, found line by line in its text."""
    outside: set[str] = set()
    inside: set[str] = set()
    fence, gated = "", False
    for line in jupytext.writes(notebooks.clean(read(path)), fmt="md:myst").splitlines():
        start = re.match(r"(`{3,})\{solution\}", line)
        if line.startswith(("```{solution-start}", "````{solution-start}")):
            gated = True
        elif re.match(r"`{3,}\{solution-end\}", line):
            gated = False
        elif start:
            fence = start[1]
        elif fence and line.strip() == fence:
            fence = ""
        else:
            (inside if fence or gated else outside).add(line.strip())
    return outside, inside


def test_solutions_are_left_out_and_the_rest_stays() -> None:
    version = student.student_version(chapter(v4.new_code_cell(CODE)))
    assert [(cell.cell_type, cell.source) for cell in version.cells] == [
        ("code", "x = 1"),
        (
            "markdown",
            "Before.\n\n### Exercise: By hand: a sum\n\nWhat is $1 + 1$?\n\n*Your answer:*\n\n"
            "Between.\n\n### Exercise\n\nWrite `double`.",
        ),
        ("code", SKELETON),
        ("markdown", "*After* 5 %, {glue:text}`nowhere`, *IoU*."),
    ]
    assert version.cells[0].outputs == []
    assert version.cells[0].metadata == {"tags": ["hide-input"]}


def test_solution_without_a_function_leaves_a_place_for_the_answer() -> None:
    cells = [v4.new_code_cell("print(1 + 1)"), v4.new_markdown_cell("And so on."), v4.new_code_cell("x = 2")]
    assert [c.source for c in student.student_version(chapter(*cells)).cells][2:-1] == [student.CODE_PLACE]
    assert [c.source for c in student.student_version(chapter()).cells][2:-1] == [student.TEXT_PLACE]


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        (["```{solution-start} a\n```", "```{solution-start} b\n```"], "inside of another"),
        (["```{solution-end}\n```"], "did not begin"),
        (["```{solution-start} a\n```", "text"], "does not end"),
    ],
)
def test_solutions_that_do_not_end_are_refused(sources: list[str], complaint: str) -> None:
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(source) for source in sources])
    with pytest.raises(student.StudentError, match=complaint):
        student.student_version(notebook)


@CHAPTER
def test_student_version_of_a_chapter_holds_no_solution(path: Path) -> None:
    version = student.student_version(read(path))
    nbformat.validate(version)
    lines = {line.strip() for line in text_of(version).splitlines()}
    outside, inside = outside_and_inside(path)
    assert inside, "no solution found"
    docstrings = "\n".join(re.findall(r'""".*?"""', text_of(version), flags=re.DOTALL))
    stays = re.compile(r"def |import |from |check_|[)\]]|\w+: [\w., :]+$|$")  # and the parameters of a long signature
    assert [line for line in (inside - outside) & lines if not stays.match(line) and line not in docstrings] == []
    prose = {line.strip() for c in read(path).cells if c.cell_type == "markdown" for line in c.source.splitlines()}
    missing = [
        line for line in (outside & prose) - lines if len(line) > 60 and not re.search("^(`|:)|{(glue|term)", line)
    ]
    assert missing == [], "more than the solutions is left out"
    assert "{exercise" not in text_of(version)
    assert "{solution" not in text_of(version)
    assert not any(cell.get("outputs") for cell in version.cells)


@CHAPTER
def test_checkers_of_a_chapter_stay_in_its_student_version(path: Path) -> None:
    called = re.compile(rf"^({'|'.join(exercises.__all__)})\(", flags=re.MULTILINE)
    notebook = read(path)
    assert called.findall(text_of(student.student_version(notebook))) == called.findall(text_of(notebook))


@CHAPTER
def test_checkers_tell_the_student_that_nothing_is_there_yet(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = [cell.source for cell in student.student_version(read(path)).cells if cell.cell_type == "code"]
    namespace: dict[str, object] = {}
    code = [source for source in code if "%pip" not in source]  # the door is IPython's, and nothing to solve
    for source in code:
        imports = [s for s in ast.parse(source).body if isinstance(s, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), path.name, "exec"), namespace)
    for source in code:
        if re.search("^check_", source, flags=re.MULTILINE):
            exec(source, namespace)
            assert capsys.readouterr().out.startswith("Not yet"), source


def test_command_writes_clean_notebooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student.main([str(CHAPTERS[1]), "--to", str(tmp_path / "new" / "folder")])
    assert capsys.readouterr().out.startswith("1 notebooks without solutions")
    (path,) = (tmp_path / "new" / "folder").iterdir()
    text = path.read_text(encoding="utf-8")
    assert text == notebooks.dump(notebooks.clean(nbformat.reads(text, as_version=4)))
    assert len(text) < 0.4 * CHAPTERS[1].stat().st_size


def test_command_names_the_chapter_that_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.ipynb"
    path.write_text(notebooks.dump(v4.new_notebook(cells=[v4.new_markdown_cell("```{solution-start} a\n```")])))
    with pytest.raises(SystemExit, match=r"odd\.ipynb: the last solution does not end"):
        student.main([str(path), "--to", str(tmp_path)])
