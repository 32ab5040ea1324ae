"""Sentences that set a widget: {sets}`words <module {"trait": value, ...}>` in the text of a page.

The words become a button where the page's script runs (`loader.mjs`), and set the traits of the widget of that module
on the page, the nearest one. Without scripts, on paper, and in the forms for notebook editors they are words.
"""

from __future__ import annotations

import json
import re
from html import escape, unescape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole
from sphinx.writers.html5 import HTML5Translator

FORM = re.compile(r"(?P<words>.+?)\s*<(?P<module>\w+)\s+(?P<traits>\{.*\})>", re.DOTALL)
PLACE = re.compile(r'class="ssd-widget-place" data-module="(\w+)">.*?<script[^>]*>(.*?)</script>', re.DOTALL)
SENTENCE = re.compile(r'class="ssd-sets" data-module="(\w+)" data-traits="([^"]*)"')

logger = logging.getLogger(__name__)


class sets(nodes.Inline, nodes.TextElement):
    """Words that set a widget."""


class SetsRole(SphinxRole):
    """The role `sets`."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Read words, module and traits."""
        found = FORM.fullmatch(" ".join(self.text.split()))
        try:
            traits = json.loads(found["traits"]) if found else None
        except json.JSONDecodeError:
            traits = None
        if found is None or not traits:
            wrong = f'{{sets}} needs `words <module {{"trait": value}}>`, the traits as JSON; got {self.text!r}'
            logger.warning(wrong, location=self.get_location())
            return [nodes.Text(self.text)], []
        return [sets("", found["words"], module=found["module"], traits=json.dumps(traits))], []


def missing(body: str) -> list[str]:
    """What the sentences of a page set that its widgets do not have."""
    states: dict[str, set[str]] = {}
    for module, state in PLACE.findall(body):
        states.setdefault(module, set()).update(json.loads(state))
    wanted = [(module, set(json.loads(unescape(traits)))) for module, traits in SENTENCE.findall(body)]
    lost = [f"no widget {module!r} stands on the page" for module, _ in wanted if module not in states]
    return lost + [
        f"{module!r} has no {', '.join(sorted(traits - states[module]))}"
        for module, traits in wanted
        if traits - states.get(module, traits)
    ]


def check_page(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Warn of sentences that would do nothing."""
    for problem in missing(context.get("body", "")):
        logger.warning("a sentence that sets a widget: %s", problem, location=page)


def visit_sets(self: HTML5Translator, node: sets) -> None:
    """Begin the words."""
    traits = escape(node["traits"])
    self.body.append(f'<span class="ssd-sets" data-module="{node["module"]}" data-traits="{traits}">')


def depart_sets(self: HTML5Translator, node: sets) -> None:
    """End the words."""
    self.body.append("</span>")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the role."""
    as_words = (lambda self, node: None, lambda self, node: None)
    app.add_node(sets, html=(visit_sets, depart_sets), latex=as_words, text=as_words)
    app.add_role("sets", SetsRole())
    app.connect("html-page-context", check_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
