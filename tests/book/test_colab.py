"""The chapters in plain Markdown: every construct has its form, nothing is left over, and the doors are friendly."""

from __future__ import annotations

import re
from pathlib import Path

import address
import colab
import launch
import nbformat
import notebooks
import plain_markdown
import pytest
from nbformat import NotebookNode, v4
from plain_markdown import MarkupError, Words
from pybtex.database import parse_string

CHAPTERS = sorted(notebooks.BOOK.glob("*.ipynb"))
SOURCES = """
@article{one2020a, author = {One, Ann}, title = {A}, year = {2020}, eprint = {2001.00001}, archiveprefix = {arXiv}}
@article{two2021b, author = {Two, Bo and Three, Cy}, title = {B}, year = {2021}}
@article{four2022c, author = {Four, D. and Five, E. and Six, F.}, title = {C}, year = {2022}, doi = {10.1/x}}
"""


def words(**others: object) -> Words:
    """A book of two chapters."""
    known: dict[str, object] = {
        "titles": {"01_a.ipynb": "The first", "02_b.ipynb": "The second", "notation.md": "Notation"},
        "meanings": {"prior": 'a "box" of |x|'},
        "sources": parse_string(SOURCES, "bibtex"),
        "figures": {"fig-a": ("01_a.ipynb", 1), "fig-b": ("02_b.ipynb", 3)},
        "equations": {"eq-a": ("01_a.ipynb", 2)},
        "link": lambda file: file if file.endswith(".ipynb") else None,
        "glued": {"count": "8,732"},
        "file": "01_a.ipynb",
    }
    return Words(**{**known, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("There are {glue:text}`count`.", "There are 8,732."),
        ("A {term}`Prior` is", 'A <abbr title="a &quot;box&quot; of &#124;x&#124;">Prior</abbr> is'),
        ("Many {term}`priors <prior>`", 'Many <abbr title="a &quot;box&quot; of &#124;x&#124;">priors</abbr>'),
        ("{cite:t}`one2020a` say", "[One (2020)](https://arxiv.org/abs/2001.00001) say"),
        ("so {cite:p}`two2021b,four2022c`", "so (Two and Three, 2021; [Four et al., 2022](https://doi.org/10.1/x))"),
        ("See {numref}`fig-a`.", "See figure 1."),
        ("See {numref}`fig-b`.", "See figure 3 of [The second](02_b.ipynb)."),
        ("By {eq}`eq-a`", "By (2)"),
        ("$$x = 1$$ (eq-a)", r"$$x = 1\tag{2}$$"),
        ("[](02_b.ipynb), [it](02_b.ipynb#x)", "[The second](02_b.ipynb), [it](02_b.ipynb)"),
        ("[](notation.md)", "*Notation*"),
        ("{playground}`one map\nonly <maps=coarse>`", "one map only (on the book's page *Playground*)"),
        ("{doc}`here <02_b>` {doc}`02_b`", "[here](02_b.ipynb) [The second](02_b.ipynb)"),
        ("{func}`~ssdlib.iou` {func}`x <ssdlib.x>`", "`ssdlib.iou` `x`"),
        ("code `{term}` stays, and $a_b$", "code `{term}` stays, and $a_b$"),
        ("```python\n{term}`x`\n```", "```python\n{term}`x`\n```"),
        ("(a-place)=\n% a remark\nText", "Text"),
        ("```{note}\nMind {glue:text}`count`.\n```", "> **Note.** Mind 8,732."),
        ("```{admonition} Why\n:class: tip\nSo.\n\nAnd so.\n```", "> **Why.** So.\n>\n> And so."),
        (":::{tip}\nDo.\n:::", "> **Tip.** Do."),
        ("```{exercise} By hand\n:label: ex\nDo it.\n```", "### Exercise: By hand\n\nDo it."),
        (
            "```{clip} moves\n:alt: A ball rolls.\n\nWhat is seen.\n```",
            "*On the book's page a clip plays here.* What is seen.\n\n"
            "<details>\n<summary>What the clip shows</summary>\n\nA ball rolls.\n\n</details>",
        ),
        (
            "````{solution} ex\n:class: dropdown\nSo:\n\n```python\nx = 1\n```\n````",
            "<details>\n<summary>Solution</summary>\n\nSo:\n\n```python\nx = 1\n```\n\n</details>",
        ),
        ("Batch\n: is 32", "- **Batch**: is 32"),
    ],
)
def test_markup_has_a_plain_form(markup: str, expected: str) -> None:
    assert plain_markdown.plain(markup, words()) == expected


@pytest.mark.parametrize(
    ("markup", "message"),
    [
        ("{glue:text}`nowhere`", "no cell glues 'nowhere'"),
        ("{term}`nonsense`", "the glossary has no 'nonsense'"),
        ("{eq}`eq-nowhere`", "no chapter has 'eq-nowhere'"),
        ("{strange}`x`", "role 'strange'"),
        ("```{strange}\nx\n```", "directive 'strange'"),
        ("a {{ substitution }}", "left over"),
    ],
)
def test_unknown_markup_is_refused(markup: str, message: str) -> None:
    with pytest.raises(MarkupError, match=re.escape(message)):
        plain_markdown.plain(markup, words())


def test_glossary_is_read_from_its_source() -> None:
    text = (notebooks.BOOK / "glossary.md").read_text(encoding="utf-8")
    found = plain_markdown.glossary_of(text)
    assert found["prior"] == found["anchor"] == found["default box"]
    assert (
        found["aspect ratio"]
        == "Width divided by height. A prior of scale s and aspect ratio a is s√a wide and s/√a high."
    )
    assert not [term for term, meaning in found.items() if not meaning or re.search(r"\{\w+\}|[`$\\]|Chapter", meaning)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ssdlib.book import glue\nx = 1\nglue('a', x)", "x = 1"),
        (
            "from ssdlib.book import glue, recorded\nglue(\n    'a',\n    1,\n)\nprint(2)",
            "from ssdlib.book import recorded\nprint(2)",
        ),
        ("for i in range(3):\n    glue(str(i), i)", "for i in range(3):\n    pass"),
        ("glue('a', 1)", ""),
        ("%pip install x\nglue('a', 1)", "%pip install x\nglue('a', 1)"),
        ("x = 1  # kept\n", "x = 1  # kept"),
    ],
)
def test_glue_leaves_the_code(source: str, expected: str) -> None:
    assert colab.without_glue(source) == expected


def chapter() -> NotebookNode:
    glued = v4.new_output("display_data", {"application/papermill.record/text/plain": "'8,732'"})
    glued.metadata = {"scrapbook": {"name": "count", "mime_prefix": "application/papermill.record/"}}
    drawing = v4.new_output("display_data", {"image/svg+xml": "<svg/>", "text/plain": "<Figure>"})
    widget = '<div class="ssd-widget-place"><img><script type="application/json">{}</script></div>'
    options = {"mystnb": {"figure": {"name": "fig-a", "caption": "Of {glue:text}`count`."}, "image": {"alt": 'a "b"'}}}
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# The first\n\nSee {numref}`fig-a`."),
            v4.new_code_cell("os.environ.get('SSDLIB_SOURCE')", metadata={"tags": ["remove-cell"]}),
            v4.new_code_cell("secret = 1", metadata={"tags": ["remove-cell"]}),
            v4.new_code_cell("glue('count', 8732)", outputs=[glued]),
            v4.new_code_cell("plot()", outputs=[drawing], metadata={"tags": ["hide-input", "guess"], **options}),
            v4.new_code_cell("Quiz([])", outputs=[v4.new_output("display_data", {"text/html": widget})]),
            v4.new_markdown_cell("Now\n\n```{solution-start} ex\n:class: dropdown\n```\n\nso:"),
            v4.new_code_cell("print(1)"),
            v4.new_markdown_cell("```{solution-end}\n```\n\nThe end."),
        ]
    )


def test_what_only_a_kernel_can_do_stays_open(tmp_path: Path) -> None:
    """The page shows nothing of such a cell, and the notebook all."""
    cell = v4.new_code_cell("try_it()", metadata={"tags": ["remove-input", "remove-output"]})
    text = v4.new_markdown_cell("# The first")
    cells = colab.colab_version(v4.new_notebook(cells=[text, cell]), "01_a.ipynb", words(), tmp_path).cells
    assert (cells[1].source, cells[1].metadata) == ("try_it()", {})


def test_cells_are_closed_captioned_and_folded(tmp_path: Path) -> None:
    cells = colab.colab_version(chapter(), "01_a.ipynb", words(), tmp_path).cells
    sources = [cell.source for cell in cells]
    assert sources == [
        "# The first\n\nSee figure 1.",
        "# @title Install the book's package, where it is missing\nos.environ.get('SSDLIB_SOURCE')",
        "# @title The code of the figure\nplot()",
        "*Figure 1.* Of 8,732.",
        "# @title A quiz: run this cell to answer it\nQuiz([])",
        "Now",
        "<details>\n<summary>Solution</summary>\n\nso:\n\n</details>\n",
        "# @title The code of the solution\nprint(1)",
        "The end.",
    ]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.metadata["jupyter"]["source_hidden"] and cell.metadata["cellView"] == "form" for cell in code)
    assert [cell.metadata["jupyter"].get("outputs_hidden", False) for cell in code] == [False, True, False, False]
    html = code[1].outputs[0].data["text/html"]
    assert html.startswith('<img alt="a &quot;b&quot;" src="data:image/svg+xml;base64,')
    assert "script" not in code[2].outputs[0].data["text/html"]
    assert len({cell.id for cell in cells}) == len(cells)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_has_a_plain_form(path: Path) -> None:
    known = colab.words_of(notebooks.ROOT)
    made = colab.colab_version(nbformat.read(path, as_version=4), path.name, known, path.parent)
    nbformat.validate(made)
    for cell in made.cells:
        assert "glue(" not in cell.source
        if cell.cell_type == "markdown":
            assert not plain_markdown.LEFT_OVER.search(plain_markdown.CODE.sub("", cell.source))
            for file in re.findall(r"\]\((\w+\.ipynb)\)", cell.source):
                assert (notebooks.BOOK / file).is_file()
    assert len(notebooks.dump(made).encode()) <= 700_000
    assert all(
        not output.get("metadata", {}).get("scrapbook") for cell in made.cells for output in cell.get("outputs", [])
    )


def test_links_lead_to_colab_where_the_repository_is_known() -> None:
    url = "https://github.com/someone-made-up/ssd-book"
    site = "https://someone-made-up.github.io/ssd-book"
    assert colab.linked("01_a.ipynb", "", "") == "01_a.ipynb"
    assert colab.linked("notation.md", "", "") is None
    opened = "https://colab.research.google.com/github/someone-made-up/ssd-book/blob/colab/book/01_a.ipynb"
    assert colab.linked("01_a.ipynb", url, site) == opened
    assert colab.linked("notation.md", url, site) == f"{site}/book/notation.html"


@pytest.mark.parametrize(
    ("url", "base", "site"),
    [
        ("", "", ""),
        ("https://gitlab.com/made-up/ssd-book", "", ""),
        ("https://gitlab.com/made-up/ssd-book", "https://made-up.example/book/", "https://made-up.example/book"),
        ("https://github.com/Made-Up/ssd-book", "", "https://made-up.github.io/ssd-book"),
        ("https://github.com/made-up/made-up.github.io", "", "https://made-up.github.io"),
    ],
)
def test_the_site_lies_where_github_puts_it_or_where_its_owner_says(url: str, base: str, site: str) -> None:
    config = f'html:\n  baseurl: "{base}"\n\nrepository:\n  url: "{url}"\n'
    assert address.site_in(config) == site


def test_launch_buttons_lead_to_the_plain_form() -> None:
    binder = {"text": "Binder", "url": "https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/book/01_a.ipynb"}
    own = {"text": "Colab", "url": "https://colab.research.google.com/github/a/b/blob/main/book/01_a.ipynb"}
    edit = {"text": "Edit", "url": "https://github.com/a/b/edit/main/book/01_a.ipynb"}
    buttons = [{"type": "group", "buttons": [binder, own]}, edit]
    launch.redirect(buttons, "main")
    assert own["url"].endswith("/blob/colab/book/01_a.ipynb")
    assert binder["url"] == "https://mybinder.org/v2/gh/a/b/colab?urlpath=lab/tree/book/01_a.ipynb"
    assert "/edit/main/" in edit["url"]
    assert launch.BRANCH == colab.BRANCH
    script = (notebooks.ROOT / ".ci" / "colab").read_text(encoding="utf-8")
    assert f"git push --force origin HEAD:{colab.BRANCH}" in script
