"""The Sphinx extension of the playground: one script and one style sheet for its page, and for no other.

The scripts of book/playground are put one after the other into one function, behind the widgets' arithmetic and
controls. On the page it draws; in a Web Worker, where there is no document, it trains. A page opened as a file may not
start a worker from a file, so the function gives the worker its own text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

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


def fingerprint_pages(app: Sphinx, config: Config) -> None:
    """Make the page be written again when script or style change: their addresses carry their checksums."""
    config["ssd_playground_hash"] = hashlib.sha256((bundle() + style()).encode()).hexdigest()


def write_files(app: Sphinx) -> None:
    """Put the script and the style beside the pages."""
    if app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPT).write_text(bundle(), encoding="utf-8")
    (folder / STYLE).write_text(style(), encoding="utf-8")


def add_to_page(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load script and style where the playground has its place."""
    if 'class="ssd-playground-place"' in context.get("body", ""):
        app.add_css_file(STYLE)
        app.add_js_file(SCRIPT, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_config_value("ssd_playground_hash", "", "html", [str])
    app.connect("config-inited", fingerprint_pages)
    app.connect("builder-inited", write_files)
    app.connect("html-page-context", add_to_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
