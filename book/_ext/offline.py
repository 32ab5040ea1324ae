"""Pages that need no network: MathJax is served with the book, and the loader of Thebe is left out.

The files of MathJax are those of the package sphinx-mathjax-offline. Its own extension copies all of its 24 MB; a page
needs the TeX reader, the fonts and the menu, which are 4 MB. Thebe runs cells on a remote machine, which this book does
not do; sphinx_thebe, which Jupyter Book always loads, puts its settings on each page twice, and the second is an error.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

NEEDED = (
    "tex-chtml.js",
    "input/tex/extensions",
    "output/chtml/fonts",
    "ui",
    "a11y",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy the needed files of MathJax into the finished site."""
    if exception is not None or app.builder.format != "html":
        return
    package = find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the book needs sphinx-mathjax-offline: pip install -r requirements.txt")
    source = Path(package.origin).parent / "static" / "mathjax"
    for name in NEEDED:
        target = Path(app.outdir) / "_static" / "mathjax" / name
        if not target.exists():
            copy_asset(source / name, target if (source / name).is_dir() else target.parent)


def leave_out_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Take Thebe's scripts and style off a page."""
    context["script_files"] = [f for f in context["script_files"] if "thebe" not in f"{f.filename}{f.attributes}"]
    context["css_files"] = [f for f in context["css_files"] if "thebe" not in str(f.filename)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Point the pages at the copied files, and clean the lists of what they load."""
    app.setup_extension("sphinx.ext.mathjax")
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy_mathjax)
    app.connect("html-page-context", leave_out_thebe, priority=900)  # after all that add to the lists
    return {"parallel_read_safe": True, "parallel_write_safe": True}
