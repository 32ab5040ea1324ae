"""Small sites for the tests of what the book adds to Sphinx, built in this process."""

from __future__ import annotations

import io
from pathlib import Path


def build(root: Path) -> str:
    """Build the site of a folder with a conf.py into its folder "out", as HTML, and give the warnings.

    What Sphinx and its extensions tell docutils is forgotten afterwards: the next site finds nothing registered. So are
    the endings of files, which an extension adds to a dictionary that all sites of a process share.
    """
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    warnings = io.StringIO()
    endings = Config.config_values["source_suffix"].default
    before = dict(endings)
    try:
        with patch_docutils(root), docutils_namespace():
            app = Sphinx(root, root, root / "out", root / "trees", "html", status=None, warning=warnings)
            app.build()
    finally:
        endings.clear()
        endings.update(before)
    assert app.statuscode == 0, warnings.getvalue()
    return warnings.getvalue()
