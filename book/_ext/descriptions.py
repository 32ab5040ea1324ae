"""What search engines and links in a chat show of a page: a description, its first paragraph, and a picture."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

PICTURE = "_static/social.png"
LONGEST = 200  # characters; what is longer gets cut where it is shown


def description(tree: nodes.document) -> str:
    """The first paragraph of a page that is text, cut after a sentence or a word."""
    for paragraph in tree.findall(nodes.paragraph):
        # The text of a value that code computes is not there yet: its paragraph would have a hole.
        if not isinstance(paragraph.parent, nodes.section) or any(
            "glue" in str(n) for n in paragraph.findall(nodes.raw)
        ):
            continue
        text = re.sub(r"\s+", " ", paragraph.astext()).strip()
        if len(text) > LONGEST:
            text = text[:LONGEST]
            end = max(text.rfind(mark) for mark in (". ", "? ", "! "))
            text = text[: end + 1] if end > 60 else text[: text.rfind(" ")] + " …"
        if len(text) > 40:
            return text
    return ""


def add(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """Put description, title and, where the address of the site is known, the picture into the head of a page."""
    text = description(tree) if tree is not None else ""
    if not text:
        return
    title = re.sub(r"<[^>]+>", "", context.get("title", ""))
    tags = {"og:title": title, "og:description": text, "og:type": "article", "og:site_name": app.config.project}
    if app.config.html_baseurl:  # readers of these tags follow whole addresses only
        tags["og:image"] = app.config.html_baseurl.rstrip("/") + "/" + PICTURE
        tags["twitter:card"] = "summary_large_image"
    lines = [f'<meta name="description" content="{escape(text)}" />']
    lines += [f'<meta property="{name}" content="{escape(value)}" />' for name, value in tags.items() if value]
    context["metatags"] = context.get("metatags", "") + "\n".join(lines) + "\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the tags."""
    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
