"""A clip that plays on the page, with a picture before it plays, a caption, and what it shows in words.

    ```{clip} tracks
    :alt: What happens in the clip, for readers who cannot see it.

    The caption.
    ```

The files are book/_static/NAME.webm and NAME.jpg (tools/tracks_clip.py). Nothing moves until the reader asks for it.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator


class clip(nodes.General, nodes.Element):
    """The clip; its caption and its words are beside it."""


class Clip(SphinxDirective):
    """The directive."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012  (docutils has it so)

    def run(self) -> list[nodes.Node]:
        """Refuse a clip whose files are not there, or that is not told in words."""
        (name,) = self.arguments
        folder = Path(__file__).resolve().parent.parent / "_static"
        missing = [file for file in (f"{name}.webm", f"{name}.jpg") if not (folder / file).is_file()]
        if missing:
            raise self.error(f"there is no {' and no '.join(missing)} in book/_static")
        if not self.options.get("alt"):
            raise self.error(f"the clip {name} needs :alt:, which says in words what happens in it")
        for file in (f"{name}.webm", f"{name}.jpg"):
            self.env.note_dependency(str(folder / file))
        with Image.open(folder / f"{name}.jpg") as picture:
            size = picture.size
        node = clip("", name=name, alt=self.options["alt"], size=size)
        caption = nodes.paragraph(classes=["ssd-clip-caption"])
        text, messages = self.state.inline_text(" ".join(self.content), self.lineno)
        caption.extend(text)
        return [node, caption, *messages]


def visit(writer: HTML5Translator, node: clip) -> None:
    """Write the player; the words stand in a fold below it, which everybody may open."""
    up = "../" * writer.builder.current_docname.count("/") + "_static/"
    width, height = node["size"]
    name, alt = escape(node["name"]), escape(node["alt"])
    writer.body.append(
        '<div class="ssd-clip"><video controls muted loop playsinline preload="none" '
        f'width="{width}" height="{height}" poster="{up}{name}.jpg" aria-label="{alt}">'
        f'<source src="{up}{name}.webm" type="video/webm">'
        f'<img src="{up}{name}.jpg" alt="{alt}"></video>'
        f"<details><summary>What the clip shows, in words</summary><p>{alt}</p></details></div>"
    )
    raise nodes.SkipNode


def skip(writer: nodes.NodeVisitor, node: clip) -> None:
    """In other forms than HTML, the caption alone stands there."""
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_node(
        clip, html=(visit, None), latex=(skip, None), text=(skip, None), man=(skip, None), texinfo=(skip, None)
    )
    app.add_directive("clip", Clip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
