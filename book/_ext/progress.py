"""Progress: boxes by which a reader marks chapters and exercises as done, kept by the browser and nowhere else.

A chapter gets a place at its end, whose script puts a box into each exercise. The first page has a place for all:

    ```{raw} html
    <div class="your-progress"></div>
    ```
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from page_files import add_files
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

FOLDER = Path(__file__).resolve().parents[1] / "progress"
SCRIPT, STYLE = "ssd-progress.js", "ssd-progress.css"
CHAPTER = re.compile(r"(?:.*/)?(\d\d_\w+)")
PLACE = '<div class="your-progress"></div>'
MARKER = 'class="ssd-progress-place"'
WITHOUT = "<p>Where scripts run, you can mark here what you have done.</p>"


def bundle() -> str:
    """The script."""
    text = (FOLDER / "progress.mjs").read_text(encoding="utf-8")
    return f'(() => {{\n"use strict";\n{text}\nstartProgress();\n}})();\n'


def exercises(env: BuildEnvironment) -> dict[str, list[str]]:
    """The ids of the exercises of each chapter, by the chapter's name.

    The first page counts them: Sphinx writes it again when a chapter changes, as its table of contents has them all.
    """
    found: dict[str, list[str]] = {}
    for page in sorted(env.found_docs):
        if chapter := CHAPTER.fullmatch(page):
            found[chapter[1]] = []
    for label, entry in getattr(env, "sphinx_exercise_registry", {}).items():
        chapter = CHAPTER.fullmatch(entry["docname"])
        if chapter and entry["type"] == "exercise":
            found.setdefault(chapter[1], []).append(nodes.make_id(label))
    return found


def add_place(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Give a chapter its place at the end, and the first page what it counts."""
    body = context.get("body", "")
    if chapter := CHAPTER.fullmatch(page):
        first = escape(app.builder.get_relative_uri(page, app.config.root_doc))
        context["body"] = f'{body}<div {MARKER} data-chapter="{chapter[1]}" data-first="{first}">{WITHOUT}</div>'
    elif PLACE in body:
        known = json.dumps(exercises(app.env), sort_keys=True).replace("<", "\\u003c")
        script = f'<script type="application/json">{known}</script>'
        context["body"] = body.replace(PLACE, f"<div {MARKER}>{WITHOUT}{script}</div>")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the places and their script."""
    app.connect("html-page-context", add_place, priority=400)  # before what looks for the marker
    style = (FOLDER / "progress.css").read_text
    add_files(app, "ssd_progress_hash", MARKER, lambda: {STYLE: style(encoding="utf-8"), SCRIPT: bundle()})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
