"""The plain form of the chapters in JupyterLab without any extension, before a cell is run: no trace of markup."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import colab
import nbformat
import notebooks
import plain_markdown
import pytest
from playwright.sync_api import Browser, Page
from support.jupyterlab import running_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = ["02_boxes.ipynb", "05_matching.ipynb", "12_full_scale.ipynb"]
"""Terms, citations, equations, figures, widgets and solutions; folded code; lists of definitions and long tables."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Gives the address of a chapter in JupyterLab."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed")
    assert importlib.util.find_spec("jupyterlab_myst") is None, "the form must be right without this extension"
    home = tmp_path_factory.mktemp("lab")
    colab.main([*(str(notebooks.BOOK / name) for name in NAMES), "--to", str(home / "work")])
    with running_lab(home) as address:
        yield address


def opened(browser: Browser, address: str) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-MarkdownOutput h1", timeout=60_000)
    page.wait_for_function(
        "() => document.querySelectorAll('.jp-MarkdownCell:not(.jp-mod-rendered)').length === 0"
        " && document.querySelectorAll('.jp-Notebook .MathJax, .jp-Notebook mjx-container').length > 0",
        timeout=60_000,
    )
    return page


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_reads_without_a_trace_of_markup(browser: Browser, lab: Callable[[str], str], name: str) -> None:
    page = opened(browser, lab(name))
    # The text as it is rendered, folded parts too, without code and formulas.
    texts = page.eval_on_selector_all(
        ".jp-MarkdownOutput",
        """all => all.map((one) => {
            const copy = one.cloneNode(true);
            copy.querySelectorAll("pre, code, mjx-container, .MathJax, script").forEach((part) => part.remove());
            return copy.textContent;
        })""",
    )
    assert len(texts) > 20
    for text in texts:
        assert not plain_markdown.LEFT_OVER.search(text), text[:300]
        for mark in ("```", ":::", "**", "](", "<abbr", "<details", "$$", "]{", "|---"):
            assert mark not in text, (mark, text[:300])
    terms = sum(cell.source.count("{term}`") for cell in nbformat.read(notebooks.BOOK / name, as_version=4).cells)
    assert page.locator(".jp-MarkdownOutput abbr[title]").count() == terms
    assert page.locator(".jp-MarkdownOutput a[href*='arxiv.org']").count() > 0
    solutions = page.locator(".jp-MarkdownOutput details")
    assert solutions.count() > 0
    assert page.locator(".jp-MarkdownOutput details[open]").count() == 0
    solutions.first.locator("summary").click()
    assert solutions.first.locator("p, pre, ul, ol").first.is_visible()
    page.close()


@pytest.mark.parametrize("name", NAMES[:2])
def test_pictures_show_and_helpers_are_closed_before_a_cell_is_run(
    browser: Browser, lab: Callable[[str], str], name: str
) -> None:
    page = opened(browser, lab(name))
    pictures = page.eval_on_selector_all(
        ".jp-OutputArea-output img", "all => all.map((one) => [one.alt, one.naturalWidth, one.clientWidth])"
    )
    assert len(pictures) >= 4
    assert all(natural > 0 and shown > 0 for _, natural, shown in pictures), pictures
    for text in ("glue(", "Quiz(", "find_spec"):
        shown = page.locator(".jp-CodeCell:not(.jp-mod-noInput) .jp-InputArea-editor", has_text=text)
        assert not [one for one in shown.all() if one.is_visible()], text
    page.close()
