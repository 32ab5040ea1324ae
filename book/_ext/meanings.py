"""What a word means, where it is used: each link into the glossary carries the definition of its term.

The definition is the title of the link, which browsers show by themselves; the script of the page (book.js) makes of it
a small card that appears by pointer, key and finger alike.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

GLOSSARY = "book/glossary"
SCRIPT = "book.js"
SYMBOLS = {r"\\sqrt\{([^{}]*)\}": r"√\1", r"\\sqrt (\w)": r"√\1", r"\\(log|exp|max|min)\b": r"\1", r"\\times": "×"}


def plain_maths(tex: str) -> str:
    """The few formulas of the glossary as text."""
    for pattern, text in SYMBOLS.items():
        tex = re.sub(pattern, text, tex)
    return tex.replace("-", "−").replace("^2", "²")


def text_of(definition: nodes.Element) -> str:
    """A definition as one line of text, without the chapter that it ends with."""
    definition = definition.deepcopy()
    for formula in list(definition.findall(nodes.math)):
        formula.parent.replace(formula, nodes.Text(plain_maths(formula.astext())))
    for citation in [n for n in definition.findall(nodes.Element) if "bibtex" in n.get("refdomain", "")]:
        citation.parent.remove(citation)
    text = re.sub(r"\s+", " ", definition.astext())
    return re.sub(r"\s*Chapters?: .*$", "", text).replace(" :", ":").strip()


def meanings(app: Sphinx) -> dict[str, str]:
    """The definition of each term, by the place of the term on the page of the glossary; read once for a build."""
    found: dict[str, str] | None = getattr(app, "_meanings", None)
    if found is None:
        found = {}
        if GLOSSARY in app.env.found_docs:
            for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
                for term in item.findall(nodes.term):
                    for place in term["ids"]:
                        found[place] = text_of(next(iter(item.findall(nodes.definition))))
        app._meanings = found  # type: ignore[attr-defined]
    return found


def explain(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Give the links of a page into the glossary their titles; inside of the glossary the definitions are in sight."""
    if app.builder.format != "html" or page == GLOSSARY:
        return
    for link in tree.findall(nodes.reference):
        address, _, place = link.get("refuri", "").partition("#")
        if address.endswith("glossary.html") and place in meanings(app):
            link["reftitle"] = meanings(app)[place]
            link["classes"].append("meaning")


def fingerprint_glossary(app: Sphinx, config: Config) -> None:
    """Write all pages again when the glossary changes: they repeat it."""
    path = Path(app.srcdir) / f"{GLOSSARY}.md"
    config["glossary_hash"] = hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def add_script(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load the script on the pages that have something for it."""
    body = context.get("body", "")
    if 'class="meaning' in body or ' meaning"' in body or 'class="guess"' in body:
        app.add_js_file(SCRIPT, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.add_config_value("glossary_hash", "", "html", [str])
    app.connect("config-inited", fingerprint_glossary)
    app.connect("doctree-resolved", explain)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
