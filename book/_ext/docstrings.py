"""Docstrings of the package as they are meant, on the page of its reference.

napoleon takes what stands before a colon in "Returns:", and in the first line of a property or a constant, for a type.
Ours say there, in a sentence, what comes back, and its colons are part of the sentence; the types are in the code. An
empty type in front of the line says so.

The value of a constant stands beside its name where it can be read there: no table of a whole page, no function's
address, and no folder of the machine that built the site.

A `name` in backticks leads to what it names: in the same module, or anywhere if the package has only one of that name.
"""

from __future__ import annotations

import re
from typing import Any

from docutils.nodes import Element, TextElement
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

SECTIONS = ("Returns:", "Yields:")
UNREADABLE = re.compile(r"(Posix|Windows)Path\(|<(function|class) ")
MOST_OF_A_VALUE = 400  # characters
LED_TO = ("function", "class", "exception")  # an argument may well be called as a module or an attribute is


def keep_sentences(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Change the lines of one docstring, before napoleon reads them."""
    for number, line in enumerate(lines):
        if line.strip() in SECTIONS and number + 1 < len(lines):
            text = lines[number + 1]
            indent = text[: len(text) - len(text.lstrip())]
            lines[number + 1] = f"{indent}: {text.strip()}"
    if lines and lines[0].startswith("Alias for field number"):  # Python's own words, which say nothing
        lines.clear()
    if what in ("attribute", "data", "property") and lines and ":" in lines[0]:
        lines[0] = f": {lines[0]}"


def leave_out_unreadable_values(app: Sphinx, domain: str, kind: str, content: Element) -> None:
    """Take the value of a constant away from its signature where nobody could read it."""
    for part in list(content.parent.findall(addnodes.desc_annotation)) if kind in ("data", "attribute") else []:
        text = part.astext().strip()
        if text.startswith("=") and (len(text) > MOST_OF_A_VALUE or UNREADABLE.search(text)):
            part.parent.remove(part)


def lead_to_the_only_one(app: Sphinx, env: BuildEnvironment, node: Element, content: TextElement) -> Element | None:
    """A link to what a short name means, where the module of the docstring has nothing of that name."""
    if (node.get("refdomain"), node.get("reftype")) != ("py", "obj"):
        return None
    target = node["reftarget"]
    # ssdlib.engine.train, which is kept in ssdlib.engine.run, by its last name too
    ending = f".{target.rpartition('.')[2] if target.startswith('ssdlib.') else target}"
    objects = env.get_domain("py").objects.items()  # type: ignore[attr-defined]
    found = [(name, entry) for name, entry in objects if name.endswith(ending) and entry.objtype in LED_TO]
    if len(found) != 1:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.connect("autodoc-process-docstring", keep_sentences, priority=400)  # napoleon's is 500
    app.connect("object-description-transform", leave_out_unreadable_values)
    app.connect("missing-reference", lead_to_the_only_one)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
