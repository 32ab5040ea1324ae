"""Figures on the pages: what is ink and what is ground, how wide they are on a phone, where their captions stand."""

from __future__ import annotations

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import columns
import docstrings
import drawings
import matplotlib
import pytest
import yaml
from docutils.nodes import Element, inline
from sphinx.ext.napoleon import Config, GoogleDocstring
from support.browser import OpenPage, violations
from support.small_site import build

from ssdlib.book import as_drawing

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"


def drawn(figure: Figure) -> str:
    drawing = as_drawing(figure)
    plt.close(figure)
    assert drawing is not None
    return drawings.themed(drawing, 1, "Three curves.")


def page_with(tmp_path: Path, *figures: str, output: str = "") -> str:
    boxes = "".join(
        f'<figure class="margin-caption"><div class="output drawing">{figure}</div><figcaption><p>Fig. {n}</p>'
        "</figcaption></figure>"
        for n, figure in enumerate(figures, start=1)
    )
    (tmp_path / "page.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{(STATIC / 'book.css').read_text()}"
        f"body {{ margin: 0 16px }} @media (min-width: 1000px) {{ main {{ width: 640px }} }}</style>"
        f'</head><body><main class="bd-article"><h1>Figures</h1>{boxes}{output}</main>'
        f"<script>{(STATIC / 'book.js').read_text()}</script></body></html>",
        encoding="utf-8",
    )
    return (tmp_path / "page.html").as_uri()


def panels(count: int) -> str:
    figure, axes = plt.subplots(1, count, figsize=(6.4, 2.6), squeeze=False)
    for ax in axes[0]:
        ax.plot([0, 1], [1, 0])
        ax.tick_params(labelsize=7)
        ax.set_xlabel("step", fontsize=9)
    return drawn(figure)


def test_a_faint_ground_does_not_hold_black_letters() -> None:
    figure = plt.figure()
    ax = figure.add_subplot()
    for x, alpha in ((0.0, 0.3), (0.5, 1.0)):
        ax.add_patch(Rectangle((x, 0), 0.5, 1, facecolor="#E69F00", alpha=alpha))
        ax.text(x + 0.2, 0.5, f"on {alpha}", color="black")
    text = drawn(figure)
    assert re.search(r'<text[^>]*fill="#000000"[^>]*>on 1.0', text)
    assert not re.search(r'<text[^>]*fill="#000000"[^>]*>on 0.3', text)


def test_lines_of_a_grid_are_ink_where_they_leave_a_ground_and_on_hatching() -> None:
    figure = plt.figure()
    ax = figure.add_subplot()
    ax.set_xlim(0, 10)
    ax.set_ylim(0, 10)
    ax.add_patch(Rectangle((3, 3), 4, 4, facecolor="#0072B2"))
    ax.add_patch(Rectangle((3, 3), 4, 4, facecolor="none", hatch="///"))
    ax.plot([0, 10], [5, 5], color="#cccccc")  # its middle lies on the ground
    ax.plot([4, 6], [6, 6], color="#dddddd")
    ax.add_patch(Rectangle((0.5, 0.5), 2, 2, facecolor="none", hatch="///"))  # on the paper
    ax.plot([1, 2], [1.5, 1.5], color="#bbbbbb")
    text = drawn(figure)
    assert "#cccccc" not in text
    assert "#bbbbbb" not in text
    assert 'stroke="#dddddd"' in text
    assert re.search(r'stroke="currentColor"[^>]*stroke-opacity="0.2"', text)


@pytest.mark.parametrize(
    ("size", "letters", "classes"),
    [
        ((400, 300), 14, []),
        ((640, 260), 10.7, ["least-560"]),  # letters of 9 pixels
        ((700, 150), 0, ["least-560"]),  # 120 pixels high
        ((700, 150), 7, ["least-680"]),  # no larger than it is where there is room
        ((380, 100), 7, []),
        ((0, 0), 0, []),
    ],
)
def test_how_wide_a_figure_has_to_be(size: tuple[float, float], letters: float, classes: list[str]) -> None:
    assert drawings.width_class(size, letters) == classes


def test_captions_stay_below_on_pages_without_contents_beside_them() -> None:
    config = yaml.safe_load((STATIC.parents[1] / "_config.yml").read_text(encoding="utf-8"))
    options = config["sphinx"]["config"]["html_theme_options"]
    assert drawings.has_margin("book/02_boxes", 2, options)
    assert not drawings.has_margin("book/index", 2, options)
    assert drawings.has_margin("page", 2, {})
    assert not drawings.has_margin("page", 1, {})


def test_every_width_has_its_rule() -> None:
    style = (STATIC / "book.css").read_text(encoding="utf-8")
    known = {int(width) for width in re.findall(r"\.least-(\d+) \{\s*width: max\(100%, \1px\)", style)}
    assert known >= set(range(drawings.PHONE + drawings.STEP, 760 + 1, drawings.STEP))


def test_sentences_of_docstrings_are_no_types() -> None:
    lines = ["What it does.", "", "Returns:", "    (N, 4): one row: one box."]
    docstrings.keep_sentences(None, "function", "f", None, None, lines)  # type: ignore[arg-type]
    assert GoogleDocstring(lines, Config(), what="function", name="f").lines() == [
        "What it does.",
        "",
        ":returns: (N, 4): one row: one box.",
        "",
    ]
    lines = ["Number of priors; SSD300: 8732."]
    docstrings.keep_sentences(None, "property", "p", None, None, lines)  # type: ignore[arg-type]
    assert GoogleDocstring(lines, Config(), what="property", name="p").lines() == ["Number of priors; SSD300: 8732."]
    lines = ["Alias for field number 0", ""]
    docstrings.keep_sentences(None, "attribute", "size", None, None, lines)  # type: ignore[arg-type]
    assert lines == []


OBJECTS = {
    "ssdlib.matching.match": "function",
    "ssdlib.engine.run.train": "function",
    "ssdlib.nms": "module",
    "ssdlib.detection.detect": "function",
    "ssdlib.family.yolo.detect": "function",
}


@pytest.mark.parametrize(
    ("target", "led_to"),
    [
        ("match", "#match-id"),
        ("ssdlib.engine.train", "#train-id"),  # as it is imported, not where it is kept
        ("detect", None),  # two have the name
        ("nms", None),  # an argument, for all we know
        ("atch", None),
        ("torch.match", None),
    ],
)
def test_a_short_name_in_a_docstring_leads_to_the_only_thing_of_that_name(target: str, led_to: str | None) -> None:
    entries = {
        name: SimpleNamespace(objtype=kind, docname="book/api", node_id=f"{name.rpartition('.')[2]}-id")
        for name, kind in OBJECTS.items()
    }
    env: Any = SimpleNamespace(get_domain=lambda name: SimpleNamespace(objects=entries))
    app: Any = SimpleNamespace(builder=SimpleNamespace(get_relative_uri=lambda here, there: ""))
    node = Element(refdomain="py", reftype="obj", reftarget=target, refdoc="book/api_data")
    link = docstrings.lead_to_the_only_one(app, env, node, inline())
    assert (link and link["refuri"]) == led_to
    node["reftype"] = "class"  # a type, which autodoc names in full
    assert docstrings.lead_to_the_only_one(app, env, node, inline()) is None


MODULE = """
from pathlib import Path

FOLDER = Path(__file__).parent
\"\"\"Where things are.\"\"\"
SIDE = 300
\"\"\"Of the image.\"\"\"
TABLE = {number: "a long row of this table" for number in range(40)}
\"\"\"Far too much.\"\"\"
WAYS = {"first": print, "second": lambda: None}
\"\"\"By name.\"\"\"


def load(name, folder=FOLDER, side=SIDE):
    \"\"\"Something.\"\"\"
"""


def test_values_stand_in_the_reference_where_they_can_be_read(tmp_path: Path) -> None:
    settings = yaml.safe_load((STATIC.parents[1] / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    name = "shown_in_a_reference"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "extensions = ['sphinx.ext.autodoc', 'docstrings']\nhtml_copy_source = False\n"
        f"autodoc_preserve_defaults = {settings['autodoc_preserve_defaults']}\n"
    )
    (tmp_path / "index.rst").write_text(f".. automodule:: {name}\n   :members:\n")
    build(tmp_path)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    signatures = re.findall(r'<dt class="sig.*?</dt>', page, flags=re.DOTALL)
    said = [html.unescape(re.sub(r"<[^>]+>|#|¶|\s", "", each)) for each in signatures]
    names = ["FOLDER", "SIDE=300", "TABLE", "WAYS", "load(name,folder=FOLDER,side=SIDE)"]
    assert sorted(said) == [f"{name}.{each}" for each in names]
    assert str(tmp_path) not in page


TABLE = "class    threshold  precision  recall  objects  found\nred cell      0.31      0.912   0.884      819    757"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (TABLE, True),
        ("      a      b\n    1.0    2.0\nas printed", True),
        ("one line   alone", False),
        ("boxes (2, 4)\n  offsets (2, 4)\n  logits", False),
        ("a  b\nno\nno", False),
        ("", False),
    ],
)
def test_outputs_with_columns(text: str, has: bool) -> None:
    assert columns.has_columns(text) == has


@pytest.mark.browser
class TestInTheBrowser:
    """Figures on a phone, in a wide window and on paper."""

    @pytest.mark.parametrize("width", [320, 390])
    def test_letters_can_be_read_on_a_phone_and_the_figure_scrolls_by_key(
        self, open_page: OpenPage, tmp_path: Path, width: int
    ) -> None:
        page = open_page(page_with(tmp_path, panels(3), panels(1)), width=width, height=700, has_touch=True)
        box = page.locator(".drawing.output").first
        letters = box.evaluate(
            "b => Math.min(...[...b.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize)"
            " * t.ownerSVGElement.getScreenCTM().a))"
        )
        assert letters >= 9
        assert page.evaluate("document.documentElement.scrollWidth") == width
        box.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('.drawing.output').scrollLeft > 0")
        assert page.get_by_role("group", name="Figure that scrolls sideways").count() >= 1
        assert not violations(page)

    def test_a_printed_table_keeps_its_lines_on_a_phone_and_scrolls_by_key(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        cell = '<div class="cell_output"><div class="output {}"><div class="highlight"><pre>{}</pre></div></div></div>'
        table, prose = cell.format("columns", TABLE), cell.format("", "word " * 30)
        page = open_page(page_with(tmp_path, output=table + prose), width=320, height=700, has_touch=True)
        first, second = page.locator("pre").all()
        line = first.evaluate("pre => parseFloat(getComputedStyle(pre).lineHeight) || 1.5 * 16")
        assert first.bounding_box()["height"] < 3.5 * line  # type: ignore[index]
        assert second.evaluate("pre => pre.scrollWidth <= pre.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('pre').scrollLeft > 0")
        assert page.get_by_role("group", name="Table that scrolls sideways").count() == 1
        assert not violations(page)

    def test_nothing_scrolls_and_nothing_is_a_stop_for_keys_where_there_is_room(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        page = open_page(page_with(tmp_path, panels(3)), width=390, height=700)
        assert page.locator(".drawing[tabindex]").count() == 1
        page.set_viewport_size({"width": 1280, "height": 800})
        page.wait_for_function("!document.querySelector('.drawing[tabindex]')")

    def test_captions_stand_beside_their_figures_or_below(self, open_page: OpenPage, tmp_path: Path) -> None:
        page = open_page(page_with(tmp_path, panels(2)), width=1280)
        figure, caption = page.locator(".drawing.output"), page.locator("figcaption")

        def places() -> tuple[dict[str, float], dict[str, float]]:
            return figure.bounding_box(), caption.bounding_box()  # type: ignore[return-value]

        (drawing, words) = places()
        assert words["x"] >= drawing["x"] + drawing["width"]
        assert words["x"] + words["width"] <= 1280
        assert abs(words["y"] - drawing["y"]) < 20
        page.set_viewport_size({"width": 1000, "height": 800})
        (drawing, words) = places()
        assert words["y"] >= drawing["y"] + drawing["height"]
        page.set_viewport_size({"width": 1280, "height": 800})
        page.emulate_media(media="print")
        (drawing, words) = places()
        assert words["y"] >= drawing["y"] + drawing["height"]
        page.set_viewport_size({"width": 390, "height": 800})  # on narrow paper a figure is small, and whole
        assert figure.evaluate("box => box.scrollWidth <= box.clientWidth")
