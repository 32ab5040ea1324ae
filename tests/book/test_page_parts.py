"""What the pages gain from book/_ext: folded answers, drawings in the colours of the theme, the meanings of words.

A little book of two pages is built with these parts alone, and read, looked at and used in the browser.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import drawings
import guesses
import matplotlib
import meanings
import nbformat
import pytest
from nbformat import v4
from support.browser import OpenPage, violations
from support.small_site import build

from ssdlib.book import as_drawing

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CONF = """
extensions = ["myst_nb", "drawings", "guesses", "meanings"]
nb_execution_mode = "off"
html_static_path = ["book/_static"]
html_theme = "basic"
html_css_files = ["book.css"]
html_permalinks = False
language = "en"
smartquotes = False
mathjax_path = "none.js"
myst_enable_extensions = ["dollarmath"]
"""
GLOSSARY = """# Glossary

```{glossary}
prior
anchor
  A box <at a "fixed" place> of scale $s\\sqrt{a}$; see {term}`cell`. Chapter: {doc}`page`.

cell
  One place of a map. Chapter: {doc}`page`.
```
"""


def printed(text: str, *tags: str) -> nbformat.NotebookNode:
    output = v4.new_output("stream", name="stdout", text=text)
    return v4.new_code_cell("show()", outputs=[output], metadata={"tags": list(tags)}, execution_count=1)


def figure() -> str:
    """A drawing: a photograph with a label on it, and a curve, with black and gray letters."""
    made, (left, right) = plt.subplots(1, 2)
    left.imshow(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    left.text(80, 60, "on the photograph")
    right.plot([1, 2, 3], [1, 3, 2], color="#0072B2")
    right.axhline(2, color="gray")
    right.set_title("on the paper")
    drawing = as_drawing(made)
    plt.close(made)
    assert drawing is not None
    return drawing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built pages."""
    root = tmp_path_factory.mktemp("parts")
    (root / "book").mkdir()
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    (root / "book" / "_static" / "none.js").write_text("")
    (root / "conf.py").write_text(CONF)
    (root / "index.md").write_text("# Start\n\n```{toctree}\nbook/page\nbook/glossary\n```\n")
    (root / "book" / "glossary.md").write_text(GLOSSARY)
    drawn = v4.new_output("display_data", {"image/svg+xml": figure(), "text/plain": "<Figure>"})
    picture = {"mystnb": {"image": {"alt": "A curve & a photograph."}}}
    cells = [
        v4.new_markdown_cell(
            "# Page\n\nA {term}`prior` and an {term}`anchor <prior>` in a sentence.\n\n" + "Text. " * 80
        ),
        printed("8,732\n", "guess"),
        printed("(3, 4)\n", "guess"),
        printed("a table\nof many 1 2 3\n", "guess"),
        printed("in sight\n"),
        v4.new_code_cell("plot()", outputs=[drawn], metadata={"tags": ["guess"], **picture}, execution_count=2),
        v4.new_code_cell("plot()", outputs=[drawn], metadata=picture, execution_count=3),
    ]
    language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=language), root / "book" / "page.ipynb")
    assert build(root) == ""
    return root / "out" / "book"


def test_only_tagged_outputs_are_folded_and_say_what_can_be_typed(site: Path) -> None:
    text = (site / "page.html").read_text(encoding="utf-8")
    found = re.findall(
        r'<details class="guess"([^>]*)>\s*<summary>Show the answer</summary>(.*?)</details>', text, re.S
    )
    kinds = ['data-asks="number" data-answer="8732"', 'data-asks="text" data-answer="(3, 4)"', "", ""]
    assert [attributes.strip() for attributes, _ in found] == kinds
    for (_, inside), expected in zip(found, ("8,732", "(3, 4)", "of many", "<svg"), strict=True):
        assert expected in inside
    assert "in sight" in re.sub(r"<details.*?</details>", "", text, flags=re.S)


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("0.333", ("number", "0.333")),
        ("IoU: −0.5", ("number", "-0.5")),
        ("1.2e-05 s", ("number", "1.2e-05")),
        ("(3, 8732)", ("text", "(3, 8732)")),
        ("conv4_3", ("text", "conv4_3")),
        ("a 1\nb 2", ("", "")),
        ("1 2 " * 20, ("", "")),
    ],
)
def test_what_is_asked(text: str, asks: tuple[str, str]) -> None:
    from docutils import nodes

    output = nodes.container()
    output += nodes.literal_block(text, text)
    assert guesses.what_is_asked(output) == asks


def test_a_tag_without_an_output_is_found(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text('extensions = ["myst_nb", "guesses"]\nnb_execution_mode = "off"\n')
    cell = v4.new_code_cell("x = 1", metadata={"tags": ["guess"]}, execution_count=1)
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# A"), cell]), tmp_path / "index.ipynb")
    assert "tagged guess has no output" in build(tmp_path)


def test_drawings_take_the_colours_of_the_page(site: Path) -> None:
    text = (site / "page.html").read_text(encoding="utf-8")
    first, second = re.findall(r'<svg[^>]*class="drawing[ "].*?</svg>', text, re.S)
    for drawing in (first, second):
        assert 'role="img"' in drawing
        assert 'aria-label="A curve &amp; a photograph."' in drawing
        assert "style" not in drawing
        (on_photograph,) = re.findall(r"<text([^>]*)>on the photograph", drawing)
        assert 'fill="#000000"' in on_photograph
        (on_paper,) = re.findall(r"<text([^>]*)>on the paper", drawing)
        assert "fill=" not in on_paper
        assert 'stroke="#0072b2"' in drawing
        assert re.search(r'stroke="currentColor"[^>]*stroke-opacity="0.5"', drawing)  # the gray line
        assert "data:image/jpeg" in drawing
        assert 'fill="#ffffff"' not in drawing  # the sheets
    names = re.findall(r'\bid="(drawing-[^"]+)"', text)
    assert len(names) == len(set(names)) > 0
    assert set(re.findall(r'(?:url\(#|href="#)(drawing-[^")]+)', text)) == set(names)


def test_labels_keep_their_colours_on_a_coloured_ground() -> None:
    made = plt.figure()
    axes = made.add_subplot()
    axes.text(0.5, 0.5, "label", bbox={"facecolor": "#E69F00", "edgecolor": "none"})
    axes.text(0.1, 0.1, "paper", bbox={"facecolor": "white", "edgecolor": "none"})
    drawing = as_drawing(made)
    plt.close(made)
    assert drawing is not None
    text = drawings.themed(drawing, 1, "")
    assert 'aria-hidden="true"' in text
    assert re.search(r'<text[^>]*fill="#000000"[^>]*>label', text)
    assert not re.search(r'<text[^>]*fill="#000000"[^>]*>paper', text)
    assert 'class="paper-fill"' in text


def test_a_word_carries_its_meaning(site: Path) -> None:
    text = (site / "page.html").read_text(encoding="utf-8")
    titles = re.findall(r'<a class="[^"]*meaning[^"]*"[^>]* title="([^"]*)"', text)
    assert titles == ["A box &lt;at a &quot;fixed&quot; place&gt; of scale s√a; see cell."] * 2
    assert "meaning" not in re.sub(r"<head>.*?</head>", "", (site / "glossary.html").read_text(), flags=re.S)
    assert meanings.SCRIPT in text


@pytest.mark.parametrize("page", ["cites", "zitiert"])  # before and after the references in the alphabet
def test_a_citation_names_its_paper_and_the_list_has_it_once(tmp_path: Path, page: str) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_nb", "sphinxcontrib.bibtex", "meanings"]\nbibtex_bibfiles = ["book/papers.bib"]\n'
    )
    (tmp_path / "index.md").write_text(f"# Start\n\n```{{toctree}}\nbook/references\nbook/{page}\n```\n")
    (tmp_path / "book" / "papers.bib").write_text(
        "@article{box2016, author={Box, A.}, title={On crates}, journal={Boxes}, year=2016}"
    )
    (tmp_path / "book" / "references.md").write_text("# References\n\n```{bibliography}\n:all:\n```\n")
    (tmp_path / "book" / f"{page}.md").write_text("# Page\n\nSee {cite:p}`box2016`.\n")
    assert build(tmp_path) == ""
    out = tmp_path / "out" / "book"
    assert (out / "references.html").read_text(encoding="utf-8").count("On crates") == 1
    (title,) = re.findall(r'<a class="[^"]*source[^"]*"[^>]* title="([^"]*)"', (out / f"{page}.html").read_text())
    assert title.count("On crates") == 1


@pytest.mark.browser
class TestInTheBrowser:
    """The pages used by pointer, key and finger."""

    def test_a_number_is_guessed_before_its_answer_is_seen(self, site: Path, open_page: OpenPage) -> None:
        page = open_page((site / "page.html").as_uri())
        form = page.locator(".guess-form").first
        answer = page.locator("details.guess").first
        field = form.get_by_label("Your guess")
        assert page.locator(".guess-form").count() == 2
        form.get_by_role("button").click()
        assert answer.get_attribute("open") is None
        assert "Type a guess" in form.locator("[role=status]").inner_text()
        field.fill("1000")
        page.keyboard.press("Enter")
        assert answer.get_attribute("open") == ""
        assert form.locator("[role=status]").inner_text() == (
            "You guessed 1000. The answer is larger, by a factor of about 8.7."
        )
        for guess, verdict in (("8,700", "Right."), ("9500", "smaller."), ("many", "a number.")):
            field.fill(guess)
            page.keyboard.press("Enter")
            assert form.locator("[role=status]").inner_text().endswith(verdict)
        second = page.locator(".guess-form").nth(1)
        second.get_by_label("Your guess").fill("3,4")
        page.keyboard.press("Enter")
        assert second.locator("[role=status]").inner_text().endswith("Right.")
        assert not violations(page, within="details.guess")

    def test_answers_fold_without_scripts_and_print_open(self, site: Path, open_page: OpenPage) -> None:
        page = open_page((site / "page.html").as_uri(), java_script_enabled=False)
        answer = page.locator("details.guess pre").first
        assert page.locator(".guess-form").count() == 0
        assert not answer.is_visible()
        page.locator("details.guess summary").first.focus()
        page.keyboard.press("Enter")
        assert answer.is_visible()
        page.emulate_media(media="print")
        assert page.locator("details.guess pre").nth(1).bounding_box()["height"] > 0  # type: ignore[index]
        assert not page.locator("details.guess summary").first.is_visible()

    def test_a_meaning_comes_by_pointer_and_key_and_goes(self, site: Path, open_page: OpenPage) -> None:
        page = open_page((site / "page.html").as_uri())
        card, word = page.get_by_role("tooltip"), page.locator("a.meaning").first
        assert card.count() == 0
        word.hover()
        assert card.inner_text().startswith("A box <at a")
        card.hover()  # it can be pointed at
        page.wait_for_timeout(400)
        assert card.is_visible()
        page.keyboard.press("Escape")
        assert not card.is_visible()
        page.mouse.move(0, 0)
        word.focus()
        assert card.is_visible()
        assert word.get_attribute("aria-describedby") == "meaning-card"
        assert word.get_attribute("title") is None
        page.locator("summary").first.focus()
        page.wait_for_timeout(400)
        assert not card.is_visible()

    def test_a_first_tap_shows_the_meaning_and_a_second_follows(self, site: Path, open_page: OpenPage) -> None:
        page = open_page((site / "page.html").as_uri(), width=320, height=640, has_touch=True, is_mobile=True)
        word = page.locator("a.meaning").nth(1)
        word.tap()
        card = page.get_by_role("tooltip")
        assert card.is_visible()
        box = card.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
        assert page.url.endswith("page.html")
        word.tap()
        page.wait_for_url("**/glossary.html#*")
