"""The buttons that open a chapter in Colab or on Binder lead to the form of it that is right there.

`make colab` writes that form, in plain Markdown, and the workflow of the pages puts it into a branch of its own. While
_config.yml names no repository there are no such buttons, and nothing is changed.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

BRANCH = "colab"  # as in tools/colab.py
COLAB = "https://colab.research.google.com/github/"


def redirect(buttons: list[dict[str, Any]], branch: str) -> None:
    """Let the addresses of launch buttons name the branch of the plain form."""
    for button in buttons:
        redirect(button.get("buttons", []), branch)
        if button.get("text") == "Colab":
            button["url"] = button["url"].replace(f"/blob/{branch}/", f"/blob/{BRANCH}/")
        elif button.get("text") == "Binder":
            button["url"] = button["url"].replace(f"/{branch}?", f"/{BRANCH}?")


def lead_to_plain_form(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Do so on a page."""
    redirect(context.get("header_buttons", []), app.config.html_theme_options.get("repository_branch", "main"))


class OpenInColab(SphinxDirective):
    """A link that opens a chapter in Colab: `{open-in-colab} 01_detection`; nothing without a repository on GitHub."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the paragraph."""
        url = str(self.config.html_theme_options.get("repository_url", ""))
        if not url.startswith("https://github.com/"):
            return []
        address = f"{COLAB}{url.split('/', 3)[3]}/blob/{BRANCH}/book/{self.arguments[0]}.ipynb"
        paragraph = nodes.paragraph()
        paragraph += nodes.reference("", "or open it in Colab, to change and run its code", refuri=address)
        return [paragraph]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both."""
    app.add_directive("open-in-colab", OpenInColab)
    app.connect("html-page-context", lead_to_plain_form, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
