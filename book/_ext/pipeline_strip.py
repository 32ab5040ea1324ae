"""Above each chapter: which of how many it is, and where on the way from an image to its detections its reader is."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

CHAPTER = re.compile(r"(?P<folder>.*/)?(?P<number>\d\d)_\w+")
STYLE = "pipeline_strip.css"

# A step: its name, the chapter that builds it, and a drawing of 32 x 24 units, in lines.
STEPS = (
    ("image", 9, "M3 3h26v18h-26z M3 18l8-8 6 6 4-4 8 7 M23 7.5a1.5 1.5 0 1 0 .01 0z"),
    ("maps", 8, "M2 4h16v16h-16z M6 4v16 M10 4v16 M14 4v16 M2 8h16 M2 12h16 M2 16h16 M21 8h8v8h-8z M25 8v8 M21 12h8"),
    ("priors", 3, "M11 7h10v10h-10z M6 9h20v6h-20z M12.5 2h7v20h-7z M16 11.5v1 M15.5 12h1"),
    ("offsets", 4, "M3 4h3 M9 4h3 M15 4h1v2 M3 4v3 M3 10v3 M3 15v1h3 M12 9h16v12h-16z M6 10l9 4 M11 14.6l4-.6-2.6-3.2"),
    ("matching", 5, "M3 3h26v18h-26z M3 9h26 M3 15h26 M11.7 3v18 M20.3 3v18 M13.5 10.5h5v3h-5z M5 16.5h5v3h-5z"),
    ("loss", 6, "M4 2v19h25 M6 5c3 11 8 13 21 13.5"),
    ("detection", 7, "M3 9h26v12h-26z M3 3h14v6h-14z M6 6h8"),
)

# What each chapter is about: its steps, and that in words. A chapter that is not here has the strip without a mark.
ALL = tuple(name for name, _, _ in STEPS)
HERE = {
    1: (ALL, "the whole way"),
    2: (("matching", "detection"), "how boxes are compared, for matching and for detection"),
    3: (("priors",), "priors"),
    4: (("offsets",), "offsets"),
    5: (("matching",), "matching"),
    6: (("loss",), "the loss"),
    7: (("detection",), "detection"),
    8: (("maps",), "the network and its maps"),
    9: (("image",), "images and their boxes"),
    10: (("detection",), "how good the detections are"),
    11: (ALL, "the whole way, in training"),
    12: (ALL, "the whole way, at full scale"),
    14: (("detection",), "which detections are worth showing"),
    15: (("detection",), "detections over time"),
    16: (ALL, "the whole way, out of Python"),
    17: (ALL, "the whole way, and how long it takes"),
}


def place(number: int, count: int) -> str:
    """The line above the title."""
    return f'<p class="ssd-chapter-number">Chapter {number} of {count}</p>'


def strip(number: int, addresses: dict[int, str]) -> str:
    """The strip of a chapter, as HTML.

    Args:
        number: of the chapter.
        addresses: of each chapter that the book has, seen from this one; a step whose chapter is missing is no link.
    """
    marked, words = HERE.get(number, ((), ""))
    items = []
    for name, chapter, lines in STEPS:
        inside = (
            '<svg viewBox="0 0 32 24" width="32" height="24" aria-hidden="true" focusable="false">'
            f'<path d="{lines}"/></svg><span>{name}</span>'
        )
        if chapter in addresses:
            inside = f'<a href="{escape(addresses[chapter])}">{inside}</a>'
        here = ' class="ssd-here" aria-current="step"' if name in marked else ""
        items.append(f"<li{here}>{inside}</li>")
    label = "From an image to its detections, step by step"
    note = f'<p>You are here: <strong class="ssd-here-words">{words}</strong></p>' if words else ""
    return f'<nav class="ssd-strip" aria-label="{label}"><ol>{"".join(items)}</ol>{note}</nav>'


def add(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Put number and strip around the title of a chapter."""
    this = CHAPTER.fullmatch(page)
    title = next(iter(tree.findall(nodes.title)), None)
    if app.builder.format != "html" or this is None or title is None:
        return
    beside = [CHAPTER.fullmatch(name) for name in app.env.found_docs]
    chapters = {int(one["number"]): one[0] for one in beside if one and one["folder"] == this["folder"]}
    addresses = {number: app.builder.get_relative_uri(page, name) or "#" for number, name in chapters.items()}
    number, section = int(this["number"]), title.parent
    at = section.index(title)
    section.insert(at + 1, nodes.raw("", strip(number, addresses), format="html"))
    section.insert(at, nodes.raw("", place(number, len(chapters)), format="html"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the strip and its style."""
    app.connect("doctree-resolved", add)
    app.add_css_file(STYLE)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
