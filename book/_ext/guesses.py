"""Answers that wait: the output of a cell tagged "guess" is folded behind "Show the answer".

The page folds it with <details>, which needs no script. Where the answer is one number or one short line, it is
announced to the script of the page (book.js), which puts a field for the reader's guess in front of it.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

TAG = "tag_guess"
NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
LONGEST = 40  # characters of an answer that can be typed

logger = logging.getLogger(__name__)


class answer(nodes.General, nodes.Element):
    """An output that is shown when the reader asks for it."""


def what_is_asked(output: nodes.Element) -> tuple[str, str]:
    """What a reader could type: ("number", that number), ("text", the line), or ("", "") where that is not clear."""
    if any(output.findall(nodes.image)) or any("<" in raw.astext() for raw in output.findall(nodes.raw)):
        return "", ""
    text = "\n".join(block.astext() for block in output.findall(nodes.literal_block)).strip()
    numbers = NUMBER.findall(text)
    if len(numbers) == 1:
        return "number", numbers[0].replace(",", "").replace("−", "-")
    return ("text", text) if text and "\n" not in text and len(text) <= LONGEST else ("", "")


class FoldAnswers(SphinxPostTransform):
    """Wrap the outputs of tagged cells."""

    default_priority = 198  # when the form of each output is chosen, and before sources are folded
    formats = ("html",)

    def run(self, **options: Any) -> None:
        """Do it for one page."""
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") != "cell_code" or TAG not in cell["classes"]:
                continue
            outputs = [child for child in cell.children if child.get("nb_element") == "cell_code_output"]
            if not outputs:
                logger.warning("a cell tagged guess has no output to hide", location=cell)
            for output in outputs:
                asks, expected = what_is_asked(output)
                folded = answer(asks=asks, expected=expected)
                cell.replace(output, folded)
                folded += output


def visit_answer(self: HTML5Translator, node: answer) -> None:
    """Begin the fold."""
    asks = f' data-asks="{node["asks"]}" data-answer="{escape(node["expected"])}"' if node["asks"] else ""
    self.body.append(f'<details class="guess"{asks}>\n<summary>Show the answer</summary>\n')


def depart_answer(self: HTML5Translator, node: answer) -> None:
    """End the fold."""
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the fold."""
    app.add_node(answer, html=(visit_answer, depart_answer))
    app.add_post_transform(FoldAnswers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
