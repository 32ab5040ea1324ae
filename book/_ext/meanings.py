"""What a word means, where it is used: links into the glossary carry the definition, citations name the paper.

The text is the title of the link, which browsers show by themselves; the script of the page (book.js) makes of it
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

GLOSSARY, REFERENCES = "book/glossary", "book/references"
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
    """The text for each place "glossary.html#term-..." or "references.html#..."; read once for a build."""
    found: dict[str, str] | None = getattr(app, "_meanings", None)
    if found is None:
        found = {}
        if GLOSSARY in app.env.found_docs:
            for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
                for term in item.findall(nodes.term):
                    for place in term["ids"]:
                        found[f"glossary.html#{place}"] = text_of(next(iter(item.findall(nodes.definition))))
        if REFERENCES in app.env.found_docs:
            found |= papers(app)
        app._meanings = found  # type: ignore[attr-defined]
    return found


def papers(app: Sphinx) -> dict[str, str]:
    """The text of each paper, for the place where the list of references has it."""
    # All lists of a build are written into the same nodes, one behind the other: they begin empty here, and are given
    # back as they were, or the page of the references has each paper twice.
    lists = app.env.get_domain("cite").bibliographies.values()
    shared = [(node, node.children) for own in lists for node in own.citation_nodes.values()]
    for node, _ in shared:
        node.children = []
    tree = app.env.get_doctree(REFERENCES).deepcopy()
    app.env.apply_post_transforms(tree, REFERENCES)  # which write the list
    texts = {
        f"references.html#{place}": text_of(nodes.inline("", "", *paper.children[1:]))
        for paper in tree.findall(nodes.citation)
        for place in paper["ids"]
    }
    for node, children in shared:
        node.children = children
    return texts


def explain(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Give the links of a page their titles; inside of the glossary the definitions are in sight."""
    if app.builder.format != "html" or page in (GLOSSARY, REFERENCES):
        return
    for link in tree.findall(nodes.reference):
        place = link.get("refuri", "").rpartition("/")[2]
        if place in meanings(app):
            link["reftitle"] = meanings(app)[place]
            link["classes"] += ["meaning"] if place.startswith("glossary") else ["meaning", "source"]


def fingerprint_texts(app: Sphinx, config: Config) -> None:
    """Write all pages again when the glossary or the references change: they repeat them."""
    paths = [Path(app.srcdir) / "book" / name for name in ("glossary.md", "references.md", "references.bib")]
    config["meanings_hash"] = hashlib.sha256(b"".join(p.read_bytes() for p in paths if p.is_file())).hexdigest()


def add_script(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load the script on the pages that have something for it."""
    body = context.get("body", "")
    if re.search(r'class="(meaning|guess|[^"]*least-)|[ ]meaning"', body):
        app.add_js_file(SCRIPT, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.add_config_value("meanings_hash", "", "html", [str])
    app.connect("config-inited", fingerprint_texts)
    app.connect("doctree-resolved", explain)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
