"""The Sphinx extension of the playground: one script and one style sheet for its page, and for no other.

The scripts of book/playground are put one after the other into one function, behind the widgets' arithmetic and
controls. On the page it draws; in a Web Worker, where there is no document, it trains. A page opened as a file may not
start a worker from a file, so the function gives the worker its own text.

A chapter leads there with a setting that makes its point: {playground}`words <threshold=0.7>`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from page_files import add_files
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from ssdlib.widgets.base import read_static, style_sheet

FOLDER = Path(__file__).resolve().parents[1] / "playground"
SCRIPT, STYLE = "ssd-playground.js", "ssd-playground.css"
ARITHMETIC = ("scenes", "convolution", "layers", "network", "detector", "trainer")
PAGE = ("elsewhere", "worker", "drawing", "charts", "chapters", "settings", "own_scene", "page")


LINK = re.compile(r"(?P<words>.+?)\s*<(?P<settings>\w+=[\w.]+(?:&\w+=[\w.]+)*)>", re.DOTALL)

logger = logging.getLogger(__name__)


class PlaygroundRole(SphinxRole):
    """The role `playground`: a link from a chapter that sets the playground."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the link."""
        found = LINK.fullmatch(" ".join(self.text.split()))
        if found is None:
            wrong = f"{{playground}} needs `words <setting=value&setting=value>`; got {self.text!r}"
            logger.warning(wrong, location=self.get_location())
            return [nodes.Text(self.text)], []
        from_chapter = self.env.docname.rpartition("/")[2].partition("_")[0]
        address = f"playground.html#{found['settings']}&chapter={int(from_chapter)}"
        return [nodes.reference("", found["words"], refuri=address, internal=True)], []


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
    app.add_role("playground", PlaygroundRole())
    add_files(app, "ssd_playground_hash", 'class="ssd-playground-place"', lambda: {STYLE: style(), SCRIPT: bundle()})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
