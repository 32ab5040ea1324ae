"""What the page generators write and screen readers stumble over, mended on the way to the page."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Leave out roles in a bibliography: that of an entry is deprecated, and its list holds more than entries."""
    if "body" in context:
        for role in ("doc-biblioentry", "list"):
            context["body"] = context["body"].replace(f' role="{role}"', "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the mending."""
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
