"""Docstrings of the package as they are meant, on the page of its reference.

napoleon takes what stands before a colon in "Returns:", and in the first line of a property or a constant, for a type.
Ours say there, in a sentence, what comes back, and its colons are part of the sentence; the types are in the code. An
empty type in front of the line says so.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

SECTIONS = ("Returns:", "Yields:")


def keep_sentences(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Change the lines of one docstring, before napoleon reads them."""
    for number, line in enumerate(lines):
        if line.strip() in SECTIONS and number + 1 < len(lines):
            text = lines[number + 1]
            indent = text[: len(text) - len(text.lstrip())]
            lines[number + 1] = f"{indent}: {text.strip()}"
    if what in ("attribute", "data", "property") and lines and ":" in lines[0]:
        lines[0] = f": {lines[0]}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step."""
    app.connect("autodoc-process-docstring", keep_sentences, priority=400)  # napoleon's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
