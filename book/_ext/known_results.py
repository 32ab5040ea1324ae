"""Run only the chapters whose committed outputs may be wrong, and never let a failed build pass for a good one.

A chapter whose fingerprint holds is built from the outputs in its notebook. Any other is run, for its page only: the
notebook is left as it is, until `make notebooks`. With BOOK_RUN=all in the environment every chapter is run.

Sphinx keeps pages that were read with warnings, so that a second build would be silent about them; this mends that too,
and gives the kernels a settled environment, for plain ``jupyter-book build`` as well as for ``make book``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fingerprints
import kernel_environment
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)


def settle(app: Sphinx, config: Config) -> None:
    """Prepare the environment of the kernels."""
    kernel_environment.settle()
    if os.environ.get("BOOK_RUN", "") not in ("", "all"):
        raise ExtensionError(f"BOOK_RUN is all, or is not set; got {os.environ['BOOK_RUN']!r}")


def find_stale(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Find the chapters that must be run, say which and why, and have them read (again)."""
    read_before = getattr(env, "chapters_run", {})  # name -> the parts with which it was run for the last build
    root = Path(app.srcdir)
    env.chapters_run = {}
    again = []
    for name in sorted(env.found_docs):
        path = Path(env.doc2path(name))
        if path.suffix != ".ipynb":
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        reasons = ["asked for"] if os.environ.get("BOOK_RUN") == "all" else fingerprints.changes(notebook, root)
        if reasons:
            env.chapters_run[name] = fingerprints.state(notebook, root)
        if read_before.get(name) != env.chapters_run.get(name) or reasons == ["asked for"]:
            again.append(name)
        if reasons and (name in again or name in added | changed):
            logger.info("%s is run: %s", path.stem, ", ".join(reasons))
    return again


def mark(app: Sphinx, name: str, source: list[str]) -> None:
    """Have MyST-NB run a chapter; it takes the outputs of the others as they are."""
    if name in getattr(app.env, "chapters_run", {}):
        notebook = json.loads(source[0])
        notebook["metadata"].setdefault("mystnb", {})["execution_mode"] = "force"
        source[0] = json.dumps(notebook)


def forget_flawed_build(app: Sphinx, exception: Exception | None) -> None:
    """Drop the saved reading of the pages after warnings, or the next build would be silent about them."""
    if exception is not None or app._warncount:
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.connect("config-inited", settle)
    app.connect("env-get-outdated", find_stale)
    app.connect("source-read", mark)
    app.connect("build-finished", forget_flawed_build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
