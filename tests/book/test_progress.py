"""Progress: what a reader marks stays in the browser, for all pages of the book, until the reader erases it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from progress import MARKER, SCRIPT
from support.browser import OpenPage, violations
from support.small_site import build

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXERCISE = """
```{{exercise}} By hand: one
:label: ex-{0}-one

One.
```

```{{solution}} ex-{0}-one
:class: dropdown

One.
```

```{{exercise}} Code: two
:label: ex-{0}-two

Two.
```
"""
CARD = ":::{{grid-item-card}} {0}\n:link: {0}\n:link-type: doc\n\nWords.\n:::\n\n"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a site of two chapters, a page that is none, and the first page."""
    root = tmp_path_factory.mktemp("book")
    (root / "conf.py").write_text(
        "extensions = ['myst_parser', 'sphinx_design', 'sphinx_exercise', 'progress']\n"
        "myst_enable_extensions = ['colon_fence']\nlanguage = 'en'\nhtml_theme = 'basic'\n"
    )
    for name in ("03_priors", "04_coding"):
        (root / f"{name}.md").write_text(f"# {name}\n{EXERCISE.format(name[3:])}")
    (root / "faq.md").write_text("# Questions\n")
    cards = "".join(map(CARD.format, ("03_priors", "04_coding")))
    (root / "index.md").write_text(
        "# Start\n\n```{toctree}\n03_priors\n04_coding\nfaq\n```\n\n"
        f"::::{{grid}} 2\n:class-container: path-of-chapters\n\n{cards}::::\n\n"
        '## Your progress\n\n```{raw} html\n<div class="your-progress"></div>\n```\n'
    )
    assert build(root) == ""
    return root / "out"


def sums(page: Page) -> str:
    return page.locator(".ssd-progress-sums").inner_text()


@pytest.fixture
def marked(pages: Path, open_page: OpenPage) -> Page:
    """The first page, opened from its file, after a chapter and one of its exercises were marked by key."""
    page = open_page((pages / "03_priors.html").as_uri())
    page.get_by_role("checkbox", name="Exercise 2: done").press("Space")
    assert page.get_by_role("status").inner_text() == "1 of 2 exercises here."
    page.get_by_role("checkbox", name="I have done this chapter").press("Space")
    page.get_by_role("link", name="All your progress").click()
    page.wait_for_url("**/index.html#your-progress")
    return page


def test_marks_are_kept_and_summed_on_the_first_page(marked: Page, pages: Path) -> None:
    assert sums(marked) == "1 of 2 chapters, 1 of 4 exercises."
    assert marked.locator(".ssd-progress-mark").all_inner_texts() == ["✓ done · 1 of 2 exercises"]
    assert violations(marked, [[".ssd-progress-place"]]) == []
    marked.goto((pages / "03_priors.html").as_uri())
    assert marked.get_by_role("checkbox", name="Exercise 2: done").is_checked()
    assert not marked.get_by_role("checkbox", name="Exercise 1: done").is_checked()
    marked.get_by_role("checkbox", name="Exercise 2: done").uncheck()


def test_another_page_and_the_way_back_bring_the_sums_up_to_date(marked: Page, pages: Path) -> None:
    sums_are = "text => document.querySelector('.ssd-progress-sums').textContent === text"
    other = marked.context.new_page()
    other.goto((pages / "04_coding.html").as_uri())
    other.get_by_role("checkbox", name="Exercise 4: done").check()
    marked.wait_for_function(sums_are, arg="1 of 2 chapters, 2 of 4 exercises.")
    marked.evaluate("localStorage.clear(); dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    assert sums(marked) == "0 of 2 chapters, 0 of 4 exercises."


def test_marks_are_saved_as_a_file_erased_and_read_again(marked: Page, tmp_path: Path) -> None:
    with marked.expect_download() as saved:
        marked.get_by_role("button", name="Save as a file").click()
    assert saved.value.suggested_filename == "ssd-from-scratch-progress.json"
    path = tmp_path / "marks.json"
    saved.value.save_as(path)
    done = json.loads(path.read_text())["done"]
    assert set(done) == {"chapter:03_priors", "exercise:ex-priors-two"}
    marked.once("dialog", lambda dialog: dialog.dismiss())
    marked.get_by_role("button", name="Erase").click()
    assert sums(marked) == "1 of 2 chapters, 1 of 4 exercises."
    marked.once("dialog", lambda dialog: dialog.accept())
    marked.get_by_role("button", name="Erase").press("Enter")
    assert sums(marked) == "0 of 2 chapters, 0 of 4 exercises."
    assert marked.evaluate("localStorage.length") == 0
    assert marked.locator(".ssd-progress-mark").count() == 0
    path.write_text(json.dumps({"version": 1, "done": {**done, "exercise:<b>": "2026-01-01", "chapter:04_coding": 7}}))
    marked.get_by_label("Read a file").set_input_files(path)
    marked.get_by_text("2 marks read from marks.json").wait_for()
    assert sums(marked) == "1 of 2 chapters, 1 of 4 exercises."
    for text in ("no marks", '{"version": 2, "done": {}}', '{"version": 1, "done": null}', "null"):
        path.write_text(text)
        marked.get_by_label("Read a file").set_input_files(path)
        marked.get_by_text("marks.json holds no marks of this book; nothing has changed").wait_for()
        marked.evaluate("document.querySelector('.ssd-progress-place > [role=status]').textContent = ''")
    assert sums(marked) == "1 of 2 chapters, 1 of 4 exercises."


def test_damaged_marks_are_as_none(marked: Page) -> None:
    marked.evaluate("localStorage.setItem('ssd-from-scratch-progress', '{\"version\": 1, \"done\": [')")
    marked.reload()
    assert sums(marked) == "0 of 2 chapters, 0 of 4 exercises."


def test_a_browser_that_keeps_nothing_is_told(pages: Path, open_page: OpenPage) -> None:
    page = open_page((pages / "04_coding.html").as_uri())
    page.add_init_script(
        "Storage.prototype.getItem = Storage.prototype.setItem = name => {"
        " if (name === 'ssd-from-scratch-progress') throw new Error('denied'); return null }"
    )
    page.reload()
    page.get_by_role("checkbox", name="Exercise 3: done").check()
    assert "1 of 2 exercises here. This browser keeps nothing" in page.get_by_role("status").inner_text()


def test_other_pages_have_nothing_of_it(pages: Path) -> None:
    for path in pages.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert (SCRIPT in text, MARKER in text) == (path.stem in ("index", "03_priors", "04_coding"),) * 2, path.name


def test_the_first_page_follows_the_exercises_of_chapters(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser', 'sphinx_exercise', 'progress']\n")
    (tmp_path / "index.md").write_text(
        '# Start\n\n```{toctree}\n03_priors\n```\n\n```{raw} html\n<div class="your-progress"></div>\n```\n'
    )
    for text, ids in (
        ("# Priors\n", []),
        (f"# Priors\n{EXERCISE.format('priors')}", ["ex-priors-one", "ex-priors-two"]),
    ):
        (tmp_path / "03_priors.md").write_text(text)
        build(tmp_path)
        page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
        assert json.dumps({"03_priors": ids}) in page
