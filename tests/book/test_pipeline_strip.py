"""The strip above each chapter: which of how many it is, and where on the way to the detections."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pipeline_strip
import pytest
from support.small_site import build

CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "book").glob("[0-9][0-9]_*.ipynb"))


class Tags(HTMLParser):
    """What is opened must be closed; keeps links and marked steps."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str | None] = []
        self.marked = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.links += [value for name, value in attrs if name == "href"]
        self.marked += ("aria-current", "step") in attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A path has no end tag of its own."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_chapter_has_its_place_and_every_step_its_chapter() -> None:
    numbers = {int(path.name[:2]) for path in CHAPTERS}
    assert {number for _, number, _ in pipeline_strip.STEPS} <= numbers
    assert set(range(1, 13)) <= set(pipeline_strip.HERE)
    for marked, words in pipeline_strip.HERE.values():
        assert set(marked) <= set(pipeline_strip.ALL)
        assert len(marked) > 0
        assert len(words) > 0


@pytest.mark.parametrize(("number", "marked"), [(1, 7), (2, 2), (3, 1), (99, 0)])
def test_strip_marks_the_steps_of_a_chapter(number: int, marked: int) -> None:
    text = pipeline_strip.strip(number, {k: f"{k}.html?a&b" for k in range(3, 10)})
    tags = Tags(text)
    assert tags.marked == marked
    assert tags.links == [f"{chapter}.html?a&b" for _, chapter, _ in pipeline_strip.STEPS]
    assert ("You are here" in text) == (marked > 0)


def test_a_step_without_chapter_is_no_link() -> None:
    assert Tags(pipeline_strip.strip(3, {3: "03.html"})).links == ["03.html"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A little book that is built, by the names of its pages."""
    root = tmp_path_factory.mktemp("strip")
    (root / "book" / "_static").mkdir(parents=True)
    (root / "conf.py").write_text("extensions = ['pipeline_strip']\nhtml_static_path = ['book/_static']\n")
    (root / "book" / "_static" / pipeline_strip.STYLE).write_text("")
    names = ["book/03_priors", "book/05_matching", "book/faq"]
    (root / "index.rst").write_text("Book\n====\n\n.. toctree::\n\n" + "".join(f"   {name}\n" for name in names))
    for name in names:
        (root / f"{name}.rst").write_text("A title\n=======\n\nText.\n\nA section\n---------\n\nMore.\n")
    assert build(root) == ""
    return {name: (root / "out" / f"{name}.html").read_text(encoding="utf-8") for name in [*names, "index"]}


def test_a_chapter_is_counted_above_and_placed_below_its_title(pages: dict[str, str]) -> None:
    text = pages["book/05_matching"]
    parts = r'Chapter 5 of 2</p>\s*<h1>A title.*?</h1>\s*(<nav class="ssd-strip".*?</nav>)\s*<p>Text'
    (strip,) = re.findall(parts, text, flags=re.DOTALL)
    assert Tags(strip).links == ["03_priors.html", "#"]
    assert text.count("ssd-strip") == 1
    assert f"_static/{pipeline_strip.STYLE}" in text


def test_other_pages_are_left_alone(pages: dict[str, str]) -> None:
    for name in ("book/faq", "index"):
        assert "ssd-strip" not in pages[name]
        assert "Chapter" not in pages[name]
