"""Every chapter has all that a reader is promised, in the same order; and a new one starts with it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import notebooks
import pytest
from nbformat import NotebookNode, v4
from support.commands import run_tool

from ssdlib.zoo.photographs import PHOTOGRAPHS

BOOK = Path(notebooks.__file__).parent.parent / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))

FIRST = ["What you will be able to do", "Before you start"]
LAST = ["The classic mistake", "Check yourself", "Exercises", "Recap", "Further reading"]
REFERENCE = "For reference: "  # sections to look things up may stand between the classic mistake and the questions
KINDS = {"by hand": r"by hand\b", "code": r"(in )?code\b", "think": r"think\b"}

DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,})\{(?P<name>[\w:-]+)\}(?P<title>.*)\n(?P<body>(?:.*\n)*?)(?P=fence)$", re.MULTILINE
)
HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
TIMES = re.compile(r"Reading: \d+ minutes\. Running: [\w ]+ on a CPU\.")


def flaws(notebook: NotebookNode) -> list[str]:
    """What a chapter lacks of the template; empty if nothing."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown") + "\n"
    directives = [match.groupdict() for match in DIRECTIVE.finditer(text)]
    plain = re.sub(r"^(`{3,}).*?\n(?:.*\n)*?\1$", "", text, flags=re.MULTILINE)  # without blocks, as code has "# ..."
    found = []

    headings = [(len(marks), title) for marks, title in HEADING.findall(plain)]
    if [level for level, _ in headings].count(1) != 1 or headings[0][0] != 1:
        found.append("it must begin with its title, the only heading of the first level")
    sections = [title for level, title in headings if level == 2]
    if LAST[0] in sections:
        after = sections.index(LAST[0])
        sections = sections[:after] + [title for title in sections[after:] if not title.startswith(REFERENCE)]
    if sections[:2] != FIRST:
        found.append(f"its first sections must be {FIRST}, not {sections[:2]}")
    if sections[-len(LAST) :] != LAST:
        found.append(f"its last sections must be {LAST}, not {sections[-len(LAST) :]}")
    if len(sections) <= len(FIRST) + len(LAST):
        found.append("it has no section of its own")

    parts = re.split(r"^## +(.+?) *$", plain, flags=re.MULTILINE)
    section = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name in ("What you will be able to do", "Recap"):
        if not re.search(r"^- ", section.get(name, ""), flags=re.MULTILINE):
            found.append(f"{name!r} must be a list")
    if not TIMES.search(re.sub(r"\s+", " ", section.get("Before you start", ""))):
        found.append("'Before you start' must say 'Reading: 20 minutes. Running: under a minute on a CPU.'")
    if "{cite:" not in section.get("Further reading", ""):
        found.append("'Further reading' cites nothing")
    if not any(
        cell.cell_type == "code" and re.search(r"^Quiz\(", cell.source, re.MULTILINE) for cell in notebook.cells
    ):
        found.append("it has no Quiz")
    return found + flaws_of_exercises(directives)


def flaws_of_exercises(directives: list[dict[str, str]]) -> list[str]:
    """What is wrong with the exercises and their solutions."""
    found, solutions, kinds = [], [], set()
    for directive in directives:
        if directive["name"] in ("solution", "solution-start"):
            solutions.append(directive["title"].strip())
            if not re.search(r"^:class: dropdown$", directive["body"], flags=re.MULTILINE):
                found.append(f"the solution of {solutions[-1]} is not hidden (:class: dropdown)")
    exercises = [directive for directive in directives if directive["name"] == "exercise"]
    labels = [(re.findall(r"^:label: (\S+)$", one["body"], flags=re.MULTILINE) or [""])[0] for one in exercises]
    for one, label in zip(exercises, labels, strict=True):
        if solutions.count(label) != 1:
            found.append(f"exercise {label or one['title']!r} has {solutions.count(label)} solutions")
        start = one["title"].strip() or re.sub(r"^:.*\n|^\s+", "", one["body"], flags=re.MULTILINE)
        kinds |= {kind for kind, words in KINDS.items() if re.match(rf"\W*{words}", start, flags=re.IGNORECASE)}
    if len(exercises) < 3:
        found.append(f"it has {len(exercises)} exercises, fewer than 3")
    for kind in KINDS.keys() - kinds:
        found.append(f"no exercise begins with '{kind.capitalize()}:'")
    return found + [f"a solution without exercise: {label}" for label in set(solutions) - set(labels)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_chapter_follows_the_template(path: Path) -> None:
    assert flaws(nbformat.read(path, as_version=4)) == []


def test_labels_are_unique_in_the_book() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in CHAPTERS)
    for pattern in (r":label: ([\w-]+)", r'"name": "(fig-[\w-]+)"', r"^\s*\"?:name: ([\w-]+)"):
        labels = re.findall(pattern, text, flags=re.MULTILINE)
        assert len(labels) == len(set(labels)), sorted(label for label in labels if labels.count(label) > 1)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_terms_stand_where_sample_photographs_stand(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert uncredited(notebook) == []


def uncredited(notebook: NotebookNode) -> list[str]:
    """The sample photographs that a chapter takes and of which it does not say whose they are, and their terms."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    captions = [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for cell in notebook.cells]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    said = re.sub(r"\s+", " ", " ".join(texts + captions))
    taken = [name for name in PHOTOGRAPHS if "sample_photograph" in code and f'"{name}"' in code]
    return [name for name in taken if PHOTOGRAPHS[name][1] not in said]


@pytest.mark.slow
def test_new_chapter_follows_the_template_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "13_transfer.ipynb"
    done = run_tool("new", path, "Learning from other detectors")
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# Learning from other detectors\n")
    assert flaws(notebook) == []
    text = path.read_text(encoding="utf-8")
    assert "TITLE" not in text
    assert "LABEL" not in text
    assert ":label: transfer-ex-hand" in text
    done = run_tool("run", path)
    assert done.returncode == 0, done.stderr
    assert notebooks.check(path) == []


@pytest.mark.slow
def test_new_refuses_what_would_not_be_a_chapter(tmp_path: Path) -> None:
    done = run_tool("new", tmp_path / "transfer.ipynb", "Transfer")
    assert done.returncode == 1
    assert "named like 13_transfer.ipynb" in done.stderr
    (tmp_path / "13_transfer.ipynb").write_text("mine")
    assert "left as it is" in run_tool("new", tmp_path / "13_transfer.ipynb", "Transfer").stderr
    assert (tmp_path / "13_transfer.ipynb").read_text() == "mine"
    assert "needs a file and a title" in run_tool("new", tmp_path / "14_other.ipynb").stderr
    assert [path.name for path in tmp_path.iterdir()] == ["13_transfer.ipynb"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Cells of a new chapter as (type, source)."""
    path = tmp_path_factory.mktemp("chapter") / "13_transfer.ipynb"
    notebooks.new(path, "Transfer")
    return [(cell.cell_type, cell.source) for cell in nbformat.read(path, as_version=4).cells]


def test_reference_sections_stand_after_the_classic_mistake(whole: list[tuple[str, str]]) -> None:
    def with_section(title: str) -> list[str]:
        added = f"## {title}\n\n## Check yourself"
        make = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
        return flaws(v4.new_notebook(cells=[make[kind](s.replace("## Check yourself", added)) for kind, s in whole]))

    assert with_section("For reference: recipes") == []
    assert any("its last sections must be" in flaw for flaw in with_section("Recipes"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("# Transfer", "## Transfer", "must begin with its title"),
        ("## The first idea", "# The first idea", "must begin with its title"),
        ("## Before you start", "## Prerequisites", "its first sections must be"),
        ("## Recap", "## Summary", "its last sections must be"),
        ("## The first idea", "", "no section of its own"),
        ("- Begin each line", "Begin each line", "'What you will be able to do' must be a list"),
        ("- Four to six", "Four to six", "'Recap' must be a list"),
        ("Reading: 20 minutes.", "Reading: some time.", "must say 'Reading"),
        ("Running: under a minute on a CPU.", "", "must say 'Reading"),
        ("{cite:t}`liu2016ssd`", "the paper", "cites nothing"),
        ("Quiz(", "print(", "has no Quiz"),
        ("{exercise} Think: a name", "{note}", "2 exercises, fewer than 3"),
        ("{exercise} Think: a name", "{exercise} A name", "no exercise begins with 'Think:'"),
        ("{exercise} By hand: a name", "{exercise} A hard one", "no exercise begins with 'By hand:'"),
        ("{solution} transfer-ex-hand", "{solution} transfer-ex-think", "exercise 'transfer-ex-hand' has 0 solutions"),
        ("{solution} transfer-ex-hand", "{solution} other", "a solution without exercise: other"),
        ("{solution} transfer-ex-hand\n:class: dropdown", "{solution} transfer-ex-hand", "is not hidden"),
        ("{solution-start} transfer-ex-code\n:class: dropdown", "{solution-start} transfer-ex-code", "is not hidden"),
    ],
)
def test_what_is_missing_is_named(whole: list[tuple[str, str]], old: str, new: str, complaint: str) -> None:
    make = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    assert any(old in source for _, source in whole)
    broken = v4.new_notebook(cells=[make[kind](source.replace(old, new)) for kind, source in whole])
    assert any(complaint in flaw for flaw in flaws(broken)), flaws(broken)


WIDTH = 76  # characters that fit into the column of the page; book/ruff.toml formats to it


def lines_of_the_page(notebook: NotebookNode) -> list[str]:
    """All lines of code that a page shows, or shows when they are unfolded."""
    hidden = {"remove-cell", "remove-input"}
    cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and not hidden & {*cell.metadata.get("tags", ())}
    ]
    return [line for cell in cells for line in cell.source.splitlines()]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_code_on_the_page_is_narrow_and_glues_nothing(path: Path) -> None:
    lines = lines_of_the_page(nbformat.read(path, as_version=4))
    assert [line for line in lines if len(line) > WIDTH] == []
    assert [line for line in lines if re.match(r"\s*glue\(", line)] == []


def test_hidden_lines_may_be_long() -> None:
    cells = [v4.new_code_cell("glue(1)", metadata={"tags": ["remove-input"]}), v4.new_code_cell("a\nglue(2)")]
    assert lines_of_the_page(v4.new_notebook(cells=[*cells, v4.new_markdown_cell("text")])) == ["a", "glue(2)"]


def dots(notebook: NotebookNode) -> list[str]:
    """Cells with a figure of dots on a white ground, which stays white on a dark page."""
    return [
        cell.id
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if {"image/png", "image/jpeg"} & {*output.get("data", {})}
    ]


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda path: path.name)
def test_figures_are_drawings_which_take_the_colours_of_the_page(path: Path) -> None:
    assert dots(nbformat.read(path, as_version=4)) == []
