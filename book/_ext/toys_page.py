"""The Sphinx extension of the tray of toys: a script, a style sheet and a still picture for the page that holds it.

    ```{raw} html
    <div class="tray-of-toys"></div>
    ```

Pictures and weights are in a script of their own, which the page asks for when the reader presses the button.
"""

from __future__ import annotations

import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import toys_files
from page_files import add_files
from sphinx.application import Sphinx
from sphinx.config import Config

from ssdlib.data.synthetic import TOY_CLASSES
from ssdlib.widgets.base import SHARED, read_static, style_sheet

FOLDER = Path(__file__).resolve().parents[1]
SCRIPT, STYLE = "ssd-toys.js", "ssd-toys.css"
DATA, STILL = "ssd-toys-data.js", "ssd-toys.jpg"
ARITHMETIC = ("playground/convolution", "photograph/resize", "photograph/predictions", "toys/network", "toys/board")
OWN = ("answer", "files", "stops", "picture", "handles", "tray", "page")
PAGE = ("playground/elsewhere", "photograph/pixels", "photograph/heat", *(f"toys/{name}" for name in OWN))
PLACE = '<div class="tray-of-toys"></div>'  # what the page's text holds
MARKER = 'class="ssd-toys-place"'

STOPS = (
    ("03_priors", "Priors", "boxes that predictions start from, the same for every image"),
    ("08_network", "Scores", "what the network says of each of them"),
    ("04_coding", "Boxes", "the priors, moved and stretched by four offsets"),
    ("07_detections", "NMS", "of boxes that found the same toy the best stays"),
)


def read(name: str) -> str:
    """Text of a script of a page of the book."""
    return (FOLDER / f"{name}.mjs").read_text(encoding="utf-8")


def arithmetic() -> str:
    """All that the page computes: what Node can run, and tests compare with ssdlib."""
    return "\n".join([read_static("maths.mjs"), *map(read, ARITHMETIC)])


def bundle() -> str:
    """The script of the page and of its worker."""
    shared = [read_static(f"{name}.mjs") for name in SHARED if name not in ("maths", "links")]
    parts = [arithmetic(), *shared, *map(read, PAGE)]
    lines = ["(function program(place) {", '"use strict";', *parts, "startToys(place, program);"]
    return "\n".join([*lines, "})(self.document?.currentScript);\n"])


def style() -> str:
    """The page's own style; that of the widgets is on the page when it holds one."""
    return (FOLDER / "toys" / "toys.css").read_text(encoding="utf-8")


@cache
def version() -> str:
    """Changes when what the page asks for does."""
    picture, words = toys_files.still()
    return hashlib.sha256(toys_files.payload().encode() + picture + words.encode()).hexdigest()[:8]


def place(folder: str) -> str:
    """The tray as HTML: what is seen before it is asked for, or without scripts; `folder` has its files."""
    size = len(toys_files.payload()) / 1e6
    stops = "".join(f'<li><a href="{page}.html">{name}</a>: {words}.</li>' for page, name, words in STOPS)
    data = {
        "payload": f"{folder}/{DATA}?v={version()}",
        "classes": " ".join(TOY_CLASSES),
        "words": f"Play with the toys ({size:.1f} MB)",
    }
    attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    return (
        f'<div {MARKER}><div class="ssd-widget ssd-toys" role="group" aria-label="Toys on a board">'
        '<div class="ssd-columns"><div class="ssd-picture">'
        f'<img class="ssd-toys-still" src="{folder}/{STILL}?v={version()}" width="{toys_files.BOARD}" '
        f'height="{toys_files.BOARD}" alt="{escape(toys_files.still()[1])}"></div>'
        '<div class="ssd-panel"><p>Toys on a board, and what a small SSD of this book makes of them. '
        "It can run here, in your browser: turn the toys, hide one behind another, and see what it still finds.</p>"
        f'<div class="ssd-toys-offer" {attributes}><p>To play, switch JavaScript on.</p></div>'
        f"<p>Four stops lead to its answer, and each can be seen on your own board:</p><ol>{stops}</ol>"
        "</div></div></div></div>"
    )


def note(app: Sphinx, config: Config) -> None:
    """When pictures or weights are others, pages are written again."""
    config["ssd_toys_version"] = version()


def fill(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Put the tray into the page that has a place for it."""
    body = context.get("body", "")
    if PLACE not in body:
        return
    context["body"] = body.replace(PLACE, place(context["pathto"]("_static", 1)))
    if 'class="ssd-widget-place"' not in body:
        app.add_css_file("ssd-widgets.css")


def write(app: Sphinx) -> None:
    """Write what the page asks for by itself."""
    if app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).write_text(toys_files.payload(), encoding="utf-8")
    (folder / STILL).write_bytes(toys_files.still()[0])
    (folder / "ssd-widgets.css").write_text(style_sheet(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_config_value("ssd_toys_version", "", "html", [str])
    app.connect("config-inited", note)
    app.connect("builder-inited", write)
    app.connect("html-page-context", fill, priority=400)  # before what looks for the marker
    add_files(app, "ssd_toys_hash", MARKER, lambda: {STYLE: style(), SCRIPT: bundle()})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
