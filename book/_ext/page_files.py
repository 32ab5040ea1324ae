"""A script and a style sheet for the pages that need them: written beside the pages, loaded on those and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config


def add_files(app: Sphinx, key: str, marker: str, texts: Callable[[], dict[str, str]]) -> None:
    """Give the pages whose body holds `marker` the files that `texts` makes, by name: .css or .js.

    Args:
        app: where an extension registers itself.
        key: a name for the setting that holds a checksum of the files; when it changes, all pages are written again,
            as the addresses of the files carry checksums.
        marker: text of the body.
        texts: called for each build.
    """

    def fingerprint(app: Sphinx, config: Config) -> None:
        config[key] = hashlib.sha256("".join(texts().values()).encode()).hexdigest()

    def write(app: Sphinx) -> None:
        if app.builder.format != "html":
            return
        folder = Path(app.outdir) / "_static"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts().items():
            (folder / name).write_text(text, encoding="utf-8")

    def load(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
        if marker not in context.get("body", ""):
            return
        for name in texts():
            if name.endswith(".css"):
                app.add_css_file(name)
            else:
                app.add_js_file(name, loading_method="defer")

    app.add_config_value(key, "", "html", [str])
    app.connect("config-inited", fingerprint)
    app.connect("builder-inited", write)
    app.connect("html-page-context", load)
