"""The Sphinx extension of the playground: one script and one style sheet for its page, and for no other.

The scripts of book/playground are put one after the other into one function, behind the widgets' arithmetic and
controls. On the page it draws; in a Web Worker, where there is no document, it trains. A page opened as a file may not
start a worker from a file, so the function gives the worker its own text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from page_files import add_files
from sphinx.application import Sphinx

from ssdlib.widgets.base import read_static, style_sheet

FOLDER = Path(__file__).resolve().parents[1] / "playground"
SCRIPT, STYLE = "ssd-playground.js", "ssd-playground.css"
ARITHMETIC = ("scenes", "layers", "network", "detector", "trainer")
PAGE = ("worker", "drawing", "charts", "settings", "own_scene", "page")


def arithmetic() -> str:
    """All that the playground computes: what Node can run, and tests compare with ssdlib."""
    return "\n".join([read_static("maths.mjs"), *(read(f"{name}.mjs") for name in ARITHMETIC)])


def read(name: str) -> str:
    """Text of a file of the playground."""
    return (FOLDER / name).read_text(encoding="utf-8")


def bundle() -> str:
    """The script of the page and of its worker."""
    parts = [arithmetic(), read_static("controls.mjs"), *(read(f"{name}.mjs") for name in PAGE)]
    lines = ["(function program(place) {", '"use strict";', *parts, "start(place, program);"]
    return "\n".join([*lines, "})(self.document?.currentScript);\n"])


def style() -> str:
    """The widgets' style and the playground's own."""
    return style_sheet() + "\n" + read("playground.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    add_files(app, "ssd_playground_hash", 'class="ssd-playground-place"', lambda: {STYLE: style(), SCRIPT: bundle()})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
