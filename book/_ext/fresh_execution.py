"""Run the chapters again when what they import has changed, and never let a failed build pass for a good one.

The cache of executed notebooks knows the code of the cells, not the library that the cells import; and Sphinx keeps
pages that were read with warnings, so that a second build would be silent about them. This extension mends both, and
gives the kernels a settled environment, for plain ``jupyter-book build`` as well as for ``make book``.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import kernel_environment
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

WATCHED = ("ssdlib", "data/sample", "ssdlib/engine/records", "constraints.txt")
"""What the results of a chapter depend on, beside its own cells; relative to the folder of _config.yml."""

logger = logging.getLogger(__name__)


def fingerprint(root: Path) -> str:
    """SHA-256 of the names and contents of all watched files."""
    digest = hashlib.sha256()
    for name in WATCHED:
        top = root / name
        files = [top] if top.is_file() else sorted(top.rglob("*"))
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def compare_with_last_build(app: Sphinx, config: Config) -> None:
    """Read every page again, and forget executed notebooks, when the fingerprint is not that of the last build."""
    kernel_environment.settle()
    config["library_fingerprint"] = current = fingerprint(Path(app.srcdir))
    cache = Path(config["nb_execution_cache_path"] or Path(app.outdir).parent / ".jupyter_cache")
    stamp = cache / "library_fingerprint"
    last = stamp.read_text(encoding="utf-8") if stamp.is_file() else ""
    if last == current:
        return
    if (cache / "global.db").is_file():
        logger.info("the library or its data changed: all chapters run again")
        shutil.rmtree(cache)
    cache.mkdir(parents=True, exist_ok=True)
    stamp.write_text(current, encoding="utf-8")


def forget_flawed_build(app: Sphinx, exception: Exception | None) -> None:
    """Drop the saved reading of the pages after warnings, or the next build would be silent about them."""
    if exception is not None or app._warncount:
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the fingerprint as a setting that every page depends on."""
    app.add_config_value("library_fingerprint", "", "env", [str])
    app.connect("config-inited", compare_with_last_build)
    app.connect("build-finished", forget_flawed_build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
