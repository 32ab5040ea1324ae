"""The Sphinx extension of the widgets: one script and one style sheet for the pages that hold a widget.

A page opened as a file cannot import modules, so all of them are wrapped into one classic script, which needs nothing
from anywhere else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from page_files import add_files
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ssdlib.widgets.base import SHARED, STATIC, read_module, read_static, style_sheet

SCRIPT, STYLE = "ssd-widgets.js", "ssd-widgets.css"
EXPORT = re.compile(r"^export default \{ render \};\n?", re.MULTILINE)


def module_names() -> list[str]:
    """Names of the modules of all widgets: the files of `static` that are neither shared, nor parts, nor the loader."""
    names = (path.stem for path in STATIC.glob("*.mjs") if "." not in path.stem)
    return sorted(name for name in names if name not in (*SHARED, "loader"))


def bundle() -> str:
    """All modules and the loader as one classic script.

    Raises:
        ValueError: if a module imports something, or does not end in its one `export default { render };`.
    """
    wrapped = []
    for name in module_names():
        source = read_module(name)
        if len(EXPORT.findall(source)) != 1 or re.search(r"^\s*import\b", source, re.MULTILINE):
            raise ValueError(f"{name}.mjs must import nothing and have one line `export default {{ render }};`")
        wrapped.append(f"{name}: (() => {{\n{EXPORT.sub('return { render };', source)}}})(),\n")
    shared = "\n".join(read_static(f"{name}.mjs") for name in (*SHARED, "loader"))
    return f'(() => {{\n"use strict";\n{shared}\nmountAll({{\n{"".join(wrapped)}}});\n}})();\n'


class ChapterWidget(SphinxDirective):
    """A widget of a chapter on a page that has no cells, as the chapter shows it.

        ```{chapter-widget} 07_detections.ipynb nms_stepper
        ```

    The arguments are the notebook, beside the page, and the widget's module.
    """

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Take the HTML from the saved output of the chapter's cell."""
        name, module = self.arguments
        path = Path(self.env.doc2path(self.env.docname)).parent / name
        self.env.note_dependency(str(path))
        notebook = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"cells": []}
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                html = "".join(output.get("data", {}).get("text/html", ""))
                if html.startswith(f'<div class="ssd-widget-place" data-module="{module}">'):
                    place = nodes.container(classes=["chapter-widget"])
                    place += nodes.raw("", html, format="html")
                    return [place]
        raise self.error(f"{name} shows no widget {module!r}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_directive("chapter-widget", ChapterWidget)
    add_files(app, "ssd_widgets_hash", 'class="ssd-widget-place"', lambda: {STYLE: style_sheet(), SCRIPT: bundle()})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
