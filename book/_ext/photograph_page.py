"""The Sphinx extension of "Your photograph": a script, a style sheet and a detector for its page, and for no other.

What the detector needs is made by `photograph_files` and copied beside the pages. Where it cannot be had the build
goes on: the page keeps its text, and says that the detector is missing.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import photograph_files
from page_files import add_files
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

from ssdlib.widgets.base import SHARED, read_static, style_sheet

FOLDER = Path(__file__).resolve().parents[1] / "photograph"
SCRIPT, STYLE = "ssd-photograph.js", "ssd-photograph.css"
ARITHMETIC = ("resize", "predictions")
PAGE = ("engine", "pixels", "inputs", "heat", "picture", "follow", "choices", "page")
MARKER = 'class="ssd-photograph-place"'
PLACE = '<div class="your-photograph"></div>'  # what the page's text holds

logger = logging.getLogger(__name__)


def read(name: str) -> str:
    """Text of a file of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")


def arithmetic() -> str:
    """All that the page computes: what Node can run, and tests compare with ssdlib."""
    return "\n".join([read_static("maths.mjs"), *(read(f"{name}.mjs") for name in ARITHMETIC)])


def bundle() -> str:
    """The script of the page and of its worker."""
    parts = [arithmetic(), *(read_static(f"{name}.mjs") for name in SHARED if name != "maths")]
    parts += [read(f"{name}.mjs") for name in PAGE]
    return "\n".join(
        ["((place) => {", '"use strict";', *parts, "startPhotograph(place);", "})(self.document?.currentScript);\n"]
    )


def style() -> str:
    """The widgets' style and the page's own."""
    return style_sheet() + "\n" + read("photograph.css")


@cache
def detector() -> Path | str:
    """The folder with the detector's files or, where they cannot be had, the reason."""
    try:
        return photograph_files.files()
    except (OSError, ValueError, ImportError) as error:
        return str(error)


def place(found: Path | str) -> str:
    """What stands where the detector is to be, as HTML."""
    if isinstance(found, str):
        return (
            '<div class="admonition note"><p class="admonition-title">Without the detector</p><p>When these pages were '
            "built its files could not be had, so nothing runs here. The detector itself is in <code>ssdlib</code>: "
            "<code>ssd detect photograph.jpg --model openimages:ssd300_mobilenet_v2</code></p></div>"
        )
    about = (found / photograph_files.ABOUT).read_text(encoding="utf-8").replace("<", "\\u003c")
    return (
        f"<div {MARKER}><p>The detector needs JavaScript, which is switched off here.</p>"
        f'<script type="application/json">{about}</script></div>'
    )


def note(app: Sphinx, config: Config) -> None:
    """Say what the build goes on without; pages are written again when it is another."""
    found = detector()
    if isinstance(found, str):
        logger.info("the page of your photograph is built without its detector: %s", found)
    config["ssd_photograph_place"] = place(found)


def fill(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Put the detector into the page that has a place for it."""
    body = context.get("body", "")
    if PLACE in body:
        context["body"] = body.replace(PLACE, app.config["ssd_photograph_place"])


def copy(app: Sphinx, error: Exception | None) -> None:
    """Copy the files that are not there yet; those of an earlier detector go."""
    found = detector()
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "photograph"
    names = {path.name: path for path in found.iterdir()} if isinstance(found, Path) else {}
    names.pop(photograph_files.ABOUT, None)
    for old in target.glob("*"):
        if old.name not in names:
            old.unlink()
    target.mkdir(parents=True, exist_ok=True)
    for name, path in names.items():
        there = target / name
        if (
            not there.is_file()
            or there.stat().st_mtime < path.stat().st_mtime
            or there.stat().st_size != path.stat().st_size
        ):
            shutil.copyfile(path, there)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_config_value("ssd_photograph_place", "", "html", [str])
    app.connect("config-inited", note)
    app.connect("html-page-context", fill, priority=400)  # before what looks for the marker
    app.connect("build-finished", copy)
    add_files(app, "ssd_photograph_hash", MARKER, lambda: {STYLE: style(), SCRIPT: bundle()})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
