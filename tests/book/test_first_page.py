"""The first page: a widget of a chapter that lives without a kernel, one button, and a card for every chapter."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import toys_page
from nbformat import v4
from support.small_site import build

ROOT = Path(__file__).resolve().parents[2]
PLACE = '<div class="ssd-widget-place" data-module="jaccard">\n<img alt="Two boxes."></div>'


def built(root: Path, directive: str) -> tuple[str, str]:
    """The page with a directive, beside a chapter with a widget: its HTML, and the warnings."""
    (root / "conf.py").write_text("extensions = ['myst_nb', 'widget_pages']\nnb_execution_mode = 'off'\n")
    (root / "index.md").write_text(f"# Start\n\n```{directive}\n```\n")
    shown = v4.new_output("display_data", {"text/html": PLACE, "text/plain": "Jaccard()"})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("w", outputs=[shown])]), root / "chapter.ipynb")
    warnings = build(root)
    return (root / "out" / "index.html").read_text(encoding="utf-8"), warnings


def test_a_page_shows_the_widget_of_a_chapter(tmp_path: Path) -> None:
    page, _ = built(tmp_path, "{chapter-widget} chapter.ipynb jaccard")
    assert PLACE in page
    assert "ssd-widgets.js" in page


@pytest.mark.parametrize("arguments", ["chapter.ipynb nms_stepper", "nowhere.ipynb jaccard"])
def test_a_widget_that_is_not_there_is_named(tmp_path: Path, arguments: str) -> None:
    _, warnings = built(tmp_path, f"{{chapter-widget}} {arguments}")
    name, module = arguments.split()
    assert f"{name} shows no widget '{module}'" in warnings


def test_the_first_page_leads_to_every_chapter() -> None:
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    chapters = sorted(path.stem for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
    assert re.findall(r"^:link: (\w+)$", text, re.MULTILINE) == chapters
    numbers = [int(n) for n in re.findall(r"^:::\{grid-item-card\} (\d+) · ", text, re.MULTILINE)]
    assert numbers == [int(name[:2]) for name in chapters]
    assert text.count("{button-ref}") == 1
    assert text.index("{chapter-widget}") < text.index("\n## ")


def test_the_first_page_begins_with_the_toys_and_leads_to_what_is_alive() -> None:
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    steps = [toys_page.PLACE, "{button-ref} 01_detection", "(playground.md)", "(photograph.md)", "{chapter-widget}"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert len(text[: places[0]].split()) < 60
