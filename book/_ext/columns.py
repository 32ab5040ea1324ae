"""Printed tables: an output with columns keeps its lines, and scrolls on a phone, where wrapping would tear it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


def has_columns(text: str) -> bool:
    """Whether most lines of an output have a gap of two spaces or more, by which print() aligns numbers."""
    lines = text.strip("\n").split("\n")
    return len(lines) > 1 and sum(bool(re.search(r"\S {2,}\S", line)) for line in lines) > len(lines) / 2


class KeepColumns(SphinxPostTransform):
    """Mark the outputs with columns, for the style sheet."""

    default_priority = 250  # when the form of each output is chosen
    formats = ("html",)

    def run(self, **options: Any) -> None:
        """Do it for one page."""
        for block in self.document.findall(nodes.literal_block):
            if "output" in block["classes"] and has_columns(block.astext()):
                block["classes"].append("columns")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform."""
    app.add_post_transform(KeepColumns)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
